"""The declarations in a model's `class webhooks`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from thorn_core.callables import is_async
from thorn_core.codecs import as_json
from thorn_core.errors import ConfigurationError
from thorn_core.events import Event
from thorn_core.filters import AMONG, Condition
from thorn_core.models.event import ModelEvent
from thorn_core.models.names import (
    check_optional_path,
    check_path,
    check_syntax,
    looks_secret,
    split_path,
)
from thorn_core.models.reversing import ModelReverser, Reverser, check_reverser
from thorn_core.patterns import field_paths
from thorn_core.ports.app import App
from thorn_core.ports.model_adapter import ModelAdapter, ModelNames, NamesOf
from thorn_core.spelling import misspelt, nearest

# Allowed names in `class webhooks` besides events.
OPTIONS = ("sender_field", "fields", "reverse", "bulk")
METHODS = ("payload", "headers")
# Names of events that imply a trigger.
TRIGGERING = ("on_create", "on_change", "on_delete")
# Operators that take a value of the column's type, and those that take several such values.
COMPARING = frozenset({"eq", "ne", "gt", "gte", "lt", "lte"})


# Attribute of the class. `webhooks` may be overwritten later, e.g. by a related_name.
ATTRIBUTE = "__thorn_webhooks__"


def webhooks_of(cls: type) -> ModelWebhooks | None:
    """Return the webhooks of a decorated class; None if the class itself isn't decorated."""
    webhooks: ModelWebhooks | None = vars(cls).get(ATTRIBUTE)
    return webhooks


