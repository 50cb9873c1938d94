"""The headers of a webhook, from any framework."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from thorn_core.errors import SignatureError

# Maximum characters of all names and values. Servers commonly refuse lines above 8 KiB.
HEADER_LIMIT = 64 * 1024

# RFC 9110 section 5.5 forbids NUL, CR and LF; UTF-8 can't encode lone surrogates.
_IMPOSSIBLE = re.compile("[\0\r\n\ud800-\udfff]")


def fields_of(headers: Mapping[str, Any] | Iterable[tuple[Any, Any]]) -> dict[str, str]:
    """Return the headers by lower-case name, each as a string.

    Several values of one name, in a list or under two spellings, are joined by a comma
    (RFC 9110 section 5.3); None is no header.

    Args:
        headers: A mapping, or pairs as ASGI has them; names and values are strings or bytes.

    Raises:
        SignatureError: They aren't headers, or are too large.

    Example:
        >>> fields_of({"Webhook-Id": "msg_1", "X-A": ["1", b"2"], "x-a": "3", "X-B": None})
        {'webhook-id': 'msg_1', 'x-a': '1, 2, 3'}
    """
    found: dict[str, str] = {}
    size = 0
    for name, value in _pairs(headers):
        size += len(name) + len(value)
        if size > HEADER_LIMIT:
            raise SignatureError(f"the headers have more than {HEADER_LIMIT} characters")
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _pairs(headers: Any) -> Iterator[tuple[str, str]]:
    try:
        pairs = [(name, value) for name, value in getattr(headers, "items", headers.__iter__)()]
    except (AttributeError, TypeError, ValueError) as error:
        raise SignatureError(
            f"the headers are a {type(headers).__name__}; pass a mapping or pairs"
        ) from error
    for name, value in pairs:
        key = _text(name).lower()
        for one in value if isinstance(value, list | tuple) else (value,):
            if one is not None:
                yield key, _text(one)


def _text(value: Any) -> str:
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    if not isinstance(text, str):
        raise SignatureError(f"a header contains a {type(text).__name__}; use str or bytes")
    if _IMPOSSIBLE.search(text):
        raise SignatureError("a header contains an invalid character")
    return text
