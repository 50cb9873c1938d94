"""The options of a send: the same everywhere, and checked."""

from __future__ import annotations

import asyncio
from typing import get_type_hints

import attrs
import pytest

from thorn_core import ConfigurationError, Event, ModelEvent, Thorn, webhook_model
from thorn_core.send_options import SendArguments, SendOptions


@webhook_model
class Page:
    class webhooks:
        on_view = ModelEvent("page.viewed.{.title}").dispatches_on_change()

        def payload(self, page):
            return {"title": page.title}

    title = "Hello"


viewed = Page.webhooks.events["on_view"]


@pytest.fixture
def app():
    with Thorn(dispatcher="outbox") as app:
        yield app


async def never_awaited(attempt):
    raise AssertionError(attempt)


def ways(app):
    """Every way to send, as functions of its options."""
    event = Event("a.b", app=app)
    run = asyncio.run
    return [
        event.send,
        lambda **options: run(event.asend(**options)),
        lambda **options: app.send("a.b", **options),
        lambda **options: run(app.asend("a.b", **options)),
        lambda **options: viewed.send(instance=Page(), **options),
        lambda **options: run(viewed.asend(instance=Page(), **options)),
        lambda **options: viewed.send_from_instance(Page(), **options),
        lambda **options: run(viewed.asend_from_instance(Page(), **options)),
        lambda **options: app.send(viewed, instance=Page(), **options),
        lambda **options: run(app.asend(viewed, instance=Page(), **options)),
    ]


def test_every_way_to_send_takes_every_option(app):
    options = {
        "sender": "ada",
        "headers": {"X-A": "1"},
        "context": {"n": 1},
        "timeout": 2,
        "within": None,
        "on_success": print,
        "on_error": None,
        "on_timeout": None,
    }
    assert {*options, "idempotency_key"} == {field.name for field in attrs.fields(SendOptions)}
    for number, send in enumerate(ways(app)):
        message = send(idempotency_key=str(number), **options).message
        found = (message.sender, message.headers, message.context, message.timeout)
        assert found == ("ada", {"X-A": "1"}, {"n": 1}, 2)
        assert message.keyed
    assert len(app.messages_to_route()) == len(ways(app))


def test_the_types_name_the_options_that_there_are():
    fields = {field.name for field in attrs.fields(SendOptions)}
    assert set(get_type_hints(SendArguments)) == fields


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"timeuot": 3}, "send has no option timeuot; did you mean timeout?"),
        ({"idempotencykey": "7"}, "did you mean idempotency_key?"),
        ({"zzz": 1}, "available: sender, headers, context"),
        ({"timeout": 0}, "timeout is 0; use a number of seconds from 0 to 3600"),
        ({"timeout": "3"}, "timeout is '3'"),
        ({"timeout": float("nan")}, "timeout is nan"),
        ({"idempotency_key": 7}, "idempotency_key is 7; use a string"),
        ({"idempotency_key": ""}, "idempotency_key is ''"),
        ({"headers": {"Host": "x"}}, "header 'Host' is set by Thorn"),
        ({"context": ["x"]}, "context is a list; use a mapping"),
        ({"headers": [("X-A", "1")]}, "headers is a list; use a mapping"),
        ({"timeout": True}, "timeout is True"),
        ({"on_success": "print"}, "on_success is 'print'; use a plain function"),
        ({"on_error": never_awaited}, "use a plain function"),
    ],
)
def test_every_way_to_send_refuses_what_is_not_allowed(app, options, said):
    for send in ways(app):
        with pytest.raises(ConfigurationError) as raised:
            send(**options)
        assert said in str(raised.value)
    assert app.messages_to_route() == []


def test_an_event_without_instances_has_no_instance(app):
    with pytest.raises(ConfigurationError, match="send has no option instance"):
        app.send("a.b", instance=Page())


def test_a_model_event_is_sent_the_same_asynchronously(app):
    sync = viewed.send(instance=Page(), sender="ada")
    awaited = asyncio.run(viewed.asend(instance=Page(), sender="ada"))
    for receipt in (sync, awaited):
        message = receipt.message
        assert message.event == "page.viewed.Hello"
        assert message.payload == {"title": "Hello"}
        assert message.sender == "ada"
