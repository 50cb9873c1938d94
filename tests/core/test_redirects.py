"""Redirects from https to http are refused; over real TLS."""

from __future__ import annotations

from functools import partial

import attrs
import pytest
import trustme

from thorn_core import DeliveryState, Request, Response, Settings, Thorn
from thorn_core.delivery import follow_redirect, leaves_https
from thorn_core.testing import LocalRecipient
from thorn_core.testing.transport_contract import TransportContract
from thorn_core.transports import best_transport

REQUEST = Request(url="https://example.com/a", headers={}, body=b"{}")


@pytest.fixture(scope="module")
def contexts():
    """TLS contexts of a recipient and of a transport that trusts it."""
    return TransportContract.contexts(trustme.CA(), "127.0.0.1")


@pytest.fixture
def app(contexts):
    settings = Settings(
        allowed_networks=["127.0.0.0/8"], allowed_ports=range(1, 65536), allow_redirects=True
    )
    transport = partial(best_transport, ssl_context=contexts[1])
    with Thorn(dispatcher="outbox", settings=settings, transport=transport) as app:
        yield app


def sent(app, recipient):
    """The delivery of a message to a recipient, after one attempt."""
    app.subscribe("*", recipient.url)
    receipt = app.send("a.b", {"n": 1})
    app.worker().drain()
    (delivery,) = receipt.deliveries
    return delivery


def test_a_redirect_from_https_to_http_is_a_failed_attempt_that_says_so(app, contexts):
    with LocalRecipient(ssl_context=contexts[0]) as secure, LocalRecipient() as plain:
        secure.answer(status=307, headers={"Location": f"{plain.url}?token=secret"})
        delivery = sent(app, secure)
        (attempt,) = app.attempts(delivery.id)
        assert delivery.state is DeliveryState.PENDING
        assert attempt.error == (
            f"status 307: the redirect to '{plain.url}' goes from https to http, which doesn't"
            f" protect the payload; redirect to an https URL"
        )
        assert (len(secure.received), plain.connections) == (1, 0)


def test_a_later_hop_from_https_to_http_is_refused_too(app, contexts):
    with LocalRecipient(ssl_context=contexts[0]) as secure, LocalRecipient() as plain:
        plain.answer(status=307, headers={"Location": secure.url})
        secure.answer(status=307, headers={"Location": plain.url})
        delivery = sent(app, plain)
        assert "from https to http" in delivery.reason
        assert (len(plain.received), len(secure.received)) == (1, 1)


def test_a_redirect_from_http_to_https_and_on_within_https_is_followed(app, contexts):
    with LocalRecipient(ssl_context=contexts[0]) as secure, LocalRecipient() as plain:
        plain.answer(status=308, headers={"Location": secure.url})
        secure.answer(status=307, headers={"Location": "/other"}, times=1)
        delivery = sent(app, plain)
        assert delivery.state is DeliveryState.DELIVERED
        assert [request.path for request in secure.received] == ["/", "/other"]


@pytest.mark.parametrize(
    ("here", "location", "leaves"),
    [
        ("https://example.com/a", "http://example.com/a", True),
        ("HTTPS://example.com/a", "HTTP://other.example/", True),
        ("https://example.com/a", "//other.example/", False),
        ("https://example.com/a", "/b", False),
        ("http://example.com/a", "http://other.example/", False),
        ("http://example.com/a", "https://example.com/", False),
    ],
)
def test_a_hop_leaves_https_if_it_is_to_http(here, location, leaves):
    request = attrs.evolve(REQUEST, url=here)
    hop = follow_redirect(request, Response(status=307, headers={"location": location}))
    assert leaves_https(request, hop) is leaves
