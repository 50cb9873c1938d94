"""A call: a request on its way to the function that answers it, and what all of those ask."""

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
    """A request, and what it is answered from.

    Attributes:
        app: The app.
        request: The request; it has an owner, or is an operator's.
        key: The id in its path.
        creations: How often each owner may subscribe.
        sends: How often each owner may have something sent.
        rotations: How often the secret of each subscription may be rotated.
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
        """The subscription of an id, by default of the path's, if it is this owner's.

        Raises:
            Problem: There is none, or it is somebody else's: nothing tells which.
        """
        key = self.key if key is None else key
        found = self.app.subscription(key) if is_id(key) else None
        if found is None or not self.may_touch(found.owner):
            raise not_found()
        return found

    def may_touch(self, owner: str | None) -> bool:
        """True if what belongs to this owner is this request's to see and change."""
        # Nobody is None: what has no owner is the operators'.
        return self.request.operator or (owner is not None and owner == self.request.owner)

    def take(self, rate: Rate, key: str | None = None) -> None:
        """Count against a rate; operators have none.

        Args:
            rate: The rate.
            key: Whose; None is the owner's.

        Raises:
            Problem: It is used up.
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
    """True for what may be an id; for anything else no store needs to look."""
    return _ID.fullmatch(text) is not None
