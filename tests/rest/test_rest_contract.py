"""What every carrier of the REST resource does: it answers what the resource itself does."""

from __future__ import annotations

import pytest
from rest_carriers import BASE, NOBODY

from thorn_core.api.routing import ROUTES, find_route
from thorn_core.testing import LocalRecipient

# Secrets that somebody gives.
SHARED, ANOTHER = "whsec_" + 4 * "SharedXx", "whsec_" + 4 * "AnotherX"

HOOK = {"event": "a.b", "url": "https://example.com/"}
SINCE = {"since": "2026-01-01T00:00:00Z"}
# Every call that there is on what belongs to somebody, and what its owner is answered.
CALLS = {
    ("GET", "/{hook}/"): (None, 200),
    ("PATCH", "/{hook}/"): ({"description": "mine"}, 200),
    ("PUT", "/{hook}/"): (HOOK, 200),
    ("GET", "/{hook}/deliveries/"): (None, 200),
    ("GET", "/{hook}/stats/"): (None, 200),
    ("POST", "/{hook}/rotate-secret/"): (None, 200),
    ("GET", "/deliveries/{delivery}/"): (None, 200),
    ("POST", "/deliveries/{delivery}/retry/"): (None, 202),
    # It is delivered already.
    ("POST", "/deliveries/{delivery}/cancel/"): (None, 409),
    ("POST", "/{hook}/pause/"): (None, 200),
    ("POST", "/{hook}/resume/"): (None, 200),
    ("POST", "/{hook}/test/"): (None, 202),
    ("POST", "/{hook}/recover/"): (SINCE, 202),
    ("DELETE", "/{hook}/"): (None, 204),
}
COMMON = {
    ("GET", "/"): (None, 200),
    ("POST", "/"): (HOOK, 201),
    ("GET", "/event-types/"): (None, 200),
    ("GET", "/openapi.json"): (None, 200),
}
EVERY = {**CALLS, **COMMON}
MISSING = {"hook": "sub_" + "0" * 32, "delivery": "dlv_" + "0" * 48}
JSON = "application/json"
FORM = b'--x\r\nContent-Disposition: form-data; name="event"\r\n\r\n*\r\n--x--\r\n'


def same(carrier, method, path, body=None, **more):
    """What a carrier answers, which must be to the byte what the resource itself does."""
    answer = carrier(method, path, body, **more)
    itself = carrier.itself(method, path, body, **more)
    assert (answer.status, answer.body) == (itself.status, itself.body)
    missing = {k: v for k, v in itself.headers.items() if answer.headers.get(k) != v}
    assert missing == {}
    if "content-type" not in itself.headers:
        assert "content-type" not in answer.headers
    return answer


@pytest.fixture
def recipient():
    with LocalRecipient() as recipient:
        yield recipient


@pytest.fixture
def things(carrier, recipient):
    """Ada's and the staff's subscriptions, each with a delivery: their ids."""
    return {name: made(carrier, recipient.url, name) for name in ("ada", "staff")}


def made(carrier, url, name):
    hook = carrier.subscribe(url, as_=name)
    sent = carrier("POST", hook["subscription"] + "test/", as_=name)
    return {"hook": hook["id"], "delivery": sent.json["delivery_id"]}


def test_every_call_is_tried_here():
    there = {(method, route.path) for route in ROUTES for method in route.calls}
    found = [(m, find_route(path.format(**MISSING), hooks_at_root=True)) for m, path in EVERY]
    assert {(method, route.path) for method, (route, _) in found} == there


# -- the same answers


def test_what_is_read_is_what_the_resource_answers(carrier, things):
    ada = things["ada"]
    carrier.subscribe(description="Für den Laden 🏪\u2028</script>", headers={"X-A": "1"})
    for path in ("/{hook}/", "/{hook}/deliveries/", "/deliveries/{delivery}/"):
        for as_ in ("ada", "staff"):
            assert same(carrier, "GET", path.format(**ada), as_=as_).status == 200
    for path in ("/", "/event-types/", "/openapi.json"):
        assert same(carrier, "GET", path).status == 200
        same(carrier, "GET", path, accept="text/csv")
    page = same(carrier, "GET", "/?limit=1")
    assert same(carrier, "GET", page.json["next"]).json["next"] is None
    assert page.headers["link"] == f'<{page.json["next"]}>; rel="next"'
    filters = "?state=delivered,pending&state=failed&event=thorn.*&order=oldest&limit=5"
    since = "&since=2026-01-01T00:00:00%2B01:00"
    assert same(carrier, "GET", f"/{ada['hook']}/deliveries/{filters}{since}").json["items"]


