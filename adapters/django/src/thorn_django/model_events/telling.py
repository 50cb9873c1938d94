"""Telling: sending model signals so that a message is kept with the change, or neither is."""

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

# Rows read by their keys at once, and messages written by one INSERT: below every database's limit
# of bound values.
CHUNK = 500


def together(using: str) -> AbstractContextManager[Any]:
    """A transaction for a change and its messages: if one can't be kept, neither is.

    Inside `atomic` that block is rolled back; with autocommit off, see `keeping`.

    Args:
        using: Alias of the database.
    """
    connection = connections[using]
    if connection.in_atomic_block or connection.get_autocommit():
        return transaction.atomic(using=using, savepoint=False)
    return nullcontext()


@contextmanager
def keeping(using: str) -> Iterator[None]:
    """Keep messages; with autocommit off, roll back all that was written if they can't be.

    Elsewhere Django does that: the change and its messages are in an `atomic` block.
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

    What a payload method or a filter raises is up to the event. What the store raises goes to the
    caller: a change whose message is lost would never be heard of.
    """
    tell_each([(signal, instance, values)], using)


def tell_each(told: Iterable[tuple[Signal, Model, dict[str, Any]]], using: str) -> None:
    """Send model signals, and publish the messages of some at a time together.

    Args:
        told: The signals, with the instances and whatever else they take.
        using: Alias of the database that the changes are made in.

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
    """Raise if a database error that was only logged has made the transaction roll back.

    Raises:
        TransactionManagementError: It has.
    """
    connection = connections[using]
    if connection.in_atomic_block and connection.needs_rollback:
        raise TransactionManagementError(
            "a filter or payload method caused a database error (see the log), so this transaction"
            f" of {using!r} can only be rolled back; wrap queries that may fail in their own"
            " transaction.atomic()"
        )


def chunks(items: Iterable[T], size: int = CHUNK) -> Iterator[Sequence[T]]:
    """Some at a time."""
    iterator = iter(items)
    while some := list(islice(iterator, size)):
        yield some


def instances_of(
    model: type[Model], keys: Iterable[Any], using: str, by: str = "pk"
) -> Iterator[Sequence[Any]]:
    """The instances of these keys that there are, some at a time, in the order of the keys."""
    for some in chunks(keys):
        rows = model._base_manager.using(using).filter(**{f"{by}__in": some}).order_by()
        found = {getattr(instance, by): instance for instance in rows}
        # A key that was given may be of another type than the column's.
        yield [*(found.pop(key) for key in some if key in found), *found.values()]
