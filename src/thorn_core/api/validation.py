"""Validation of subscriptions in bodies: all faults are reported together."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address
from typing import Any

import attrs

from thorn_core.api.problems import SHOWN, Fault, faulty, shortened, shown_url
from thorn_core.delivery import HEADER_COUNT, check_headers
from thorn_core.errors import ConfigurationError, InvalidNameError, SecurityError
from thorn_core.recipients import parse_url, same_origin
from thorn_core.recipients.urls import shown
from thorn_core.signatures import HMAC_DIGESTS, check_key
from thorn_core.spelling import nearest
from thorn_core.subscriptions import (
    LONGEST_OVERLAP,
    OWNER_LENGTH,
    SubscriptionRules,
    check_option,
    check_overlap,
    is_identity,
)
from thorn_core.values import Subscription

# A subscription that needs more should use `*`.
MOST_PATTERNS = 100
REFUSED = "The recipient is refused; use a public host."

_ADDRESS = re.compile(
    r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-f]*:[0-9a-f:]*:[0-9a-f.:]*)", re.IGNORECASE
)


@attrs.define
class Checked:
    """The fields of a body during validation.

    Attributes:
        rules: The app's rules.
        current: The current subscription; None for a new one.
        operator: Whether the request is from an operator, who sees all details.
        values: The validated values, by option of a subscription.
        faults: The faults so far.
        kept_headers: Names of headers that keep their hidden values.
    """

    rules: SubscriptionRules
    current: Subscription | None = None
    operator: bool = False
    values: dict[str, Any] = attrs.field(factory=dict, repr=False)
    faults: list[Fault] = attrs.field(factory=list)
    kept_headers: set[str] = attrs.field(factory=set)

    def option(self, name: str, value: Any) -> None:
        """Check an option with the core's rules, and store it."""
        self.values[name] = check_option(self.rules, name, value)

    def fault(self, field: str, message: str, **more: Any) -> None:
        """Add a fault."""
        self.faults.append(Fault(field, message, **more))


