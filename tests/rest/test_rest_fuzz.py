"""Whatever is asked, every carrier answers: JSON or a problem, and never a failure of ours."""

from __future__ import annotations

import json
from urllib.parse import quote, urlencode

from hypothesis import example, given
from hypothesis import strategies as st
from rest_carriers import NOBODY

TEXTS = st.text(max_size=20)
WORDS = st.sampled_from(
    [
        *(
            "deliveries",
            "event-types",
            "openapi.json",
            "test",
            "retry",
            "recover",
            "cancel",
            "pause",
            "resume",
            "hooks",
        ),
        *("rotate-secret", "HOOK", "HOOK", "", ".", "..", "\0", "\n", "sub_" + "0" * 32),
    ]
)
PATHS = st.lists(WORDS | TEXTS, max_size=4).map(
    lambda parts: "/" + "/".join(quote(part, safe="") for part in parts)
)
QUERIES = st.dictionaries(
    st.sampled_from(["limit", "cursor", "state", "since", "order", "owner"]) | TEXTS,
    TEXTS | st.sampled_from(["1", "delivered", "newest"]),
    max_size=3,
).map(urlencode)
BODIES = st.binary(max_size=40) | st.dictionaries(
    st.sampled_from(["event", "url", "headers", "enabled", "since", "hmac_secret"]) | TEXTS,
    st.none() | st.booleans() | TEXTS | st.sampled_from(["a.*", "https://example.com/", {}]),
    max_size=5,
).map(lambda value: json.dumps(value).encode())
TYPES = st.sampled_from(
    [
        *["application/json"] * 5,
        *("", "text/plain", "multipart/form-data; boundary=x", "multipart/form-data"),
        *("application/x-www-form-urlencoded", "application/json;charset=x", "a/b;" * 50),
    ]
)
ACCEPTS = st.sampled_from(["*/*", "application/json", "text/html", "text/csv", "", "x" * 9000])
METHODS = st.sampled_from(
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"]
)


@given(
    method=METHODS,
    path=PATHS,
    query=QUERIES,
    body=BODIES,
    content_type=TYPES,
    accept=ACCEPTS,
    who=st.sampled_from(["ada", "bob", "staff", NOBODY]),
)
# A page of what is refused, for a method that has none.
@example(
    method="HEAD",
    path="/none/",
    query="",
    body=b"a=1",
    content_type="application/x-www-form-urlencoded",
    accept="text/html",
    who="ada",
)
def test_any_request_is_answered(carrier, method, path, query, body, content_type, accept, who):
    if "HOOK" in path:
        made = carrier.app.subscribe("a.b", "https://example.com/", owner=carrier.owners["ada"])
        path = path.replace("HOOK", made.id)
    answer = carrier(
        method, f"{path}?{query}", body, as_=who, content_type=content_type, accept=accept
    )
    # Only our own, and every one: nobody is redirected, and no server error is hidden.
    assert answer.status < 300 or answer.status in (304, *range(400, 430)), answer.body
    kind = answer.headers.get("content-type", "")
    if kind.startswith("text/html"):
        # A page for whom wants one; or Django refuses a form before the resource sees it.
        assert accept == "text/html" or content_type.startswith("multipart/")
    elif answer.body:
        expected = "application/json" if answer.status < 400 else "application/problem+json"
        assert kind == expected
        assert answer.status == answer.json.get("status", answer.status)
    if who == NOBODY:
        # Of a form that can't be read, Django's CSRF protection can't tell whose it is.
        broken_form = content_type.startswith("multipart/") and kind.startswith("text/html")
        assert answer.status in (401, 404, *([400] if broken_form else []))
