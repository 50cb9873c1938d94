"""Retry policies: delays between attempts, as pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from datetime import timedelta
from itertools import islice, repeat
from typing import Self

import attrs

from thorn_core.errors import ConfigurationError

# The published schedule of Svix, which users of webhooks know: about three days in total.
DEFAULT_SCHEDULE: tuple[float, ...] = (5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
# Seconds; a delay of more than a month has a wrong unit.
LONGEST_DELAY = 30 * 86400.0


# Maximum number of delays.
MOST_DELAYS = 1000


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _schedule(values: Iterable[float]) -> tuple[float, ...]:
    # Strings and mappings are errors, and sets have no order.
    if isinstance(values, str | bytes | Mapping | Set) or not isinstance(values, Iterable):
        raise ConfigurationError(
            f"schedule is {values!r}; use the seconds between attempts: (5, 60)"
        )
    schedule = tuple(islice(values, MOST_DELAYS + 1))  # it may be endless
    if len(schedule) > MOST_DELAYS:
        raise ConfigurationError(
            f"schedule has more than {MOST_DELAYS} delays; at most {MOST_DELAYS} are allowed"
        )
    for value in schedule:
        if not _is_number(value) or not 0 <= value <= LONGEST_DELAY:
            raise ConfigurationError(
                f"schedule contains {value!r}; a delay is a number of seconds from 0 to"
                f" {LONGEST_DELAY:.0f} (30 days)"
            )
    return tuple(map(float, schedule))


def _jitter(value: float) -> float:
    if not _is_number(value) or not 0 <= value <= 1:
        raise ConfigurationError(f"jitter is {value!r}; use a fraction of the delay, from 0 to 1")
    return float(value)


@attrs.frozen
class RetryPolicy:
    """The delays between the attempts of a delivery.

    Attributes:
        schedule: Seconds between attempts, first to last; n delays allow n + 1 attempts, and `()`
            only one.
        jitter: Each delay is changed by up to this fraction of it, 0 to 1, so that deliveries that
            failed together aren't retried together.

    Raises:
        ConfigurationError: A delay is negative, not a number, or longer than 30 days; there are
            more than 1000 delays; or the jitter isn't between 0 and 1.

    Example:
        >>> policy = RetryPolicy(schedule=(5, 300), jitter=0.2)
        >>> policy.max_attempts
        3
        >>> policy.delay(1, random=0.5), policy.delay(2, random=1.0), policy.delay(3, random=0.5)
        (datetime.timedelta(seconds=5), datetime.timedelta(seconds=360), None)
    """

    schedule: tuple[float, ...] = attrs.field(default=DEFAULT_SCHEDULE, converter=_schedule)
    jitter: float = attrs.field(default=0.2, converter=_jitter)

    @property
    def max_attempts(self) -> int:
        """The maximum number of attempts."""
        return len(self.schedule) + 1

    def delay(self, failures: int, *, random: float) -> timedelta | None:
        """Return the delay after a number of failed attempts.

        Args:
            failures: Number of failed attempts, 1 or more.
            random: A random number from 0 to 1, for the jitter.

        Returns:
            The delay; None if there are no attempts left.

        Raises:
            ValueError: An argument is outside its range.
        """
        if failures < 1:
            raise ValueError(f"failures={failures!r}; use 1 or more")
        if not 0 <= random <= 1:
            raise ValueError(f"random={random!r}; use a number from 0 to 1")
        if failures > len(self.schedule):
            return None
        base = self.schedule[failures - 1]
        return timedelta(seconds=base * (1 + self.jitter * (2 * random - 1)))

    @classmethod
    def constant(cls, delay: float, times: int, *, jitter: float = 0.0) -> Self:
        """Create a policy with equal delays, as `retry_delay` and `retry_max` define it.

        Args:
            delay: Seconds between attempts.
            times: Number of retries, 0 to 1000.
            jitter: As for the class.

        Raises:
            ConfigurationError: As for the class; or `times` isn't a whole number in its range.

        Example:
            >>> RetryPolicy.constant(60, 3)
            RetryPolicy(schedule=(60.0, 60.0, 60.0), jitter=0.0)
        """
        if not isinstance(times, int) or isinstance(times, bool) or times < 0:
            raise ConfigurationError(
                f"times is {times!r}; use a whole number from 0 to {MOST_DELAYS}"
            )
        # Creates at most one delay too many, which is refused.
        return cls(repeat(delay, min(times, MOST_DELAYS + 1)), jitter)

    @classmethod
    def never(cls) -> Self:
        """Create a policy with only one attempt."""
        return cls(())
