"""The REST resource: every call, as its users see it."""

from __future__ import annotations

import json
import logging
import threading
from datetime import UTC, datetime, timedelta

import attrs
import pytest
from api_client import ANOTHER, BASE, LOCAL, SHARED, THIRD, URL, Client, faults, problem

from thorn_core import Event, MemoryStore, StoreError, Thorn
from thorn_core.api import ApiRequest, Resource
from thorn_core.api.rates import Rate
from thorn_core.errors import ConfigurationError
from thorn_core.receiver import verify
from thorn_core.testing import LocalRecipient

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def app():
    with Thorn(settings=LOCAL) as app:
        yield app


@pytest.fixture
def ada(app):
    return Client(Resource(app), "ada")


@pytest.fixture
def recipient():
    with LocalRecipient() as recipient:
        yield recipient


# -- subscriptions


def test_a_subscription_is_made_with_pattern_and_url(app, ada):
    response = ada("POST", "/hooks/", {"event": "article.*", "url": URL})
    made = response.json
    assert response.status == 201
    assert response.headers["location"] == made["subscription"] == f"{BASE}/hooks/{made['id']}/"
    kept = app.subscription(made["id"])
    assert (kept.owner, kept.events, kept.url) == ("ada", ("article.*",), URL)
    assert made["secret"] == kept.secret
    assert made == {
        "id": kept.id,
        "subscription": f"{BASE}/hooks/{kept.id}/",
        "deliveries": f"{BASE}/hooks/{kept.id}/deliveries/",
        "owner": "ada",
        "event": ["article.*"],
        "url": URL,
        "content_type": "application/json",
        "hmac_digest": "sha256",
        "public_key": None,
        "headers": {},
        "description": "",
        "rate_limit": None,
        "enabled": True,
        "paused": False,
        "disabled_reason": None,
        "failing_since": None,
        "created_at": made["created_at"],
        "updated_at": made["created_at"],
        "secret": kept.secret,
    }


def test_a_subscription_is_made_with_everything(app, ada):
    made = ada.subscribe(
        event=["article.*", "user.created", "article.*"],
        content_type="application/x-www-form-urlencoded",
        hmac_digest="sha512",
        hmac_secret=SHARED,
        headers={"X-Shop": "1", "Authorization": "Bearer abc"},
        description="Für den Laden",
        rate_limit=0.5,
        enabled=False,
    )
    kept = app.subscription(made["id"])
    assert kept.events == ("article.*", "user.created")
    assert kept.content_type == "application/x-www-form-urlencoded"
    assert kept.hmac_digest == "sha512"
    assert kept.secret == made["secret"] == SHARED
    assert kept.headers == {"X-Shop": "1", "Authorization": "Bearer abc"}
    assert (kept.description, kept.rate_limit, kept.enabled) == ("Für den Laden", 0.5, False)
    assert kept.disabled_reason == "its owner created it disabled"


def test_a_secret_is_told_once_and_never_again(ada):
    made = ada.subscribe(hmac_secret=SHARED, headers={"Authorization": "Bearer abc"})
    path = made["subscription"]
    answers = [
        ada("GET", path),
        ada("GET", "/hooks/"),
        ada("PATCH", path, {"description": "changed"}),
        ada("PUT", path, {"event": "*", "url": URL, "headers": {"Authorization": None}}),
        ada("PATCH", path, {"hmac_secret": SHARED, "headers": {"Authorization": 1}}),
        ada("POST", path + "rotate-secret/", {"hmac_secret": ANOTHER}),
        ada("POST", path + "rotate-secret/", {"hmac_secret": "short"}),
        ada("GET", path),
        ada("DELETE", path),
    ]
    for answer in answers:
        told = repr(answer) + answer.body.decode()
        assert SHARED not in told
        assert "Bearer abc" not in told
    assert ANOTHER in answers[5].json["secret"]
    assert sum(ANOTHER.encode() in answer.body for answer in answers) == 1


