"""Codecs, which encode payloads as request bodies, and decoders for the other direction."""

from __future__ import annotations

import datetime as dt
import enum
import json
import math
import re
from base64 import b64encode
from collections import UserString
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass
from decimal import Decimal
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from json import JSONEncoder, loads
from pathlib import PurePath
from typing import Any
from urllib.parse import parse_qsl, quote_plus
from uuid import UUID

import attrs

from thorn_core.errors import PayloadError

_IP_CLASSES = IPv4Address | IPv6Address | IPv4Interface | IPv6Interface | IPv4Network | IPv6Network
# Lazy strings of Django, Babel and speaklater.
_LAZY_CLASSES = frozenset({"Promise", "LazyString", "_LazyString", "LazyProxy"})
CLOUDEVENTS_JSON = "application/cloudevents+json"
JSON_KEYS = (str, int, float, bool, type(None))


def format_datetime(value: dt.datetime) -> str:
    """Format a datetime as ISO 8601 with microseconds, UTC as `Z`.

    Example:
        >>> format_datetime(dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC))
        '2026-03-01T12:00:00Z'
    """
    text = value.isoformat()
    return text[:-6] + "Z" if text.endswith("+00:00") else text


def _format_timedelta(value: dt.timedelta) -> str:
    sign = "-" if value < dt.timedelta() else ""
    value = abs(value)
    seconds = f"{value.seconds + value.microseconds / 1_000_000:f}".rstrip("0").rstrip(".")
    return f"{sign}P{value.days}DT{seconds}S"


def _plain(value: Any) -> Any:
    """Convert a value to one that JSON can represent; TypeError if there is none."""
    if isinstance(value, dt.datetime):
        return format_datetime(value)
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return _format_timedelta(value)
    if isinstance(value, Decimal | UUID | UserString | PurePath | _IP_CLASSES):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return b64encode(value).decode("ascii")
    if (bounds := _bounds_of(value)) is not None:
        return bounds
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Set):
        return sorted(value, key=repr)
    if attrs.has(type(value)):
        return attrs.asdict(value, recurse=False)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclass_fields(value)}
    if not _LAZY_CLASSES.isdisjoint(cls.__name__ for cls in type(value).__mro__):
        return str(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return list(value)
    raise TypeError


def _bounds_of(value: Any) -> dict[str, Any] | None:
    """Return a database's range, of any library's class, as a mapping; None for other values."""
    if not all(hasattr(value, name) for name in ("lower", "upper", "lower_inc", "upper_inc")):
        return None
    if getattr(value, "isempty", False) is True or getattr(value, "empty", False) is True:
        return {"lower": None, "upper": None, "bounds": "empty"}
    bounds = ("[" if value.lower_inc else "(") + ("]" if value.upper_inc else ")")
    return {"lower": value.lower, "upper": value.upper, "bounds": bounds}


_encode = JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain
).encode


def dump_json(value: Any) -> bytes:
    """Encode a payload as compact JSON (RFC 8259) in UTF-8.

    Datetimes become ISO 8601 (UTC as `Z`). Dates, times, durations, Decimal, UUID, paths, network
    addresses and lazy strings become strings. Bytes become base64 (RFC 4648), enums their values,
    sets and sequences arrays, ranges `{"lower", "upper", "bounds"}`. Instances of attrs classes,
    dataclasses and mappings become objects.

    Args:
        value: The payload.

    Raises:
        PayloadError: A value in it can't be encoded, for example NaN or infinity; the message says
            where.

    Example:
        >>> dump_json({"at": dt.datetime(2026, 3, 1, tzinfo=dt.UTC), "price": Decimal("1.50")})
        b'{"at":"2026-03-01T00:00:00Z","price":"1.50"}'
    """
    try:
        return _encode(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        fault = next(_faults(value, "data", ()), None) or str(error)
        raise PayloadError(f"can't encode the payload as JSON: {fault}") from error


def as_json(value: Any) -> Any:
    r"""Convert any value of a column for JSON, so that no event is lost because of a column's type.

    Like `dump_json`, but NaN and infinity become strings, as PostgreSQL's `to_json` writes them.
    Keys and all other values become strings, too.

    Args:
        value: The value from a database or its driver.

    Example:
        >>> as_json({"data": b"\x00", "load": float("nan"), "at": {1: complex(1, 2)}})
        {'data': 'AA==', 'load': 'NaN', 'at': {'1': '(1+2j)'}}
    """
    return _as_json(value, ())


def _as_json(value: Any, above: tuple[int, ...]) -> Any:
    if isinstance(value, enum.Enum):
        value = value.value
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else _NOT_FINITE.get(value, "NaN")
    if isinstance(value, str):
        return str(value).encode("utf-8", "replace").decode()
    if id(value) in above or len(above) > 100:
        return str(value)[:1000]
    above = (*above, id(value))
    if isinstance(value, Mapping):
        return {_key(key): _as_json(item, above) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item, above) for item in value]
    try:
        return _as_json(_plain(value), above)
    except TypeError:
        return _as_json(str(value), above)


