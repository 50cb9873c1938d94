"""Origins of subscriptions, for the output of commands."""

from __future__ import annotations

from thorn_core.app import Thorn
from thorn_core.recipients import origin_of
from thorn_core.values import Delivery

# Maximum subscriptions cached while a command lists deliveries.
CACHE = 10_000


class Origins:
    """Origins of subscriptions' URLs, each looked up once.

    Args:
        app: The app.
    """

    def __init__(self, app: Thorn) -> None:
        self._app = app
        self._known: dict[str, str | None] = {}

    def of(self, delivery: Delivery) -> str | None:
        """Return the origin that a delivery goes to; None if its subscription is deleted."""
        if delivery.target is not None:
            return origin_of(delivery.target.url)
        return self.of_subscription(delivery.subscription_id)

    def of_subscription(self, subscription_id: str) -> str | None:
        """Return the origin of a stored subscription; None if it is deleted."""
        if subscription_id not in self._known:
            if len(self._known) >= CACHE:
                self._known.clear()
            found = self._app.subscription(subscription_id)
            self._known[subscription_id] = None if found is None else origin_of(found.url)
        return self._known[subscription_id]

    def shown(self, delivery: Delivery) -> str:
        """Return the origin that a delivery goes to, or its subscription's id."""
        return self.of(delivery) or delivery.subscription_id
