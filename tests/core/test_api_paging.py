"""Lists of the REST resource: pages, cursors, filters, order."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from api_client import BASE, LOCAL, Client, faults, problem
from hypothesis import given
from hypothesis import strategies as st

from thorn_core import Thorn
from thorn_core.api import Resource
from thorn_core.api.paging import make_cursor, read_id
from thorn_core.api.parameters import parse_time

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOWHERE = "http://127.0.0.1:9/"


@pytest.fixture
def app():
    with Thorn(settings=LOCAL, dispatcher="outbox") as app:
        yield app


@pytest.fixture
def ada(app):
    return Client(Resource(app, creations_per_minute=None), "ada")


@pytest.fixture
def log():
    """Ada's subscription with a delivery an hour, and Bob's with as many."""
    now = [NOW]
    with Thorn(settings=LOCAL, dispatcher="outbox", clock=lambda: now[0]) as app:
        resource = Resource(app)
        ada, bob = Client(resource, "ada"), Client(resource, "bob")
        made, _ = ada.subscribe(NOWHERE, "*"), bob.subscribe(NOWHERE, "*")
        for hour in range(7):
            now[0] = NOW + timedelta(hours=hour)
            name = "article.created" if hour % 2 else "user.created"
            # An idempotency key makes ids that tell no time.
            app.send(name, hour, idempotency_key=f"{hour}")
            app.worker().drain()
        yield ada, made, app


def walk(client, path, **query):
    """Everything on all pages, by the links alone."""
    items, sizes = [], []
    response = client("GET", path, **query)
    while True:
        assert response.status == 200, response.body
        items += response.json["items"]
        sizes.append(len(response.json["items"]))
        url = response.json["next"]
        if url is None:
            assert "link" not in response.headers
            return items, sizes
        assert response.headers["link"] == f'<{url}>; rel="next"'
        assert url.startswith(BASE)
        path, _, text = url.partition("?")
        asked = {}
        for pair in text.split("&"):
            name, _, value = pair.partition("=")
            asked.setdefault(name, []).append(value.replace("%3A", ":").replace("%2A", "*"))
        response = client("GET", path, **asked)


def test_subscriptions_come_by_the_page(ada):
    ids = [ada.subscribe()["id"] for _ in range(7)]
    items, sizes = walk(ada, "/hooks/", limit="3")
    assert ([item["id"] for item in items], sizes) == (ids, [3, 3, 1])
    assert walk(ada, "/hooks/", limit="7")[1] == [7]
    for _ in range(44):
        ada.subscribe()
    assert walk(ada, "/hooks/")[1] == [50, 1]


def test_a_page_begins_where_one_ended_that_has_been_removed(ada):
    ids = [ada.subscribe()["id"] for _ in range(4)]
    url = ada("GET", "/hooks/", limit="2").json["next"]
    ada("DELETE", f"/hooks/{ids[1]}/")
    cursor = url.partition("cursor=")[2]
    rest = ada("GET", "/hooks/", limit="2", cursor=cursor).json["items"]
    assert [item["id"] for item in rest] == ids[2:]


def test_deliveries_come_the_newest_first(log):
    ada, made, app = log
    items, sizes = walk(ada, made["deliveries"], limit="3")
    assert sizes == [3, 3, 1]
    hours = [datetime.fromisoformat(item["created_at"]) for item in items]
    assert hours == [NOW + timedelta(hours=hour) for hour in reversed(range(7))]
    oldest_first, _ = walk(ada, made["deliveries"], limit="2", order="oldest")
    assert oldest_first == items[::-1]
    assert {item["subscription_id"] for item in items} == {made["id"]}
    assert len(list(app.deliveries())) == 14


def test_what_comes_meanwhile_does_not_shift_the_pages(log):
    ada, made, app = log
    first = ada("GET", made["deliveries"], limit="4").json
    app.send("user.created", "more")
    app.worker().drain()
    cursor = first["next"].partition("cursor=")[2].partition("&")[0]
    rest = ada("GET", made["deliveries"], limit="4", cursor=cursor).json["items"]
    ids = [item["id"] for item in (*first["items"], *rest)]
    assert len(set(ids)) == 7


def test_deliveries_are_filtered(log):
    ada, made, _app = log

    def found(**query):
        items, _ = walk(ada, made["deliveries"], limit="2", **query)
        return [datetime.fromisoformat(item["created_at"]).hour - 12 for item in items]

    assert found(event="article.*") == [5, 3, 1]
    assert found(event="*.created", since="2026-03-01T16:00:00Z") == [6, 5, 4]
    assert found(since="2026-03-01T14:00:00+01:00", until="2026-03-01T15:00:00Z") == [2, 1]
    # What a plus becomes that isn't percent-encoded.
    assert found(since="2026-03-01T19:00:00 01:00") == [6]
    assert found(state="pending") == [6, 5, 4, 3, 2, 1, 0]
    assert found(state="delivered,failed") == []
    assert found(state=["pending", "delivered"], order="oldest", event="user.created") == [
        *(0, 2, 4, 6)
    ]


def test_every_parameter_that_is_wrong_is_told(log):
    ada, made, _ = log
    response = ada(
        "GET",
        made["deliveries"],
        state=["pending", "failed,lost"],
        event="a..b",
        since="yesterday",
        until="2026-03-01T12:00:00",
        order="random",
        limit="101",
        stat="pending",
    )
    told = faults(response, 400, "malformed")
    assert set(told) == {"state", "event", "since", "until", "order", "limit", "stat"}
    assert told["stat"]["message"] == "is unknown; did you mean state?"
    assert "delivered" in told["state"]["allowed"]
    assert told["order"]["allowed"] == ["newest", "oldest"]


@pytest.mark.parametrize("limit", ["0", "-1", "101", "ten", "", "1e1", "٣", "9" * 5000, " 5"])
def test_a_limit_that_is_none_is_refused(ada, limit):
    assert set(faults(ada("GET", "/hooks/", limit=limit), 400, "malformed")) == {"limit"}


def test_a_parameter_is_given_once(ada):
    response = ada("GET", "/hooks/", limit=["1", "2"], cursor=["a", "b", "c"])
    assert set(faults(response, 400, "malformed")) == {"limit", "cursor"}
    assert ada("GET", "/hooks/", limit=[]).status == 200


@pytest.mark.parametrize(
    "cursor", ["", "x", "AAAA", "é", "a b", "=", "A" * 1000, "eyJhIjoxfQ", "../../etc/passwd"]
)
def test_a_cursor_that_is_none_is_refused(log, cursor):
    ada, made, _ = log
    for path in ("/hooks/", made["deliveries"]):
        assert set(faults(ada("GET", path, cursor=cursor), 400, "malformed")) == {"cursor"}


def test_a_cursor_of_another_list_is_refused(log):
    ada, made, _app = log
    other = ada.subscribe(NOWHERE, "*")

    def cursor(path, **query):
        return ada("GET", path, limit="1", **query).json["next"].partition("cursor=")[2]

    mine = cursor(made["deliveries"])
    problem(ada("GET", "/hooks/", cursor=mine), 400, "malformed")
    problem(ada("GET", other["deliveries"], cursor=mine), 400, "malformed")
    problem(ada("GET", made["deliveries"], cursor=mine, order="oldest"), 400, "malformed")
    problem(ada("GET", made["deliveries"], cursor=mine, event="user.*"), 400, "malformed")
    hooks = cursor("/hooks/")
    problem(Client(ada.resource, "bob")("GET", "/hooks/", cursor=hooks), 400, "malformed")
    # Another page's size is no other list.
    assert len(ada("GET", made["deliveries"], cursor=mine, limit="5").json["items"]) == 5


def test_a_forged_cursor_reaches_nothing_of_others(log):
    ada, made, _app = log
    bob = Client(ada.resource, "bob")
    for place in ("sub_" + "0" * 32, made["id"], "z"):
        forged = make_cursor(place, ("hooks", False, "bob"))
        items = bob("GET", "/hooks/", cursor=forged).json["items"]
        assert all(item["owner"] == "bob" for item in items)


@given(st.binary(max_size=60))
def test_bytes_are_no_cursor(raw):
    text = base64.urlsafe_b64encode(raw).decode()
    with pytest.raises(ValueError):  # noqa: PT011 - what it says doesn't matter
        read_id(text, ("hooks",))


@given(
    st.lists(st.one_of(st.none(), st.integers(), st.text(), st.lists(st.integers())), max_size=3)
)
def test_a_well_made_cursor_of_nonsense_is_refused(values):
    import json

    from thorn_core.api.paging import _mark

    text = json.dumps(values).encode()
    cursor = base64.urlsafe_b64encode(_mark(text, ("x",)) + text).decode()
    try:
        read_id(cursor, ("x",))
    except ValueError:
        return
    assert [type(value) for value in values] == [str]


def test_a_cursor_leads_back_to_its_place():
    assert read_id(make_cursor("sub_1", ("b",)), ("b",)) == "sub_1"


@pytest.mark.parametrize(
    ("text", "hour"),
    [
        ("2026-03-01T12:00:00Z", 12),
        ("2026-03-01 12:00:00.5+00:00", 12),
        ("2026-03-01T12:00:00 02:00", 10),
        ("2026-03-01T12:00-02:00", 14),
    ],
)
def test_times_are_read_with_their_zone(text, hour):
    assert parse_time(text).hour == hour


@pytest.mark.parametrize(
    "text",
    ["", "2026-03-01", "2026-03-01T12:00:00", "0001-01-01T00:00:00+14:00", "now", "1772366400"],
)
def test_what_is_no_time_with_a_zone_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011 - what it says doesn't matter
        parse_time(text)


def test_an_operator_lists_an_owners(ada):
    ada.subscribe()
    staff = Client(ada.resource, operator=True)
    for bad in ("", "a\0b", "\ud800", "x" * 256):
        assert set(faults(staff("GET", "/hooks/", owner=bad), 400, "malformed")) == {"owner"}
    assert walk(staff, "/hooks/", owner="ada", limit="1")[1] == [1]
