"""The resource: turns request values into response values, for any framework."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import attrs

from thorn_core.api.calls import Call
from thorn_core.api.exchange import EMPTY, ApiRequest, ApiResponse, etag_of, respond
from thorn_core.api.preconditions import is_current
from thorn_core.api.problems import Problem, not_found
from thorn_core.api.rates import Rate
from thorn_core.api.routing import find_route
from thorn_core.app import Thorn
from thorn_core.errors import ConfigurationError, NotFoundError, StoreError
from thorn_core.subscriptions import is_identity

logger = logging.getLogger(__name__)

# Twice the size of a subscription with fifty long headers.
BODY_LIMIT = 64 * 1024
# More than people do by hand: a script that exceeds it is malicious or stuck in a loop.
CREATIONS_PER_MINUTE = 60
SENDS_PER_MINUTE = 120
ROTATIONS_PER_MINUTE = 6
# Seconds: a typical time for a database to recover.
RETRY_AFTER = 5
COMMON: Mapping[str, str] = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
}


class Resource:
    """The REST resource of an app: subscriptions, deliveries, event types, OpenAPI.

    It is independent of frameworks: an adapter authenticates, creates an `ApiRequest`, calls
    `handle`, and sends the response. It is synchronous, as the store is: asynchronous code
    calls it in a thread. It is thread-safe.

    Args:
        app: The app.
        body_limit: Maximum size of a body in bytes.
        creations_per_minute: Subscriptions that each owner may create per minute in this process;
            None for no limit. Operators have no limit.
        sends_per_minute: Tests, retries and recoveries, likewise.
        rotations_per_minute: Rotations of each subscription's secret, likewise.
        challenge: The `WWW-Authenticate` header of a 401, such as `Bearer`.
        security_schemes: Security schemes of the OpenAPI document, by name; any one of them
            authenticates.
        title: Title of the OpenAPI document.
        version: Version of the OpenAPI document; None uses Thorn's version.

    Raises:
        ConfigurationError: A limit is invalid.

    Example:
        >>> with Thorn() as app:
        ...     resource = Resource(app)
        ...     response = resource.handle(ApiRequest(method="GET", path="/hooks/", owner="42"))
        >>> response.status, response.body
        (200, b'{"items":[],"next":null}')
    """

    def __init__(
        self,
        app: Thorn,
        *,
        body_limit: int = BODY_LIMIT,
        creations_per_minute: float | None = CREATIONS_PER_MINUTE,
        sends_per_minute: float | None = SENDS_PER_MINUTE,
        rotations_per_minute: float | None = ROTATIONS_PER_MINUTE,
        challenge: str | None = None,
        security_schemes: Mapping[str, Any] = EMPTY,
        title: str = "Webhooks",
        version: str | None = None,
    ) -> None:
        limits = {
            "creations_per_minute": creations_per_minute,
            "sends_per_minute": sends_per_minute,
            "rotations_per_minute": rotations_per_minute,
        }
        for name, value in {"body_limit": body_limit, **limits}.items():
            if value is not None and not value >= 1:
                raise ConfigurationError(f"{name} is {value!r}; use a whole number of 1 or more")
        self.app = app
        self.body_limit = body_limit
        self._challenge = challenge
        self._creations = Rate(creations_per_minute)
        self._sends = Rate(sends_per_minute)
        self._rotations = Rate(rotations_per_minute)
        self._described: dict[str, Any] = {
            "security_schemes": security_schemes,
            "title": title,
            "version": metadata.version("thorn-core") if version is None else version,
        }

    def __repr__(self) -> str:
        return f"<Resource of {self.app!r}>"

    def handle(self, request: ApiRequest) -> ApiResponse:
        """Answer a request.

        Invalid requests, and all requests while the store is unavailable, get a problem (RFC 9457).
        Other exceptions are defects and are raised, so that the framework's monitoring reports
        them.

        Args:
            request: The request.
        """
        try:
            response = self._answer(request)
        except Problem as problem:
            return self.refuse(problem, method=request.method)
        except NotFoundError:
            # It was deleted in the meantime.
            response = not_found().response()
        except StoreError:
            logger.exception("the store failed to answer %s %r", request.method, request.path[:200])
            response = Problem(
                "unavailable",
                "The data is unavailable right now; try again in a few seconds.",
                headers={"retry-after": str(RETRY_AFTER)},
            ).response()
        return _finished(response, request.method)

    def refuse(self, problem: Problem, *, method: str = "GET") -> ApiResponse:
        """Create the response, as `handle` does, to a request that the adapter refuses itself.

        Args:
            problem: The problem.
            method: The request's method, in upper case.

        Example:
            >>> with Thorn() as app:
            ...     Resource(app).refuse(Problem("forbidden", "Ask an administrator.")).status
            403
        """
        return _finished(problem.response(), method)

    def _answer(self, request: ApiRequest) -> ApiResponse:
        nobody = not request.owner and not request.operator
        if nobody or (request.owner and not is_identity(request.owner)):
            headers = {} if self._challenge is None else {"www-authenticate": self._challenge}
            raise Problem("unauthenticated", "Log in, or send credentials.", headers=headers)
        if len(request.body) > self.body_limit:
            raise Problem(
                "too-large",
                f"The body has more than {self.body_limit} bytes; send a smaller one.",
            )
        found = find_route(request.path, hooks_at_root=request.hooks_at_root)
        if found is None:
            raise not_found()
        route, key = found
        if request.method == "OPTIONS":
            return respond(204, headers={"allow": route.allowed})
        reads = request.method in ("GET", "HEAD")
        answer = route.calls.get("GET" if reads else request.method)
        if answer is None:
            raise Problem(
                "method-not-allowed",
                f"Allowed methods: {route.allowed}.",
                headers={"allow": route.allowed},
            )
        response = answer(
            Call(
                app=self.app,
                # Some stores treat an empty id as no owner.
                request=attrs.evolve(request, owner=request.owner or None),
                key=key,
                creations=self._creations,
                sends=self._sends,
                rotations=self._rotations,
                **self._described,
            )
        )
        return _conditional(request, response) if reads else response


def _finished(response: ApiResponse, method: str) -> ApiResponse:
    """Add the headers of every response; for HEAD, replace the body by its length."""
    headers = {**COMMON, **response.headers}
    if method != "HEAD":
        return attrs.evolve(response, headers=headers)
    # RFC 9110 section 8.6: a 204 has no length; a 304 would have the length of the 200.
    if response.status not in (204, 304):
        headers["content-length"] = str(len(response.body))
    return attrs.evolve(response, headers=headers, body=b"")


def _conditional(request: ApiRequest, response: ApiResponse) -> ApiResponse:
    """Return the response with an entity tag, or 304 if the client already has it."""
    etag = etag_of(response.body)
    if is_current(request, etag):
        return respond(304, headers={"etag": etag})
    return attrs.evolve(response, headers={**response.headers, "etag": etag})
