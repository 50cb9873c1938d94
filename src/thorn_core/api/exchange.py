"""The request and response values for the adapters of web frameworks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

import attrs

JSON = "application/json"
EMPTY: Mapping[str, Any] = {}
# The first part of the paths of subscriptions.
HOOKS = "hooks"


@attrs.frozen(kw_only=True)
class ApiRequest:
    """A request to the resource, independent of frameworks.

    Attributes:
        method: In upper case.
        path: Below the mount point, percent-decoded: `/hooks/`.
        query: Decoded parameters by name, each with all its values.
        headers: By name in lower case.
        body: The unchanged body.
        owner: Id of the authenticated user or tenant; None (or empty) for none.
        operator: True for staff, who can access everything, and whose subscriptions have no owner
            unless there is an `owner`.
        base_url: URL of the mount point; links begin with it. Without it they begin with `/hooks/`.
        hooks_at_root: True if the mount point is the list of subscriptions, for example `/hooks/`.
            Subscriptions are then at `/` and `/{id}/`, deliveries at `/deliveries/`, and so on.
    """

    method: str
    path: str
    query: Mapping[str, Sequence[str]] = attrs.field(default=EMPTY, repr=False)
    headers: Mapping[str, str] = attrs.field(default=EMPTY, repr=False)
    body: bytes = attrs.field(default=b"", repr=False)
    owner: str | None = None
    operator: bool = False
    base_url: str = ""
    hooks_at_root: bool = False

    def link(self, *parts: str, **query: Sequence[str] | str | int) -> str:
        """Return a URL below the mount point.

        Args:
            *parts: Parts of the path.
            **query: Parameters.

        Example:
            >>> request = ApiRequest(method="GET", path="/hooks/", base_url="https://e.com/api/")
            >>> request.link("hooks", "sub_1", limit=5)
            'https://e.com/api/hooks/sub_1/?limit=5'
        """
        if self.hooks_at_root and parts[:1] == (HOOKS,):
            parts = parts[1:]
        path = "".join(f"/{quote(part, safe='')}" for part in parts)
        asked = f"?{urlencode(query, doseq=True)}" if query else ""
        return f"{self.base_url.rstrip('/')}{path}/{asked}"


@attrs.frozen(kw_only=True)
class ApiResponse:
    """A response to send.

    Attributes:
        status: The status code.
        headers: By name in lower case.
        body: The body; empty for HEAD, 204 and 304. A response to HEAD has the `content-length`
            of the response to GET; 204 and 304 have none (RFC 9110 section 8.6).
    """

    status: int
    headers: Mapping[str, str] = attrs.field(default=EMPTY, repr=False)
    body: bytes = attrs.field(default=b"", repr=False)

    @property
    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)


def respond(
    status: int,
    value: Any = None,
    *,
    headers: Mapping[str, str] = EMPTY,
    content_type: str = JSON,
) -> ApiResponse:
    """Create a response with a JSON value, or without a body.

    Args:
        status: The status code.
        value: A JSON value; None for no body.
        headers: Additional headers.
        content_type: Of the body.
    """
    if value is None:
        return ApiResponse(status=status, headers=headers)
    return ApiResponse(
        status=status, headers={"content-type": content_type, **headers}, body=encode(value)
    )


def encode(value: Any) -> bytes:
    """Encode a value as JSON; recipients' responses may contain lone surrogates."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


def etag_of(body: bytes) -> str:
    """Return the strong entity tag (RFC 9110 section 8.8.3) of a body.

    Example:
        >>> etag_of(b"{}")
        '"44136fa355b3678a1146ad16f7e8649e"'
    """
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'
