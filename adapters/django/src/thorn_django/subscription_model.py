"""The model of subscriptions: Thorn's, or a project's subclass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DataError

from thorn_core import ConfigurationError, Subscription
from thorn_core.stores.sql.rows import subscription_row
from thorn_core.stores.sql.schema import SUBSCRIPTIONS
from thorn_core.stores.sql.statements import Statements
from thorn_django.connections import DjangoConnection
from thorn_django.models import AbstractSubscription

DEFAULT_MODEL = "thorn_django.Subscription"


def subscription_model() -> type[AbstractSubscription]:
    """Return the model of subscriptions: Thorn's, or the setting THORN_SUBSCRIBER_MODEL's.

    Raises:
        ConfigurationError: The model is unknown, or isn't a subscription model.
    """
    name = getattr(settings, "THORN_SUBSCRIBER_MODEL", None) or DEFAULT_MODEL
    try:
        model = apps.get_model(name, require_ready=False)
    except (LookupError, ValueError, ImproperlyConfigured) as error:
        raise ConfigurationError(
            f"THORN_SUBSCRIBER_MODEL is {name!r}: {error}; write 'app_label.Model' of an installed"
            " app"
        ) from error
    if not issubclass(model, AbstractSubscription):
        raise ConfigurationError(
            f"THORN_SUBSCRIBER_MODEL is {name!r}, which is not a subscription model; inherit from"
            f" thorn_django.models.AbstractSubscription"
        )
    return model


def insert_rows(statements: Statements, subscriptions: Sequence[Subscription]) -> None:
    """Insert rows with the ORM: the project's own fields get their defaults."""
    model = subscription_model()
    made = [model(**_values(model, subscription_row(each))) for each in subscriptions]
    connection = _connection(statements)
    with connection.installed():
        try:
            model._base_manager.using(connection.wrapper.alias).bulk_create(made)
        except (UnicodeEncodeError, OverflowError) as error:
            raise DataError(f"a value can't be stored: {type(error).__name__}") from None


def delete_row(statements: Statements, subscription_id: str) -> bool:
    """Delete a row with the ORM: other tables may refer to a project's model."""
    connection = _connection(statements)
    with connection.installed():
        rows = subscription_model()._base_manager.using(connection.wrapper.alias)
        return bool(rows.filter(pk=subscription_id).delete()[0])


def _values(model: type[AbstractSubscription], row: Sequence[Any]) -> dict[str, Any]:
    """Return a row's values by model field."""
    values = {}
    for name, value in zip(SUBSCRIPTIONS.names, row, strict=True):
        convert = getattr(model._meta.get_field(name), "from_db_value", None)
        values[name] = value if convert is None else convert(value, None, None)
    return values


def _connection(statements: Statements) -> DjangoConnection:
    connection = statements.connection
    assert isinstance(connection, DjangoConnection)
    return connection


def table_of(model: type[AbstractSubscription]) -> str | None:
    """Return the table of a project's model; None for Thorn's own."""
    own = apps.get_model(DEFAULT_MODEL, require_ready=False)
    return None if model is own else model._meta.db_table