def test_a_credential_in_a_header_is_not_shown_and_stays_when_it_comes_back_unseen(app, ada):
    made = ada.subscribe(headers={"Authorization": "Bearer abc", "X-Shop": "1"})
    assert made["headers"] == {"Authorization": None, "X-Shop": "1"}
    path = made["subscription"]
    ada("PATCH", path, {"headers": {**made["headers"], "x-shop": "2", "X-Shop": "2"}})
    ada("PATCH", path, {"headers": {"authorization": None, "X-Shop": "2"}})
    assert app.subscription(made["id"]).headers == {"authorization": "Bearer abc", "X-Shop": "2"}
    assert ada("PATCH", path, {"headers": {"Authorization": "new"}}).status == 200
    assert app.subscription(made["id"]).headers == {"Authorization": "new"}


def test_a_subscription_is_read_changed_replaced_and_removed(app, ada):
    made = ada.subscribe(description="old", rate_limit=3)
    path = made["subscription"]
    seen = ada("GET", path).json
    assert seen == {name: value for name, value in made.items() if name != "secret"}

    changed = ada("PATCH", path, {"event": ["user.*"], "url": "https://EXAMPLE.com:443/b"})
    assert changed.status == 200
    assert (changed.json["event"], changed.json["url"]) == (["user.*"], "https://example.com/b")
    assert changed.json["description"] == "old"
    assert changed.json == ada("GET", path).json

    replaced = ada("PUT", path, {"event": "a.b", "url": URL})
    assert (replaced.status, replaced.json["event"]) == (200, ["a.b"])
    assert (replaced.json["description"], replaced.json["rate_limit"]) == ("", None)
    assert app.subscription(made["id"]).secret == made["secret"]

    removed = ada("DELETE", path)
    assert (removed.status, removed.body) == (204, b"")
    assert app.subscription(made["id"]) is None
    problem(ada("GET", path), 404, "not-found")
    problem(ada("DELETE", path), 404, "not-found")


def test_what_was_read_can_be_put_back(app, ada):
    made = ada.subscribe(headers={"X-Key": "abc", "X-A": "1"}, rate_limit=2, enabled=False)
    before = app.subscription(made["id"])
    response = ada("PUT", made["subscription"], ada("GET", made["subscription"]).json)
    assert response.status == 200
    assert app.subscription(made["id"]) == before


def test_disabling_says_who_did_it_and_enabling_forgets_it(app, ada):
    path = ada.subscribe()["subscription"]
    assert ada("PATCH", path, {"enabled": False}).json["disabled_reason"] == "its owner disabled it"
    again = ada("PATCH", path, {"enabled": True}).json
    assert (again["enabled"], again["disabled_reason"]) == (True, None)
    staff = Client(ada.resource, operator=True)
    assert staff("PATCH", path, {"enabled": False}).json["disabled_reason"] == (
        "an operator disabled it"
    )
    # It is off already, and why stays.
    off = ada("PATCH", path, {"enabled": False, "description": "x"}).json
    assert off["disabled_reason"] == "an operator disabled it"


def test_a_change_that_changes_nothing_leaves_since_when_it_fails(app, ada):
    made = ada.subscribe()
    app.store.change_subscription(made["id"], lambda s: attrs.evolve(s, failing_since=NOW))
    for method, body in (("PATCH", {}), ("PATCH", {"enabled": True}), ("PUT", made)):
        body = {k: v for k, v in body.items() if k not in ("secret", "failing_since")}
        assert ada(method, made["subscription"], body).json["failing_since"] == (
            "2026-03-01T12:00:00Z"
        )


