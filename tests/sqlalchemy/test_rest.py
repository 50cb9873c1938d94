"""The REST resource on a database: what only a database can get wrong."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta

import pytest

from thorn_core import Routing, Thorn
from thorn_core.api import ApiRequest, Resource
from thorn_core.delivery import make_delivery
from thorn_sqlalchemy import SqlStore

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOOK = {"event": "*", "url": "https://example.com/"}


def ask(resource, method, path, body=None, *, owner="ada", headers=None, **query):
    """Send a request to the resource."""
    return resource.handle(
        ApiRequest(
            method=method,
            path=path,
            query={name: [value] for name, value in query.items()},
            headers={"content-type": "application/json", **(headers or {})},
            body=b"" if body is None else json.dumps(body).encode(),
            owner=owner,
        )
    )


@pytest.fixture
def clock():
    return [NOW]


@pytest.fixture
def resource(any_place, clock):
    store = SqlStore(any_place.url)
    store.create()
    with Thorn(store=store, dispatcher="outbox", clock=lambda: clock[0]) as app:
        yield Resource(app)


def test_a_subscription_goes_its_way(resource):
    body = {**HOOK, "headers": {"X-A": "1"}, "description": "Für den Laden 🏪", "rate_limit": 2}
    made = ask(resource, "POST", "/hooks/", body)
    path = f"/hooks/{made.json['id']}/"
    seen = ask(resource, "GET", path)
    assert seen.json["headers"] == {"X-A": "1"}
    assert seen.json["created_at"] == made.json["created_at"]
    changed = ask(
        resource, "PATCH", path, {"event": ["a.b"]}, headers={"if-match": seen.headers["etag"]}
    )
    assert (changed.status, changed.json["event"]) == (200, ["a.b"])
    assert ask(resource, "DELETE", path).status == 204
    assert ask(resource, "GET", path).status == 404


@pytest.mark.parametrize("key", ["\0", "é" * 50, "x" * 5000, "' OR 1=1 --", "\ud800", "%00"])
def test_an_id_that_no_database_takes_is_not_found(resource, key):
    for path in (f"/hooks/{key}/", f"/deliveries/{key}/", f"/deliveries/dlv_1_{key}/"):
        assert ask(resource, "GET", path).status == 404
        assert ask(resource, "GET", path, owner=None).status == 401


def test_the_same_key_at_once_makes_one_subscription(resource):
    answers, barrier = [], threading.Barrier(4)

    def subscribe():
        barrier.wait(10)
        headers = {"idempotency-key": "k"}
        answers.append(ask(resource, "POST", "/hooks/", HOOK, headers=headers))

    threads = [threading.Thread(target=subscribe) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status for answer in answers) == [200, 200, 200, 201]
    assert len({answer.json["id"] for answer in answers}) == 1


def test_the_log_comes_the_newest_first_whatever_ids_say(resource, clock):
    app = resource.app
    made = ask(resource, "POST", "/hooks/", HOOK).json
    for minute in range(6):
        clock[0] = NOW + timedelta(minutes=minute)
        message = app.send("order.paid", minute, idempotency_key=str(minute)).message
        delivery = make_delivery(message, app.subscription(made["id"]), clock[0])
        app.store.route([Routing(message=message, deliveries=[delivery])])
    minutes, cursor = [], {}
    while True:
        page = ask(resource, "GET", f"/hooks/{made['id']}/deliveries/", limit="4", **cursor).json
        minutes += [datetime.fromisoformat(item["created_at"]).minute for item in page["items"]]
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"].partition("cursor=")[2]}
    assert minutes == [5, 4, 3, 2, 1, 0]
    since = ask(
        resource,
        "GET",
        f"/hooks/{made['id']}/deliveries/",
        since="0001-01-01T00:00:00Z",
        until="9999-12-31T23:59:59Z",
    )
    assert len(since.json["items"]) == 6
