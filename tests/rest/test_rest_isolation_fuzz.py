"""Whatever is asked of what is somebody else's, the answer is that for what isn't there."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rest_carriers import NOBODY

from thorn_core.api.routing import ID, ROUTES
from thorn_core.testing import LocalRecipient

MISSING = {"hooks": "sub_" + "0" * 32, "deliveries": f"dlv_{'0' * 32}_{'0' * 32}"}
# The paths that hold an id; each begins with what it is the id of.
PATHS = [route.path for route in ROUTES if ID in route.path]
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"]
QUERIES = st.sampled_from(["", "limit=x", "period=hour", "state=delivered&limit=1", "cursor=AAAA"])
BODIES = st.sampled_from(
    [
        None,
        {},
        {"description": "mine"},
        {"event": "a.b", "url": "https://example.com/"},
        {"url": "http://10.0.0.1/"},
        {"since": "2026-01-01T00:00:00Z"},
        {"hmac_secret": "short"},
        {"nonsense": 1},
    ]
).map(lambda value: b"" if value is None else json.dumps(value).encode()) | st.binary(max_size=20)
TYPES = st.sampled_from(["application/json", "application/json", "text/plain", ""])
CONDITIONS = st.dictionaries(
    st.sampled_from(["if_match", "if_none_match", "idempotency_key"]),
    st.sampled_from(["*", '"x"', "ETAG"]),
    max_size=2,
)


@pytest.fixture
def adas(carrier):
    """Ada's subscription, with a delivery: their ids, and its entity tag."""
    with LocalRecipient() as recipient:
        hook = carrier.subscribe(recipient.url)
        sent = carrier("POST", hook["subscription"] + "test/").json
    etag = carrier("GET", hook["subscription"]).headers["etag"]
    return {"hooks": hook["id"], "deliveries": sent["delivery_id"]}, etag


@given(
    method=st.sampled_from(METHODS),
    path=st.sampled_from(PATHS),
    query=QUERIES,
    body=BODIES,
    content_type=TYPES,
    conditions=CONDITIONS,
    who=st.sampled_from(["bob", NOBODY]),
)
def test_others_things_look_missing(
    carrier, adas, method, path, query, body, content_type, conditions, who
):
    ids, etag = adas
    headers = {k: v.replace("ETAG", etag) for k, v in conditions.items()}

    def ask(key, body=body):
        # Where subscriptions are at the root, as here, their paths begin with the id.
        parts = [key if part == ID else part for part in path if part != "hooks"]
        asked = f"/{'/'.join(parts)}/?{query}"
        return carrier(method, asked, body, as_=who, content_type=content_type, **headers)

    before = [*carrier.app.subscriptions()], [*carrier.app.deliveries()]
    others, missing = ask(ids[path[0]]), ask(MISSING[path[0]])
    assert (others.status, others.body) == (missing.status, missing.body)
    assert dict(others.headers) == dict(missing.headers)
    assert others.status >= 400 or method == "OPTIONS"
    assert ([*carrier.app.subscriptions()], [*carrier.app.deliveries()]) == before
