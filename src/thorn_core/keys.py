"""Ids and their keys: a public id is text with a prefix, its key the bytes that it represents.

Ids of messages sort by time. So do ids of deliveries and attempts, which begin with the digits of
their message's id. Functions that read an id accept any text, and return None for malformed ids.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from json import dumps

# Bytes of a message's key, and of a delivery's key: the message's and the recipient's key.
MESSAGE_KEY = 16
DELIVERY_KEY = 24

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MILLISECOND = timedelta(milliseconds=1)
_MESSAGE_ID = re.compile(r"msg_([0-9a-f]{32})", re.ASCII)
# Recipients' keys and times have 63 bits, because databases have no unsigned integers.
_DELIVERY_ID = re.compile(r"dlv_([0-9a-f]{32}[0-7][0-9a-f]{15})", re.ASCII)
_ATTEMPT_ID = re.compile(r"att_([0-9a-f]{32}[0-7][0-9a-f]{15})([0-7][0-9a-f]{15})", re.ASCII)


def new_id(prefix: str, at: datetime) -> str:
    """Generate an id that sorts by time, and within this process by generation.

    Args:
        prefix: `msg` or `sub`.
        at: The time to sort by.

    Returns:
        The prefix, `_`, and 32 hexadecimal digits: 12 of milliseconds, 12 random ones of this
        process, 8 counting up.

    Example:
        >>> a = new_id("msg", datetime(2026, 1, 1, tzinfo=UTC))
        >>> b = new_id("msg", datetime(2026, 1, 1, tzinfo=UTC))
        >>> a < b, len(a)
        (True, 36)
    """
    serial = next(_serials) & 0xFFFFFFFF
    return f"{prefix}_{(at - _EPOCH) // _MILLISECOND:012x}{_process}{serial:08x}"


def begin_ids() -> None:
    """Generate this process's random digits; a forked child must, to get ids of its own."""
    global _process  # distinguishes the ids of this process from others
    _process = os.urandom(6).hex()


_process = os.urandom(6).hex()
_serials = itertools.count()


def derived_id(*parts: str | None) -> str:
    """Derive the id of a subscription from parts; the same parts always have the same id.

    Args:
        *parts: The parts; different sequences of parts have different ids.

    Example:
        >>> derived_id("order.paid", "https://e.com/") == derived_id("order.paid", "https://e.com/")
        True
    """
    # Sorts after ids with a time, which reach these digits in the year 10331.
    return f"sub_f{_digest(parts).hex()[:31]}"


def idempotency_digest(sender: str | None, event: str, key: str) -> bytes:
    """Return the digest of a sender, event and idempotency key, by which stores find duplicates.

    Returns:
        32 bytes: SHA-256.

    Example:
        >>> idempotency_digest("42", "order.paid", "7").hex()[:16]
        '1d1ec7e8dc8209ec'
    """
    return _digest((sender, event, key))


def _digest(parts: Sequence[str | None]) -> bytes:
    # JSON separates the parts, whatever they contain, and distinguishes None from "null".
    return hashlib.sha256(dumps(parts).encode()).digest()


def message_key(message_id: str) -> bytes | None:
    """Return the key of a message.

    Args:
        message_id: `msg_` and 32 hexadecimal digits.

    Returns:
        16 bytes; None if the id is malformed.

    Example:
        >>> message_key("msg_000000000000000000000000000000ff").hex()
        '000000000000000000000000000000ff'
        >>> message_key("msg_1") is None
        True
    """
    found = _MESSAGE_ID.fullmatch(message_id)
    return bytes.fromhex(found[1]) if found else None


def message_id(key: bytes) -> str:
    """Return the id of a message by its key, or by the key of one of its deliveries.

    Example:
        >>> message_id(bytes.fromhex("ff" * 16))
        'msg_ffffffffffffffffffffffffffffffff'
        >>> message_id(bytes(24))
        'msg_00000000000000000000000000000000'
    """
    return f"msg_{key[:MESSAGE_KEY].hex()}"


