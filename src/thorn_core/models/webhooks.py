"""What a model's `class webhooks` says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from thorn_core.errors import ConfigurationError
from thorn_core.models.event import ModelEvent
from thorn_core.models.reversing import ModelReverser, Reverser

if TYPE_CHECKING:
    from thorn_core.app import Thorn

# What `class webhooks` may hold beside events and methods.
OPTIONS = ("sender_field", "reverse", "bulk")


class ModelWebhooks:
    """The webhooks of a model: `Article.webhooks`.

    Attributes:
        model: The class.
        events: Its `ModelEvent`s, by the names they were declared under.
        sender_field: Attribute of an instance that is the sender.
        reverse: Gives the `ref` from an instance.
        bulk: Statements that change many rows at once, past the ORM's instances, send events too.
    """

    def __init__(self, model: type, declaration: Any, options: Mapping[str, Any]) -> None:
        declared = {**_public(declaration), **options}
        events = {k: v for k, v in declared.items() if isinstance(v, ModelEvent)}
        for name in declared.keys() - events.keys() - {*OPTIONS, "payload", "headers"}:
            if name.startswith("on_") or name in options:
                raise ConfigurationError(
                    f"{model.__name__}.webhooks.{name} is {declared[name]!r}, not a ModelEvent"
                )
        self.model = model
        self.declaration = declaration
        self.sender_field: str | None = declared.get("sender_field")
        self.reverse: Reverser | None = declared.get("reverse")
        self.bulk: bool = bool(declared.get("bulk", False))
        self.events = events
        self._payload = getattr(declaration, "payload", None)
        self._headers = getattr(declaration, "headers", None)
        self._by_trigger: dict[tuple[str, str | None], list[ModelEvent]] = {}
        for name, event in self.events.items():
            event.bind(self)
            if not event.triggers:
                if name not in ("on_create", "on_change", "on_delete"):
                    raise ConfigurationError(
                        f"{model.__name__}.webhooks.{name} doesn't say when it is sent; name it"
                        " on_create, on_change or on_delete, or add .dispatches_on_change() or such"
                    )
                event._dispatches_on(name.removeprefix("on_"))
            for trigger in event.triggers:
                self._by_trigger.setdefault(trigger, []).append(event)

    def __repr__(self) -> str:
        return f"<webhooks of {self.model.__name__}: {', '.join(self.events)}>"

    @property
    def previous_fields(self) -> frozenset[str]:
        """The fields whose former values the filters ask for."""
        return frozenset().union(*(event.filter.now_fields for event in self.events.values()))

    @property
    def m2m_fields(self) -> frozenset[str]:
        """The many-to-many fields that events are sent for."""
        return frozenset(field for _, field in self._by_trigger if field is not None)

    def triggered(self, trigger: str, field: str | None = None) -> Sequence[ModelEvent]:
        """The events sent on a trigger."""
        return self._by_trigger.get((trigger, field), ())

    def payload(self, instance: Any, app: Thorn) -> Any:
        """An instance's payload: by the declaration's method, the model's, or all its values."""
        if self._payload is not None:
            return self._payload(instance)
        if hasattr(instance, "webhook_payload"):
            return instance.webhook_payload()
        return dict(app.model_adapter(type(instance)).values(instance))

    def headers(self, instance: Any) -> Mapping[str, str]:
        """An instance's extra headers: by the declaration's method, the model's, or none."""
        if self._headers is not None:
            return self._headers(instance) or {}
        if hasattr(instance, "webhook_headers"):
            return instance.webhook_headers() or {}
        return {}

    def ref(self, instance: Any, reverse: Reverser | None, app: Thorn) -> str | None:
        """An instance's URL: by the event's reverser, the model's, or `get_absolute_url()`.

        A path is made absolute, if it is known what to.
        """
        reverse = reverse or self.reverse
        if isinstance(reverse, ModelReverser):
            return reverse.reverse(instance, app)
        if reverse is not None:
            url = reverse(instance)
        elif hasattr(instance, "get_absolute_url"):
            url = str(instance.get_absolute_url())
        else:
            url = None
        return None if url is None else app.absolute_url(url)


def _public(declaration: Any) -> dict[str, Any]:
    if declaration is None:
        return {}
    names = [name for name in dir(declaration) if not name.startswith("_")]
    return {name: getattr(declaration, name) for name in names}
