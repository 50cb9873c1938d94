"""Redacts database errors: drivers quote rows, which contain secrets and payloads."""

from __future__ import annotations

import re

# Lines that PostgreSQL adds to its message; they quote rows and statements.
_ADDED = re.compile(r"\s*(?:DETAIL|HINT|CONTEXT|QUERY|STATEMENT|WHERE|LINE \d+)\b")
_QUOTE = re.compile("['\"]")
# After these words, drivers quote a name, not a value.
_NAMES = re.compile(
    r"\b(?:table|relation|column|constraint|index|database|schema|role|user|key|type|encoding"
    r"|host name|server at|server on) $",
    re.IGNORECASE,
)


def redacted(message: str) -> str:
    """Return the message of a driver's error up to the first quoted value, on one line.

    Args:
        message: The message.

    Example:
        >>> redacted('relation "thorn_messages" does not exist')
        'relation "thorn_messages" does not exist'
        >>> redacted("Duplicate entry 'whsec_abc' for key 'PRIMARY'")
        'Duplicate entry …'
    """
    lines: list[str] = []
    for line in message.splitlines():
        if _ADDED.match(line):
            break
        lines.append(line)
    text, place = " ".join(" ".join(lines).split()), 0
    while (quote := _QUOTE.search(text, place)) is not None:
        end = text.find(quote[0], quote.end())
        name = _NAMES.search(text, 0, quote.start())
        # An apostrophe, as in "can't", is not a quotation mark.
        apostrophe = quote[0] == "'" and text[quote.start() - 1 : quote.start()].isalpha()
        if apostrophe:
            place = quote.end()
        elif name is not None and end > 0:
            place = end + 1
        else:
            return text[: quote.start()] + "…"
    return text


def redact(error: BaseException) -> None:
    """Remove quoted values from the messages of an exception and its causes.

    A traceback in a log contains all of these messages.

    Args:
        error: A driver's error, or a library's error caused by one.
    """
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        found = waiting.pop()
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        found.args = tuple(redacted(a) if isinstance(a, str) else a for a in found.args)
        waiting += [found.__cause__, found.__context__]
