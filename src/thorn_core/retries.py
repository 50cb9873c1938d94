"""When to try again: a pure function of how often it was tried and one random number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from datetime import timedelta
from itertools import islice, repeat
from typing import Self

import attrs

from thorn_core.errors import ConfigurationError

# Svix's published schedule, the one that users of webhooks know: about three days in all.
DEFAULT_SCHEDULE: tuple[float, ...] = (5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
# A wait beyond a month is a mistake in units, not a policy.
LONGEST_DELAY = 30 * 86400.0


# The number of attempts is bounded, as everything is.
MOST_DELAYS = 1000


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _schedule(values: Iterable[float]) -> tuple[float, ...]:
    # Text and mappings aren't meant, and sets have no order.
    if isinstance(values, str | bytes | Mapping | Set) or not isinstance(values, Iterable):
        raise ConfigurationError(
            f"schedule is {values!r}; use the seconds between attempts: (5, 60)"
        )
    schedule = tuple(islice(values, MOST_DELAYS + 1))  # it may have no end
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
    """How long to wait between the attempts of one delivery.

    Attributes:
        schedule: Seconds between attempts, first to last; n waits allow n + 1 attempts.
            `()` means one attempt and no more.
        jitter: Every wait is made longer or shorter by up to this part of it, 0 to 1, so that
            recipients that failed together aren't tried again together.

    Raises:
        ConfigurationError: A wait is negative, not a number, or longer than 30 days; there are
            more than 1000; or the jitter isn't between 0 and 1.

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
        """How many attempts are made in all."""
        return len(self.schedule) + 1

    def delay(self, failures: int, *, random: float) -> timedelta | None:
        """How long to wait after so many failed attempts.

        Args:
            failures: Attempts made so far, 1 or more.
            random: From 0 to 1: the least and the most of the jitter.

        Returns:
            The wait; None if the attempts are used up.

        Raises:
            ValueError: One of them is outside its range.
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
        """The same wait, so many times: Thorn's `retry_delay` and `retry_max`.

        Args:
            delay: Seconds between attempts.
            times: How many retries, 0 to 1000.
            jitter: As of the policy.

        Raises:
            ConfigurationError: As of the policy; or `times` is no whole number of them.

        Example:
            >>> RetryPolicy.constant(60, 3)
            RetryPolicy(schedule=(60.0, 60.0, 60.0), jitter=0.0)
        """
        if not isinstance(times, int) or isinstance(times, bool) or times < 0:
            raise ConfigurationError(
                f"times is {times!r}; use a whole number from 0 to {MOST_DELAYS}"
            )
        # At most one too many: that is refused, without making all of them.
        return cls(repeat(delay, min(times, MOST_DELAYS + 1)), jitter)

    @classmethod
    def never(cls) -> Self:
        """One attempt and no more."""
        return cls(())
