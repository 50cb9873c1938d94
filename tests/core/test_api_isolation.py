"""Who sees and touches what: an owner, another, an operator, nobody; on every call."""

from __future__ import annotations

import json

import pytest
from api_client import BASE, LOCAL, Client, problem

from thorn_core import MemoryStore, Settings, Thorn
from thorn_core.api import Resource
from thorn_core.api.routing import ROUTES
from thorn_core.testing import LocalRecipient

SINCE = {"since": "2026-01-01T00:00:00Z"}
HOOK = {"event": "a.b", "url": "https://example.com/"}
# Every call that there is, on what belongs to somebody, and what it answers to whom it belongs to.
CALLS = {
    ("GET", "/hooks/{hook}/"): (None, 200),
    ("PATCH", "/hooks/{hook}/"): ({"description": "mine"}, 200),
    ("PUT", "/hooks/{hook}/"): (HOOK, 200),
    ("GET", "/hooks/{hook}/deliveries/"): (None, 200),
    ("GET", "/hooks/{hook}/stats/"): (None, 200),
    ("POST", "/hooks/{hook}/rotate-secret/"): (None, 200),
    ("GET", "/deliveries/{delivery}/"): (None, 200),
    ("POST", "/deliveries/{delivery}/retry/"): (None, 202),
    # It is delivered already.
    ("POST", "/deliveries/{delivery}/cancel/"): (None, 409),
    ("POST", "/hooks/{hook}/pause/"): (None, 200),
    ("POST", "/hooks/{hook}/resume/"): (None, 200),
    ("POST", "/hooks/{hook}/test/"): (None, 202),
    ("POST", "/hooks/{hook}/recover/"): (SINCE, 202),
    ("DELETE", "/hooks/{hook}/"): (None, 204),
}
COMMON = {
    ("GET", "/hooks/"): (None, 200),
    ("POST", "/hooks/"): (HOOK, 201),
    ("GET", "/event-types/"): (None, 200),
    ("GET", "/openapi.json"): (None, 200),
}


class World:
    """Ada's and an operator's subscriptions, each with a delivery."""

    def __init__(self, app, url):
        self.app = app
        self.resource = resource = Resource(app)
        self.ada, self.bob = Client(resource, "ada"), Client(resource, "bob")
        self.staff = Client(resource, operator=True)
        self.nobody = Client(resource)
        self.ids = {"ada": self._made(self.ada, url), "staff": self._made(self.staff, url)}

    @staticmethod
    def _made(client, url):
        hook = client.subscribe(url, "thorn.nothing")
        sent = client("POST", hook["subscription"] + "test/").json
        return {"hook": hook["id"], "delivery": sent["delivery_id"]}


@pytest.fixture
def world():
    with LocalRecipient() as recipient, Thorn(settings=LOCAL) as app:
        yield World(app, recipient.url)


def test_every_call_is_tried_here():
    there = {(m, "/" + "/".join(route.path)) for route in ROUTES for m in route.calls}
    tried = {
        (m, path.replace("{hook}", "{id}").replace("{delivery}", "{id}").rstrip("/"))
        for m, path in (*CALLS, *COMMON)
    }
    assert tried == there


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_an_owner_reaches_its_own(world, method, path):
    body, status = CALLS[method, path]
    assert world.ada(method, path.format(**world.ids["ada"]), body).status == status


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_an_operator_reaches_everything(world, method, path):
    body, status = CALLS[method, path]
    for ids in world.ids.values():
        assert world.staff(method, path.format(**ids), body).status == status


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_of_others_things_nothing_tells_that_they_exist(world, method, path):
    body, _ = CALLS[method, path]
    before = [*world.app.subscriptions()], [*world.app.deliveries()]
    mine = world.bob.subscribe("https://example.com/", "a.b")["id"]
    missing = {
        "hook": "sub_" + "0" * 32,
        "delivery": "dlv_" + "0" * 32 + "_" + "0" * 32,
    }
    of_mine = {"hook": mine + "0", "delivery": f"dlv_{'0' * 32}_{mine.removeprefix('sub_')}"}
    answers = {
        world.bob(method, path.format(**ids), body, headers={"if-match": '"x"'}).__repr__()
        + world.bob(method, path.format(**ids), body).body.decode()
        for ids in (*world.ids.values(), missing, of_mine, {"hook": "\0", "delivery": "é"})
    }
    assert len(answers) == 1
    problem(world.bob(method, path.format(**world.ids["ada"]), body), 404, "not-found")
    world.app.unsubscribe(mine)
    assert ([*world.app.subscriptions()], [*world.app.deliveries()]) == before


@pytest.mark.parametrize(("method", "path"), [*CALLS, *COMMON, ("GET", "/none/"), ("PUT", "/")])
def test_nobody_reaches_anything(world, method, path):
    body, _ = {**CALLS, **COMMON}.get((method, path), (None, 0))
    answers = {
        world.nobody(method, path.format(**ids), body).body
        for ids in (*world.ids.values(), {"hook": "none", "delivery": "none"})
    }
    assert len(answers) == 1
    problem(world.nobody(method, path.format(**world.ids["ada"]), body), 401, "unauthenticated")


def test_an_empty_owner_is_nobody(world):
    problem(Client(world.resource, "")("GET", "/hooks/"), 401, "unauthenticated")
    made = Client(world.resource, "", operator=True).subscribe()
    assert world.app.subscription(made["id"]).owner is None