def test_a_secret_is_rotated_and_both_sign_for_a_while(app, ada, recipient):
    made = ada.subscribe(recipient.url)
    rotated = ada("POST", made["subscription"] + "rotate-secret/")
    assert rotated.status == 200
    assert made["secret"] != rotated.json["secret"] != ""
    until = datetime.fromisoformat(rotated.json["former_secrets_until"])
    assert timedelta(hours=23) < until - datetime.now(UTC) < timedelta(hours=25)
    app.send("article.created", {"n": 1}, sender="ada")
    (request,) = recipient.wait_for(1)
    for secret in (made["secret"], rotated.json["secret"]):
        assert verify(request.body, request.headers, [secret]).payload
    given = ada("POST", made["subscription"] + "rotate-secret/", {"hmac_secret": THIRD})
    assert given.json["secret"] == THIRD


def test_an_overlap_says_how_long_the_former_secret_signs(app, ada):
    made = ada.subscribe()
    path = made["subscription"] + "rotate-secret/"
    until = datetime.fromisoformat(ada("POST", path, {"overlap": 60}).json["former_secrets_until"])
    assert timedelta(seconds=50) < until - datetime.now(UTC) <= timedelta(seconds=60)
    revoked = ada("POST", path, {"overlap": 0}).json
    assert revoked["former_secrets_until"] is None
    assert app.subscription(made["id"]).secrets == (revoked["secret"],)
    for overlap in (-1, "60", True, 10**9):
        assert set(faults(ada("POST", path, {"overlap": overlap}))) == {"overlap"}


def test_rotating_is_rate_limited_for_each_subscription(app):
    resource = Resource(app, rotations_per_minute=3)
    ada, operator = Client(resource, "ada"), Client(resource, operator=True)
    one, two = (ada.subscribe()["subscription"] + "rotate-secret/" for _ in range(2))
    assert [ada("POST", one).status for _ in range(5)] == [200, 200, 200, 429, 429]
    assert ada("POST", two).status == 200
    assert operator("POST", one).status == 200
    # What is refused anyway costs nothing.
    assert {ada("POST", two, {"overlap": -1}).status for _ in range(5)} == {422}
    assert ada("POST", two).status == 200


def test_a_private_key_is_never_shown_and_the_public_one_always(recipient):
    settings = LOCAL.evolve(signatures=["standard-webhooks-ed25519"])
    with Thorn(settings=settings) as app:
        ada = Client(Resource(app), "ada")
        made = ada.subscribe(recipient.url)
        path = made["subscription"]
        assert made["secret"] is None
        assert made["public_key"].startswith("whpk_")
        assert ada("GET", path).json["public_key"] == made["public_key"]
        rotated = ada("POST", path + "rotate-secret/", {"overlap": 0}).json
        assert rotated["public_key"] != made["public_key"]
        given = ada("POST", path + "rotate-secret/", {"hmac_secret": SHARED})
        assert "whsk_ followed by base64" in faults(given)["hmac_secret"]["message"]
        for answer in (made, rotated, ada("GET", "/hooks/").json):
            assert "whsk_" not in json.dumps(answer)
        app.send("article.created", {"n": 1}, sender="ada")
        (request,) = recipient.wait_for(1)
        scheme = "standard-webhooks-ed25519"
        assert verify(request.body, request.headers, rotated["public_key"], scheme=scheme)


def test_hidden_headers_do_not_follow_to_another_origin(app, ada):
    headers = {"Authorization": "Bearer abc", "X-Shop": "1"}

    def changed(method, **body):
        made = ada.subscribe(headers=headers)
        answer = ada(method, made["subscription"], {"url": "https://other.example/", **body})
        assert answer.status == 200
        return dict(app.subscription(made["id"]).headers)

    shown = {"Authorization": None, "X-Shop": "1"}
    assert changed("PATCH") == {"X-Shop": "1"}
    assert changed("PATCH", headers=shown) == {"X-Shop": "1"}
    assert changed("PUT", event="*", headers=shown) == {"X-Shop": "1"}
    assert changed("PATCH", headers=headers) == headers
    assert changed("PUT", event="*", headers=headers) == headers
    assert changed("PATCH", url=URL + "/elsewhere") == headers


