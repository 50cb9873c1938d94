"""Query parameters: all are checked, and all faults are reported together."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime

from thorn_core.api.exchange import ApiRequest
from thorn_core.api.problems import Fault, faulty
from thorn_core.api.validation import unknown
from thorn_core.errors import InvalidNameError
from thorn_core.patterns import check_pattern
from thorn_core.subscriptions import OWNER_LENGTH, is_identity
from thorn_core.values import DeliveryState

PAGE = 50
LARGEST_PAGE = 100
ORDERS = ("newest", "oldest")
TIME_HINT = "is not a time with a time zone (RFC 3339); write it as 2026-03-01T12:00:00Z"
# The plus sign of an offset arrives as a space if it wasn't percent-encoded.
_LOST_PLUS = re.compile(r" (?=\d\d:\d\d$)")


class Parameters:
    """Reads a query and collects its faults.

    Args:
        request: The request.
        known: The names of known parameters.
    """

    def __init__(self, request: ApiRequest, known: Iterable[str]) -> None:
        names = tuple(known)
        self._query = request.query
        others = [name for name in request.query if name not in names]
        self._faults = [unknown(name, names) for name in others[:LARGEST_PAGE]]

    def check(self) -> None:
        """Report the faults.

        Raises:
            Problem: There are faults.
        """
        if self._faults:
            raise faulty("malformed", self._faults)

    def text(self, name: str) -> str | None:
        """Return a parameter that may occur at most once."""
        values = self._query.get(name, ())
        if len(values) > 1:
            self._faults.append(Fault(name, f"is given {len(values)} times; give it once"))
        return values[0] if len(values) == 1 else None

    def limit(self) -> int:
        """Return the page size."""
        text = self.text("limit")
        if text is None:
            return PAGE
        if not re.fullmatch("[0-9]{1,4}", text) or not 1 <= int(text) <= LARGEST_PAGE:
            message = f"is not a number from 1 to {LARGEST_PAGE}"
            self._faults.append(Fault("limit", message, value=text))
            return PAGE
        return int(text)

    def states(self) -> tuple[DeliveryState, ...] | None:
        """Return states of deliveries, from several parameters or from one with commas."""
        given = [s for value in self._query.get("state", ()) for s in value.split(",")]
        if not given:
            return None
        wrong = dict.fromkeys(s for s in given if s not in set(DeliveryState))
        choices = [str(state) for state in DeliveryState]
        self._faults += [
            Fault("state", "is not an allowed value", value=each, allowed=choices)
            for each in list(wrong)[:LARGEST_PAGE]
        ]
        return None if wrong else tuple(dict.fromkeys(DeliveryState(s) for s in given))

    def pattern(self, name: str) -> str | None:
        """Return a pattern of event names."""
        text = self.text(name)
        try:
            return None if text is None else check_pattern(text)
        except InvalidNameError as error:
            self._faults.append(Fault(name, str(error), value=text))
            return None

    def time(self, name: str) -> datetime | None:
        """Return a time."""
        text = self.text(name)
        try:
            return None if text is None else parse_time(text)
        except ValueError:
            self._faults.append(Fault(name, TIME_HINT, value=text))
            return None

    def newest_first(self) -> bool:
        """Return whether the list is sorted newest first."""
        return self.one_of("order", ORDERS, ORDERS[0]) != "oldest"

    def one_of(self, name: str, allowed: Iterable[str], default: str) -> str:
        """Return one of several words."""
        text, choices = self.text(name), list(allowed)
        if text is None or text in choices:
            return default if text is None else text
        fault = Fault(name, "is not an allowed value", value=text, allowed=choices)
        self._faults.append(fault)
        return default

    def owner(self) -> str | None:
        """Return an owner's id."""
        text = self.text("owner")
        if text is not None and not is_identity(text):
            message = f"is not an ID of 1 to {OWNER_LENGTH} characters"
            self._faults.append(Fault("owner", message, value=text))
            return None
        return text


def parse_time(text: str) -> datetime:
    """Parse a time in RFC 3339, or in another ISO 8601 format with a time zone.

    Raises:
        ValueError: It is invalid.

    Example:
        >>> parse_time("2026-03-01T12:00:00+02:00")
        datetime.datetime(2026, 3, 1, 10, 0, tzinfo=datetime.timezone.utc)
    """
    at = datetime.fromisoformat(_LOST_PLUS.sub("+", text))
    if at.tzinfo is None:
        raise ValueError("no time zone")
    try:
        return at.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("out of range") from error
