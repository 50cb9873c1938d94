"""Codecs: payloads become JSON, and bodies."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json
import math
from collections import UserDict, UserList, UserString
from decimal import Decimal
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import PurePosixPath
from types import MappingProxyType
from urllib.parse import parse_qsl
from uuid import UUID

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thorn_core import Message, PayloadError
from thorn_core.codecs import Envelope, as_json, dump_json, encode_form, encode_json
from thorn_core.delivery import envelope_of

NOW = dt.datetime(2026, 3, 1, 12, 30, 0, 5, tzinfo=dt.UTC)


class Colour(enum.Enum):
    RED = "red"


@attrs.frozen
class Point:
    x: int = 1


@dataclasses.dataclass
class Size:
    width: int = 2


class Promise:
    """As of Django's lazy strings."""

    def __str__(self):
        return "lazy"


class Proxy(Promise):
    pass


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (NOW, "2026-03-01T12:30:00.000005Z"),
        (NOW.replace(microsecond=0, tzinfo=None), "2026-03-01T12:30:00"),
        (
            dt.datetime(2026, 3, 1, tzinfo=dt.timezone(dt.timedelta(hours=2))),
            "2026-03-01T00:00:00+02:00",
        ),
        (dt.date(2026, 3, 1), "2026-03-01"),
        (dt.time(12, 30), "12:30:00"),
        (dt.timedelta(days=1, seconds=2, milliseconds=500), "P1DT2.5S"),
        (dt.timedelta(seconds=-90), "-P0DT90S"),
        (Decimal("1.50"), "1.50"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Colour.RED, "red"),
        ({3, 1}, [1, 3]),
        ((1, 2), [1, 2]),
        (Point(), {"x": 1}),
        (Size(), {"width": 2}),
        (UserString("text"), "text"),
        (Proxy(), "lazy"),
        (UserDict(a=1), {"a": 1}),
        (MappingProxyType({"a": 1}), {"a": 1}),
        (UserList([1]), [1]),
        (range(2), [0, 1]),
        ("Hé 🎉", "Hé 🎉"),
        (None, None),
    ],
)
def test_what_json_does_not_have_becomes_what_it_has(value, expected):
    assert json.loads(dump_json({"value": value})) == {"value": expected}


def test_json_is_compact_utf_8():
    assert dump_json({"a": ["é", 1]}) == '{"a":["é",1]}'.encode()


loop: list = []
loop.append(loop)
deep: list = []
for _ in range(100_000):
    deep = [deep]


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (float("nan"), "data is nan"),
        ({"a": [1, float("inf")]}, r"data\.a\[1\] is inf"),
        ({"a": {"b": 1j}}, r"data\.a\.b is of type complex"),
        ({"a": object()}, r"data\.a is of type object"),
        ({(1, 2): 3}, r"data has the key \(1, 2\) of type tuple"),
        ({"a": "\ud800"}, r"data\.a contains a lone surrogate"),
        ({"\ud800": 1}, r"key contains a lone surrogate"),
        ({"a": loop}, r"data\.a\[0\] contains itself"),
        ({"a": Point(float("nan"))}, r"data\.a\.x is nan"),
        ((1, {2: {float("nan")}}), r"data\[1\]\.2\[0\] is nan"),
        (deep, "nested too deeply"),
        (Point, "data is of type type"),
    ],
)
def test_what_can_not_be_encoded_is_named_with_its_place(value, place):
    with pytest.raises(PayloadError, match=place):
        dump_json(value)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
    max_leaves=10,
)


@given(plain)
def test_plain_values_come_back_as_they_were(value):
    assert json.loads(dump_json(value)) == value


def message(**changes):
    values = {"id": "msg_1", "event": "a.b", "data": b'{"n":1}', "at": NOW, **changes}
    return Message(**values)


