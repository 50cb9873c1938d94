"""Finds the subscriptions that match events, by the table of patterns.

Few patterns match an event's name. The lookup searches for each pattern, and for each owner if the
message has a sender, so that other subscriptions cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from thorn_core.patterns import candidates
from thorn_core.stores.sql.schema import PATTERNS
from thorn_core.stores.sql.statements import Statements, batches
from thorn_core.values import Message

# The owner of operators' subscriptions in the table of patterns.
NOBODY = ""
# The maximum number of patterns, or patterns of an owner, in one lookup for several messages.
MOST = 1000
# The maximum number of subscriptions per pattern in such a lookup; beyond it, match one by one.
SHARE = 64

_OWNED = (PATTERNS.column("pattern"), PATTERNS.column("owner"))
_ANYBODYS = _OWNED[:1]
OF_OWNER = " AND p.owner = v.owner"
FIRST_IDS = (
    "SELECT p.subscription_id AS id FROM $patterns p WHERE p.pattern = v.pattern{owned}"
    " AND p.subscription_id > :after.name ORDER BY p.subscription_id{limit}"
)
SHARES = (
    "SELECT p.pattern AS pattern, p.owner AS owner, p.subscription_id AS id FROM $patterns p"
    " WHERE p.pattern = v.pattern{owned}{limit}"
)

# A pattern, or a pattern and an owner.
Asked = tuple[str, ...]


def _asked(event: str, sender: str | None) -> list[Asked]:
    """Return the patterns to search for."""
    patterns = candidates(event)
    if sender is None:
        return [(pattern,) for pattern in patterns]
    # OPERATOR has a type of its own and matches no owner.
    owners = dict.fromkeys([str(sender), NOBODY])
    return [(pattern, owner) for pattern in patterns for owner in owners]


def first_ids(
    statements: Statements, event: str, sender: str | None, after: str | None, limit: int
) -> list[str]:
    """Return the first subscriptions that match an event, by id; others cost nothing.

    Args:
        statements: Runs the SQL, on a reading connection.
        event: The event's name.
        sender: The event matches this owner's subscriptions and those without an owner; None
            matches all.
        after: Return only ids after this one.
        limit: The maximum number.
    """
    asked = _asked(event, sender)
    owned = "" if sender is None else OF_OWNER
    text = FIRST_IDS.format(owned=owned, limit=statements.wording.limit)
    given = _ANYBODYS if sender is None else _OWNED
    rows = statements.for_each(text, given, asked, after=after or "", most=limit)
    return sorted({key for (key,) in rows})[:limit]


def ids_of_each(
    statements: Statements, messages: Sequence[Message], limit: int
) -> list[list[str]] | None:
    """Return the matching subscriptions of the first messages, as many as are cheap to find.

    Args:
        statements: Runs the SQL, on a reading connection.
        messages: The messages.
        limit: The maximum number of subscriptions of all messages together.

    Returns:
        The ids for each of these messages; None if there are too many subscriptions.
    """
    wanted: list[list[Asked]] = []
    every: dict[Asked, list[str]] = {}
    for message in messages:
        asked = _asked(message.event, message.sender)
        if len(every) + len(asked) > MOST:
            break
        wanted.append(asked)
        every |= {each: [] for each in asked}
    most, many = min(limit, SHARE) + 1, 0
    for given, owned in ((_ANYBODYS, ""), (_OWNED, OF_OWNER)):
        text = SHARES.format(owned=owned, limit=statements.wording.limit)
        for some in batches([each for each in every if len(each) == len(given)]):
            rows = statements.for_each(text, given, some, most=most)
            many += len(rows)
            for *names, key in rows:
                every[tuple(names[: len(given)])].append(key)
            if many > limit or any(len(every[tuple(each)]) == most for each in some):
                return None
    return [sorted({key for each in asked for key in every[each]}) for asked in wanted] or None
