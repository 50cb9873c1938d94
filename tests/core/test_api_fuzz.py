"""Whatever is asked, the answer is one: JSON or a problem, and never a failure of ours."""

from __future__ import annotations

import json

import pytest
from api_client import LOCAL, Client
from hypothesis import given
from hypothesis import strategies as st

from thorn_core import Thorn
from thorn_core.api import ApiRequest, Resource
from thorn_core.api.problems import KINDS, TYPE_PREFIX
from thorn_core.api.validation import FIELDS, READ_ONLY

# Halves of characters come out of headers and queries that servers decode leniently.
WILD = st.text(st.characters(codec=None, exclude_categories=()), max_size=30)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WILD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WILD, inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from([*FIELDS, *READ_ONLY, "since", "until", "cursor", "secret"])
LIKELY = st.sampled_from(
    [
        *("article.*", "*", "a..b", "https://example.com/", "http://10.0.0.1/", "http://[::1]:22/"),
        *("application/json", "sha1", "2026-03-01T12:00:00Z", "9999-12-31T23:59:59-14:00"),
        *({"X-A": "1"}, {"X-A": None}, {"Host": "x"}, ["a.b", "a.b"], 0.5, True, False, None, ""),
        "whsec_" + "A" * 32,
    ]
)
BODIES = st.dictionaries(NAMES | WILD, LIKELY | VALUES, max_size=8).map(
    lambda value: json.dumps(value).encode()
) | st.binary(max_size=50)
QUERIES = st.dictionaries(
    st.sampled_from(["limit", "cursor", "state", "event", "since", "until", "order", "owner"])
    | WILD,
    st.lists(LIKELY.filter(lambda v: isinstance(v, str)) | WILD | st.just("10"), max_size=3),
    max_size=4,
)
HEADERS = st.dictionaries(
    st.sampled_from(["if-match", "if-none-match", "idempotency-key", "content-encoding", "accept"]),
    WILD | st.sampled_from(["*", '"x"', "k", "gzip", 'W/"x", "y']),
    max_size=3,
)
TYPES = st.sampled_from(["application/json"] * 6 + ["", "text/plain", "application/json;x"])
METHODS = st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", ""])
PARTS = st.sampled_from(
    [
        "hooks",
        "deliveries",
        "event-types",
        "openapi.json",
        "HOOK",
        "DELIVERY",
        "test",
        "retry",
        "recover",
        "rotate-secret",
        "deliveries",
        "",
        "..",
        "\x00",
        "sub_" + "0" * 32,
    ]
)
PATHS = st.one_of(
    st.sampled_from(
        [
            *("/hooks/", "/hooks/HOOK/", "/hooks/HOOK/deliveries/", "/hooks/HOOK/recover/"),
            *("/hooks/HOOK/rotate-secret/", "/deliveries/DELIVERY/", "/event-types/"),
            *("/hooks/HOOK/test/", "/deliveries/DELIVERY/retry/", "/openapi.json"),
        ]
    ),
    st.lists(PARTS | WILD, max_size=5).map(lambda parts: "/" + "/".join(parts)),
    WILD,
)


@pytest.fixture(scope="module")
def resource():
    with Thorn(settings=LOCAL, dispatcher="outbox") as app:
        yield Resource(app, creations_per_minute=None, sends_per_minute=None)


@pytest.fixture
def ids(resource):
    ada = Client(resource, "ada")
    made = ada.subscribe("http://127.0.0.1:1024/")
    sent = ada("POST", made["subscription"] + "test/").json
    resource.app.worker().drain()
    resource.hook = resource.app.subscription(made["id"])
    return {"HOOK": made["id"], "DELIVERY": sent["delivery_id"]}


def checked(response, method):
    """What every answer is."""
    assert 200 <= response.status < 500
    for name, value in response.headers.items():
        assert name == name.lower()
        assert value.isprintable()
    if response.status in (204, 304):
        # A 204 never has a length, and a 304 none but the 200's (RFC 9110 section 8.6).
        assert response.body == b""
        assert {"content-length", "content-type"}.isdisjoint(response.headers)
        return
    if method == "HEAD":
        assert response.body == b""
        assert response.headers["content-length"].isdigit()
        return
    value = json.loads(response.body.decode("utf-8"), parse_constant=pytest.fail)
    if response.status < 400:
        assert response.headers["content-type"] == "application/json"
        return
    assert response.headers["content-type"] == "application/problem+json"
    kind = value["type"].removeprefix(TYPE_PREFIX)
    assert KINDS[kind] == (value["status"], value["title"])
    assert value["status"] == response.status
    assert len(value["detail"]) < 2000
    for fault in value.get("errors", ()):
        assert {"field", "message"} <= set(fault) <= {"field", "message", "value", "allowed"}
        assert len(fault["field"]) <= 200
        assert len(fault["message"]) <= 1000
        assert not isinstance(fault.get("value"), str) or len(fault["value"]) <= 200


@given(
    method=METHODS,
    path=PATHS,
    query=QUERIES,
    headers=HEADERS,
    content_type=TYPES,
    body=st.just(b"") | BODIES,
    who=st.sampled_from([("ada", False), ("bob", False), (None, True), (None, False)]),
)
def test_any_request_is_answered(
    resource, ids, method, path, query, headers, content_type, body, who
):
    for word, key in ids.items():
        path = path.replace(word, key)
    if resource.app.subscription(ids["HOOK"]) is None:
        resource.app.store.add_subscription(resource.hook)
    response = resource.handle(
        ApiRequest(
            method=method,
            path=path,
            query=query,
            headers={**headers, "content-type": content_type},
            body=body,
            owner=who[0],
            operator=who[1],
            base_url="https://api.example.com",
        )
    )
    checked(response, method)


@given(
    method=st.sampled_from(["POST", "PUT", "PATCH"]),
    body=st.fixed_dictionaries(
        {"event": LIKELY | VALUES, "url": LIKELY | VALUES},
        optional={name: LIKELY | VALUES for name in FIELDS if name not in ("event", "url")},
    ),
)
def test_any_subscription_is_made_or_refused(resource, method, body):
    ada = Client(resource, "ada")
    path = "/hooks/" if method == "POST" else ada.subscribe()["subscription"]
    sent = json.dumps(body).encode()
    response = ada(method, path, sent, headers={"content-type": "application/json"})
    checked(response, method)
    if response.status < 300:
        again = ada("GET", response.json["subscription"]).json
        assert again == {k: v for k, v in response.json.items() if k != "secret"}
        assert ada("PUT", again["subscription"], again).json == again
        ada("DELETE", again["subscription"])
    else:
        assert response.status in (400, 422)


@given(query=QUERIES)
def test_any_list_is_given_or_refused(resource, ids, query):
    ada = Client(resource, "ada")
    response = ada(
        "GET", f"/hooks/{ids['HOOK']}/deliveries/", **{str(k): v for k, v in query.items()}
    )
    checked(response, "GET")
    assert response.status in (200, 400)
