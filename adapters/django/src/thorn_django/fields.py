"""Columns and indexes that are the same on every database."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

if TYPE_CHECKING:
    AnyDateTimeField = models.DateTimeField[Any, Any]
    AnyCharField = models.CharField[Any, Any]
    AnyTextField = models.TextField[Any, Any]
else:
    AnyDateTimeField = models.DateTimeField
    AnyCharField = models.CharField
    AnyTextField = models.TextField

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Compared and ordered by code points: ids and patterns differ in case, and pages go by id.
COLLATIONS = {"postgresql": "C", "mysql": "utf8mb4_bin"}
# The database's own may not hold every character.
MYSQL_CHARSET = "CHARACTER SET utf8mb4"


def micros(at: datetime) -> int:
    """Microseconds since 1970.

    Example:
        >>> micros(datetime(1970, 1, 1, 0, 0, 1, 5, tzinfo=UTC))
        1000005
    """
    since = at - EPOCH
    return (since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds


def moment(number: int) -> datetime:
    """The time of so many microseconds since 1970."""
    return EPOCH + timedelta(microseconds=number)


class MomentField(AnyDateTimeField):
    """A time to the microsecond, kept as a number: exact, with or without `USE_TZ`.

    In Python it is an aware datetime in UTC.
    """

    description = "Time, as microseconds since 1970"

    def get_internal_type(self) -> str:
        """What the column is."""
        return "BigIntegerField"

    def from_db_value(self, value: int | None, *_: object) -> datetime | None:
        """The time of a column's number."""
        return None if value is None else moment(value)

    def get_prep_value(self, value: Any) -> Any:
        """The number of a time; numbers stay as they are."""
        if isinstance(value, int):
            return value
        value = self.to_python(value)
        if value is None:
            return None
        return micros(value if value.tzinfo is not None else value.replace(tzinfo=UTC))

    def get_db_prep_value(
        self,
        value: Any,
        connection: BaseDatabaseWrapper,
        prepared: bool = False,  # noqa: FBT001, FBT002 - Django's signature
    ) -> Any:
        """The same on every database."""
        return value if prepared else self.get_prep_value(value)


class KeyField(AnyCharField):
    """A text that is compared and ordered by its code points."""

    def db_type(self, connection: BaseDatabaseWrapper) -> str | None:
        """What the column is."""
        # By this name Django makes no second index for LIKE, which PostgreSQL needs none for with
        # this collation, and doesn't warn of MySQL's limits of long ago.
        if connection.vendor == "postgresql":
            return f"character varying({self.max_length})"
        if connection.vendor == "mysql":
            return f"character varying({self.max_length}) {MYSQL_CHARSET}"
        return super().db_type(connection)

    def db_parameters(self, connection: BaseDatabaseWrapper) -> dict[str, Any]:
        """With the collation."""
        parameters = super().db_parameters(connection)
        return {**parameters, "collation": COLLATIONS.get(connection.vendor)}


class LongTextField(AnyTextField):
    """A text of any length and with any character."""

    def db_type(self, connection: BaseDatabaseWrapper) -> str | None:
        """What the column is."""
        if connection.vendor == "mysql":
            return f"longtext {MYSQL_CHARSET}"
        return super().db_type(connection)

    def db_parameters(self, connection: BaseDatabaseWrapper) -> dict[str, Any]:
        """With the collation that goes with the characters."""
        parameters = super().db_parameters(connection)
        if connection.vendor == "mysql":
            parameters["collation"] = COLLATIONS["mysql"]
        return parameters


class JsonTextField(LongTextField):
    """A value as JSON text: it comes back with its order and characters as they were."""

    description = "Value, as JSON text"

    def from_db_value(self, value: str | None, *_: object) -> Any:
        """The value of a column's text."""
        return None if value is None else json.loads(value)

    def get_prep_value(self, value: Any) -> str | None:
        """The text of a value."""
        return None if value is None else json.dumps(value)

    def value_to_string(self, obj: models.Model) -> str:
        """The text, for serializers."""
        return json.dumps(self.value_from_object(obj))

    def to_python(self, value: Any) -> Any:
        """The value of a serializer's text."""
        return json.loads(value) if isinstance(value, str) else value


class PartialIndex(models.Index):
    """An index of the rows that have a value in one column; of all, where databases know no less.

    An index with a condition is the same, but Django warns of it on MySQL.

    Args:
        present: The column.
        **options: Those of an index.
    """

    def __init__(self, *, present: str, **options: Any) -> None:
        self.present = present
        super().__init__(**options)

    def create_sql(
        self,
        model: type[models.Model],
        schema_editor: BaseDatabaseSchemaEditor,
        using: str = "",
        **options: Any,
    ) -> Any:
        """The statement that creates it."""
        if not schema_editor.connection.features.supports_partial_indexes:
            return super().create_sql(model, schema_editor, using, **options)
        condition = models.Q(**{f"{self.present}__isnull": False})
        index = models.Index(fields=self.fields, name=self.name, condition=condition)
        return index.create_sql(model, schema_editor, using, **options)

    def deconstruct(self) -> Any:
        """What makes another one like it."""
        path, arguments, options = super().deconstruct()
        return path, arguments, {**options, "present": self.present}