def test_what_is_written_is_what_is_read_afterwards(carrier, recipient):
    new = {"event": ["a.*", "b.c"], "url": recipient.url, "description": "Ü"}
    response = carrier("POST", "/", new)
    shown = dict(response.json)
    path, secret = shown["subscription"], shown.pop("secret")
    assert response.headers["location"] == path == f"{BASE}/{shown['id']}/"
    assert shown["deliveries"] == f"{path}deliveries/"
    assert carrier.app.subscription(shown["id"]).secret == secret
    read = same(carrier, "GET", path)
    assert (read.json, read.headers["etag"]) == (shown, response.headers["etag"])
    for method, body in (("PATCH", {"description": "x"}), ("PUT", {**new, "enabled": False})):
        changed = carrier(method, path, body, if_match=read.headers["etag"])
        read = same(carrier, "GET", path)
        assert changed.status == 200
        assert (changed.body, changed.headers["etag"]) == (read.body, read.headers["etag"])
    removed = carrier("DELETE", path)
    assert (removed.status, removed.body) == (204, b"")
    assert "content-type" not in removed.headers
    assert carrier.app.subscription(shown["id"]) is None


def test_a_subscription_belongs_to_whom_the_request_does(carrier):
    for name in ("ada", "bob", "staff"):
        made = carrier.subscribe(as_=name)
        assert made["owner"] == carrier.owners[name] != ""


def test_the_same_key_makes_one_subscription(carrier):
    answers = [carrier("POST", "/", HOOK, idempotency_key="k") for _ in range(2)]
    assert [answer.status for answer in answers] == [201, 200]
    assert answers[0].json["id"] == answers[1].json["id"]
    same(carrier, "POST", "/", {**HOOK, "event": "c.d"}, idempotency_key="k")


def test_what_is_wrong_is_told_as_the_resource_does(carrier, things):
    hook = f"/{things['ada']['hook']}/"
    for status, method, path, body, headers in (
        (400, "POST", "/", b"{", {"content_type": JSON}),
        (400, "GET", "/?limit=x&nonsense=1", None, {}),
        (400, "GET", "/?cursor=AAAA", None, {}),
        (400, "POST", "/", HOOK, {"idempotency_key": "x" * 300}),
        (404, "GET", "/deliveries/", None, {}),
        (404, "GET", "/deliveries/test/", None, {}),
        (404, "GET", "/event-types/x/", None, {}),
        (404, "GET", "/hooks/", None, {}),
        (404, "GET", "//", None, {}),
        (404, "POST", "/a/b/c/d/", None, {}),
        (404, "GET", "/%00/", None, {}),
        (404, "GET", "/%0A", None, {}),
        (404, "GET", "/ü%2F%C3%A4/x%20y/", None, {}),
        (405, "PUT", "/", HOOK, {}),
        (405, "POST", hook, HOOK, {}),
        (405, "TRACE", hook, None, {}),
        (405, "BREW", "/event-types/", None, {}),
        (405, "GET", hook + "test/", None, {}),
        (412, "PATCH", hook, {"description": "x"}, {"if_match": '"x"'}),
        (412, "DELETE", hook, None, {"if_match": '"x"'}),
        (413, "POST", "/", b"x" * 100_000, {"content_type": JSON}),
        (413, "PATCH", hook, b"x" * 70_000, {"content_type": "text/plain"}),
        (415, "POST", "/", b"event=a.b", {"content_type": "application/x-www-form-urlencoded"}),
        (415, "POST", "/", FORM, {"content_type": "multipart/form-data; boundary=x"}),
        (415, "POST", "/", b"{}", {"content_type": "application/json; charset=utf-16"}),
        (415, "POST", "/", b"{}", {"content_type": JSON, "content_encoding": "gzip"}),
        (422, "POST", "/", {"event": 5, "url": "ftp://x", "nonsense": 1}, {}),
        (422, "POST", "/", {"event": "a.b", "url": "http://10.0.0.1/"}, {}),
        (422, "POST", hook + "recover/", {}, {}),
        (422, "POST", hook + "rotate-secret/", {"hmac_secret": "x"}, {}),
    ):
        answer = same(carrier, method, path, body, **headers)
        assert answer.status == status, (method, path)
        assert answer.headers["content-type"] == "application/problem+json"
    carrier("PATCH", hook, {"enabled": False})
    assert same(carrier, "POST", hook + "test/").status == 409


def test_head_and_options_are_the_resources(carrier, things):
    for path in ("/", "/event-types/", f"/{things['ada']['hook']}/", "/none/", "/a/b/c/"):
        assert same(carrier, "HEAD", path).body == b""
        same(carrier, "OPTIONS", path)
    assert same(carrier, "OPTIONS", "/").headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert same(carrier, "HEAD", "/none/").status == 404


def test_what_has_not_changed_is_not_sent_again(carrier, things):
    path = f"/{things['ada']['hook']}/"
    etag = carrier("GET", path).headers["etag"]
    assert same(carrier, "GET", path, if_none_match=etag).status == 304
    assert same(carrier, "HEAD", path, if_none_match="*").status == 304
    assert same(carrier, "GET", path, if_none_match='"x"').status == 200


