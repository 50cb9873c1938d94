"""Queries, which select deliveries to list, replay, cancel or purge."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Self

import attrs

from thorn_core.errors import ConfigurationError
from thorn_core.patterns import check_pattern
from thorn_core.values import DeliveryState


@attrs.frozen(kw_only=True)
class DeliveryQuery:
    """Selects deliveries that meet all given criteria.

    Times are compared with the time in the message's id, to the millisecond.

    Attributes:
        ids: Only these deliveries.
        message_id: Only deliveries of this message.
        subscription_id: Only deliveries to this subscription.
        event: Only events that match this pattern.
        states: Only deliveries in these states.
        since: Only messages sent at or after this time.
        until: Only messages sent before this time.
    """

    ids: tuple[str, ...] | None = None
    message_id: str | None = None
    subscription_id: str | None = None
    event: str | None = None
    states: tuple[DeliveryState, ...] | None = None
    since: datetime | None = None
    until: datetime | None = None

    def only_finished(self) -> Self:
        """Return the query without pending deliveries and those in flight.

        Example:
            >>> DeliveryQuery(states=(DeliveryState.PENDING,)).only_finished().states
            ()
        """
        return self.only(state for state in DeliveryState if state.finished)

    def only(self, states: Iterable[DeliveryState]) -> Self:
        """Return the query restricted to these states."""
        given = DeliveryState if self.states is None else self.states
        allowed = frozenset(states)
        return attrs.evolve(self, states=tuple(state for state in given if state in allowed))


def delivery_query(
    message_id: str | None,
    subscription_id: str | None,
    event: str | None,
    state: str | Iterable[str] | None,
    since: datetime | None,
    until: datetime | None,
) -> DeliveryQuery:
    """Create a query from a user's criteria.

    Raises:
        ConfigurationError: A state is unknown, or a time has no time zone.
        InvalidNameError: The event pattern is invalid.
    """
    if event is not None:
        check_pattern(event)
    check_times(since=since, until=until)
    states = None
    if state is not None:
        named = (state,) if isinstance(state, str) else tuple(state)
        try:
            states = tuple(DeliveryState(name) for name in named)
        except ValueError as error:
            raise ConfigurationError(
                f"state={state!r}; states are {', '.join(DeliveryState)}"
            ) from error
    return DeliveryQuery(
        message_id=message_id,
        subscription_id=subscription_id,
        event=event,
        states=states,
        since=since,
        until=until,
    )


def check_times(**times: datetime | None) -> None:
    """Check that times have a time zone.

    Raises:
        ConfigurationError: A time has none.
    """
    for name, value in times.items():
        if value is not None and value.tzinfo is None:
            raise ConfigurationError(f"{name}={value!r} has no time zone; use an aware datetime")
