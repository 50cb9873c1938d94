"""Finds routed messages that match a subscription and have no delivery to it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from thorn_core.keys import first_key, message_id, message_key, recipient_key
from thorn_core.stores import rules
from thorn_core.stores.sql.rows import message_of
from thorn_core.stores.sql.schema import MESSAGES
from thorn_core.stores.sql.statements import Statements
from thorn_core.stores.sql.wording import MYSQL
from thorn_core.values import Message, Subscription

NAMES = ", ".join(MESSAGES.names)
# Without payloads, which may be large: most messages don't match.
BRIEF = NAMES.replace("data", "NULL")
EVERY = (
    f"SELECT {BRIEF} FROM $messages WHERE id > :after.key AND id >= :since.key{{until}} ORDER BY id"
)
UNTIL = " AND id < :until.key"
# Order by the sender too, although it is constant: otherwise PostgreSQL ignores the index.
OF_SENDER = EVERY.replace("WHERE", "WHERE sender = :sender.name AND").replace("BY", "BY sender,")
OF_NOBODY = OF_SENDER.replace("sender = :sender.name", "sender IS NULL")
UNROUTED = "SELECT message_id FROM $outbox WHERE message_id IN (:keys.key*)"
DELIVERIES = "SELECT id FROM $deliveries WHERE id IN (:keys.key*)"
WHOLE = f"SELECT {NAMES} FROM $messages WHERE id IN (:keys.key*)"


def missing(
    statements: Statements,
    subscription: Subscription,
    since: datetime,
    until: datetime | None,
    after: str | None,
    limit: int,
) -> tuple[list[Message], str | None]:
    """Find messages that match a subscription and have no delivery to it.

    Args:
        statements: Runs the SQL, on a reading connection.
        subscription: The subscription.
        since: Only messages sent at or after this time.
        until: Only messages sent before this time.
        after: The position that the previous call returned.
        limit: The number of messages to examine.

    Returns:
        The matching messages among those examined, by id; and the position for the next call, or
        None at the end.
    """
    key = b"" if after is None else message_key(after)
    if key is None:
        return [], None
    page = _page(statements, subscription, since, until, key, limit)
    wanted = [row[0] for row in page if rules.is_for(message_of(row), subscription)]
    unrouted = _present(statements, UNROUTED, wanted)
    end = recipient_key(subscription.id).to_bytes(8, "big")
    made = _present(statements, DELIVERIES, [each + end for each in wanted])
    missed = [each for each in wanted if each not in unrouted and each + end not in made]
    found = [message_of(row) for row in statements.rows(WHOLE, keys=missed)] if missed else []
    following = message_id(page[-1][0]) if len(page) == limit else None
    return sorted(found, key=lambda message: message.id), following


def _page(
    statements: Statements,
    subscription: Subscription,
    since: datetime,
    until: datetime | None,
    after: bytes,
    limit: int,
) -> list[tuple[Any, ...]]:
    """Return the first messages from senders whose messages the subscription may get."""
    values: dict[str, Any] = {"after": after, "since": first_key(since), "most": limit}
    if until is not None:
        values["until"] = first_key(until)
    if subscription.owner is not None:
        values["sender"] = subscription.owner
    texts = [EVERY] if subscription.owner is None else [OF_NOBODY, OF_SENDER]
    if statements.wording.dialect == MYSQL:
        # MariaDB ignores the index if the constant sender is part of the order.
        texts = [text.replace("BY sender,", "BY") for text in texts]
    rows = [
        row
        for text in texts
        for row in statements.rows(
            text.format(until="" if until is None else UNTIL) + statements.wording.limit, **values
        )
    ]
    return sorted(rows, key=lambda row: row[0])[:limit]


def _present(statements: Statements, text: str, keys: Sequence[bytes]) -> set[bytes]:
    return {key for (key,) in statements.rows(text, keys=keys)} if keys else set()
