"""What the REST resource takes, and what it says of the rest: everything at once, no secrets."""

from __future__ import annotations

import json
import logging

import pytest
from api_client import ANOTHER, LOCAL, SHARED, URL, Client, faults, problem

from thorn_core import SecurityError, Thorn, hookimpl
from thorn_core.api import Resource
from thorn_core.api.hooks import DEFAULTS
from thorn_core.api.validation import FIELDS, READ_ONLY
from thorn_core.testing import LocalRecipient


@pytest.fixture
def app():
    with Thorn(settings=LOCAL) as app:
        yield app


@pytest.fixture
def ada(app):
    return Client(Resource(app), "ada")


def test_every_fault_is_told_at_once(app, ada):
    told = faults(
        ada(
            "POST",
            "/hooks/",
            {
                "event": ["a..b", 3, "article.*", "user.{.name}"],
                "url": "ftp://me:password@example.com/?token=abc",
                "content_type": "text/csv",
                "hmac_digest": 5,
                "hmac_secret": "short",
                "headers": {"Host": "x", "X-A": "a\r\nb", "X-B": 5, "X-C": None, "X-D": "fine"},
                "description": "x" * 1001,
                "rate_limit": 0,
                "enabled": "yes",
                "id": "sub_mine",
                "hmac_secert": "whsec_abcdefgh",
            },
        )
    )
    assert list(told) == [
        *("event.0", "event.1", "event.3", "url", "content_type", "hmac_digest", "hmac_secret"),
        *("headers.Host", "headers.X-A", "headers.X-B", "headers.X-C"),
        *("description", "rate_limit", "enabled", "id", "hmac_secert"),
    ]
    assert "put something between the dots" in told["event.0"]["message"]
    assert told["event.1"]["value"] == 3
    assert told["url"]["value"] == "ftp://***@example.com/"
    assert told["content_type"]["allowed"] == sorted(app.codecs)
    assert told["hmac_digest"]["allowed"] == ["sha256", "sha512", "sha1"]
    assert told["hmac_secert"]["message"] == "is unknown; did you mean hmac_secret?"
    assert told["rate_limit"]["value"] == 0
    assert len(told["description"]["value"]) == 200
    for field in ("hmac_secret", "hmac_secert", "headers.X-A", "headers.X-B"):
        assert "value" not in told[field]
    assert not [*app.subscriptions()]


def test_what_is_needed_and_missing_is_told(ada):
    assert set(faults(ada("POST", "/hooks/"))) == {"event", "url"}
    path = ada.subscribe()["subscription"]
    assert set(faults(ada("PUT", path, {"url": URL}))) == {"event"}
    assert ada("PATCH", path, {"url": URL}).status == 200


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("event", []),
        ("event", None),
        ("event", {"a.b": 1}),
        ("event", ["a.b"] * 101),
        ("event", "a." * 100),
        ("url", ["https://example.com/"]),
        ("url", "/hook"),
        ("url", "https://example.com/" + "x" * 3000),
        ("content_type", None),
        ("content_type", ["application/json"]),
        ("headers", ["X-A"]),
        ("headers", "X-A: 1"),
        ("headers", {f"X-{n}": "1" for n in range(51)}),
        ("headers", {"X-A": "1", "x-a": "2"}),
        ("description", None),
        ("rate_limit", True),
        ("rate_limit", "fast"),
        ("rate_limit", ""),
        ("rate_limit", 10**400),
        ("rate_limit", -1),
        ("enabled", None),
        ("enabled", 1),
        ("hmac_secret", 5),
        ("hmac_secret", {"a": "secretly"}),
        ("hmac_secret", "whsec_notbase64!"),
    ],
)
def test_a_field_that_is_not_allowed_is_refused_by_name(ada, field, value):
    body = {"event": "a.b", "url": URL, field: value}
    told = faults(ada("POST", "/hooks/", body))
    assert set(told) == {field}
    shown = json.dumps(told)
    assert "secretly" not in shown
    assert len(shown) < 1200
    if field != "hmac_secret":
        path = ada.subscribe()["subscription"]
        assert set(faults(ada("PATCH", path, {field: value}))) == {field}


