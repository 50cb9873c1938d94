"""What an ORM adapter does for models, and who asks it to."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from thorn_core.hookspecs import hookimpl
from thorn_core.models.names import ModelNames, class_names, follow

if TYPE_CHECKING:
    from thorn_core.models.webhooks import ModelWebhooks


@runtime_checkable
class ModelAdapter(Protocol):
    """What an ORM adapter does for the classes of its ORM.

    Events tell what the row holds. An adapter sends the six model signals when a row was written,
    with instances whose attributes are as the database has them, whatever form the program
    assigned: `"2"` for 2, a decimal with too many digits, a local time. Former values are, too.
    """

    def watch(self, webhooks: ModelWebhooks) -> None:
        """Send the six model signals for changes of a model; calling it twice is fine.

        It calls `webhooks.check(self)` as soon as the ORM knows the model's names: now, or when
        its mappers are configured or its apps are ready, but before the first signal.

        Args:
            webhooks: Of the decorated class: `.model`, and what its events ask for.

        Raises:
            ConfigurationError: The events name what the model hasn't.
        """
        ...

    def names(self, model: type) -> ModelNames:
        """The names that events may use: columns, relations, properties, with where they lead.

        Args:
            model: A class of the ORM's, or one that `names` said a name leads to; for those that
                aren't the ORM's, give `class_names(model)`.
        """
        ...

    def values(self, instance: Any, fields: Sequence[str]) -> Mapping[str, Any]:
        """The values of some attributes, as stored, by the names given.

        A relation's value is the primary key of what it leads to, or a list of them. Whatever isn't
        loaded yet is, at once.

        Args:
            instance: Of a class of the ORM's.
            fields: Names, or paths such as `author.name`.
        """
        ...

    def to_python(self, model: type, field: str, value: Any) -> Any:
        """A value in the type that a column gives its values back in: 2 for `"2"`; not rounded.

        Filters compare with what this makes of the values that they were declared with.

        Args:
            model: A class of the ORM's.
            field: A name of its; if it is no column, the value stays as it is.
            value: What the declaration says.

        Raises:
            ValueError, TypeError: The column can't hold it.
        """
        ...


class ModelWatcher(Protocol):
    """Who wants decorated classes to be watched: an app, or an ORM adapter in its place."""

    def model_adapter(self, model: type) -> ModelAdapter | None:
        """The adapter that is to watch a class; None if it isn't this watcher's."""
        ...


class PlainModelAdapter:
    """For classes without an ORM: the program sends the model signals itself."""

    @hookimpl(trylast=True)
    def thorn_model_adapter(self, model: type) -> ModelAdapter:
        """Takes what no ORM adapter takes."""
        return self

    def watch(self, webhooks: ModelWebhooks) -> None:
        """There is nothing to watch."""

    def names(self, model: type) -> ModelNames:
        """What the class tells: annotations, properties, and what its methods assign."""
        return class_names(model)

    def values(self, instance: Any, fields: Sequence[str]) -> Mapping[str, Any]:
        """The attributes of these names."""
        return {field: follow(instance, field) for field in fields}

    def to_python(self, model: type, field: str, value: Any) -> Any:
        """The value itself: no column says otherwise."""
        return value


class ModelAdapters:
    """The ORM adapters of an app, each asked for once.

    Args:
        ask: The hook, which every plugin answers.
    """

    def __init__(self, ask: Callable[..., ModelAdapter]) -> None:
        self._ask = ask
        self._found: weakref.WeakKeyDictionary[type, ModelAdapter] = weakref.WeakKeyDictionary()

    def of(self, model: type) -> ModelAdapter:
        """The adapter for a class."""
        adapter = self._found.get(model)
        if adapter is None:
            adapter = self._ask(model=model)
            # A class without one may yet be mapped.
            if not isinstance(adapter, PlainModelAdapter):
                self._found[model] = adapter
        return adapter
