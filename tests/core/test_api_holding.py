"""The calls that hold, cancel and recover deliveries; and changes that meet others."""

from __future__ import annotations

import threading

import attrs
import pytest
from api_client import LOCAL, URL, Client, problem

from thorn_core import MemoryStore, Thorn
from thorn_core.api import Resource
from thorn_core.api.exchange import encode, etag_of
from thorn_core.testing import LocalRecipient


@pytest.fixture
def recipient():
    with LocalRecipient() as recipient:
        yield recipient


@pytest.fixture
def app():
    with Thorn(settings=LOCAL, dispatcher="outbox") as app:
        yield app


@pytest.fixture
def ada(app):
    return Client(Resource(app), "ada")


def test_a_paused_subscription_holds_its_deliveries_until_it_is_resumed(app, ada, recipient):
    made = ada.subscribe(recipient.url, "a.*")
    path = made["subscription"]
    paused = ada("POST", path + "pause/")
    assert (paused.status, paused.json["paused"]) == (200, True)
    assert paused.headers["etag"] == ada("GET", path).headers["etag"]
    app.send("a.b", {"n": 1}, sender="ada")
    app.worker().drain()
    (held,) = ada("GET", path + "deliveries/").json["items"]
    assert (held["state"], held["origin"]) == ("held", recipient.url.rstrip("/"))
    assert ada("GET", path + "deliveries/", state="pending").json["items"] == [held]
    assert recipient.received == ()
    assert ada("POST", path + "resume/").json["paused"] is False
    app.worker().drain()
    (sent,) = ada("GET", path + "deliveries/").json["items"]
    assert sent["state"] == "delivered"
    problem(ada("PATCH", path, {"paused": True}), 422, "invalid")


def test_with_an_inline_dispatcher_what_was_held_goes_out_at_once(recipient):
    with Thorn(settings=LOCAL) as app:
        ada = Client(Resource(app), "ada")
        path = ada.subscribe(recipient.url, "a.*")["subscription"]
        ada("POST", path + "pause/")
        assert not app.send("a.b", 1, sender="ada")
        ada("POST", path + "resume/")
        recipient.wait_for(1)


def test_a_pending_delivery_is_cancelled_and_can_be_retried(app, ada, recipient):
    path = ada.subscribe(recipient.url, "a.*")["subscription"]
    ada("POST", path + "pause/")
    (delivery,) = [app.send("a.b", 1, sender="ada")]
    app.worker().drain()
    (delivery,) = delivery.deliveries
    there = f"/deliveries/{delivery.id}/"
    cancelled = ada("POST", there + "cancel/")
    assert cancelled.status == 200
    assert cancelled.json["state"] == "cancelled"
    assert cancelled.json["reason"] == "cancelled by its owner"
    problem(ada("POST", there + "cancel/"), 409, "conflict")
    assert ada("POST", there + "retry/").json["state"] == "held"
    staff = Client(ada.resource, operator=True)
    assert staff("POST", there + "cancel/").json["reason"] == "cancelled by an operator"


def test_what_a_subscription_never_got_is_recovered_page_by_page(app, ada, recipient, monkeypatch):
    monkeypatch.setattr("thorn_core.api.deliveries.RECOVERED_AT_ONCE", 2)
    for number in range(5):
        app.send("a.b", number, sender="ada")
    app.send("a.b", "bob's", sender="bob")
    app.send("z.b", "unmatched", sender="ada")
    app.worker().drain()
    path = ada.subscribe(recipient.url, "a.*")["subscription"]
    since = {"since": "2026-01-01T00:00:00Z"}
    assert ada("POST", path + "recover/", since).json == {"recovered": 0, "cursor": None}
    counts, cursor = [], {}
    while cursor is not None:
        told = ada("POST", path + "recover/", {**since, "missing": True, **cursor}).json
        counts.append(told["recovered"])
        cursor = None if told["cursor"] is None else {"cursor": told["cursor"]}
    assert sum(counts) == 5
    assert max(counts) == 2
    app.worker().drain()
    assert sorted(request.json["data"] for request in recipient.received) == list(range(5))
    again = ada("POST", path + "recover/", {**since, "missing": True}).json
    assert again["recovered"] == 0
    problem(ada("POST", path + "recover/", {**since, "missing": "yes"}), 422, "invalid")
    other = {**since, "missing": False, "cursor": told["cursor"] or again["cursor"]}
    problem(ada("POST", path + "recover/", other), 400, "malformed")


class Meddling(MemoryStore):
    """A store in which somebody else is a moment faster."""

    meddle = None

    def change_subscription(self, subscription_id, change):
        meddle, self.meddle = self.meddle, None
        if meddle is not None:
            super().change_subscription(subscription_id, meddle)
        return super().change_subscription(subscription_id, change)


def test_a_change_is_meant_for_what_is_there_when_it_is_made():
    store = Meddling()
    with Thorn(store=store, settings=LOCAL) as app:
        ada = Client(Resource(app), "ada")
        path = ada.subscribe(URL)["subscription"]
        etag = ada("GET", path).headers["etag"]
        store.meddle = lambda s: attrs.evolve(s, description="faster")
        refused = ada("PATCH", path, {"rate_limit": 5}, headers={"if-match": etag})
        problem(refused, 412, "precondition-failed")
        kept = ada("GET", path).json
        assert (kept["description"], kept["rate_limit"]) == ("faster", None)
        assert refused.headers["etag"] == etag_of(encode(kept))
        # Without a condition both changes hold.
        store.meddle = lambda s: attrs.evolve(s, description="faster again")
        both = ada("PATCH", path, {"rate_limit": 5}).json
        assert (both["description"], both["rate_limit"]) == ("faster again", 5)


def test_hidden_headers_do_not_follow_a_url_that_moved_meanwhile():
    store = Meddling()
    with Thorn(store=store, settings=LOCAL) as app:
        ada = Client(Resource(app), "ada")
        made = ada.subscribe(URL, headers={"X-Key": "secret", "X-Shop": "1"})
        store.meddle = lambda s: attrs.evolve(s, url="https://elsewhere.example/", headers={})
        body = {"headers": {"X-Key": None, "X-Shop": "2"}}
        problem(ada("PATCH", made["subscription"], body), 422, "invalid")
        assert app.subscription(made["id"]).headers == {}


def test_no_edit_undoes_the_disabling_by_a_worker(recipient):
    recipient.answer(status=410)
    with Thorn(settings=LOCAL, dispatcher="outbox") as app:
        ada = Client(Resource(app), "ada")
        made = ada.subscribe(recipient.url, "a.*")
        app.send("a.b", 1, sender="ada")
        start = threading.Barrier(2)

        def work():
            start.wait()
            app.worker().drain()

        thread = threading.Thread(target=work)
        thread.start()
        start.wait()
        while thread.is_alive():
            assert ada("PATCH", made["subscription"], {"description": "mine"}).status == 200
            assert ada("PATCH", made["subscription"], {"description": ""}).status == 200
        thread.join()
        assert app.subscription(made["id"]).enabled is False