@pytest.mark.parametrize("owner", ["", " ", "ada ", "a\0da", "x" * 256])
def test_who_has_no_id_that_can_be_told_from_others_has_no_entry(app, owner):
    client = Client(Resource(app), owner)
    problem(client("GET", "/hooks/"), 401, "unauthenticated")
    problem(client("POST", "/hooks/", {"event": "*", "url": URL}), 401, "unauthenticated")
    operator = Client(Resource(app), operator=True)
    assert operator("GET", "/hooks/", owner=owner).status == 400
    if owner:
        both = Client(Resource(app), owner, operator=True)
        problem(both("POST", "/hooks/", {"event": "*", "url": URL}), 401, "unauthenticated")


# -- conditional requests


def test_what_has_not_changed_is_not_sent_again(ada):
    made = ada.subscribe()
    for path in (made["subscription"], "/hooks/", made["deliveries"], "/event-types/"):
        first = ada("GET", path)
        etag = first.headers["etag"]
        again = ada("GET", path, headers={"if-none-match": f'"other", W/{etag}'})
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", etag)
        assert ada("HEAD", path, headers={"if-none-match": "*"}).status == 304
        assert ada("GET", path, headers={"if-none-match": '"other"'}).status == 200


def test_a_change_is_made_to_what_was_seen_or_not_at_all(app, ada):
    response = ada("POST", "/hooks/", {"event": "a.*", "url": URL})
    path, etag = response.json["subscription"], response.headers["etag"]
    assert etag == ada("GET", path).headers["etag"]
    changed = ada("PATCH", path, {"description": "1"}, headers={"if-match": etag})
    assert changed.status == 200
    assert changed.headers["etag"] == ada("GET", path).headers["etag"] != etag
    put = {"event": "b.*", "url": URL}
    for stale in (etag, f"W/{changed.headers['etag']}", '"x"', ""):
        for method, body in (("PATCH", {"description": "2"}), ("PUT", put), ("DELETE", None)):
            refused = ada(method, path, body, headers={"if-match": stale})
            problem(refused, 412, "precondition-failed")
            assert refused.headers["etag"] == changed.headers["etag"]
    problem(ada("PUT", path, put, headers={"if-none-match": "*"}), 412, "precondition-failed")
    assert app.subscription(response.json["id"]).description == "1"
    assert ada("PUT", path, put, headers={"if-match": "*"}).status == 200
    assert ada("DELETE", path, headers={"if-match": ada("GET", path).headers["etag"]}).status == 204


# -- idempotency


def test_the_same_key_makes_one_subscription(app, ada):
    body = {"event": "article.*", "url": URL, "headers": {"X-A": "1"}}
    first = ada("POST", "/hooks/", body, headers={"idempotency-key": '"k-1"'})
    again = ada("POST", "/hooks/", body, headers={"idempotency-key": "k-1"})
    assert (first.status, again.status) == (201, 200)
    assert again.json == {k: v for k, v in first.json.items() if k != "secret"}
    assert again.headers["location"] == first.headers["location"]
    assert len(list(app.subscriptions())) == 1
    other = ada("POST", "/hooks/", body, headers={"idempotency-key": "k-2"})
    assert other.status == 201


def test_a_key_belongs_to_one_request_of_one_owner(app, ada):
    key = {"idempotency-key": "k-1"}
    body = {"event": "article.*", "url": URL, "hmac_secret": SHARED}
    first = ada("POST", "/hooks/", body, headers=key)
    for change in ({"event": "a.b"}, {"rate_limit": 1}, {"hmac_secret": ANOTHER}):
        refused = ada("POST", "/hooks/", {**body, **change}, headers=key)
        assert first.json["id"] in problem(refused, 422, "idempotency-key-reused")["detail"]
    bob = Client(ada.resource, "bob")
    assert bob("POST", "/hooks/", body, headers=key).json["id"] != first.json["id"]
    for bad in ("", '""', "x" * 256, "ü", "a\nb"):
        problem(ada("POST", "/hooks/", body, headers={"idempotency-key": bad}), 400, "malformed")