def test_a_header_name_that_is_far_too_long_is_refused(ada):
    body = {"event": "a.b", "url": URL, "headers": {"X-" + "x" * 300: "1"}}
    (fault,) = faults(ada("POST", "/hooks/", body)).values()
    assert (len(fault["field"]), fault["message"]) == (
        200,
        "has 302 characters; at most 200 are allowed",
    )


def test_numbers_beyond_what_floats_hold_are_refused_and_not_repeated_whole(ada):
    for text in (b"1e999", b"9" * 4000, b"-1e999"):
        body = b'{"event":"a.b","url":"https://e.com/","rate_limit":' + text + b"}"
        headers = {"content-type": "application/json"}
        fault = faults(ada("POST", "/hooks/", body, headers=headers))["rate_limit"]
        assert len(str(fault["value"])) <= 200


def test_what_the_event_choices_leave_out_is_refused_with_the_choices():
    with Thorn(settings=LOCAL.evolve(event_choices=["order.*", "user.created"])) as app:
        ada = Client(Resource(app), "ada")
        told = faults(ada("POST", "/hooks/", {"event": ["order.paid", "*"], "url": URL}))
        assert told["event.1"] == {
            "field": "event.1",
            "value": "*",
            "message": "is not available for subscription",
            "allowed": ["order.*", "user.created"],
        }


def test_a_secret_is_changed_by_rotating_only(ada):
    path = ada.subscribe()["subscription"]
    for method, body in (("PATCH", {}), ("PUT", {"event": "a.b", "url": URL})):
        told = faults(ada(method, path, {**body, "hmac_secret": "another secret"}))
        assert "rotate-secret" in told["hmac_secret"]["message"]
    assert set(faults(ada("POST", path + "rotate-secret/", {"hmac_secret": "short"}))) == {
        "hmac_secret"
    }
    assert set(faults(ada("POST", path + "rotate-secret/", {"secret": "a new secret"}))) == {
        "secret"
    }
    assert set(faults(ada("POST", path + "test/", {"event": "a.b"}))) == {"event"}


def test_read_only_fields_may_come_back_as_they_are_but_not_otherwise(ada):
    made = ada.subscribe()
    seen = ada("GET", made["subscription"]).json
    assert ada("PATCH", made["subscription"], seen).status == 200
    for name in READ_ONLY:
        changed = ada("PATCH", made["subscription"], {**seen, name: "mine"})
        assert set(faults(changed)) == {name}


def test_every_field_of_an_answer_is_taken_or_read_only(ada):
    made = ada.subscribe()
    assert set(made) == (set(FIELDS) - {"hmac_secret"}) | set(READ_ONLY) | {"secret"}
    assert {name: made[name] for name in DEFAULTS} == DEFAULTS


# -- the body


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "line 1, column 2"),
        (b" ", "line 1, column 2"),
        (b"event=a.b", "line 1"),
        (b"[]", "not a JSON object"),
        (b'"text"', "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'{"a": NaN}', "no NaN in JSON"),
        (b'{"a": 1, "a": 2}', '"a" is there twice'),
        (b'{"a": "\\ud800"}', "an invalid character"),
        (b'{"a": "\xff"}', "isn't UTF-8"),
        (b"[" * 60_000, "nested too deeply"),
        (b'{"a":' * 10_000, "nested too deeply"),
        *((b'{"a":' + b"[" * n + b"]" * n + b"}", "nested too deeply") for n in (20, 900, 970)),
        (b'{"a": ' + b"9" * 5000 + b"}", "too many digits"),
        (b"{" + b",".join(b'"%d": 1' % n for n in range(101)) + b"}", "101 fields"),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(ada, body, reason):
    response = ada("POST", "/hooks/", body, headers={"content-type": "application/json"})
    assert reason in problem(response, 400, "malformed")["detail"]


def test_a_body_that_is_nested_as_deeply_as_may_be_is_read(ada):
    body = b'{"event":' + b"[" * 19 + b"]" * 19 + b"}"
    told = faults(ada("POST", "/hooks/", body, headers={"content-type": "application/json"}))
    assert told["event.0"]["value"] == "[" * 18 + "]" * 18


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonp", "json",
     "application/json; charset=latin-1", "application/json; boundary=x", ";"],
)  # fmt: skip
def test_a_body_of_another_type_is_refused(ada, content_type):
    headers = {"content-type": content_type} if content_type else {}
    response = ada("POST", "/hooks/", b'{"event":"a.b","url":"https://e.com/"}', headers=headers)
    problem(response, 415, "unsupported-media-type")
    assert response.headers["accept"] == "application/json"