def first_key(at: datetime) -> bytes:
    """Return the lowest possible key of a message sent at a time.

    Ids contain milliseconds: the keys of messages of the same millisecond are equal or higher, the
    keys of earlier ones lower.

    Args:
        at: An aware time; before 1970 it counts as 1970.

    Example:
        >>> first_key(datetime(2026, 1, 1, tzinfo=UTC)).hex()
        '019b76daa80000000000000000000000'
    """
    milliseconds = max(0, (at - _EPOCH) // _MILLISECOND)
    return milliseconds.to_bytes(6, "big") + bytes(MESSAGE_KEY - 6)


def time_of(key: bytes) -> datetime:
    """Return the message's time, to the millisecond, from a message's or a delivery's key.

    Example:
        >>> at = datetime(2026, 1, 1, 0, 0, 0, 123456, tzinfo=UTC)
        >>> time_of(first_key(at)).isoformat(timespec="milliseconds")
        '2026-01-01T00:00:00.123+00:00'
    """
    return _EPOCH + int.from_bytes(key[:6], "big") * _MILLISECOND


@functools.lru_cache(maxsize=4096)
def recipient_key(subscription_id: str) -> int:
    """Return the key of a subscription as a recipient, which is the same in every process.

    Two subscriptions may, very rarely, have the same key, so stores also compare the ids.

    Returns:
        A number of 63 bits: the first 8 bytes of BLAKE2b (RFC 7693), without the top bit.

    Example:
        >>> recipient_key("sub_2")
        3528731018036083502
    """
    digest = hashlib.blake2b(
        subscription_id.encode("utf-8", "surrogatepass"), digest_size=8
    ).digest()
    return int.from_bytes(digest, "big") & 0x7FFF_FFFF_FFFF_FFFF


def delivery_id(message_id: str, subscription_id: str) -> str:
    """Return the id of the delivery of a message to a subscription, the same for each pair.

    Args:
        message_id: `msg_` and 32 hexadecimal digits.
        subscription_id: Any text.

    Raises:
        ValueError: The message's id is malformed.

    Example:
        >>> delivery_id("msg_000000000000000000000000000000ff", "sub_2")
        'dlv_000000000000000000000000000000ff30f8922a35f17b2e'
    """
    found = _MESSAGE_ID.fullmatch(message_id)
    if found is None:
        raise ValueError(
            f"{message_id!r} is not a message id; use msg_ and 32 hexadecimal digits (new_id)"
        )
    return f"dlv_{found[1]}{recipient_key(subscription_id):016x}"


def delivery_key(delivery_id: str) -> bytes | None:
    """Return the key of a delivery: its message's key and its recipient's, big-endian.

    Args:
        delivery_id: `dlv_` and 48 hexadecimal digits.

    Returns:
        24 bytes; None if the id is malformed.

    Example:
        >>> key = delivery_key("dlv_000000000000000000000000000000ff0000000000000002")
        >>> message_id(key), recipient_of(key)
        ('msg_000000000000000000000000000000ff', 2)
        >>> delivery_key("dlv_1") is None
        True
    """
    found = _DELIVERY_ID.fullmatch(delivery_id)
    return bytes.fromhex(found[1]) if found else None


def delivery_id_of(key: bytes) -> str:
    """Return the id of the delivery with a key.

    Example:
        >>> delivery_id_of(bytes(23) + bytes([2]))
        'dlv_000000000000000000000000000000000000000000000002'
    """
    return f"dlv_{key.hex()}"


def recipient_of(key: bytes) -> int:
    """Return the recipient's key in a delivery's key.

    Example:
        >>> recipient_of(bytes(23) + bytes([2]))
        2
    """
    return int.from_bytes(key[MESSAGE_KEY:], "big")


def attempt_id(delivery_id: str, at: datetime) -> str:
    """Return the id of the attempt for a delivery at a time.

    Args:
        delivery_id: `dlv_` and 48 hexadecimal digits.
        at: The start of the request: an aware time since 1970, to the microsecond.

    Example:
        >>> at = datetime(2026, 1, 1, tzinfo=UTC)
        >>> attempt_id("dlv_000000000000000000000000000000ff0000000000000002", at)
        'att_000000000000000000000000000000ff00000000000000020006474846204000'
    """
    return f"att_{delivery_id.removeprefix('dlv_')}{(at - _EPOCH) // _MICROSECOND:016x}"


def attempt_key(attempt_id: str) -> tuple[bytes, int] | None:
    """Return the key of an attempt: its delivery's key, and its time in microseconds since 1970.

    Args:
        attempt_id: `att_` and 64 hexadecimal digits.

    Returns:
        24 bytes and a number of 63 bits; None if the id is malformed.

    Example:
        >>> delivery = "dlv_000000000000000000000000000000ff0000000000000002"
        >>> key, at = attempt_key(attempt_id(delivery, datetime(2026, 1, 1, tzinfo=UTC)))
        >>> delivery_id_of(key) == delivery, at
        (True, 1767225600000000)
        >>> attempt_key("att_1") is None
        True
    """
    found = _ATTEMPT_ID.fullmatch(attempt_id)
    return (bytes.fromhex(found[1]), int(found[2], 16)) if found else None