def check_body(
    checked: Checked,
    body: Mapping[str, Any],
    *,
    required: Iterable[str] = (),
    shown: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Check a body that creates or changes a subscription.

    Args:
        checked: The initial state of the validation.
        body: The body.
        required: Required fields.
        shown: The subscription's representation, whose read-only fields may be sent unchanged.

    Returns:
        The options of `change_subscription`, and `secret`.

    Raises:
        Problem: There are faults.
    """
    fields = dict(FIELDS)
    if checked.current is not None:
        fields["hmac_secret"] = _rotated_elsewhere
    for name in required:
        if name not in body:
            checked.fault(name, "is required")
    for name, value in body.items():
        if name in fields:
            fields[name](checked, value)
        elif name in READ_ONLY:
            if shown is None or shown[name] != value:
                checked.fault(name, "is read-only; remove it")
        else:
            checked.faults.append(unknown(name, FIELDS))
    if checked.faults:
        raise faulty("invalid", checked.faults)
    _forget_kept_headers(checked)
    return checked.values


def _forget_kept_headers(checked: Checked) -> None:
    """Drop hidden values if the URL's origin changes: they are for the old origin."""
    values, current = checked.values, checked.current
    if (
        current is not None
        and "headers" in values
        and not same_origin(current.url, values.get("url", current.url))
    ):
        values["headers"] = {
            name: value
            for name, value in values["headers"].items()
            if name not in checked.kept_headers
        }


def differing(subscription: Subscription, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the checked values that change a subscription.

    Unchanged values are left out: enabling an enabled subscription would reset its failures.
    Headers given together with the URL of another origin are for that origin.
    """
    moved = not same_origin(subscription.url, values.get("url", subscription.url))
    return {
        name: value
        for name, value in values.items()
        if value != getattr(subscription, name) or (name == "headers" and moved)
    }


def unknown(name: str, known: Iterable[str]) -> Fault:
    """Return the fault of an unknown field, without its value, which may be a misspelt secret."""
    names = list(known)
    near = nearest(shortened(name), names)
    hint = f"did you mean {near}?" if near else "remove it"
    return Fault(name, f"is unknown; {hint}", allowed=names)


def refusal(error: SecurityError, url: str, *, operator: bool = False) -> str:
    """Return why a recipient is refused; owners learn nothing about the network or settings.

    Args:
        error: The refusal.
        url: The given URL; an address in it isn't a secret.
        operator: Include all details and advice about settings.
    """
    if operator:
        return str(error)
    text = error.reason
    rest = text.replace(shown(url), "")
    with contextlib.suppress(SecurityError):
        rest = rest.replace(shown(parse_url(url).text), "")
    # The error of a failed plugin contains internal details.
    return REFUSED if error.__cause__ is not None or _names_address(rest) else text


def _names_address(text: str) -> bool:
    for match in _ADDRESS.finditer(text):
        if ":" not in match[0]:
            return True
        with contextlib.suppress(ValueError):
            ip_address(match[0].rstrip(".:"))
            return True
    return False


# -- each field


def _event(checked: Checked, value: Any) -> None:
    patterns = [value] if isinstance(value, str) else value
    if not isinstance(patterns, list) or not patterns:
        message = "is not an event pattern or a list of them; '*' matches every event"
        checked.fault("event", message, value=value)
        return
    if len(patterns) > MOST_PATTERNS:
        checked.fault("event", f"has {len(patterns)} patterns; at most {MOST_PATTERNS} are allowed")
        return
    before = len(checked.faults)
    for number, pattern in enumerate(patterns):
        field = "event" if isinstance(value, str) else f"event.{number}"
        _pattern(checked, field, pattern)
    if len(checked.faults) == before:
        checked.option("events", patterns)


def _pattern(checked: Checked, field: str, pattern: Any) -> None:
    if not isinstance(pattern, str):
        checked.fault(field, "is not a string; use words joined by dots", value=pattern)
        return
    try:
        check_option(checked.rules, "events", [pattern])
    except InvalidNameError as error:
        checked.fault(field, str(error), value=pattern)
    except ConfigurationError:
        choices = checked.rules.settings.event_choices
        checked.fault(field, "is not available for subscription", value=pattern, allowed=choices)


def _url(checked: Checked, value: Any) -> None:
    if not isinstance(value, str):
        checked.fault("url", "is not a string; write it as https://host/path", value=value)
        return
    try:
        checked.option("url", value)
    except SecurityError as error:
        message = refusal(error, value, operator=checked.operator)
        checked.fault("url", message, value=shown_url(value))


def _one_of(name: str, allowed: Callable[[SubscriptionRules], Iterable[str]]) -> Any:
    def check(checked: Checked, value: Any) -> None:
        choices = list(allowed(checked.rules))
        if isinstance(value, str) and value in choices:
            checked.option(name, value)
        else:
            checked.fault(name, "is not an allowed value", value=value, allowed=choices)

    return check


def _headers(checked: Checked, value: Any) -> None:
    if not isinstance(value, dict):
        checked.fault("headers", 'is not an object of names and values; send {"X-Name": "value"}')
        return
    if len(value) > HEADER_COUNT:
        checked.fault("headers", f"has {len(value)} headers; at most {HEADER_COUNT} are allowed")
        return
    current = {} if checked.current is None else checked.current.headers
    hidden = {name.lower(): text for name, text in current.items()}
    # Clients send hidden values back as null.
    checked.kept_headers = {name for name, text in value.items() if text is None}
    merged = {k: hidden.get(k.lower()) if v is None else v for k, v in value.items()}
    before = len(checked.faults)
    for name, text in merged.items():
        _header(checked, name, text)
    if len(checked.faults) == before:
        try:
            checked.option("headers", merged)
        except ConfigurationError as error:
            checked.fault("headers", str(error))


def _header(checked: Checked, name: str, text: Any) -> None:
    field = f"headers.{name}"
    if len(name) > SHOWN:
        checked.fault(field, f"has {len(name)} characters; at most {SHOWN} are allowed")
    elif text is None:
        checked.fault(field, "is null, which keeps the current value, but there is none")
    else:
        try:
            check_headers({name: text})
        except ConfigurationError as error:
            checked.fault(field, str(error))


def _description(checked: Checked, value: Any) -> None:
    try:
        checked.option("description", value)
    except ConfigurationError as error:
        checked.fault("description", str(error), value=value)


def _rate_limit(checked: Checked, value: Any) -> None:
    try:
        checked.option("rate_limit", value)
    except ConfigurationError:
        message = "is not a number from 1/3600 to 100000 (requests per second); null means no limit"
        checked.fault("rate_limit", message, value=value)


def _enabled(checked: Checked, value: Any) -> None:
    if not isinstance(value, bool):
        checked.fault("enabled", "is not a boolean; use true or false", value=value)
    else:
        checked.option("enabled", value)


def _secret(checked: Checked, value: Any) -> None:
    fault = check_new_secret(checked.rules, value)
    checked.values["secret"] = value
    checked.faults += [] if fault is None else [fault]


def check_new_secret(rules: SubscriptionRules, value: Any) -> Fault | None:
    """Check a given secret; None, which generates one, is allowed."""
    try:
        if value is not None:
            check_key(rules.schemes, value)
    except ConfigurationError as error:
        return Fault("hmac_secret", str(error))
    return None


def check_new_overlap(value: Any) -> Fault | None:
    """Check the overlap of a rotation; None uses the setting."""
    try:
        if value is not None:
            check_overlap(value)
    except ConfigurationError:
        message = f"is not a number of seconds from 0 to {LONGEST_OVERLAP}"
        return Fault("overlap", message, value=value)
    return None


def check_new_owner(value: str) -> Fault | None:
    """Return what is wrong with the owner that an operator gives; None if it is valid."""
    if is_identity(value):
        return None
    message = (
        f"is not the ID of a user or tenant; use 1 to {OWNER_LENGTH} characters, without control"
        f" characters or surrounding white space"
    )
    return Fault("owner", message, value=value)


def _rotated_elsewhere(checked: Checked, value: Any) -> None:
    message = "can't be changed here; POST to rotate-secret/ instead"
    checked.fault("hmac_secret", message)


FIELDS: Mapping[str, Callable[[Checked, Any], None]] = {
    "event": _event,
    "url": _url,
    "content_type": _one_of("content_type", lambda rules: sorted(rules.content_types)),
    "hmac_digest": _one_of("hmac_digest", lambda rules: HMAC_DIGESTS),
    "hmac_secret": _secret,
    "headers": _headers,
    "description": _description,
    "rate_limit": _rate_limit,
    "enabled": _enabled,
}
# In responses only.
READ_ONLY = (
    "id",
    "subscription",
    "deliveries",
    "owner",
    "public_key",
    "paused",
    "disabled_reason",
    "failing_since",
    "created_at",
    "updated_at",
)
