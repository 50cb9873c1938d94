"""What has been sent: the messages in the store's table, and what it cost to get them there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connections
from django.test.utils import CaptureQueriesContext

from thorn_core import Thorn

# What waits to be routed, where that is a statement of its own; on PostgreSQL it is one with the
# message's.
OUTBOX = ('INSERT INTO "thorn_outbox"', "INSERT INTO `thorn_outbox`")
BOTH = "WITH made AS ("


def of_messages(statements: Iterable[str]) -> list[str]:
    """Statements without those of what waits to be routed, which go with the messages'."""
    return [sql.removeprefix(BOTH) for sql in statements if not sql.startswith(OUTBOX)]


class Sent:
    """The messages of an app whose store is in a database.

    Args:
        app: The app.
        alias: Of the database.
    """

    def __init__(self, app: Thorn, alias: str) -> None:
        self.app = app
        self.alias = alias

    def take(self) -> list[tuple[str, Any]]:
        """The events and payloads of the messages that are there, which are then taken away."""
        return [(message.event, message.payload) for message in self.messages()]

    def names(self) -> list[str]:
        """The events alone."""
        return [name for name, _ in self.take()]

    def messages(self) -> list[Any]:
        """The messages, which are then taken away."""
        from thorn_django.models import Message, OutboxEntry

        ids = Message.objects.using(self.alias).order_by("id").values_list("id", flat=True)
        found = [self.app.message(key) for key in ids]
        for model in (OutboxEntry, Message):
            model.objects.using(self.alias).all().delete()
        return found

    @contextmanager
    def queries(self) -> Iterator[list[str]]:
        """The statements inside the block, but for those of transactions and of the outbox."""
        found: list[str] = []
        with CaptureQueriesContext(connections[self.alias]) as captured:
            yield found
        control = ("BEGIN", "COMMIT", "SAVEPOINT", "RELEASE", "ROLLBACK", "SET ")
        # Of several rows, it says "2 times: INSERT".
        statements = [q["sql"].split(" times: ")[-1] for q in captured.captured_queries]
        found += of_messages(sql for sql in statements if not sql.startswith(control))


@contextmanager
def sending(alias: str) -> Iterator[Sent]:
    """Let the default app keep what is sent in a database."""
    with Thorn(store=f"django://{alias}", dispatcher="outbox") as app:
        app.make_default()
        yield Sent(app, alias)