def test_the_same_key_at_once_makes_one_subscription(app):
    barrier = threading.Barrier(8)

    class SlowStore(MemoryStore):
        def add_subscription(self, subscription):
            barrier.wait(10)
            super().add_subscription(subscription)

    with Thorn(store=SlowStore()) as slow:
        ada = Client(Resource(slow), "ada")
        answers = []

        def subscribe():
            body = {"event": "a.*", "url": URL}
            answers.append(ada("POST", "/hooks/", body, headers={"idempotency-key": "k"}))

        threads = [threading.Thread(target=subscribe) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answer.status for answer in answers) == [200] * 7 + [201]
        assert len({answer.json["id"] for answer in answers}) == 1


# -- deliveries


def test_a_test_message_is_sent_and_its_delivery_can_be_looked_at(ada, recipient):
    made = ada.subscribe(recipient.url)
    sent = ada("POST", made["subscription"] + "test/")
    assert sent.status == 202
    (request,) = recipient.wait_for(1)
    assert request.headers["webhook-id"] == sent.json["message_id"]
    assert request.json["event"] == sent.json["event"] == "thorn.test"
    seen = ada("GET", sent.json["delivery"]).json
    assert (seen["id"], seen["state"]) == (sent.json["delivery_id"], "delivered")
    assert seen["subscription"] == made["subscription"]
    assert seen["message"]["data"]["subscription"] == made["id"]
    (attempt,) = seen["attempts"]
    assert (attempt["number"], attempt["status"], attempt["ok"]) == (1, 200, True)
    assert "owner" not in seen["message"]
    assert "context" not in seen["message"]


def test_a_delivery_tells_what_came_back(ada, recipient):
    made = ada.subscribe(recipient.url)
    recipient.answer(status=500, body=b"down \xff", headers={"X-Why": "maintenance"})
    sent = ada("POST", made["subscription"] + "test/").json
    seen = ada("GET", sent["delivery"]).json
    assert (seen["state"], seen["reason"]) == ("pending", "status 500")
    assert seen["due_at"] is not None
    (attempt,) = seen["attempts"]
    assert (attempt["status"], attempt["body"]) == (500, "down \N{REPLACEMENT CHARACTER}")
    assert attempt["headers"]["x-why"] == "maintenance"
    assert attempt["error"] is None


def test_of_very_many_attempts_the_latest_are_shown(app, ada, recipient):
    path = ada("POST", ada.subscribe(recipient.url)["subscription"] + "test/").json["delivery"]
    for _ in range(104):
        app.replay(path.split("/")[-2])
    seen = ada("GET", path).json
    assert seen["attempt_count"] == 105
    assert [attempt["number"] for attempt in seen["attempts"]] == list(range(6, 106))


def test_a_finished_delivery_is_tried_again(ada, recipient):
    made = ada.subscribe(recipient.url)
    path = ada("POST", made["subscription"] + "test/").json["delivery"]
    again = ada("POST", path + "retry/")
    assert (again.status, again.json["attempt_count"]) == (202, 2)
    assert len(recipient.wait_for(2)) == 2
    recipient.answer(status=503)
    assert ada("POST", path + "retry/").json["state"] == "pending"
    problem(ada("POST", path + "retry/"), 409, "conflict")


def test_nothing_is_sent_to_what_is_disabled(ada, recipient):
    made = ada.subscribe(recipient.url)
    delivery = ada("POST", made["subscription"] + "test/").json["delivery"]
    ada("PATCH", made["subscription"], {"enabled": False})
    since = {"since": "2026-01-01T00:00:00Z"}
    problem(ada("POST", made["subscription"] + "test/"), 409, "conflict")
    problem(ada("POST", delivery + "retry/"), 409, "conflict")
    problem(ada("POST", made["subscription"] + "recover/", since), 409, "conflict")
    assert len(recipient.received) == 1


