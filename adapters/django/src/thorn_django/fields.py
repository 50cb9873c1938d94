"""Model fields with the SQL store's column types on every database."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

from thorn_core.keys import (
    DELIVERY_KEY,
    MESSAGE_KEY,
    delivery_id_of,
    delivery_key,
    message_id,
    message_key,
)
from thorn_core.stores.sql.rows import micros, moment

if TYPE_CHECKING:
    AnyDateTimeField = models.DateTimeField[Any, Any]
    AnyCharField = models.CharField[Any, Any]
    AnyTextField = models.TextField[Any, Any]
    AnyBooleanField = models.BooleanField[Any, Any]
    AnyField = models.Field[Any, Any]
else:
    AnyDateTimeField = models.DateTimeField
    AnyCharField = models.CharField
    AnyTextField = models.TextField
    AnyBooleanField = models.BooleanField
    AnyField = models.Field

# The database's default character set may lack characters.
MYSQL_CHARSET = "CHARACTER SET utf8mb4"


def collation_of(connection: BaseDatabaseWrapper) -> str | None:
    """Return the collation by code points: ids and patterns are case-sensitive."""
    if connection.vendor == "postgresql":
        return "C"
    if connection.vendor == "mysql":
        maria = connection.mysql_is_mariadb  # type: ignore[attr-defined]
        return "utf8mb4_nopad_bin" if maria else "utf8mb4_0900_bin"
    return None


class MomentField(AnyDateTimeField):
    """A time with microseconds, stored as a number: exact, with or without `USE_TZ`.

    In Python it is an aware datetime in UTC.
    """

    description = "Time, as microseconds since 1970"

    def get_internal_type(self) -> str:
        """Return the type of the column."""
        return "BigIntegerField"

    def from_db_value(self, value: int | None, *_: object) -> datetime | None:
        """Return the time for a number."""
        return None if value is None else moment(value)

    def get_prep_value(self, value: Any) -> Any:
        """Return the number of a time; leave numbers unchanged."""
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
        """Return the same value for every database."""
        return value if prepared else self.get_prep_value(value)


class KeyField(AnyCharField):
    """A text column that compares and sorts strings by code points."""

    def db_type(self, connection: BaseDatabaseWrapper) -> str | None:
        """Return the column's type."""
        # With this type name, Django creates no second index for LIKE, which PostgreSQL doesn't
        # need with this collation, and shows no warning about obsolete limits of MySQL.
        if connection.vendor == "postgresql":
            return f"character varying({self.max_length})"
        if connection.vendor == "mysql":
            return f"character varying({self.max_length}) {MYSQL_CHARSET}"
        return super().db_type(connection)

    def db_parameters(self, connection: BaseDatabaseWrapper) -> dict[str, Any]:
        """Add the collation."""
        parameters = super().db_parameters(connection)
        return {**parameters, "collation": collation_of(connection)}


class LongTextField(AnyTextField):
    """A text column for strings of any length with any characters."""

    def db_type(self, connection: BaseDatabaseWrapper) -> str | None:
        """Return the column's type."""
        if connection.vendor == "mysql":
            return f"longtext {MYSQL_CHARSET}"
        return super().db_type(connection)

    def db_parameters(self, connection: BaseDatabaseWrapper) -> dict[str, Any]:
        """Add the collation for the character set."""
        parameters = super().db_parameters(connection)
        if connection.vendor == "mysql":
            parameters["collation"] = collation_of(connection)
        return parameters


class JsonTextField(LongTextField):
    """A value as JSON text, which preserves order and characters."""

    description = "Value, as JSON text"

    def from_db_value(self, value: str | None, *_: object) -> Any:
        """Return the value of a JSON text."""
        return None if value is None else json.loads(value)

    def get_prep_value(self, value: Any) -> str | None:
        """Return the JSON text of a value."""
        return None if value is None else json.dumps(value)

    def value_to_string(self, obj: models.Model) -> str:
        """Return the JSON text, for serializers."""
        return json.dumps(self.value_from_object(obj))

    def to_python(self, value: Any) -> Any:
        """Return the value of a serializer's text."""
        return json.loads(value) if isinstance(value, str) else value


class FlagField(AnyBooleanField):
    """A boolean, stored as 1 or 0."""

    description = "Boolean, as a number"

    def db_type(self, connection: BaseDatabaseWrapper) -> str:
        """Return the column's type."""
        return "smallint"

    def from_db_value(self, value: int | None, *_: object) -> bool | None:
        """Return the boolean for a number."""
        return None if value is None else bool(value)

    def get_prep_value(self, value: Any) -> int | None:
        """Return 1 or 0."""
        value = self.to_python(value)
        return None if value is None else int(value)


class BytesKeyField(AnyField):
    """Bytes of a fixed length.

    Args:
        length: The number of bytes.
        **options: The options of a field.
    """

    description = "Key of %(length)s bytes"

    def __init__(self, *args: Any, length: int, **options: Any) -> None:
        self.length = length
        super().__init__(*args, **options)

    def deconstruct(self) -> Any:
        """Return the field's arguments."""
        name, path, arguments, options = super().deconstruct()
        return name, path, arguments, {**options, "length": self.length}

    def db_type(self, connection: BaseDatabaseWrapper) -> str:
        """Return the column's type."""
        types = {"postgresql": "bytea", "mysql": f"binary({self.length})"}
        return types.get(connection.vendor, "blob")

    def from_db_value(self, value: Any, *_: object) -> Any:
        """Return bytes, whatever the driver returns."""
        return None if value is None else bytes(value)

    def to_python(self, value: Any) -> Any:
        """Return the bytes for a serializer's text."""
        return bytes.fromhex(value) if isinstance(value, str) else value

    def value_to_string(self, obj: models.Model) -> str:
        """Return hexadecimal digits, for serializers."""
        return bytes(self.value_from_object(obj)).hex()


class MessageIdField(BytesKeyField):
    """A message's id: `msg_…` in Python, its 16 bytes in the database."""

    description = "ID of a message"
    what = "message"

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "length": self.size})

    size = MESSAGE_KEY
    id_of: Callable[[bytes], str] = staticmethod(message_id)
    key_of: Callable[[str], bytes | None] = staticmethod(message_key)

    def deconstruct(self) -> Any:
        """Return the field's arguments."""
        name, path, arguments, options = super().deconstruct()
        options.pop("length")
        return name, path, arguments, options

    def from_db_value(self, value: Any, *_: object) -> str | None:
        """Return the id of a key."""
        return None if value is None else self.id_of(bytes(value))

    def to_python(self, value: Any) -> Any:
        """Return the id.

        Raises:
            ValidationError: The value is no valid id.
        """
        if value is None:
            return None
        self._key(value)
        return value

    def get_prep_value(self, value: Any) -> Any:
        """Return the key of an id; leave keys unchanged."""
        value = super().get_prep_value(value)
        return value if value is None or isinstance(value, bytes) else self._key(value)

    def _key(self, value: Any) -> bytes:
        key = self.key_of(value) if isinstance(value, str) else None
        if key is None:
            raise ValidationError(f"{value!r} is not the ID of a {self.what}.")
        return key

    def value_to_string(self, obj: models.Model) -> str:
        """Return the id, for serializers."""
        return str(self.value_from_object(obj))


class DeliveryIdField(MessageIdField):
    """A delivery's id: `dlv_…` in Python, its 24 bytes in the database."""

    description = "ID of a delivery"
    what = "delivery"
    size = DELIVERY_KEY
    id_of = staticmethod(delivery_id_of)
    key_of = staticmethod(delivery_key)
