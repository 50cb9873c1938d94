"""Sends model signals so that a change and its messages are stored together or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from typing import Any, TypeVar

from blinker import Signal
from django.db import connections, transaction
from django.db.models import Model
from django.db.transaction import TransactionManagementError

from thorn_core import HeldEvents
from thorn_django.after_commit import announces_commit

T = TypeVar("T")

# The number of rows to read by key at once, and of messages in one INSERT: below every database's
# limit of parameters.
CHUNK = 500


def together(using: str) -> AbstractContextManager[Any]:
    """Open a transaction for a change and its messages: store both or neither.

    Inside `atomic`, a failure rolls that block back; with autocommit off, see `keeping`.

    Args:
        using: Alias of the database.
    """
    connection = connections[using]
    if connection.in_atomic_block or connection.get_autocommit():
        return transaction.atomic(using=using, savepoint=False)
    return nullcontext()


@contextmanager
def keeping(using: str) -> Iterator[None]:
    """Store messages; with autocommit off, roll back all writes on a failure.

    Otherwise Django does it, because the change and its messages are in an `atomic` block.
    """
    try:
        yield
    except BaseException:
        connection = connections[using]
        if not (announces_commit(connection) or connection.get_autocommit()):
            connection._rollback()  # type: ignore[attr-defined]
        raise


def tell(signal: Signal, instance: Model, using: str, **values: Any) -> None:
    """Send a model signal for one instance; publish its messages in the same transaction.

    The event handles exceptions of payload methods and filters. An exception of the store reaches
    the caller, so that no change is committed without its message.
    """
    tell_each([(signal, instance, values)], using)


def tell_each(told: Iterable[tuple[Signal, Model, dict[str, Any]]], using: str) -> None:
    """Send model signals, and publish their messages in chunks.

    Args:
        told: The signals with their instances and arguments.
        using: Alias of the database with the changes.

    Raises:
        TransactionManagementError: A filter or payload method broke the transaction.
    """
    held = HeldEvents()
    for some in chunks(told):
        with keeping(using):
            with held:
                for signal, instance, values in some:
                    signal.send(type(instance), instance=instance, within=using, **values)
            check_transaction(using)
            held.release()


def check_transaction(using: str) -> None:
    """Raise if a logged database error has broken the transaction.

    Raises:
        TransactionManagementError: The transaction can only be rolled back.
    """
    connection = connections[using]
    if connection.in_atomic_block and connection.needs_rollback:
        raise TransactionManagementError(
            "a filter or payload method caused a database error (see the log), so this transaction"
            f" of {using!r} can only be rolled back; wrap queries that may fail in their own"
            " transaction.atomic()"
        )


def chunks(items: Iterable[T], size: int = CHUNK) -> Iterator[Sequence[T]]:
    """Split items into chunks."""
    iterator = iter(items)
    while some := list(islice(iterator, size)):
        yield some


def instances_of(
    model: type[Model], keys: Iterable[Any], using: str, by: str = "pk"
) -> Iterator[Sequence[Any]]:
    """Yield the existing instances with these keys, in chunks and in the order of the keys."""
    for some in chunks(keys):
        rows = model._base_manager.using(using).filter(**{f"{by}__in": some}).order_by()
        found = {getattr(instance, by): instance for instance in rows}
        # A given key may have another type than the column's.
        yield [*(found.pop(key) for key in some if key in found), *found.values()]