_NOT_FINITE = {math.inf: "Infinity", -math.inf: "-Infinity"}


def _key(key: Any) -> str:
    plain = _as_json(key, ())
    return plain if isinstance(plain, str) else json.dumps(plain)


def _faults(value: Any, path: str, above: tuple[int, ...]) -> Iterator[str]:
    """Yield where and why a payload can't be encoded; called only after a failure."""
    if value is None or isinstance(value, bool | int):
        return
    if isinstance(value, str):
        if any("\ud800" <= char <= "\udfff" for char in value):
            yield f"{path} contains a lone surrogate, which UTF-8 can't encode; replace it"
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            yield f"{path} is {value!r}, which JSON can't represent; use None or a string"
        return
    if id(value) in above:
        yield f"{path} contains itself; remove the circular reference"
        return
    above = (*above, id(value))
    if len(above) > 500:
        yield f"{path[:100]}… is nested too deeply; flatten it"
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, JSON_KEYS):
                yield f"{path} has the key {key!r} of type {type(key).__name__}; use a string"
            else:
                yield from _faults(key, f"{path}'s key", above)
                yield from _faults(item, f"{path}.{key}", above)
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _faults(item, f"{path}[{number}]", above)
    else:
        try:
            plain = _plain(value)
        except TypeError:
            yield (
                f"{path} is of type {type(value).__name__}, which JSON can't represent; use"
                f" strings, numbers, lists, mappings or dates"
            )
        else:
            yield from _faults(plain, path, above)


@attrs.frozen(kw_only=True)
class Envelope:
    """A payload in its envelope.

    Attributes:
        fields: The fields besides the payload.
        data: The payload as JSON text.
        key: The payload's field; None if the payload is the whole document.
    """

    fields: Mapping[str, Any] = attrs.field(repr=False)
    data: bytes = attrs.field(repr=False)
    key: str | None = "data"

    def document(self) -> Any:
        """Return the whole document with the decoded payload."""
        payload = loads(self.data)
        return payload if self.key is None else {**self.fields, self.key: payload}


Codec = Callable[[Envelope], bytes]


def media_type(content_type: str, envelope: str) -> str:
    """Return the `Content-Type` of a body.

    CloudEvents in JSON have their own content type (HTTP binding 1.0.2, section 3.2.1), by which
    recipients recognise them.

    Args:
        content_type: The subscription's content type.
        envelope: Name of the envelope.

    Example:
        >>> media_type("application/json", "cloudevents")
        'application/cloudevents+json; charset=utf-8'
        >>> media_type("application/json", "thorn")
        'application/json'
    """
    if envelope == "cloudevents" and content_type in ("application/json", CLOUDEVENTS_JSON):
        return f"{CLOUDEVENTS_JSON}; charset=utf-8"
    return content_type


def encode_json(envelope: Envelope) -> bytes:
    """Encode an envelope as JSON; the payload, already JSON, is inserted unchanged.

    Example:
        >>> encode_json(Envelope(fields={"event": "a.b"}, data=b'{"n":1}'))
        b'{"event":"a.b","data":{"n":1}}'
    """
    if envelope.key is None:
        return envelope.data
    head = _encode(envelope.fields)[:-1]
    comma = "," if envelope.fields else ""
    return f'{head}{comma}"{envelope.key}":'.encode() + envelope.data + b"}"