def test_everything_that_failed_since_a_time_is_recovered(recipient):
    now = [NOW]
    settings = LOCAL.evolve(retry=False)
    with Thorn(settings=settings, clock=lambda: now[0]) as app:
        ada = Client(Resource(app), "ada")
        made, other = ada.subscribe(recipient.url), ada.subscribe(recipient.url)
        recipient.answer(status=500)
        for hour in range(4):
            now[0] = NOW + timedelta(hours=hour)
            app.send("article.created", {"hour": hour}, sender="ada")
        recipient.answer(status=200)
        app.send("article.created", {"hour": "fine"}, sender="ada")
        path = made["subscription"] + "recover/"
        before = len(recipient.received)
        body = {"since": "2026-03-01T13:00:00+00:00", "until": "2026-03-01T15:00:00Z"}
        response = ada("POST", path, {**body, "event": "article.*"})
        assert (response.status, response.json) == (202, {"recovered": 2, "cursor": None})
        assert [r.json["data"]["hour"] for r in recipient.received[before:]] == [1, 2]
        assert ada("POST", path, body).json["recovered"] == 0
        states = [d.state for d in app.deliveries(subscription_id=other["id"])]
        assert states == ["failed"] * 4 + ["delivered"]


def test_very_many_are_recovered_call_by_call():
    with Thorn(settings=LOCAL.evolve(retry=False), dispatcher="outbox") as app:
        ada = Client(Resource(app, sends_per_minute=None), "ada")
        made = ada.subscribe("http://127.0.0.1:1024/")
        for number in range(1201):
            app.send("article.created", number, sender="ada")
        app.worker().drain()
        body, recovered = {"since": "2026-01-01T00:00:00Z"}, []
        while True:
            answer = ada("POST", made["subscription"] + "recover/", body).json
            recovered.append(answer["recovered"])
            if answer["cursor"] is None:
                break
            body["cursor"] = answer["cursor"]
        assert recovered == [500, 500, 201]
        assert {d.state for d in app.deliveries()} == {"pending"}


def test_what_fails_again_at_once_is_recovered_once(recipient, monkeypatch):
    monkeypatch.setattr("thorn_core.api.deliveries.RECOVERED_AT_ONCE", 2)
    with Thorn(settings=LOCAL.evolve(retry=False)) as app:
        ada = Client(Resource(app), "ada")
        made = ada.subscribe(recipient.url)
        recipient.answer(status=500)
        for number in range(5):
            app.send("article.created", number, sender="ada")
        body, recovered = {"since": "2026-01-01T00:00:00Z", "cursor": None}, []
        for _ in range(3):
            answer = ada("POST", made["subscription"] + "recover/", body).json
            recovered.append(answer["recovered"])
            body["cursor"] = answer["cursor"]
        assert (recovered, body["cursor"]) == ([2, 2, 1], None)
        assert len(recipient.received) == 10


def test_what_to_recover_must_be_said_well(ada):
    path = ada.subscribe()["subscription"] + "recover/"
    response = ada("POST", path)
    assert [e["field"] for e in problem(response, 422, "invalid")["errors"]] == ["since"]
    bad = {"since": "yesterday", "until": 5, "event": "a..b", "cursor": 1}
    response = ada("POST", path, bad)
    errors = problem(response, 422, "invalid")["errors"]
    assert [e["field"] for e in errors] == ["since", "until", "event", "cursor"]
    cursor = {"since": "2026-01-01T00:00:00Z", "cursor": "AAAA"}
    problem(ada("POST", path, cursor), 400, "malformed")
    assert problem(ada("POST", path, {"sinc": 1}), 422, "invalid")["errors"][0]["message"] == (
        "is unknown; did you mean since?"
    )


# -- what there is to subscribe to


