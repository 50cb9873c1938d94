"""Create, check and change subscriptions from user input, including static ones."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import attrs

from thorn_core.delivery import check_headers
from thorn_core.errors import ConfigurationError
from thorn_core.keys import new_id
from thorn_core.patterns import check_pattern, matches
from thorn_core.recipients import check_url, same_origin, without_credentials
from thorn_core.settings import Settings
from thorn_core.signatures import HMAC_DIGESTS, SignatureScheme, is_private, make_keys
from thorn_core.spelling import nearest
from thorn_core.values import OPERATOR, Operator, Subscription

DESCRIPTION_LENGTH = 1000
# Maximum number of keys of each kind: the newest and its predecessors. Each signs every request,
# and servers commonly refuse headers of more than 8 KiB.
SECRETS_KEPT = 3
# Maximum seconds that replaced keys may keep signing.
LONGEST_OVERLAP = 365 * 86400
OWNER_LENGTH = 255
# Control characters except tabs and line breaks, and lone surrogates: databases can't store them,
# or terminals interpret them.
# Text without control characters other than tabs and line breaks; a pattern of ECMA 262, too.
PRINTABLE = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*$"
_UNPRINTABLE = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


@attrs.frozen(kw_only=True)
class SubscriptionRules:
    """The app's rules for subscriptions.

    Attributes:
        settings: The app's settings.
        content_types: The content types that have a codec.
        schemes: The signature schemes in use; each subscription has the keys they need.
        validate: Checks a URL with the plugins.
    """

    settings: Settings
    content_types: Collection[str]
    schemes: tuple[SignatureScheme, ...]
    validate: Callable[[str], None]


def make_subscription(
    rules: SubscriptionRules,
    events: str | Iterable[str],
    url: str,
    *,
    at: datetime,
    owner: Any = None,
    secret: str | None = None,
    **options: Any,
) -> Subscription:
    """Create a subscription from user input.

    Args:
        rules: The app's rules.
        events: A pattern or several.
        url: The recipient's URL.
        at: The time.
        owner: The owner: an id, or an object with a `pk` or `id`.
        secret: The secret that signs its requests; None generates one.
        **options: `content_type`, `hmac_digest`, `headers`, `description`, `rate_limit`.

    Raises:
        InvalidNameError: A pattern is invalid.
        SecurityError: The URL is refused.
        ConfigurationError: Something else isn't allowed.
    """
    subscription = Subscription(
        id=new_id("sub", at),
        events=check_events(rules, events),
        url=check_recipient(rules, url),
        owner=None if owner is None else identify(owner)[0],
        secrets=make_keys(rules.schemes, secret),
        created_at=at,
        updated_at=at,
    )
    return change_subscription(rules, subscription, at=at, **options)


def change_subscription(
    rules: SubscriptionRules, subscription: Subscription, *, at: datetime, **changes: Any
) -> Subscription:
    """Return the subscription with a user's changes, after checking them.

    Args:
        rules: The app's rules.
        subscription: The current subscription.
        at: The time of the change.
        **changes: `events`, `url`, `enabled`, `disabled_reason`, and the options of
            `make_subscription`. Enabling it resets its failures and the reason for disabling it; so
            does a new URL for its failures. A URL of another origin removes headers that may be
            credentials for the old one, unless `headers` are given too.

    Raises:
        InvalidNameError: A pattern is invalid.
        SecurityError: The URL is refused.
        ConfigurationError: Something else isn't allowed.
    """
    return apply_changes(subscription, check_changes(rules, changes), at=at)


def check_changes(rules: SubscriptionRules, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Check a user's changes, independently of the subscription.

    Raises:
        InvalidNameError, SecurityError, ConfigurationError: A change isn't allowed.
    """
    return {name: check_option(rules, name, value) for name, value in changes.items()}


def apply_changes(
    subscription: Subscription, checked: Mapping[str, Any], *, at: datetime
) -> Subscription:
    """Return the subscription with checked changes and their consequences.

    Args:
        subscription: The current subscription.
        checked: The checked changes by option.
        at: The time of the change.
    """
    values = dict(checked)
    if "headers" not in values and not same_origin(
        subscription.url, values.get("url", subscription.url)
    ):
        values["headers"] = without_credentials(subscription.headers)
    if values.get("enabled"):
        values["disabled_reason"] = None
    if values.get("enabled") or values.get("url", subscription.url) != subscription.url:
        values |= {"failing_since": None, "failures": 0, "last_failure_at": None}
    return attrs.evolve(subscription, updated_at=at, **values)


