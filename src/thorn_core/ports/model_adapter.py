"""The model adapter port: what an ORM adapter does for the classes of its ORM."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import attrs


@attrs.frozen(kw_only=True)
class ModelNames:
    """The names that the instances of a class have.

    Attributes:
        leads_to: Each name with the class of its value, whose names may follow in a path; None if
            the class isn't known, so any name may follow.
        many_to_many: Collections whose changes can be detected; None if that isn't known.
        secret: Names that aren't allowed in `fields`, such as password columns.
        open: Instances may have other names too; only likely misspellings are refused.
    """

    leads_to: Mapping[str, type | None] = attrs.field(factory=dict)
    many_to_many: frozenset[str] | None = None
    secret: frozenset[str] = frozenset()
    open: bool = False


NamesOf = Callable[[type], ModelNames]


@runtime_checkable
class ModelAdapter(Protocol):
    """The operations that an ORM adapter provides for the classes of its ORM.

    Events show the values in the row. When a row was written, an adapter sends one of the six model
    signals, with an instance that has the values in the database, whatever form the program
    assigned: `"2"` for 2, a decimal with too many digits, a local time. So do previous values.
    """

    def watch(self, webhooks: Any) -> None:
        """Send the six model signals for changes of a model; calling it twice is fine.

        It calls `webhooks.check(self)` as soon as the ORM knows the model's names: now, or when
        its mappers are configured or its apps are ready, but before the first signal.

        Args:
            webhooks: The `ModelWebhooks` of the decorated class, with its `.model` and events.

        Raises:
            ConfigurationError: The events use a name that the model doesn't have.
        """
        ...

    def names(self, model: type) -> ModelNames:
        """Return the names that events may use (columns, relations, properties) and their classes.

        Args:
            model: A class of the ORM's, or one that `names` said a name leads to; for those that
                aren't the ORM's, give `class_names(model)`.
        """
        ...

    def values(self, instance: Any, fields: Sequence[str]) -> Mapping[str, Any]:
        """The values of some attributes, as stored, by the names given.

        A relation's value is the primary key of the related instance, or a list of keys. Loads
        missing values.

        Args:
            instance: An instance of a class of the ORM.
            fields: Names, or paths such as `author.name`.
        """
        ...

    def to_python(self, model: type, field: str, value: Any) -> Any:
        """Convert a value to the type of a column, without rounding: `"2"` to 2.

        Filters compare with the converted values of their declarations.

        Args:
            model: A class of the ORM's.
            field: The name of an attribute; if it isn't a column, the value is returned unchanged.
            value: The value in the declaration.

        Raises:
            ValueError, TypeError: The column can't hold it.
        """
        ...


class ModelWatcher(Protocol):
    """Has decorated classes watched: an app, or an ORM adapter on its behalf."""

    def model_adapter(self, model: type) -> ModelAdapter | None:
        """Return the adapter to watch a class with; None if this watcher isn't responsible."""
        ...
