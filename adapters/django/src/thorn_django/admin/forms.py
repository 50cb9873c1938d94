"""The forms: a subscription, checked by the core's rules, and the start time of a recovery."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django import forms
from django.utils import timezone

from thorn_core.api import Problem
from thorn_core.api.hooks import DEFAULTS
from thorn_core.api.problems import HIDDEN, Fault
from thorn_core.api.validation import Checked, check_body, check_new_owner
from thorn_core.signatures import HMAC_DIGESTS
from thorn_core.stores.sql.schema import OWNER_LENGTH
from thorn_django import get_app
from thorn_django.admin.shown import MASK, header_lines

if TYPE_CHECKING:
    AnyModelForm = forms.ModelForm[Any]
else:
    AnyModelForm = forms.ModelForm

# The form's fields by the names of the REST resource, which performs the checks.
FIELDS = {
    "event": "events",
    "url": "url",
    "content_type": "content_type",
    "hmac_digest": "hmac_digest",
    "hmac_secret": "secret",
    "headers": "headers",
    "description": "description",
    "rate_limit": "rate_limit",
    "enabled": "enabled",
}
NAMES_SHOWN = 20


class LinesField(forms.CharField):
    """Several texts, one per line."""

    def __init__(self, *, rows: int, **options: Any) -> None:
        widget = forms.Textarea(attrs={"rows": rows, "class": "vLargeTextField", "wrap": "off"})
        super().__init__(widget=widget, **options)

    def to_python(self, value: Any) -> Any:
        """Return the non-empty lines."""
        text = super().to_python(value) or ""
        return [line.strip() for line in text.splitlines() if line.strip()]

    def prepare_value(self, value: Any) -> Any:
        """Return lines as text."""
        return value if value is None or isinstance(value, str) else "\n".join(value)

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Return True if a line has changed."""
        return bool(list(initial or ()) != self.to_python(data))


class SubscriptionForm(AnyModelForm):
    """A subscription. The core's rules report errors at their fields."""

    events = LinesField(label="Events", rows=4)
    url = forms.CharField(
        label="URL",
        max_length=4096,
        widget=forms.TextInput(attrs={"class": "vLargeTextField"}),
        help_text="URL that receives the requests.",
    )
    owner = forms.CharField(
        label="Owner",
        required=False,
        max_length=OWNER_LENGTH,
        help_text="ID of the user or tenant that owns it. Leave empty for an operator"
        " subscription, which receives messages from every sender. Can't be changed later.",
    )
    secret = forms.CharField(
        label="Secret",
        required=False,
        widget=forms.PasswordInput(attrs={"class": "vTextField", "autocomplete": "new-password"}),
        help_text="Signs the requests. Leave empty to generate one; it is shown once.",
    )
    content_type = forms.ChoiceField(label="Content type", help_text="Encoding of request bodies.")
    hmac_digest = forms.ChoiceField(
        label="HMAC digest",
        choices=[(name, name) for name in HMAC_DIGESTS],
        help_text="Digest for the Hook-HMAC header.",
    )
    headers = LinesField(
        label="Headers",
        rows=3,
        required=False,
        help_text="Extra request headers, one per line: X-Name: value. Possible credentials"
        " are"
        f" shown as {MASK} and keep their value unless you replace it.",
    )
    description = forms.CharField(
        label="Description",
        required=False,
        widget=forms.Textarea(attrs={"rows": 2, "class": "vLargeTextField"}),
    )
    rate_limit = forms.FloatField(
        label="Rate limit",
        required=False,
        help_text="Maximum requests per second. Leave empty for no limit.",
    )

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        app = get_app()
        self.checked: dict[str, Any] = {}
        self._current = app.subscription(self.instance.pk) if self.instance.pk else None
        for name in ("content_type", "hmac_digest"):
            self.fields[name].initial = DEFAULTS[name]
        field = self.fields["content_type"]
        field.choices = [(n, n) for n in sorted(app.rules.content_types)]  # type: ignore[attr-defined]
        self.fields["events"].help_text = _help([event.name for event in app.events()])
        if self._current is not None:
            for name in ("owner", "secret"):
                self.fields.pop(name, None)
            self.initial["events"] = list(self._current.events)
            self.initial["headers"] = header_lines(self._current)

    def clean(self) -> dict[str, Any]:
        """Check the form with the core's rules."""
        super().clean()
        data = self.cleaned_data
        body = {name: data[field] for name, field in FIELDS.items() if field in data}
        if "headers" in body:
            body["headers"] = self._headers(body["headers"])
        if data.get("owner"):
            fault = check_new_owner(data["owner"])
            if fault is not None:
                self._tell(fault)
        secret = body.pop("hmac_secret", None)
        if secret:
            body["hmac_secret"] = secret
        checked = Checked(get_app().rules, current=self._current, operator=True)
        try:
            self.checked = check_body(checked, body)
        except Problem as problem:
            for fault in problem.faults:
                self._tell(fault)
        for name in ("events", "headers"):
            if name in self.checked:
                data[name] = self.checked[name]
        return data

    def _headers(self, lines: Iterable[str]) -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        for line in lines:
            name, colon, value = (part.strip() for part in line.partition(":"))
            if not colon:
                self.add_error("headers", f"{line!r} is not a header; write X-Name: value")
            elif name in found:
                self.add_error("headers", f"{name} is given twice; give it once")
            else:
                found[name] = None if value == MASK else value
        return found

    def _tell(self, fault: Fault) -> None:
        """Add an error to its field."""
        name, _, inside = fault.field.partition(".")
        field = FIELDS.get(name, name)
        words = fault.message
        if name == "headers" and inside:
            words = f"{inside}: {words}"
        elif fault.value is not HIDDEN and str(fault.value) not in words:
            words = f"{fault.value!r} {words}"
        if fault.allowed:
            words += f"; allowed: {_listed(fault.allowed)}"
        self.add_error(field if field in self.fields else None, words)


def _help(names: Sequence[str]) -> str:
    words = "Event patterns, one per line: article.published, article.*, or * for every event."
    return f"{words} Declared events: {_listed(names)}." if names else words


def _listed(names: Sequence[str]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _yesterday() -> Any:
    return timezone.now() - timedelta(days=1)


class RecoverForm(forms.Form):
    """The start time for retries of failed and cancelled deliveries."""

    since = forms.DateTimeField(
        initial=_yesterday,
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
        help_text="Retries failed and cancelled deliveries created since then.",
    )

    def clean_since(self) -> Any:
        """Return an aware time, even in projects without time zones."""
        since = self.cleaned_data["since"]
        return since if timezone.is_aware(since) else timezone.make_aware(since)
