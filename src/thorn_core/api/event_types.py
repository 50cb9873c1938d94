"""Event types: the declared events, and Thorn's own."""

from __future__ import annotations

import json
import re
from typing import Any

import attrs

from thorn_core.api.calls import Call
from thorn_core.api.exchange import ApiResponse, respond
from thorn_core.app import Thorn
from thorn_core.codecs import dump_json
from thorn_core.errors import PayloadError
from thorn_core.patterns import matches

_FIELD = re.compile(r"\{\.[^}]*\}")


@attrs.frozen(kw_only=True)
class EventType:
    """An event type, as shown to subscribers.

    Attributes:
        name: As declared; fields of a model event in braces.
        description: Its description.
        schema: JSON Schema of its payload, if it has one.
        example: An example payload, if it has one.
        subscribable: False for events that are sent without a subscription.
        envelope: Its own envelope; None uses the setting.
    """

    name: str
    description: str = ""
    schema: Any = None
    example: Any = None
    subscribable: bool = True
    envelope: str | None = None

    @property
    def pattern(self) -> str:
        """The pattern to subscribe to: its name, with `*` for each word that contains a field.

        Example:
            >>> EventType(name="user.{.account.name}.created").pattern
            'user.*.created'
        """
        words = _FIELD.sub("*", self.name).split(".")
        return ".".join("*" if "*" in word else word for word in words)

    def document(self) -> dict[str, Any]:
        """Return its representation in responses."""
        return {
            "name": self.name,
            "event": self.pattern,
            "description": self.description,
            "schema": self.schema,
            "example": self.example,
        }


_ID = {"type": "string", "description": "ID of the subscription."}
_PATTERNS = {"type": "array", "items": {"type": "string"}}
DISABLED = EventType(
    name="thorn.subscription.disabled",
    description=(
        "One of your subscriptions was disabled: its recipient is gone (410), or all attempts have"
        " failed for too long."
    ),
    schema={
        "type": "object",
        "required": ["id", "url", "events", "reason"],
        "properties": {
            "id": _ID,
            "url": {"type": "string"},
            "events": _PATTERNS,
            "reason": {"type": ["string", "null"]},
        },
    },
    example={
        "id": "sub_0195508e2400a1b2c3d4e5f600000001",
        "url": "https://example.com/hook",
        "events": ["article.*"],
        "reason": "the recipient answered 410 Gone",
    },
)
FAILING = EventType(
    name="thorn.subscription.failing",
    description=(
        "All recent attempts to one of your subscriptions have failed. It will be disabled unless"
        " one succeeds."
    ),
    schema={
        "type": "object",
        "required": ["id", "url", "events", "failing_since", "failures", "disabled_at"],
        "properties": {
            "id": _ID,
            "url": {"type": "string"},
            "events": _PATTERNS,
            "failing_since": {"type": "string", "format": "date-time"},
            "failures": {"type": "integer", "description": "Failed attempts since then."},
            "disabled_at": {"type": "string", "format": "date-time"},
        },
    },
    example={
        "id": "sub_0195508e2400a1b2c3d4e5f600000001",
        "url": "https://example.com/hook",
        "events": ["article.*"],
        "failing_since": "2026-03-01T12:00:00Z",
        "failures": 37,
        "disabled_at": "2026-03-06T12:00:00Z",
    },
)
TEST = EventType(
    name="thorn.test",
    description="A test message, sent to one subscription on request.",
    schema={
        "type": "object",
        "required": ["subscription", "events"],
        "properties": {"subscription": _ID, "events": _PATTERNS},
    },
    example={"subscription": "sub_0195508e2400a1b2c3d4e5f600000001", "events": ["article.*"]},
    subscribable=False,
)


def event_types(app: Thorn) -> list[EventType]:
    """Return the event types that subscriptions may use, by name; Thorn's own come last."""
    declared = [
        EventType(
            name=event.name,
            description=event.description,
            schema=_plain(event.schema),
            example=_plain(event.example),
            envelope=event.envelope,
        )
        for event in app.events()
    ]
    choices = app.settings.event_choices
    return [
        kind
        for kind in (*declared, DISABLED, FAILING)
        if not choices or any(c == kind.pattern or matches(c, kind.pattern) for c in choices)
    ]


def _plain(value: Any) -> Any:
    """Return a declaration's value as JSON; None if it can't be encoded."""
    try:
        return json.loads(dump_json(value))
    except PayloadError:
        # An invalid example must not break the list.
        return None


def list_event_types(call: Call) -> ApiResponse:
    """`GET /event-types/`."""
    items = [kind.document() for kind in event_types(call.app)]
    return respond(200, {"items": items, "next": None})
