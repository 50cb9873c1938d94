"""Ids and the keys behind them: a public id is text with a prefix, its key the bytes it stands for.

The ids of messages sort by time, and so do those of deliveries and attempts, which begin with their
message's. A function that reads an id takes any text, and gives None for what no id looks like:
nothing has such an id.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from json import dumps

# Bytes of a message's key, and of a delivery's: that and its recipient's key.
MESSAGE_KEY = 16
DELIVERY_KEY = 24

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MILLISECOND = timedelta(milliseconds=1)
_MESSAGE_ID = re.compile(r"msg_([0-9a-f]{32})", re.ASCII)
# A recipient's key has 63 bits, and so has a time: databases have no unsigned integers.
_DELIVERY_ID = re.compile(r"dlv_([0-9a-f]{32}[0-7][0-9a-f]{15})", re.ASCII)
_ATTEMPT_ID = re.compile(r"att_([0-9a-f]{32}[0-7][0-9a-f]{15})([0-7][0-9a-f]{15})", re.ASCII)


def new_id(prefix: str, at: datetime) -> str:
    """Mint an id that sorts by time, and within this process in the order of minting.

    Args:
        prefix: `msg` or `sub`.
        at: The time it is to sort by.

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
    """Draw the random digits of this process; a forked child must, for it counts on alike."""
    global _process  # what tells the ids of this process from others'
    _process = os.urandom(6).hex()


_process = os.urandom(6).hex()
_serials = itertools.count()


def derived_id(*parts: str | None) -> str:
    """Make the id of a subscription that the same parts always make; it tells no time.

    Args:
        *parts: What it stands for; any two sequences of parts that differ have different ids.

    Example:
        >>> derived_id("order.paid", "https://e.com/") == derived_id("order.paid", "https://e.com/")
        True
    """
    # It sorts behind those that do: an id by time begins like this from the year 10331 on.
    return f"sub_f{_digest(parts).hex()[:31]}"


def idempotency_digest(sender: str | None, event: str, key: str) -> bytes:
    """What a store knows an idempotency key by: the same sender, event and key send once.

    Returns:
        32 bytes: SHA-256.

    Example:
        >>> idempotency_digest("42", "order.paid", "7").hex()[:16]
        '1d1ec7e8dc8209ec'
    """
    return _digest((sender, event, key))


def _digest(parts: Sequence[str | None]) -> bytes:
    # JSON keeps the parts apart, whatever is in them, and None from "null".
    return hashlib.sha256(dumps(parts).encode()).digest()


def message_key(message_id: str) -> bytes | None:
    """The key of a message.

    Args:
        message_id: `msg_` and 32 hexadecimal digits.

    Returns:
        16 bytes, or None if no message has such an id.

    Example:
        >>> message_key("msg_000000000000000000000000000000ff").hex()
        '000000000000000000000000000000ff'
        >>> message_key("msg_1") is None
        True
    """
    found = _MESSAGE_ID.fullmatch(message_id)
    return bytes.fromhex(found[1]) if found else None


def message_id(key: bytes) -> str:
    """The id of the message that has a key, or of a delivery's message by the delivery's key.

    Example:
        >>> message_id(bytes.fromhex("ff" * 16))
        'msg_ffffffffffffffffffffffffffffffff'
        >>> message_id(bytes(24))
        'msg_00000000000000000000000000000000'
    """
    return f"msg_{key[:MESSAGE_KEY].hex()}"


def first_key(at: datetime) -> bytes:
    """The lowest key that a message of a time can have.

    Ids tell times in milliseconds: a message of the same millisecond is at or above it, one of an
    earlier millisecond below.

    Args:
        at: An aware time; before 1970 it counts as 1970.

    Example:
        >>> first_key(datetime(2026, 1, 1, tzinfo=UTC)).hex()
        '019b76daa80000000000000000000000'
    """
    milliseconds = max(0, (at - _EPOCH) // _MILLISECOND)
    return milliseconds.to_bytes(6, "big") + bytes(MESSAGE_KEY - 6)


def time_of(key: bytes) -> datetime:
    """The time that a message's or a delivery's key tells: the message's, to the millisecond.

    Example:
        >>> at = datetime(2026, 1, 1, 0, 0, 0, 123456, tzinfo=UTC)
        >>> time_of(first_key(at)).isoformat(timespec="milliseconds")
        '2026-01-01T00:00:00.123+00:00'
    """
    return _EPOCH + int.from_bytes(key[:6], "big") * _MILLISECOND


def recipient_key(subscription_id: str) -> int:
    """The key of a subscription as a recipient: the same in every process, for any text.

    Two subscriptions can have the same key, if hardly ever: whoever stores one compares the ids.

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
    """The id of the delivery of a message to a subscription: always the same for the pair.

    Args:
        message_id: `msg_` and 32 hexadecimal digits.
        subscription_id: Any text.

    Raises:
        ValueError: No message has such an id.

    Example:
        >>> delivery_id("msg_000000000000000000000000000000ff", "sub_2")
        'dlv_000000000000000000000000000000ff30f8922a35f17b2e'
    """
    found = _MESSAGE_ID.fullmatch(message_id)
    if found is None:
        raise ValueError(
            f"{message_id!r} is no message's id: msg_ and 32 hexadecimal digits, as new_id makes it"
        )
    return f"dlv_{found[1]}{recipient_key(subscription_id):016x}"


def delivery_key(delivery_id: str) -> bytes | None:
    """The key of a delivery: its message's key and its recipient's, the high byte first.

    Args:
        delivery_id: `dlv_` and 48 hexadecimal digits.

    Returns:
        24 bytes, or None if no delivery has such an id.

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
    """The id of the delivery that has a key.

    Example:
        >>> delivery_id_of(bytes(23) + bytes([2]))
        'dlv_000000000000000000000000000000000000000000000002'
    """
    return f"dlv_{key.hex()}"


def recipient_of(key: bytes) -> int:
    """The recipient's key in a delivery's.

    Example:
        >>> recipient_of(bytes(23) + bytes([2]))
        2
    """
    return int.from_bytes(key[MESSAGE_KEY:], "big")


def attempt_id(delivery_id: str, at: datetime) -> str:
    """The id of the attempt that was made for a delivery at a time.

    Args:
        delivery_id: `dlv_` and 48 hexadecimal digits.
        at: When the request began: an aware time since 1970, to the microsecond.

    Example:
        >>> at = datetime(2026, 1, 1, tzinfo=UTC)
        >>> attempt_id("dlv_000000000000000000000000000000ff0000000000000002", at)
        'att_000000000000000000000000000000ff00000000000000020006474846204000'
    """
    return f"att_{delivery_id.removeprefix('dlv_')}{(at - _EPOCH) // _MICROSECOND:016x}"


def attempt_key(attempt_id: str) -> tuple[bytes, int] | None:
    """The key of an attempt: its delivery's, and its time in microseconds since 1970.

    Args:
        attempt_id: `att_` and 64 hexadecimal digits.

    Returns:
        24 bytes and a number of 63 bits, or None if no attempt has such an id.

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
