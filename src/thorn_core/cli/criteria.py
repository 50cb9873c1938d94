"""Options that select deliveries, and their parsing of times."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click

from thorn_core.values import DeliveryState

F = TypeVar("F", bound=Callable[..., Any])
STATES = click.Choice([str(state) for state in DeliveryState])
FINISHED = click.Choice([str(state) for state in DeliveryState if state.finished])


if TYPE_CHECKING:
    TimeType = click.ParamType[datetime]
else:  # before click 8.2, generic for type checkers only
    TimeType = click.ParamType


class Ago(TimeType):
    """A time in ISO 8601, or an age such as `90s`, `15m`, `2h`, `3d`."""

    name = "time"
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}  # noqa: RUF012 - constant

    def convert(self, value: Any, param: Any, ctx: Any) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            if value[:-1].isdecimal() and value[-1] in self.units:
                return datetime.now(UTC) - timedelta(**{self.units[value[-1]]: int(value[:-1])})
            time = datetime.fromisoformat(value)
            return time if time.tzinfo else time.astimezone()
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is not a time; use a form like 2026-03-01T12:00, 90s, 15m, 2h or 3d",
                param,
                ctx,
            )


def _state_option(states: click.Choice[str]) -> Callable[[F], F]:
    return click.option(
        "--state", "states", multiple=True, type=states, help="Only this state (repeatable)."
    )


_STATE, _FINAL_STATE = _state_option(STATES), _state_option(FINISHED)
_OTHERS = (
    click.option("--subscription", "subscription_id", help="Only this subscription."),
    click.option("--message", "message_id", help="Only this message."),
    click.option("--event", help="Only events that match this pattern."),
    click.option(
        "--since", type=Ago(), help="Message sent at or after: 2026-03-01T12:00, 15m, 2h, 3d."
    ),
    click.option("--until", type=Ago(), help="Message sent before this time; forms as in --since."),
)


def criteria(command: F) -> F:
    """Add the options that select deliveries."""
    return _STATE(without_states(command))


def final_criteria(command: F) -> F:
    """Add the options that select deliveries, with final states only."""
    return _FINAL_STATE(without_states(command))


def without_states(command: F) -> F:
    """Add the options that select deliveries, except for their state."""
    for option in _OTHERS:
        command = option(command)
    return command