def encode_form(envelope: Envelope) -> bytes:
    """Encode an envelope as application/x-www-form-urlencoded, with names like `data[tags][0]`.

    Example:
        >>> encode_form(Envelope(fields={"event": "a.b"}, data=b'{"ok":true,"tags":["x"]}'))
        b'event=a.b&data%5Bok%5D=true&data%5Btags%5D%5B0%5D=x'
    """
    document = envelope.document()
    # A bare payload that isn't a mapping has no names.
    fields = document if isinstance(document, dict) else {"data": document}
    pairs = (
        f"{quote_plus(name)}={quote_plus(text)}"
        for key, value in fields.items()
        for name, text in _flat(key, value)
    )
    return "&".join(pairs).encode()


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(f"{name}[{key}]", item)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _flat(f"{name}[{number}]", item)
    elif value is None:
        yield name, ""
    elif isinstance(value, str):
        yield name, value
    else:
        yield name, json.dumps(value)


CODECS: Mapping[str, Codec] = {
    "application/json": encode_json,
    CLOUDEVENTS_JSON: encode_json,
    "application/x-www-form-urlencoded": encode_form,
}


# -- decoders

Decoder = Callable[[bytes], Any]

# Maximum fields of a form; no webhook has more, and each field costs memory.
FORM_FIELDS = 10_000
# Characters that forms leave unencoded (WHATWG URL, section 5.2), and some that senders forget to
# encode. No JSON object or array consists of these alone: signatures don't cover the content type,
# and an attacker who changes it can't have JSON decoded as a form.
_FORM = re.compile(rb"[A-Za-z0-9*._~!'();:@$,/?+%&=\[\]-]*")
_HALVES = re.compile(r"\\u[dD][89a-fA-F]")
NAME_SHOWN = 50


def load_json(body: bytes) -> Any:
    """Decode JSON strictly (RFC 8259 in UTF-8, with the restrictions of RFC 7493).

    Refuses ambiguous documents and those that can't be encoded again: duplicate names in an
    object, NaN and Infinity, lone surrogates.

    Args:
        body: The text in UTF-8, with or without a byte order mark.

    Raises:
        ValueError: It is invalid; the message says why.

    Example:
        >>> load_json(b'{"n": 1}')
        {'n': 1}
        >>> load_json(b'{"n": 1, "n": 2}')
        Traceback (most recent call last):
        ...
        ValueError: "n" is there twice
    """
    try:
        text = body.decode("utf-8-sig")
        value = loads(text, object_pairs_hook=_each_once, parse_constant=_no_constant)
        if _HALVES.search(text):
            _encode(value).encode()
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} (line {error.lineno}, column {error.colno})") from error
    except UnicodeError as error:
        raise ValueError("it contains an invalid character, or isn't UTF-8") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except ValueError as error:
        # Python's message is about its own settings.
        reason = "a number has too many digits" if "digits" in str(error) else str(error)
        raise ValueError(reason) from error
    return value


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                shown = name if len(name) <= NAME_SHOWN else name[:NAME_SHOWN] + "…"
                raise ValueError(f"{json.dumps(shown)} is there twice")
            seen.add(name)
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"there is no {name} in JSON")


def decode_form(body: bytes) -> dict[str, str]:
    """Decode application/x-www-form-urlencoded; nested names stay flat: `data[tags][0]`.

    Raises:
        ValueError: It isn't a form, contains a name twice, or has more than 10,000 fields.

    Example:
        >>> decode_form(b"event=a.b&data%5Bn%5D=1")
        {'event': 'a.b', 'data[n]': '1'}
    """
    if not _FORM.fullmatch(body):
        raise ValueError("it contains characters that must be encoded")
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            max_num_fields=FORM_FIELDS,
            errors="strict",
        )
    except ValueError as error:
        # Python's message contains the body.
        raise ValueError(
            "a field in it has no value or isn't UTF-8, or it has too many fields"
        ) from error
    return _each_once(pairs)


DECODERS: Mapping[str, Decoder] = {
    "application/json": load_json,
    CLOUDEVENTS_JSON: load_json,
    "application/x-www-form-urlencoded": decode_form,
}
