"""The forms of the browsable API. The resource validates the values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from rest_framework import serializers

from thorn_core import get_app
from thorn_core.api.deliveries import RECOVERED_AT_ONCE
from thorn_core.signatures import HMAC_DIGESTS

AREA = {"base_template": "textarea.html", "rows": 4}
SHARED = "Shared secret. Leave empty to generate one."


class FormSerializer(serializers.Serializer[Any]):
    """A form; its errors come from the resource.

    Args:
        faults: The errors by field.
        **more: The arguments of any serializer.
    """

    def __init__(self, *, faults: Mapping[str, list[str]] | None = None, **more: Any) -> None:
        super().__init__(**more)
        self._faults = dict(faults or {})

    def run_validation(self, data: Any = serializers.empty) -> Any:
        """Raise the errors, if any; don't validate anything else."""
        if self._faults:
            raise serializers.ValidationError(self._faults)
        return {}


class SubscriptionSerializer(FormSerializer):
    """The editable fields of a subscription."""

    event = serializers.JSONField(
        style=AREA, help_text='Event patterns: article.* user.created, or ["article.*"]'
    )
    url = serializers.CharField(
        label="URL", style={"input_type": "url"}, help_text="URL that receives the requests."
    )
    content_type = serializers.ChoiceField(choices=[], initial="application/json")
    hmac_digest = serializers.ChoiceField(label="HMAC digest", choices=HMAC_DIGESTS)
    headers = serializers.JSONField(
        initial=dict,
        style=AREA,
        help_text='Extra headers: {"X-Shop": "1"}. null keeps the current value.',
    )
    description = serializers.CharField(style=AREA, help_text="Optional note.")
    rate_limit = serializers.FloatField(
        allow_null=True, help_text="Maximum requests per second. Leave empty for no limit."
    )
    enabled = serializers.BooleanField(initial=True)

    def get_fields(self) -> dict[str, Any]:
        """Return the fields, with the app's content types as choices."""
        fields = super().get_fields()
        content_type = cast("serializers.ChoiceField", fields["content_type"])
        content_type.choices = sorted(get_app().rules.content_types)
        return fields


class NewSubscriptionSerializer(SubscriptionSerializer):
    """The fields of a new subscription."""

    hmac_secret = serializers.CharField(label="HMAC secret", help_text=SHARED)


class SecretSerializer(FormSerializer):
    """The fields for a new secret."""

    hmac_secret = serializers.CharField(label="HMAC secret", help_text=SHARED)
    overlap = serializers.FloatField(
        help_text="Seconds that the old secrets keep signing; 0 revokes them immediately."
    )


class RecoverSerializer(FormSerializer):
    """The fields for retries of failed and cancelled deliveries."""

    since = serializers.CharField(help_text="2026-03-01T12:00:00Z")
    until = serializers.CharField(help_text="Leave empty for now.")
    event = serializers.CharField(help_text="Only events that match this pattern.")
    cursor = serializers.CharField(
        help_text=f"From the previous response, if more than {RECOVERED_AT_ONCE} deliveries"
        f" matched."
    )


def body_of_form(form: FormSerializer, filled_in: Mapping[str, Any]) -> dict[str, Any]:
    """Return a form's values as JSON for the resource, without empty ones.

    Args:
        form: The form with the fields.
        filled_in: Texts by name, without unticked boxes.
    """
    body: dict[str, Any] = {}
    for name, field in form.fields.items():
        text = filled_in.get(name, "")
        if isinstance(field, serializers.BooleanField):
            body[name] = text in serializers.BooleanField.TRUE_VALUES
        elif isinstance(text, str) and text.strip():
            plain = isinstance(field, serializers.CharField | serializers.ChoiceField)
            body[name] = text if plain else _value(text)
    if isinstance(body.get("event"), str) and "since" not in form.fields:
        body["event"] = body["event"].replace(",", " ").split()
    return body


def _value(text: str) -> Any:
    """Return the JSON value of a text, or the text itself, which the resource validates."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
