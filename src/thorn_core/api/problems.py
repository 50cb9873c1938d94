"""Problems: error responses (RFC 9457)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import attrs

from thorn_core.api.exchange import EMPTY, ApiResponse, encode, respond
from thorn_core.recipients.urls import without_secrets

PROBLEM_JSON = "application/problem+json"
TYPE_PREFIX = "urn:thorn:problem:"
# Maximum characters of a user's value repeated in a response.
SHOWN = 200

# Kinds of problems: the last part of `type`, the status and the title.
KINDS: Mapping[str, tuple[int, str]] = {
    "malformed": (400, "The request is malformed"),
    "unauthenticated": (401, "Authentication is required"),
    "forbidden": (403, "Permission denied"),
    "not-found": (404, "Not found"),
    "method-not-allowed": (405, "The method is not allowed here"),
    "conflict": (409, "The current state does not allow this"),
    "precondition-failed": (412, "The resource has changed"),
    "too-large": (413, "The request is too large"),
    "unsupported-media-type": (415, "The request must be JSON"),
    "invalid": (422, "The request is invalid"),
    "idempotency-key-reused": (422, "The Idempotency-Key was used for another request"),
    "too-many-requests": (429, "Too many requests"),
    "unavailable": (503, "The service is unavailable"),
}
# RFC 9457's own type, for problems described only by their status.
OTHER = "about:blank"
HIDDEN = object()


@attrs.frozen
class Fault:
    """A fault in one field or parameter.

    Attributes:
        field: Its name, with dots for nested fields: `event.2`, `headers.X-Token`.
        message: The fault and how to fix it.
        value: The given value, unless it may be a secret.
        allowed: The allowed values, if they can be listed.
    """

    field: str
    message: str
    value: Any = attrs.field(default=HIDDEN, kw_only=True)
    allowed: Sequence[str] | None = attrs.field(default=None, kw_only=True)

    def document(self) -> dict[str, Any]:
        """Return its representation in responses."""
        shown: dict[str, Any] = {"field": shortened(self.field)}
        if self.value is not HIDDEN:
            shown["value"] = shortened(self.value)
        shown["message"] = self.message
        if self.allowed is not None:
            shown["allowed"] = list(self.allowed)
        return shown


class Problem(Exception):  # noqa: N818 - RFC 9457's word for it
    """Raised to answer a request with a problem.

    Args:
        kind: One of `KINDS`, or a status: the first kind with this status, otherwise
            `about:blank`.
        detail: What is wrong with this request, and how to fix it.
        faults: Faults of its fields or parameters.
        headers: Additional headers of the response.

    Example:
        >>> Problem("forbidden", "Ask an administrator.").response().status
        403
        >>> Problem(402, "Upgrade your plan.").response().json["title"]
        'Payment Required'
    """

    def __init__(
        self,
        kind: str | int,
        detail: str,
        *,
        faults: Iterable[Fault] = (),
        headers: Mapping[str, str] = EMPTY,
    ) -> None:
        super().__init__(detail)
        self.type, self.status, self.title = _meaning(kind)
        self.detail = detail
        self.faults = tuple(faults)
        self.headers = headers

    def response(self) -> ApiResponse:
        """Return the response."""
        document: dict[str, Any] = {
            "type": self.type,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.faults:
            document["errors"] = [fault.document() for fault in self.faults]
        return respond(self.status, document, headers=self.headers, content_type=PROBLEM_JSON)


def _meaning(kind: str | int) -> tuple[str, int, str]:
    if isinstance(kind, int):
        known = next((name for name, (status, _) in KINDS.items() if status == kind), None)
        if known is None:
            title = HTTPStatus(kind).phrase if kind in set(HTTPStatus) else "Error"
            return OTHER, kind, title
        kind = known
    return TYPE_PREFIX + kind, *KINDS[kind]


def faulty(kind: str, faults: Sequence[Fault]) -> Problem:
    """Return the problem for some faults."""
    if len(faults) == 1:
        return Problem(kind, f"{shortened(faults[0].field)}: {faults[0].message}", faults=faults)
    return Problem(kind, f"Found {len(faults)} problems; see errors.", faults=faults)


def not_found() -> Problem:
    """Return the problem for unknown ids and others' ids, which look the same."""
    return Problem("not-found", "Nothing with this ID exists, or it isn't yours. Check the ID.")


def shortened(value: Any) -> Any:
    """Shorten a user's value, to repeat it in a response.

    Example:
        >>> len(shortened("x" * 1000))
        200
        >>> shortened({"a": 1})
        '{"a":1}'
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float) and -(10**SHOWN) < value < 10**SHOWN:
        return value
    text = value if isinstance(value, str) else encode(value).decode()
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def shown_url(url: Any) -> Any:
    """Return a URL without its possible secrets: user name, query, fragment."""
    return shortened(without_secrets(url) if isinstance(url, str) else url)