class ModelWebhooks:
    """The webhooks of a model: `Article.webhooks`.

    Attributes:
        model: The class.
        events: Its `ModelEvent`s, by the names they were declared under.
        sender_field: Path to an instance's sender, `author` or `author.company`.
        fields: Names and paths of the values in the payload.
        reverse: Returns the `ref` of an instance.
        bulk: Whether bulk statements, which change rows without instances, send events.
    """

    def __init__(self, model: type, declaration: Any, options: Mapping[str, Any]) -> None:
        declared = {**_public(declaration), **options}
        self.model = model
        self.declaration = declaration
        self.events = {k: v for k, v in declared.items() if isinstance(v, ModelEvent)}
        self._check_options(declared)
        self.sender_field = check_optional_path(
            f"{self._where}.sender_field", declared.get("sender_field")
        )
        self.fields = _fields(f"{self._where}.fields", declared.get("fields", ()))
        self.reverse: Reverser | None = check_reverser(
            f"{self._where}.reverse", declared.get("reverse")
        )
        self.bulk: bool = bool(declared.get("bulk", False))
        self._payload = _method(f"{self._where}.payload", declared.get("payload"))
        self._headers = _method(f"{self._where}.headers", declared.get("headers"))
        if self.fields and self._payload is not None:
            raise ConfigurationError(
                f"{self._where} has both fields and a payload method; keep one"
            )
        self._by_trigger: dict[tuple[str, str | None], list[ModelEvent]] = {}
        for name, event in self.events.items():
            event.bind(self)
            if not event.triggers:
                self._trigger_by_name(name, event)
            for trigger in event.triggers:
                self._by_trigger.setdefault(trigger, []).append(event)

    @property
    def _where(self) -> str:
        return f"{self.model.__name__}.webhooks"

    def _trigger_by_name(self, name: str, event: ModelEvent) -> None:
        """Set the triggers of `on_create` and similar names; other events are sent by hand only."""
        if name in TRIGGERING:
            event._dispatches_on(name.removeprefix("on_"))
            return
        near = misspelt(name, TRIGGERING)
        # `on_charge` is a valid name; `on_chagne` and `on_created` are misspellings.
        if near is not None and (len(near) != len(name) or sorted(near) == sorted(name)):
            raise ConfigurationError(
                f"{self._where}.{name} has no trigger; did you mean {near!r}? Otherwise add one,"
                f" such as .dispatches_on_change(), or rename it if you only send it by hand"
            )

    def _check_options(self, declared: Mapping[str, Any]) -> None:
        known = (*OPTIONS, *METHODS)
        for name in declared.keys() - self.events.keys() - set(known):
            value = declared[name]
            if name.startswith("on_") or isinstance(value, Event):
                raise ConfigurationError(f"{self._where}.{name} is {value!r}, not a ModelEvent")
            helper = callable(value) and not isinstance(value, type)
            bare = name.removeprefix("get_").removeprefix("webhook_")
            near = misspelt(bare, known, plurals=True) or (bare if bare in known else None)
            if near is None and helper:
                continue  # a method that payload() calls
            near = near or nearest(name, known)
            hint = f"did you mean {near!r}?" if near else f"options are {', '.join(known)};"
            raise ConfigurationError(
                f"{self._where}.{name} is neither an event nor an option; {hint} start the names"
                f" of your own values with an underscore"
            )

    def __repr__(self) -> str:
        return f"<webhooks of {self.model.__name__}: {', '.join(self.events)}>"

    @property
    def previous_fields(self) -> frozenset[str]:
        """The fields whose previous values the filters need."""
        return frozenset().union(*(event.filter.now_fields for event in self.events.values()))

    @property
    def m2m_fields(self) -> frozenset[str]:
        """The many-to-many fields with events."""
        return frozenset(field for _, field in self._by_trigger if field is not None)

    def triggered(self, trigger: str, field: str | None = None) -> Sequence[ModelEvent]:
        """Return the events for a trigger."""
        return self._by_trigger.get((trigger, field), ())

    def check(self, adapter: ModelAdapter, model: type | None = None) -> None:
        """Check the declarations against the model; adapters call this once they know its names.

        Converts the values in filters to the types of their columns.

        Args:
            adapter: The model's adapter.
            model: A subclass that sends these events too, if they were declared on a mixin, which
                has no columns of its own.

        Raises:
            ConfigurationError: The model doesn't have a name, a column is secret, or a column
                can't hold a filter's value.
        """
        model = model or self.model
        self.check_names(adapter.names, model)
        names = adapter.names(model)
        for field in self.m2m_fields:
            if names.many_to_many is not None and field not in names.many_to_many:
                followed = f"it has {', '.join(sorted(names.many_to_many)) or 'none'}"
                raise ConfigurationError(
                    f"an event of {model.__name__} is sent on changes of {field!r}, but"
                    f" {model.__name__} has no many-to-many relationship of that name that can be"
                    f" written; {followed}"
                )
        for name, event in self.events.items():
            event.filter = event.filter.expecting(
                partial(self._expected, adapter, model, f"{self._where}.{name}")
            )

    def check_names(self, names_of: NamesOf, model: type | None = None) -> None:
        """Check the names in filters, `fields`, `sender_field`, triggers and event names.

        Args:
            names_of: The names of a class.
            model: As for `check`.

        Raises:
            ConfigurationError: The model doesn't have a name (the message suggests the nearest),
                or `fields` has a secret one.
        """
        for path in self.fields:
            self._check_secret(path, model or self.model, names_of)
        for place, path in self._paths():
            check_path(model or self.model, path, names_of, f"{self._where}{place}")

    def _paths(self) -> Iterator[tuple[str, str]]:
        if self.sender_field is not None:
            yield ".sender_field", self.sender_field
        for field in self.fields:
            yield ".fields", field
        yield from _arguments(self.reverse, ".reverse")
        for name, event in self.events.items():
            if event.sender_field is not None:
                yield f".{name}, sender_field", event.sender_field
            for condition in event.filter.conditions:
                yield f".{name}, {condition.name}", "__".join(condition.path)
            for path in field_paths(event.name):
                yield f".{name}, its name", path
            for _, many in event.triggers:
                if many is not None:
                    yield f".{name}", many
            yield from _arguments(event.reverse, f".{name}, reverse")

    def _check_secret(self, path: str, model: type, names_of: NamesOf) -> None:
        cls: type | None = model
        for name in split_path(path):
            names = ModelNames() if cls is None else names_of(cls)
            if name in names.secret or looks_secret(name):
                raise ConfigurationError(
                    f"{self._where}.fields has {path!r}, but {name!r} is secret; remove it, or"
                    f" write a payload method if it must be sent"
                )
            cls = names.leads_to.get(name)

    @staticmethod
    def _expected(adapter: ModelAdapter, model: type, where: str, condition: Condition) -> Any:
        """Convert a condition's value to the type of the column at the end of its path."""
        *way, last = condition.path
        cls: type | None = model
        for name in way:
            cls = None if cls is None else adapter.names(cls).leads_to.get(name)
        value = condition.expected
        if cls is None or value is None or isinstance(value, bool):
            return value
        try:
            if condition.operator in COMPARING:
                return adapter.to_python(cls, last, value)
            if condition.operator in AMONG and isinstance(value, list | tuple | set | frozenset):
                return type(value)(adapter.to_python(cls, last, item) for item in value)
        except (TypeError, ValueError, ArithmeticError) as error:
            raise ConfigurationError(
                f"{where}: {condition!r} compares with a value that {cls.__name__}.{last} can't"
                f" hold: {error}"
            ) from error
        return value

    def payload(self, instance: Any, app: App) -> Any:
        """Return an instance's payload: from a method of the declaration or model, or its fields.

        Without either it is `{}`, and recipients fetch the object from `ref`.
        """
        if self._payload is not None:
            return self._payload(instance)
        if not self.fields and hasattr(instance, "webhook_payload"):
            return instance.webhook_payload()
        if not self.fields:
            return {}
        return as_json(app.model_adapter(type(instance)).values(instance, self.fields))

    def headers(self, instance: Any) -> Mapping[str, str]:
        """Return an instance's extra headers: from the declaration's method, or the model's."""
        if self._headers is not None:
            return self._headers(instance) or {}
        if hasattr(instance, "webhook_headers"):
            return instance.webhook_headers() or {}
        return {}

    def ref(self, instance: Any, reverse: Reverser | None, app: App) -> str | None:
        """Return an instance's URL: the event's reverser, the model's, or `get_absolute_url()`.

        Makes a path absolute if the base URL is known.
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


def _method(where: str, value: Any) -> Callable[[Any], Any] | None:
    """Return a method of `class webhooks`; it must take an instance and not be a coroutine."""
    if value is None:
        return None
    if not callable(value) or is_async(value):
        raise ConfigurationError(f"{where} is {value!r}; make it a plain method of the instance")
    method: Callable[[Any], Any] = value
    try:
        signature = inspect.signature(method)
    except (TypeError, ValueError):
        return method  # callables written in C may have no signature
    try:
        signature.bind(None)
    except TypeError:
        raise ConfigurationError(
            f"{where} can't be called with the instance alone; write it as"
            f" def {where.rpartition('.')[2]}(self, instance)"
        ) from None
    return method


def _fields(where: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ConfigurationError(f"{where} is {value!r}; use a tuple of names, ('title', 'state')")
    return tuple(check_syntax(where, field) for field in value)


def _arguments(reverse: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(reverse, ModelReverser):
        yield from ((where, path) for path in (*reverse.args, *reverse.kwargs.values()))
