"""Pages of lists, and their cursors."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from thorn_core.api.exchange import ApiRequest, ApiResponse, respond
from thorn_core.api.problems import Fault, faulty

# Ids in a store are shorter; a cursor with a longer id is invalid.
LONGEST_CURSOR = 400
_MARK = 8


def make_cursor(key: str, scope: Sequence[Any]) -> str:
    """Create the cursor of a position in a list.

    Args:
        key: The id of the last item of a page.
        scope: Identifies the list, so that cursors of other lists are refused.
    """
    text = json.dumps([key])
    marked = _mark(text.encode(), scope) + text.encode()
    return base64.urlsafe_b64encode(marked).decode().rstrip("=")


def read_id(cursor: str, scope: Sequence[Any]) -> str:
    """Return the id in a cursor.

    Raises:
        ValueError: It isn't a cursor of this list.
    """
    (key,) = _read(cursor, scope)
    return _checked_id(key)


def _read(cursor: str, scope: Sequence[Any]) -> list[Any]:
    if not cursor.isascii() or len(cursor) > LONGEST_CURSOR:
        raise ValueError("no cursor")
    marked = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    text = marked[_MARK:]
    if _mark(text, scope) != marked[:_MARK]:
        raise ValueError("of another list")
    found = json.loads(text)
    if not isinstance(found, list):
        raise ValueError("no list")
    return found


def _mark(text: bytes, scope: Sequence[Any]) -> bytes:
    # A checksum without a secret: it detects made-up cursors and those of other lists. A cursor
    # gives access to nothing that the list doesn't show anyway.
    of = json.dumps([str(each) for each in scope]).encode()
    return hashlib.blake2b(text, key=hashlib.sha256(of).digest(), digest_size=_MARK).digest()


def _checked_id(key: Any) -> str:
    if not isinstance(key, str) or not key.isprintable() or not 0 < len(key) <= LONGEST_CURSOR:
        raise ValueError("no id")
    return key


def where_to_begin(cursor: str | None, scope: Sequence[Any]) -> str | None:
    """Return the id after which the page of a cursor begins; None for the first page.

    Raises:
        Problem: It isn't a cursor of this list.
    """
    if cursor is None:
        return None
    try:
        return read_id(cursor, scope)
    except (ValueError, RecursionError) as error:
        message = "is not a cursor of this list; start again without one"
        raise faulty("malformed", [Fault("cursor", message, value=cursor)]) from error


def page_response(
    request: ApiRequest, parts: Sequence[str], items: Sequence[Any], cursor: str | None
) -> ApiResponse:
    """Create a response with a page and a link to the next one.

    Args:
        request: The request; its other parameters are kept.
        parts: Parts of the list's path.
        items: The items on the page.
        cursor: Cursor of the next page; None if there is none.
    """
    if cursor is None:
        return respond(200, {"items": items, "next": None})
    kept = {name: values for name, values in request.query.items() if name != "cursor"}
    url = request.link(*parts, **{**kept, "cursor": cursor})
    return respond(200, {"items": items, "next": url}, headers={"link": f'<{url}>; rel="next"'})
