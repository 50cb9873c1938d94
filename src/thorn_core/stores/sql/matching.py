"""Which subscriptions events reach, by the table of patterns.

An event's name has few patterns that match it. Each is asked for by itself, and by its owner if the
message has a sender, so that what doesn't match costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from thorn_core.patterns import candidates
from thorn_core.stores.sql.schema import PATTERNS
from thorn_core.stores.sql.statements import Statements, batches
from thorn_core.values import Message

# The owner of those without one, in the table of patterns.
NOBODY = ""
# Patterns, or patterns of an owner, asked for of several messages at once.
MOST = 1000
# Subscriptions of one of them: of more, messages are matched one by one.
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

# A pattern, or that and an owner.
Asked = tuple[str, ...]


def _asked(event: str, sender: str | None) -> list[Asked]:
    """What is looked for."""
    patterns = candidates(event)
    if sender is None:
        return [(pattern,) for pattern in patterns]
    # OPERATOR is nobody, and of a type of its own.
    owners = dict.fromkeys([str(sender), NOBODY])
    return [(pattern, owner) for pattern in patterns for owner in owners]


def first_ids(
    statements: Statements, event: str, sender: str | None, after: str | None, limit: int
) -> list[str]:
    """The first subscriptions that an event reaches, by id: at the cost of these, not of all.

    Args:
        statements: In a reading.
        event: Its name.
        sender: Whose subscriptions it reaches, and nobody's; None reaches all.
        after: Behind this id.
        limit: How many at most.
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
    """The subscriptions that messages reach, by id: of the first messages, as many as cost little.

    Args:
        statements: In a reading.
        messages: Which.
        limit: How many subscriptions at most, of all messages together.

    Returns:
        None if there are more, even of the first message.
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
