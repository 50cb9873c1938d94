"""Calls: a request with its context, passed to the function that answers it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import attrs

from thorn_core.api.exchange import EMPTY, ApiRequest
from thorn_core.api.problems import Problem, not_found
from thorn_core.api.rates import Rate
from thorn_core.app import Thorn
from thorn_core.values import Subscription

_ID = re.compile(r"[A-Za-z0-9_.~-]{1,200}")


@attrs.frozen(kw_only=True)
class Call:
    """A request with its context.

    Attributes:
        app: The app.
        request: The request, from an owner or an operator.
        key: The id in its path.
        creations: Rate limit of subscriptions per owner.
        sends: Rate limit of tests, retries and recoveries per owner.
        rotations: Rate limit of rotations per subscription.
        security_schemes: Of the OpenAPI document.
        title: Of the OpenAPI document.
        version: Of the OpenAPI document.
    """

    app: Thorn
    request: ApiRequest
    key: str = ""
    creations: Rate
    sends: Rate
    rotations: Rate
    security_schemes: Mapping[str, Any] = EMPTY
    title: str
    version: str

    def own_subscription(self, key: str | None = None) -> Subscription:
        """Return the owner's subscription with an id, by default the id in the path.

        Raises:
            Problem: It doesn't exist, or belongs to someone else; the response is the same.
        """
        key = self.key if key is None else key
        found = self.app.subscription(key) if is_id(key) else None
        if found is None or not self.may_touch(found.owner):
            raise not_found()
        return found

    def may_touch(self, owner: str | None) -> bool:
        """Return whether the request may access objects of this owner."""
        # Objects without an owner (None) belong to operators.
        return self.request.operator or (owner is not None and owner == self.request.owner)

    def take(self, rate: Rate, key: str | None = None) -> None:
        """Count against a rate limit; operators have none.

        Args:
            rate: The rate limit.
            key: The key to count for; None for the owner.

        Raises:
            Problem: The limit is reached.
        """
        if self.request.operator or self.request.owner is None:
            return
        wait = rate.take(self.request.owner if key is None else key, self.app.clock())
        if wait:
            seconds = math.ceil(wait)
            raise Problem(
                "too-many-requests",
                f"Too many requests; try again in {seconds} s.",
                headers={"retry-after": str(seconds)},
            )


def is_id(text: str) -> bool:
    """Return whether a value has the form of an id; other values need no lookup."""
    return _ID.fullmatch(text) is not None
