"""Events: declared once, sent often."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import weakref
from datetime import UTC, datetime

import pytest

from thorn_core import (
    ConfigurationError,
    Event,
    InvalidNameError,
    ModelEvent,
    NotFoundError,
    PayloadError,
    RetryPolicy,
    Settings,
    Thorn,
    get_app,
    signals,
)
from thorn_core.current_app import set_default_app
from thorn_core.events import declared_events
from thorn_core.receiver import verify
from thorn_core.testing import LocalRecipient, capture

LOCAL = Settings(allowed_networks=["127.0.0.0/8"], allowed_ports=range(1, 65536))
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def app():
    with Thorn(dispatcher="outbox", clock=lambda: NOW) as app:
        yield app


@pytest.fixture
def sent(app):
    with capture(app) as messages:
        yield messages


def test_a_header_of_a_send_replaces_its_events_whatever_the_case(app, sent):
    event = Event("article.created", app=app, headers={"X-Tenant": "event", "X-Source": "blog"})
    event.send(headers={"x-tenant": "send"})
    assert sent[0].headers == {"x-tenant": "send", "X-Source": "blog"}


def test_a_message_is_what_was_sent(app, sent):
    event = Event("article.created", app=app, headers={"X-A": "1"}, timeout=3)
    receipt = event.send(
        {"title": "Hé"}, sender=42, headers={"X-B": "2"}, context={"at": NOW}, timeout=1.5
    )
    (message,) = sent
    assert receipt.message is message
    assert message.id.startswith("msg_")
    assert (message.event, message.at, message.sender) == ("article.created", NOW, "42")
    assert message.data == '{"title":"Hé"}'.encode()
    assert message.payload == {"title": "Hé"}
    assert message.headers == {"X-A": "1", "X-B": "2"}
    assert message.context == {"at": "2026-03-01T12:00:00Z"}
    assert message.timeout == 1.5
    assert repr(receipt) == f"<Receipt {message.id} of article.created>"


def test_the_payload_is_what_it_was_when_it_was_sent(app, sent):
    data = {"title": "before"}
    app.send("article.created", data)
    data["title"] = "after"
    assert sent[0].payload == {"title": "before"}


def test_an_events_options_travel_with_its_messages(app, sent):
    Event("a.b", app=app, timeout=2, retry_max=3, retry_delay=7).send()
    Event("a.c", app=app, retry=False).send()
    Event("a.d", app=app, retry_policy=RetryPolicy((1,))).send()
    Event("a.e", app=app).send()
    assert sent[0].timeout == 2
    assert [m.retry_policy and m.retry_policy.schedule for m in sent] == [
        (7.0, 7.0, 7.0),
        (),
        (1.0,),
        None,
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0},
        {"timeout": 4000},
        {"retry_max": 3},
        {"retry_delay": 3},
        {"headers": {"Host": "x"}},
        {"recipient_validators": ["nonsense"]},
        {"schema": {"type": 7}},
    ],
)
def test_an_option_that_is_not_allowed_is_refused(options):
    with pytest.raises(ConfigurationError):
        Event("article.created", **options)


@pytest.mark.parametrize("name", ["", "a..b", "a b", "article.*"])
def test_a_name_that_is_none_is_refused(app, name):
    with pytest.raises(InvalidNameError):
        Event(name)
    with pytest.raises(InvalidNameError):
        app.send(name)


def test_fields_in_a_name_are_for_models():
    with pytest.raises(ConfigurationError, match="only a ModelEvent"):
        Event("user.{.username}")


def test_request_data_is_merged_and_the_payload_wins(app, sent):
    event = Event("a.b", app=app, request_data={"version": 1, "kind": "x"})
    event.send({"kind": "y"})
    event.send()
    assert [m.payload for m in sent] == [{"version": 1, "kind": "y"}, {"version": 1, "kind": "x"}]
    with pytest.raises(PayloadError, match="must be a mapping, not list"):
        event.send([1])


def test_a_payload_that_json_can_not_hold_is_refused(app, sent):
    with pytest.raises(PayloadError, match="nan"):
        app.send("a.b", {"n": float("nan")})
    assert sent == []


def test_a_payload_that_is_too_large_is_refused():
    with (
        Thorn(settings=Settings(payload_limit=10)) as app,
        pytest.raises(PayloadError, match="has 12 bytes; the setting payload_limit allows 10"),
    ):
        app.send("a.b", "x" * 10)


def test_a_payload_that_breaks_the_schema_is_refused(app, sent):
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}, "at": {"type": "string"}},
        "required": ["n"],
    }
    event = Event("a.b", app=app, schema=schema)
    event.send({"n": 1, "at": NOW})
    with pytest.raises(PayloadError, match=r'\$\.n: is not valid by type: "integer"$'):
        event.send({"n": "x"})
    with pytest.raises(PayloadError, match="'n' is a required property") as refusal:
        event.send({"at": ["pa55"]})
    assert "pa55" not in str(refusal.value)
    assert len(sent) == 1


def test_without_jsonschema_a_schema_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    with pytest.raises(ConfigurationError, match=r"thorn-core\[schema\]"):
        Event("a.b", schema={"type": "object"})


def test_the_same_idempotency_key_sends_once(app):
    event = Event("invoice.paid", app=app)
    first = event.send({"n": 1}, idempotency_key="7")
    again = event.send({"n": 2}, idempotency_key="7")
    other = event.send({"n": 3}, idempotency_key="8")
    elsewhere = app.send("invoice.sent", {"n": 4}, idempotency_key="7")
    assert first.message.id == again.message.id
    assert len({first.message.id, other.message.id, elsewhere.message.id}) == 3
    assert sorted(m.payload["n"] for m in app.messages_to_route()) == [1, 3, 4]


def test_message_sent_is_signalled_once_it_is_committed(app):
    seen = []

    def receiver(sender, *, message):
        seen.append((sender, message.event))

    signals.message_sent.connect(receiver)
    app.send("a.b")
    assert seen == [(app, "a.b")]
    signals.message_sent.disconnect(receiver)


def test_asend_is_send_for_async_code():
    async def main(app):
        receipt = await app.asend("a.b", {"n": 1})
        event = Event("a.c", app=app)
        return receipt, await event.asend({"n": 2}, sender="42")

    with LocalRecipient() as recipient, Thorn(settings=LOCAL) as app:
        app.subscribe("*", recipient.url)
        first, second = asyncio.run(main(app))
        assert first
        assert second
        assert [r.json["data"] for r in recipient.received] == [{"n": 1}, {"n": 2}]


def test_callbacks_get_the_attempt():
    called = []
    callbacks = {
        name: (lambda attempt, name=name: called.append((name, attempt.status)))
        for name in ("on_success", "on_error", "on_timeout")
    }
    settings = LOCAL.evolve(retry=False)
    with LocalRecipient() as recipient, Thorn(settings=settings) as app:
        app.subscribe("*", recipient.url)
        app.send("a.b", **callbacks)
        recipient.answer(status=500, times=1)
        app.send("a.b", **callbacks)
        recipient.hang(times=2)
        app.send("a.b", timeout=0.05, **callbacks)
        app.send("a.b", timeout=0.05, on_error=callbacks["on_error"])
        app.send("a.b", on_error=callbacks["on_error"])
    assert called == [
        ("on_success", 200),
        ("on_error", 500),
        ("on_timeout", None),
        ("on_error", None),
    ]


def test_a_callback_that_fails_is_logged_and_changes_nothing(caplog):
    def fail(attempt):
        raise RuntimeError("callback")

    with LocalRecipient() as recipient, Thorn(settings=LOCAL) as app:
        app.subscribe("*", recipient.url)
        assert app.send("a.b", on_success=fail)
    assert "a callback of message" in caplog.text


def test_the_first_app_made_is_the_default_until_it_is_closed():
    with pytest.raises(ConfigurationError, match="there is no app yet"):
        get_app()
    with Thorn() as first, Thorn() as second:
        assert get_app() is first
        second.make_default()
        assert get_app() is second
    with pytest.raises(ConfigurationError):
        get_app()


def test_an_event_finds_its_app_when_it_is_sent():
    event = Event("article.created")
    with pytest.raises(ConfigurationError, match="create one first"):
        event.send()
    with Thorn() as app, capture(app) as sent:
        event.send()
        assert len(sent) == 1
        set_default_app(None)
        with pytest.raises(ConfigurationError):
            event.send()


def test_a_declared_events_options_hold_when_it_is_sent_by_name(app, sent):
    declared = Event("article.declared", timeout=2, description="…")
    with Thorn() as other, capture(other) as elsewhere:
        other.send("article.declared")
        assert elsewhere[0].timeout == 2
    app.send("article.declared")
    app.send(declared)
    assert [m.timeout for m in sent] == [2, 2]
    assert [e.name for e in app.events() if e.name == "article.declared"] == ["article.declared"]


def test_an_event_stays_declared_though_no_name_is_bound_to_it(app, sent):
    Event("article.kept", timeout=1)
    Event("article.kept_by_app", timeout=2, app=app)
    gc.collect()
    app.send("article.kept")
    app.send("article.kept_by_app")
    assert [message.timeout for message in sent] == [1, 2]
    with Thorn() as other:
        assert "article.kept_by_app" not in [event.name for event in other.events()]


def test_the_latest_declaration_of_a_name_counts(app, sent):
    first = Event("article.twice", timeout=1)
    Event("article.twice", timeout=2)
    gc.collect()
    app.send("article.twice")
    first.send()
    assert [message.timeout for message in sent] == [2, 1]


def test_an_app_and_its_events_go_together():
    app = Thorn(default=False)
    event = weakref.ref(Event("article.gone", app=app))
    app.close()
    del app
    gc.collect()
    assert event() is None


def test_a_message_says_whether_a_worker_needs_the_declaration(app, sent):
    for number, options in enumerate(
        (
            {"timeout": 1, "retry": False, "headers": {"X-A": "1"}, "request_data": {"a": 1}},
            {"subscribers": "https://example.com/"},
            {"recipient_validators": []},
            {"allow_keepalive": False},
        )
    ):
        Event(f"article.needed{number}", app=app, **options).send()
    assert [message.declared for message in sent] == [
        None, "article.needed1", "article.needed2", "article.needed3",
    ]  # fmt: skip


def test_an_undeclared_name_is_no_declared_event(app, sent):
    app.send("article.undeclared")
    assert "article.undeclared" not in [e.name for e in declared_events(app)]


@pytest.mark.parametrize("declare", [Event, ModelEvent])
def test_a_misspelt_envelope_is_refused(declare):
    with pytest.raises(ConfigurationError, match=r"envelope 'cloudevent'; did you mean 'cloudev"):
        declare("article.wrapped", envelope="cloudevent")


@pytest.mark.parametrize("setting", ["thorn", "bare"])
@pytest.mark.parametrize(
    ("envelope", "content_type", "keys"),
    [
        ("thorn", "application/json", {"event", "ref", "sender", "data"}),
        ("standard", "application/json", {"type", "timestamp", "data"}),
        (
            "cloudevents",
            "application/cloudevents+json; charset=utf-8",
            {"specversion", "id", "source", "type", "time", "datacontenttype", "data"},
        ),
        ("bare", "application/json", {"n"}),
    ],
)
def test_an_events_own_envelope_takes_the_place_of_the_setting(
    setting, envelope, content_type, keys
):
    local = LOCAL.evolve(envelope=setting)
    with LocalRecipient() as recipient, Thorn(settings=local, default=False) as app:
        subscription = app.subscribe("*", recipient.url)
        assert Event("article.wrapped", app=app, envelope=envelope).send({"n": 1})
        assert app.send("article.other", {"n": 1})
        own, other = recipient.received
        assert (own.headers["content-type"], set(own.json)) == (content_type, keys)
        assert set(other.json) == (
            {"n"} if setting == "bare" else {"event", "ref", "sender", "data"}
        )
        message = verify(own.body, own.headers, subscription.secret)
        assert (message.event, message.payload) == ("article.wrapped", {"n": 1})


def test_an_events_own_subscribers_get_it():
    with LocalRecipient() as static, LocalRecipient() as stored, Thorn(settings=LOCAL) as app:
        event = Event(
            "article.static", app=app, subscribers=[static.url, lambda m: m.payload["callback"]]
        )
        app.subscribe("article.*", stored.url)
        assert [s.url for s in event.subscribers] == [static.url, stored.url]
        assert event.send({"callback": stored.url})
        assert len(static.received) == 1
        assert len(stored.received) == 2


def test_a_test_message_goes_to_one_subscription_only():
    with LocalRecipient() as one, LocalRecipient() as two, Thorn(settings=LOCAL) as app:
        subscription = app.subscribe("article.*", one.url)
        app.subscribe("*", two.url)
        assert app.send_test(subscription.id)
        (request,) = one.received
        assert request.headers["hook-event"] == "thorn.test"
        assert two.received == ()
        with pytest.raises(NotFoundError, match="no subscription 'sub_x'"):
            app.send_test("sub_x")


def test_the_envelope_is_as_set():
    standard = LOCAL.evolve(envelope="standard")
    with LocalRecipient() as recipient, Thorn(settings=standard, clock=lambda: NOW) as app:
        app.subscribe("*", recipient.url)
        app.send("a.b", {"n": 1})
        (request,) = recipient.received
        assert json.loads(request.body) == {
            "type": "a.b",
            "timestamp": "2026-03-01T12:00:00Z",
            "data": {"n": 1},
        }
