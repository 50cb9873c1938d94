"""Declarations that could not do what they say are refused, not ignored."""

from __future__ import annotations

import pytest

from thorn_core import ConfigurationError, Event, ModelEvent, Q, Thorn, signals, webhook_model


async def awaited(*args):
    raise AssertionError(args)


def declare(**declaration):
    return webhook_model(type("Page", (), {"webhooks": type("webhooks", (), declaration)}))


@pytest.mark.parametrize("name", ["payload", "headers"])
@pytest.mark.parametrize(
    ("method", "problem"),
    [
        ({"a": 1}, "make it a plain method"),
        ("title", "make it a plain method"),
        (awaited, "make it a plain method"),
        (lambda page: {}, "can't be called with the instance alone"),
        (lambda self, page, request: {}, "can't be called with the instance alone"),
    ],
)
def test_a_method_that_could_not_be_called_is_refused(name, method, problem):
    with pytest.raises(ConfigurationError, match=problem):
        declare(**{name: method})


@pytest.mark.parametrize("reverse", ["page:detail", 7, awaited])
def test_what_gives_no_url_is_refused(reverse):
    with pytest.raises(ConfigurationError, match="use a plain function"):
        declare(reverse=reverse)
    with pytest.raises(ConfigurationError, match="use a plain function"):
        ModelEvent("page.created", reverse=reverse)


def test_a_method_given_to_the_decorator_is_used():
    with Thorn(dispatcher="outbox").make_default() as app:

        @webhook_model(
            on_create=ModelEvent("page.created"),
            payload=lambda page: {"title": page.title},
            headers=lambda page: {"X-A": "1"},
        )
        class Page:
            title = "Hello"

        signals.model_created.send(Page, instance=Page())
        (message,) = app.messages_to_route()
        assert (message.payload, message.headers) == ({"title": "Hello"}, {"X-A": "1"})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("dispatcher", 3),
        ("dispatcher", ""),
        ("retry", "no"),
        ("retry_policy", 5),
        ("allow_keepalive", "no"),
        ("request_data", ["a"]),
        ("schema", "object"),
        ("description", None),
        ("headers", [("X-A", "1")]),
        ("envelope", ["bare"]),
        ("envelope", ""),
        ("propagate_errors", "no"),
        ("signal_honors_transaction", "no"),
    ],
)
def test_an_option_of_another_type_is_refused(option, value):
    with pytest.raises(ConfigurationError, match=option):
        ModelEvent("page.created", **{option: value})
    if option not in ("propagate_errors", "signal_honors_transaction"):
        with pytest.raises(ConfigurationError, match=option):
            Event("page.created", **{option: value})


@pytest.mark.parametrize("values", ["DRAFT", b"ab", 7, None, (n for n in (1, 2))])
@pytest.mark.parametrize("operator", ["in", "not_in", "now_in"])
def test_one_of_several_needs_several(operator, values):
    with pytest.raises(ValueError, match="use a list, a tuple or a set"):
        Q(**{f"state__{operator}": values})
