"""Conditional requests: `If-Match` and `If-None-Match` (RFC 9110 section 13)."""

from __future__ import annotations

import re

from thorn_core.api.exchange import ApiRequest
from thorn_core.api.problems import Problem

_TAG = re.compile(r'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')


def is_current(request: ApiRequest, etag: str) -> bool:
    """Return whether `If-None-Match` contains this tag (weak comparison).

    Args:
        request: The request.
        etag: The current entity tag.
    """
    return _names(request.headers.get("if-none-match"), etag, strong=False)


def check_unchanged(request: ApiRequest, etag: str) -> None:
    """Check that `If-Match`, if given, contains the current entity tag.

    Args:
        request: The request.
        etag: The current entity tag.

    Raises:
        Problem: It doesn't.
    """
    wanted = request.headers.get("if-match")
    if (wanted is not None and not _names(wanted, etag, strong=True)) or is_current(request, etag):
        raise Problem(
            "precondition-failed",
            "The resource doesn't match If-Match or If-None-Match; fetch it again.",
            headers={"etag": etag},
        )


def _names(header: str | None, etag: str, *, strong: bool) -> bool:
    if header is None:
        return False
    if header.strip() == "*":
        return True
    return any(match[2] == etag and not (strong and match[1]) for match in _TAG.finditer(header))