def test_the_slash_at_the_end_makes_no_difference(carrier, things):
    for method, path in (*CALLS, *COMMON):
        path = path.format(**MISSING)
        if path.strip("/"):
            with_it, without = path.rstrip("/") + "/", path.rstrip("/")
            answers = {carrier(method, each, {}).body for each in (with_it, without)}
            assert len(answers) == 1
    path = f"/{things['ada']['hook']}"
    assert carrier("GET", path).body == carrier("GET", path + "/").body


# -- whose things


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_an_owner_and_an_operator_reach_what_they_may(carrier, things, method, path):
    body, status = CALLS[method, path]
    assert carrier(method, path.format(**things["ada"]), body).status == status
    other = carrier(method, path.format(**things["staff"]), body, as_="staff")
    assert other.status == status


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_an_operator_reaches_others_things(carrier, things, method, path):
    body, status = CALLS[method, path]
    assert carrier(method, path.format(**things["ada"]), body, as_="staff").status == status


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_others_things_are_answered_as_missing_ones(carrier, things, method, path):
    body, _ = CALLS[method, path]
    before = [*carrier.app.subscriptions()], [*carrier.app.deliveries()]
    answers = [
        same(carrier, method, path.format(**ids), body, as_="bob")
        for ids in (things["ada"], things["staff"], MISSING, {"hook": "x", "delivery": "%00"})
    ]
    kinds = {(a.status, a.body, a.headers["content-type"]) for a in answers}
    assert len(kinds) == 1
    assert answers[0].status == 404
    assert all(set(a.headers) == set(answers[0].headers) for a in answers)
    assert ([*carrier.app.subscriptions()], [*carrier.app.deliveries()]) == before


@pytest.mark.parametrize(("method", "path"), [*EVERY, ("GET", "/none/at/all/"), ("PUT", "/")])
def test_nobody_reaches_anything(carrier, things, method, path):
    body, _ = EVERY.get((method, path), (None, 0))
    before = [*carrier.app.subscriptions()], [*carrier.app.deliveries()]
    answers = [
        same(carrier, method, path.format(**ids), body, as_=NOBODY)
        for ids in (things["ada"], MISSING)
    ]
    assert {answer.status for answer in answers} == {401}
    assert len({answer.body for answer in answers}) == 1
    assert ([*carrier.app.subscriptions()], [*carrier.app.deliveries()]) == before


def test_a_list_holds_ones_own(carrier, things):
    def listed(as_, query=""):
        return {item["id"] for item in carrier("GET", f"/{query}", as_=as_).json["items"]}

    ids = {name: {each["hook"]} for name, each in things.items()}
    assert (listed("ada"), listed("bob")) == (ids["ada"], set())
    assert listed("staff") == ids["ada"] | ids["staff"]
    assert listed("staff", f"?owner={carrier.owners['ada']}") == ids["ada"]
    assert same(carrier, "GET", "/?owner=1").status == 400


def test_a_secret_is_told_once(carrier, recipient):
    new = {**HOOK, "url": recipient.url, "hmac_secret": SHARED}
    response = carrier("POST", "/", {**new, "headers": {"Authorization": "Bearer abc"}})
    assert response.json["secret"] == SHARED
    assert b"Bearer abc" not in response.body
    path = response.json["subscription"]
    rotated = carrier("POST", path + "rotate-secret/", {"hmac_secret": ANOTHER})
    assert rotated.json["secret"] == ANOTHER
    sent = carrier("POST", path + "test/").json
    for as_ in ("ada", "staff"):
        for answer in (
            carrier("GET", path, as_=as_),
            carrier("GET", "/", as_=as_),
            carrier("PATCH", path, {"description": "changed"}, as_=as_),
            carrier("PUT", path, {**HOOK, "hmac_secret": ANOTHER}, as_=as_),
            carrier("POST", path + "rotate-secret/", {"hmac_secret": "short"}, as_=as_),
            carrier("GET", path + "deliveries/", as_=as_),
            carrier("GET", sent["delivery"], as_=as_),
            carrier("POST", path + "rotate-secret/", as_=as_),
            carrier("DELETE", path + "none", as_=as_),
        ):
            told = answer.body.decode() + repr(answer.headers)
            assert not any(s in told for s in (SHARED, ANOTHER, "Bearer abc"))


def test_a_test_is_sent_looked_at_and_tried_again(carrier, recipient):
    made = carrier.subscribe(recipient.url)
    recipient.answer(status=410, body=b"gone \xff")
    sent = carrier("POST", made["subscription"] + "test/")
    assert sent.status == 202
    assert recipient.wait_for(1)[0].headers["webhook-id"] == sent.json["message_id"]
    seen = same(carrier, "GET", sent.json["delivery"])
    assert (seen.json["state"], seen.json["attempts"][0]["status"]) == ("cancelled", 410)
    assert carrier("PATCH", made["subscription"], {"enabled": True}).status == 200
    recovered = carrier("POST", made["subscription"] + "recover/", SINCE)
    assert (recovered.status, recovered.json["recovered"]) == (202, 1)
    again = carrier("POST", sent.json["delivery"] + "retry/")
    assert again.status in (202, 409)
