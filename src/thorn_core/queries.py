"""Which deliveries: what a list, a replay, a cancellation or a purge asks a store for."""

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
    """Which deliveries: every criterion given must hold.

    Times are compared with the message's, as its id tells it: to the millisecond.

    Attributes:
        ids: Only these deliveries.
        message_id: Only of this message.
        subscription_id: Only to this subscription.
        event: Only of events that match this pattern.
        states: Only in one of these states.
        since: Only of messages sent at or after this time.
        until: Only of messages sent before this time.
    """

    ids: tuple[str, ...] | None = None
    message_id: str | None = None
    subscription_id: str | None = None
    event: str | None = None
    states: tuple[DeliveryState, ...] | None = None
    since: datetime | None = None
    until: datetime | None = None

    def only_finished(self) -> Self:
        """The same, but without what is pending or in flight.

        Example:
            >>> DeliveryQuery(states=(DeliveryState.PENDING,)).only_finished().states
            ()
        """
        return self.only(state for state in DeliveryState if state.finished)

    def only(self, states: Iterable[DeliveryState]) -> Self:
        """The same, but without what is in other states."""
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
    """Make a query of what a user gives.

    Raises:
        ConfigurationError: A state isn't one, or a time has no time zone.
        InvalidNameError: The event isn't a pattern.
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
    """See that times have a time zone.

    Raises:
        ConfigurationError: One has none.
    """
    for name, value in times.items():
        if value is not None and value.tzinfo is None:
            raise ConfigurationError(f"{name}={value!r} has no time zone; use an aware datetime")