def test_declared_events_are_listed_with_what_to_subscribe_to(app, ada):
    schema = {"type": "object", "required": ["title"]}
    kept = [
        Event("article.created", app=app, schema=schema, description="New", example={"title": "a"}),
        Event("article.dated", app=app, example={"at": NOW, "bad": object()}),
    ]
    found = {item["name"]: item for item in ada("GET", "/event-types/").json["items"]}
    assert found["article.created"] == {
        "name": "article.created",
        "event": "article.created",
        "description": "New",
        "schema": schema,
        "example": {"title": "a"},
    }
    assert found["article.dated"]["example"] is None
    assert found["thorn.subscription.disabled"]["schema"]["required"]
    assert kept


def test_only_what_may_be_subscribed_to_is_listed():
    with Thorn(settings=LOCAL.evolve(event_choices=["order.*"])) as app:
        kept = [Event("order.paid", app=app), Event("article.created", app=app)]
        items = Client(Resource(app), "ada")("GET", "/event-types/").json["items"]
        names = [item["name"] for item in items]
        # Other tests' events, which are any app's, may be among them.
        assert "order.paid" in names
        assert all(name.startswith("order.") for name in names)
        assert kept


# -- methods, paths, limits


def test_the_slash_at_the_end_makes_no_difference(ada):
    made = ada.subscribe()
    for path in ("/hooks/", made["subscription"], made["deliveries"], "/event-types/"):
        assert ada("GET", path).body == ada("GET", path.rstrip("/")).body != b""
    for path in ("/hooks//", "//hooks/", "/", "", "/hook/", "/hooks/a/b/", "/hooks/a/test/c"):
        problem(ada("GET", path), 404, "not-found")


def test_head_is_get_without_a_body(ada):
    got = ada("GET", ada.subscribe()["subscription"])
    asked = ada("HEAD", got.json["subscription"])
    assert (asked.status, asked.body) == (200, b"")
    assert asked.headers == {**got.headers, "content-length": str(len(got.body))}
    assert ada("HEAD", "/hooks/none/").status == 404


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_has_not_changed_is_answered_by_its_tag_alone(ada, method):
    got = ada("GET", ada.subscribe()["subscription"])
    tag = got.headers["etag"]
    asked = ada(method, got.json["subscription"], headers={"if-none-match": tag})
    # Nothing that describes a body that isn't sent (RFC 9110 section 15.4.5).
    assert (asked.status, asked.body, asked.headers["etag"]) == (304, b"", tag)
    assert {"content-length", "content-type"}.isdisjoint(asked.headers)


def test_options_and_other_methods_are_told_what_is_allowed(ada):
    for path, allowed in {
        "/hooks/": "GET, HEAD, OPTIONS, POST",
        "/hooks/none/": "DELETE, GET, HEAD, OPTIONS, PATCH, PUT",
        "/hooks/none/test/": "OPTIONS, POST",
        "/openapi.json": "GET, HEAD, OPTIONS",
    }.items():
        response = ada("OPTIONS", path)
        assert (response.status, response.headers["allow"]) == (204, allowed)
        response = ada("TRACE", path)
        problem(response, 405, "method-not-allowed")
        assert response.headers["allow"] == allowed
    assert ada("HEAD", "/hooks/none/test/").status == 405


def test_every_answer_is_private_and_is_what_it_says(ada):
    for response in (ada("GET", "/hooks/"), ada("GET", "/x"), ada("OPTIONS", "/hooks/")):
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-content-type-options"] == "nosniff"