def test_who_must_log_in_is_told_how_if_the_adapter_says_so(world):
    assert "www-authenticate" not in world.nobody("GET", "/hooks/").headers
    resource = Resource(world.app, challenge='Bearer realm="hooks"')
    headers = Client(resource)("GET", "/hooks/").headers
    assert headers["www-authenticate"] == 'Bearer realm="hooks"'


def test_a_list_holds_ones_own(world):
    mine = world.bob.subscribe("https://example.com/", "a.b")["id"]

    def listed(client, **query):
        return {item["id"] for item in client("GET", "/hooks/", **query).json["items"]}

    assert listed(world.ada) == {world.ids["ada"]["hook"]}
    assert listed(world.bob) == {mine}
    everything = {mine, world.ids["ada"]["hook"], world.ids["staff"]["hook"]}
    assert listed(world.staff) == listed(Client(world.resource, "bob", operator=True)) == everything
    assert listed(world.staff, owner="bob") == {mine}
    assert listed(world.staff, owner="eve") == set()
    # Whose one is, the adapter says, and nobody else.
    problem(world.bob("GET", "/hooks/", owner="ada"), 400, "malformed")
    body = {"event": "a.b", "url": "https://example.com/", "owner": "ada"}
    problem(world.bob("POST", "/hooks/", body), 422, "invalid")


def test_an_operator_subscribes_without_an_owner_or_for_one(world):
    assert world.staff.subscribe()["owner"] is None
    assert Client(world.resource, "ada", operator=True).subscribe()["owner"] == "ada"
    problem(world.ada("GET", f"/hooks/{world.ids['staff']['hook']}/"), 404, "not-found")


def test_of_what_was_removed_the_deliveries_are_the_operators(world):
    ids = world.ids["ada"]
    world.ada("DELETE", f"/hooks/{ids['hook']}/")
    path = f"/deliveries/{ids['delivery']}/"
    problem(world.ada("GET", path), 404, "not-found")
    assert world.staff("GET", path).json["state"] == "delivered"
    problem(world.staff("POST", path + "retry/"), 409, "conflict")


def test_static_subscriptions_deliveries_are_the_operators():
    with (
        LocalRecipient() as recipient,
        Thorn(settings=LOCAL.evolve(subscribers={"*": recipient.url})) as app,
    ):
        (delivery,) = app.send("article.created", {}).deliveries
        resource = Resource(app)
        path = f"/deliveries/{delivery.id}/"
        seen = Client(resource, operator=True)("GET", path).json
        assert (seen["state"], seen["subscription"]) == ("delivered", None)
        assert Client(resource, operator=True)("POST", path + "retry/").status == 202
        problem(Client(resource, "ada")("GET", path), 404, "not-found")


def test_ids_of_others_cost_the_store_what_missing_ones_cost():
    class CountingStore(MemoryStore):
        asked = ()

        def subscription(self, subscription_id):
            self.asked = (*self.asked, "subscription")
            return super().subscription(subscription_id)

        def delivery(self, delivery_id):
            self.asked = (*self.asked, "delivery")
            return super().delivery(delivery_id)

    store = CountingStore()
    with LocalRecipient() as recipient, Thorn(store=store, settings=LOCAL) as app:
        world = World(app, recipient.url)
        for method, path in CALLS:
            asked = []
            for ids in (world.ids["ada"], {"hook": "sub_0", "delivery": "dlv_0_0"}):
                store.asked = ()
                world.bob(method, path.format(**ids), CALLS[method, path][0])
                asked.append(store.asked)
            reads = ("delivery", "subscription") if "{delivery}" in path else ("subscription",)
            assert asked[0] == asked[1] == reads


def test_a_delivery_is_shown_even_if_its_message_is_gone():
    class ForgetfulStore(MemoryStore):
        def message(self, message_id):
            return None

    with LocalRecipient() as recipient, Thorn(store=ForgetfulStore(), settings=LOCAL) as app:
        world = World(app, recipient.url)
        seen = world.ada("GET", f"/deliveries/{world.ids['ada']['delivery']}/")
        assert (seen.status, seen.json["message"]) == (200, None)


def test_links_lead_where_they_say(world):
    made = world.ada("GET", f"/hooks/{world.ids['ada']['hook']}/").json
    for url in (made["subscription"], made["deliveries"]):
        assert url.startswith(BASE)
        assert world.ada("GET", url).status == 200
    (item,) = world.ada("GET", made["deliveries"]).json["items"]
    assert world.ada("GET", item["delivery"]).json["id"] == item["id"]
    assert world.ada("GET", item["subscription"]).json["id"] == made["id"]


def test_what_a_name_stands_for_inside_is_not_told(world):
    with Thorn(settings=Settings()) as app:
        ada = Client(Resource(app), "ada")
        staff = Client(Resource(app), operator=True)
        for url in ("http://localhost/", "http://metadata.google.internal/", "http://0x7f.1/"):
            body = {"event": "a.b", "url": url}
            (fault,) = ada("POST", "/hooks/", body).json["errors"]
            assert (fault["field"], fault["value"]) == ("url", url)
            assert fault["message"].endswith(" refused; use a public host.")
            assert "127" not in fault["message"]
            (fault,) = staff("POST", "/hooks/", body).json["errors"]
            assert "set allowed_networks=[" in fault["message"]
        told = json.dumps(ada("POST", "/hooks/", {"event": "a.b", "url": "ftp://e.com/"}).json)
        assert "use one of: http, https" in told