def test_a_body_that_is_compressed_is_refused(ada):
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    problem(ada("POST", "/hooks/", b"{}", headers=headers), 415, "unsupported-media-type")


def test_a_body_that_is_too_large_is_refused(app):
    ada = Client(Resource(app, body_limit=100), "ada")
    body = {"event": "a.b", "url": URL, "description": "x" * 100}
    problem(ada("POST", "/hooks/", body), 413, "too-large")
    assert Client(Resource(app), "ada")("POST", "/hooks/", {**body}).status == 201
    problem(Client(Resource(app), "ada")("POST", "/x", b"x" * 65537), 413, "too-large")


# -- recipients that are refused


class Refusing:
    """Refuses recipients, in words of its own."""

    def __init__(self, error):
        self.error = error

    @hookimpl
    def thorn_validate_recipient(self, url):
        raise self.error


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (SecurityError("only our partners"), True),
        (SecurityError("at 12:00:00 it was full"), True),
        (SecurityError("intranet.example.com is 10.1.2.3"), False),
        (SecurityError("it is fd00::12"), False),
        (SecurityError("it is ::1, here"), False),
        (RuntimeError("the server at db.internal is down"), False),
    ],
)
def test_a_refusal_is_told_in_words_unless_they_name_an_address(error, told, caplog):
    with Thorn(plugins=[Refusing(error)]) as app:
        ada = Client(Resource(app), "ada")
        (fault,) = faults(ada("POST", "/hooks/", {"event": "a.b", "url": URL})).values()
        expected = str(error) if told else "The recipient is refused; use a public host."
        assert fault["message"] == expected
        staff = Client(Resource(app), operator=True)
        (fault,) = faults(staff("POST", "/hooks/", {"event": "a.b", "url": URL})).values()
        assert isinstance(error, RuntimeError) or fault["message"] == str(error)


def test_a_refusal_for_its_port_is_told_although_the_host_is_an_address(app):
    with Thorn() as app:
        ada = Client(Resource(app), "ada")
        body = {"event": "a.b", "url": "HTTP://93.184.215.14:22/"}
        (fault,) = faults(ada("POST", "/hooks/", body)).values()
        assert "uses port 22; use one of: 80, 443" in fault["message"]


def test_a_plugin_that_fails_later_does_not_tell_owners_how(caplog):
    class Failing:
        fails = False

        @hookimpl
        def thorn_validate_recipient(self, url):
            if self.fails:
                raise RuntimeError("the server at db.internal is down")

    plugin = Failing()
    with LocalRecipient() as recipient, Thorn(plugins=[plugin], settings=LOCAL) as app:
        ada = Client(Resource(app), "ada")
        made = ada.subscribe(recipient.url + "?token=abc")
        plugin.fails = True
        path = ada("POST", made["subscription"] + "test/").json["delivery"]
        seen = ada("GET", path).json
        assert (seen["state"], seen["reason"]) == ("pending", "an internal error")
        assert "db.internal" not in str(seen)
        plugin.fails = False
    assert "db.internal" in caplog.text


def test_no_secret_is_logged(ada, caplog):
    caplog.set_level(logging.DEBUG)
    made = ada.subscribe(hmac_secret=SHARED, headers={"Authorization": "Bearer abc"})
    ada("POST", made["subscription"] + "rotate-secret/", {"hmac_secret": ANOTHER})
    ada("PATCH", made["subscription"], {"hmac_secret": "a third one"})
    for secret in (SHARED, "Bearer abc", ANOTHER, "a third one"):
        assert secret not in caplog.text