def change_secret(
    rules: SubscriptionRules,
    subscription: Subscription,
    secret: str | None,
    *,
    at: datetime,
    overlap: float | timedelta | None = None,
) -> Subscription:
    """Return the subscription with new keys; the current ones keep signing for a while.

    At most three keys of each kind are kept, the newest.

    Args:
        rules: The app's rules.
        subscription: The current subscription.
        secret: The new key; a key of the other kind stays unchanged. None generates all keys.
        at: The time of the change.
        overlap: Seconds that the old keys keep signing; 0 revokes them immediately. None uses the
            setting `secret_overlap`.

    Raises:
        ConfigurationError: The secret or the overlap isn't allowed.
    """
    seconds = rules.settings.secret_overlap if overlap is None else check_overlap(overlap)
    until = at + timedelta(seconds=seconds)
    old = subscription.signing_secrets(at)
    newest = make_keys(rules.schemes, secret, current=old)
    kept = list(newest)
    for key in old if seconds else ():
        if key not in newest and _same_kind(kept, key) < SECRETS_KEPT:
            kept.append(key)
    former = subscription.secret_expiry
    return attrs.evolve(
        subscription,
        secrets=tuple(kept),
        secret_expiry={k: min(former.get(k, until), until) for k in kept[len(newest) :]},
        updated_at=at,
    )


def _same_kind(keys: Iterable[str], key: str) -> int:
    return sum(is_private(each) is is_private(key) for each in keys)


def check_overlap(overlap: Any) -> float:
    """Check the number of seconds that replaced keys keep signing.

    Raises:
        ConfigurationError: It isn't a number of seconds between 0 and a year.
    """
    if isinstance(overlap, timedelta):
        overlap = overlap.total_seconds()
    number = isinstance(overlap, int | float) and not isinstance(overlap, bool)
    if not number or not 0 <= overlap <= LONGEST_OVERLAP:
        raise ConfigurationError(
            f"overlap is {overlap!r}; use seconds from 0, which revokes old secrets immediately, to"
            f" {LONGEST_OVERLAP}"
        )
    return float(overlap)


def check_option(rules: SubscriptionRules, name: str, value: Any) -> Any:
    """Check one field of a subscription.

    Args:
        rules: The app's rules.
        name: `events`, `url`, or another change that `change_subscription` accepts.
        value: The new value.

    Returns:
        The value, normalised.

    Raises:
        InvalidNameError, SecurityError, ConfigurationError: It isn't allowed.
    """
    check = _CHECKS.get(name)
    if check is None:
        near = nearest(name, _CHECKS)
        hint = f"did you mean {near}?" if near else f"available: {', '.join(_CHECKS)}"
        raise ConfigurationError(f"a subscription has no option {name!r}; {hint}")
    return check(rules, value)


def check_events(rules: SubscriptionRules, events: str | Iterable[str]) -> tuple[str, ...]:
    """Check the event patterns of a subscription, and remove duplicates."""
    given = [events] if isinstance(events, str) else events
    if not isinstance(given, Iterable) or isinstance(given, bytes | Mapping):
        raise ConfigurationError(
            f"events is a {type(events).__name__}; use an event pattern or a list of them"
        )
    # Check first: unhashable values aren't patterns.
    patterns = tuple(dict.fromkeys([check_pattern(pattern) for pattern in given]))
    if not patterns:
        raise ConfigurationError("a subscription needs an event pattern; '*' matches every event")
    choices = rules.settings.event_choices
    for pattern in patterns:
        if choices and not any(c == pattern or matches(c, pattern) for c in choices):
            raise ConfigurationError(
                f"events {pattern!r} are not available for subscription; the setting event_choices"
                f" allows"
                f" {', '.join(choices)}"
            )
    return patterns


def check_recipient(rules: SubscriptionRules, url: str) -> str:
    """Check the URL of a subscription with the app's validators and plugins; normalise it."""
    text = check_url(url, rules.settings.validators).text
    rules.validate(text)
    return text


def _content_type(rules: SubscriptionRules, value: Any) -> str:
    if value not in rules.content_types:
        raise ConfigurationError(
            f"content_type is {value!r}; there is a codec for"
            f" {', '.join(sorted(rules.content_types))}"
        )
    return str(value)


def _hmac_digest(rules: SubscriptionRules, value: Any) -> str:
    if value not in HMAC_DIGESTS:
        raise ConfigurationError(
            f"hmac_digest is {value!r}; choose one of {', '.join(HMAC_DIGESTS)}"
        )
    return str(value)