def test_what_each_envelope_puts_around_a_payload():
    full = message(sender="42", sender_name="ada", ref="https://e.com/1")
    assert envelope_of(full, "thorn").document() == {
        "event": "a.b",
        "ref": "https://e.com/1",
        "sender": "ada",
        "data": {"n": 1},
    }
    assert envelope_of(message(sender="42"), "thorn").document()["sender"] == "42"
    assert envelope_of(full, "standard").document() == {
        "type": "a.b",
        "timestamp": "2026-03-01T12:30:00.000005Z",
        "data": {"n": 1},
    }
    assert envelope_of(full, "cloudevents", source="/shop").document() == {
        "specversion": "1.0",
        "id": "msg_1",
        "source": "/shop",
        "type": "a.b",
        "time": "2026-03-01T12:30:00.000005Z",
        "datacontenttype": "application/json",
        "subject": "https://e.com/1",
        "data": {"n": 1},
    }
    assert "subject" not in envelope_of(message(), "cloudevents").document()


@pytest.mark.parametrize(
    ("data", "form"),
    [({"n": 1, "x": [2]}, b"n=1&x%5B0%5D=2"), ([1, 2], b"data%5B0%5D=1&data%5B1%5D=2")],
)
def test_a_bare_envelope_is_the_payload_alone(data, form):
    envelope = envelope_of(message(data=dump_json(data), sender="42"), "bare")
    assert envelope.document() == data
    assert encode_json(envelope) == dump_json(data)
    assert encode_form(envelope) == form


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), plain), plain)
def test_an_envelope_in_json_is_its_document(fields, data):
    fields.pop("data", None)
    envelope = Envelope(fields=fields, data=dump_json(data))
    assert json.loads(encode_json(envelope)) == {**fields, "data": data} == envelope.document()


def test_a_form_flattens_what_nests():
    data = {"title": "H é&=", "tags": ["x", {"y": None}], "ok": True, "n": 1.5, "none": []}
    body = encode_form(Envelope(fields={"event": "a.b", "ref": None}, data=dump_json(data)))
    assert parse_qsl(body.decode(), keep_blank_values=True) == [
        ("event", "a.b"),
        ("ref", ""),
        ("data[title]", "H é&="),
        ("data[tags][0]", "x"),
        ("data[tags][1][y]", ""),
        ("data[ok]", "true"),
        ("data[n]", "1.5"),
    ]


# -- what columns hold


@attrs.frozen
class Span:
    """As the range classes of psycopg, psycopg2 and SQLAlchemy."""

    lower: object
    upper: object
    lower_inc: bool = True
    upper_inc: bool = False
    isempty: bool = False


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"\x00\xff", '"AP8="'),
        (memoryview(b"ab"), '"YWI="'),
        (ip_address("10.0.0.1"), '"10.0.0.1"'),
        (ip_network("2001:db8::/32"), '"2001:db8::/32"'),
        (ip_interface("10.0.0.1/8"), '"10.0.0.1/8"'),
        (PurePosixPath("/a/b"), '"/a/b"'),
        (dt.timedelta(days=1, seconds=90), '"P1DT90S"'),
        (Span(1, 5), '{"lower":1,"upper":5,"bounds":"[)"}'),
        (
            Span(None, dt.date(2026, 3, 1), lower_inc=False, upper_inc=True),
            '{"lower":null,"upper":"2026-03-01","bounds":"(]"}',
        ),
        (Span(None, None, isempty=True), '{"lower":null,"upper":null,"bounds":"empty"}'),
    ],
)
def test_what_databases_hold_has_a_form_in_json(value, text):
    assert dump_json([value]).decode() == f"[{text}]"
    assert json.loads(dump_json(as_json([value]))) == [json.loads(text)]


class Odd:
    def __str__(self):
        return "odd"


@given(
    st.recursive(
        st.one_of(st.floats(), st.binary(), st.text(), st.decimals(), st.complex_numbers())
        | st.builds(Odd),
        lambda inner: st.lists(inner) | st.dictionaries(st.integers() | st.binary(), inner),
        max_leaves=10,
    )
)
def test_no_value_of_a_column_is_refused(value):
    json.loads(dump_json(as_json(value)))


def test_what_json_lacks_becomes_text():
    value = {"nan": float("nan"), "less": -math.inf, 7: Odd(), "torn": "a\ud800"}
    value["self"] = value
    made = as_json(value)
    assert str(made.pop("self"))
    assert made == {"nan": "NaN", "less": "-Infinity", "7": "odd", "torn": "a?"}