def test_subscribing_too_often_has_to_wait(app):
    now = [NOW]
    with Thorn(clock=lambda: now[0]) as app:
        resource = Resource(app, creations_per_minute=2)
        ada, bob = Client(resource, "ada"), Client(resource, "bob")
        ada.subscribe()
        body = {"event": "a.b", "url": URL}
        key = {"idempotency-key": "k"}
        assert ada("POST", "/hooks/", body, headers=key).status == 201
        refused = ada("POST", "/hooks/", body)
        problem(refused, 429, "too-many-requests")
        assert refused.headers["retry-after"] == "30"
        # Faults, repetitions, others and operators aren't counted.
        assert ada("POST", "/hooks/", {}).status == 422
        assert ada("POST", "/hooks/", body, headers=key).status == 200
        bob.subscribe()
        for _ in range(5):
            Client(resource, "ada", operator=True).subscribe()
        now[0] += timedelta(seconds=30)
        ada.subscribe()
        assert ada("POST", "/hooks/", body).status == 429
        now[0] -= timedelta(days=1)
        assert ada("POST", "/hooks/", body).headers["retry-after"] == "30"


def test_having_something_sent_too_often_has_to_wait(app, recipient):
    ada = Client(Resource(app, sends_per_minute=2), "ada")
    made = ada.subscribe(recipient.url)
    delivery = ada("POST", made["subscription"] + "test/").json["delivery"]
    assert ada("POST", delivery + "retry/").status == 202
    since = {"since": "2026-01-01T00:00:00Z"}
    for path, body in ((delivery + "retry/", None), (made["subscription"] + "recover/", since)):
        problem(ada("POST", path, body), 429, "too-many-requests")
    assert len(recipient.received) == 2


def test_what_is_remembered_of_owners_is_bounded(monkeypatch):
    monkeypatch.setattr("thorn_core.api.rates.MOST_KEYS", 2)
    rate = Rate(1)
    assert [rate.take(owner, NOW) for owner in ("ada", "bob", "ada", "eve")] == [0, 0, 60, 0]
    # Bob came the longest ago.
    assert [rate.take(owner, NOW) for owner in ("ada", "bob")] == [60, 0]


def test_limits_must_make_sense(app):
    for name in ("body_limit", "creations_per_minute", "sends_per_minute"):
        with pytest.raises(ConfigurationError, match=name):
            Resource(app, **{name: 0})


def test_a_store_that_can_not_be_reached_is_said_to_be_without_saying_why(caplog):
    class BrokenStore(MemoryStore):
        def subscriptions(self, **criteria):
            raise StoreError("no connection to 10.0.0.7 as admin")

        def add_subscription(self, subscription):
            raise StoreError("no connection to 10.0.0.7 as admin")

    with Thorn(store=BrokenStore()) as app:
        ada = Client(Resource(app), "ada")
        for response in (
            ada("GET", "/hooks/"),
            ada("POST", "/hooks/", {"event": "a", "url": URL}, headers={"idempotency-key": "k"}),
        ):
            problem(response, 503, "unavailable")
            assert response.headers["retry-after"] == "5"
            assert b"10.0.0.7" not in response.body
    assert caplog.record_tuples[0][1] == logging.ERROR


def test_what_is_removed_in_between_is_not_found(ada, app):
    made = ada.subscribe()

    class Vanishing(MemoryStore):
        def subscription(self, subscription_id):
            found = super().subscription(subscription_id)
            self.remove_subscription(subscription_id, now=NOW)
            return found

    with Thorn(store=Vanishing()) as vanishing:
        client = Client(Resource(vanishing), "ada")
        for method, path, body in (
            ("PATCH", "", {"description": "x"}),
            ("DELETE", "", None),
            ("POST", "rotate-secret/", None),
            ("POST", "pause/", None),
            ("POST", "resume/", None),
            ("POST", "test/", None),
        ):
            made = client.subscribe()
            problem(client(method, made["subscription"] + path, body), 404, "not-found")


def test_without_a_base_url_links_begin_with_the_path(app):
    response = Resource(app).handle(
        ApiRequest(
            method="POST",
            path="/hooks",
            headers={"content-type": "application/json; charset=UTF-8"},
            body=b'{"event": "a.b", "url": "https://example.com/"}',
            owner="ada",
        )
    )
    assert response.headers["location"] == f"/hooks/{response.json['id']}/"