def _headers(rules: SubscriptionRules, value: Any) -> Mapping[str, str]:
    return check_headers(value)


def _description(rules: SubscriptionRules, value: Any) -> str:
    if not isinstance(value, str) or len(value) > DESCRIPTION_LENGTH:
        raise ConfigurationError(
            f"description is not a string of at most {DESCRIPTION_LENGTH} characters"
        )
    if _UNPRINTABLE.search(value):
        raise ConfigurationError("description contains control characters; remove them")
    return value


def _rate_limit(rules: SubscriptionRules, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigurationError(f"rate_limit is {value!r}; use requests per second, or None")
    if not 1 / 3600 <= value <= 100_000:
        raise ConfigurationError(
            f"rate_limit is {value!r}; use one per hour (1/3600) to 100000 per second"
        )
    return float(value)


def _enabled(rules: SubscriptionRules, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigurationError(f"enabled is {value!r}; use True or False")
    return value


def _disabled_reason(rules: SubscriptionRules, value: Any) -> str | None:
    return None if value is None else _description(rules, value)


_CHECKS: Mapping[str, Callable[[SubscriptionRules, Any], Any]] = {
    "events": check_events,
    "url": check_recipient,
    "content_type": _content_type,
    "hmac_digest": _hmac_digest,
    "headers": _headers,
    "description": _description,
    "rate_limit": _rate_limit,
    "enabled": _enabled,
    "disabled_reason": _disabled_reason,
}


def identify(sender: Any) -> tuple[str, str | None]:
    """Return the id and the name of a user or tenant.

    Args:
        sender: The id itself (text, number, UUID …), or an object with a `pk` or `id`, whose
            `get_username()` or `str()` is its name.

    Raises:
        ConfigurationError: It has no id, or one that databases may confuse with others.

    Example:
        >>> identify(42)
        ('42', None)
    """
    if _has_no_id(sender):
        raise ConfigurationError(
            f"a {type(sender).__name__} has no ID; save it first, or don't pass it"
        )
    for attribute in () if isinstance(sender, type) else ("pk", "id"):
        key = getattr(sender, attribute, None)
        if key is not None:
            name = sender.get_username() if hasattr(sender, "get_username") else sender
            return _checked_id(str(key)), str(name)
    if _is_no_id(sender):
        raise ConfigurationError(
            f"a {type(sender).__name__} is not the ID of a user or tenant; give its ID, such as a"
            " string, a whole number or a UUID, or an object with a pk or id"
        )
    return _checked_id(str(sender)), None


def _is_no_id(sender: Any) -> bool:
    """Return whether a value has a `str()` that can't be an id: a bug in the program.

    For example a class, a function that wasn't called, `user and user.pk`, a row, 42.0 for 42.
    """
    kind: Any = type(sender)
    return (
        isinstance(sender, bool | float | bytes | bytearray | Mapping | list | tuple | set)
        or callable(sender)
        or (kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__)
    )


def identify_sender(sender: Any) -> tuple[str | None, str | None]:
    """Return the id and the name of a message's sender; both None if there is none.

    An object without an id, such as an anonymous visitor, isn't a tenant: the message goes to
    operators only, as with the sender `OPERATOR`.

    Raises:
        ConfigurationError: The id is invalid.
    """
    if sender is None or isinstance(sender, Operator):
        return sender, None
    return (OPERATOR, None) if _has_no_id(sender) else identify(sender)


def _has_no_id(sender: Any) -> bool:
    if getattr(sender, "is_anonymous", False) is True:
        return True  # Django's and Flask-Login's anonymous users; the latter's have no `id`
    if sender == None:  # noqa: E711 - a lazy object of Django or Werkzeug may equal None
        return True
    keys = [getattr(sender, name, OPERATOR) for name in ("pk", "id")]
    return None in keys and all(key is None or key is OPERATOR for key in keys)


def _checked_id(key: str) -> str:
    if is_identity(key):
        return key
    long = f", which has {len(key)} characters," if len(key) > OWNER_LENGTH else ""
    raise ConfigurationError(
        f"{key[:50]!r}{long} is not the ID of a user or tenant; use 1 to {OWNER_LENGTH} characters,"
        " without control characters or surrounding white space, or None for an operator"
        " subscription"
    )


def is_identity(key: str) -> bool:
    """Return whether a string may be an id that every database distinguishes from all others.

    The empty string means operators in databases, and MySQL ignores trailing blanks.
    """
    return (
        0 < len(key) <= OWNER_LENGTH
        and key == key.strip()
        and not any(unicodedata.category(char) in ("Cc", "Cs") for char in key)
    )
