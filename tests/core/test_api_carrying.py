"""What carriers need of the REST resource: another mount point, refusals of their own."""

from __future__ import annotations

import pytest
from api_client import BASE, LOCAL, URL, problem
from openapi_spec_validator import validate

from thorn_core import Thorn
from thorn_core.api import ApiRequest, Problem, Resource, openapi_document
from thorn_core.api.routing import ROUTES, find_route


@pytest.fixture
def app():
    with Thorn(settings=LOCAL) as app:
        yield app


def at_root(app, method, path, body=b"", **more):
    """Ask where the mount point is that of subscriptions."""
    headers = {"content-type": "application/json"}
    request = ApiRequest(
        method=method,
        path=path,
        headers=headers,
        body=body,
        owner="ada",
        hooks_at_root=True,
        **more,
    )
    return Resource(app).handle(request)


def test_subscriptions_are_at_the_root_and_the_rest_is_beside_them(app):
    body = f'{{"event": "a.b", "url": "{URL}"}}'.encode()
    made = [at_root(app, "POST", "/", body, base_url=BASE).json for _ in range(2)]
    assert made[0]["subscription"] == f"{BASE}/{made[0]['id']}/"
    assert made[0]["deliveries"] == f"{BASE}/{made[0]['id']}/deliveries/"
    page = at_root(app, "GET", "/", base_url=BASE, query={"limit": ["1"]})
    assert page.json["next"].startswith(f"{BASE}/?limit=1&cursor=")
    sent = at_root(app, "POST", f"/{made[0]['id']}/test", base_url=BASE).json
    assert sent["delivery"] == f"{BASE}/deliveries/{sent['delivery_id']}/"
    for path in (f"/{made[0]['id']}", f"/deliveries/{sent['delivery_id']}/", "/event-types", ""):
        assert at_root(app, "GET", path).status == 200
    assert at_root(app, "GET", f"/{made[0]['id']}/").json["subscription"] == f"/{made[0]['id']}/"
    for path in ("/hooks/", "//", "/deliveries/", "/deliveries/test/", f"/hooks/{made[0]['id']}/"):
        problem(at_root(app, "GET", path), 404, "not-found")


def test_every_route_is_found_at_either_place():
    for route in ROUTES:
        path = "/".join(route.path).replace("{id}", "sub_1")
        assert find_route(f"/{path}/")[0] is route
        below = path.removeprefix("hooks").removeprefix("/")
        assert find_route(f"/{below}", hooks_at_root=True)[0] is route


def test_the_document_says_where_they_are(app):
    document = at_root(app, "GET", "/openapi.json", base_url=BASE).json
    validate(document)
    assert document["servers"] == [{"url": BASE}]
    at_hooks = openapi_document(app)["paths"]
    assert [path.removeprefix("/hooks") for path in at_hooks] == list(document["paths"])
    assert list(document["paths"])[:2] == ["/", "/{id}/"]


@pytest.mark.parametrize(
    ("kind", "status", "type_", "title"),
    [
        ("forbidden", 403, "urn:thorn:problem:forbidden", "Permission denied"),
        (403, 403, "urn:thorn:problem:forbidden", "Permission denied"),
        (422, 422, "urn:thorn:problem:invalid", "The request is invalid"),
        (418, 418, "about:blank", "I'm a Teapot"),
        (499, 499, "about:blank", "Error"),
    ],
)
def test_a_carriers_refusal_is_answered_as_the_resources_are(app, kind, status, type_, title):
    answer = Resource(app).refuse(Problem(kind, "Not so.", headers={"x-a": "1"}))
    assert answer.status == answer.json["status"] == status
    assert (answer.json["type"], answer.json["title"]) == (type_, title)
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.headers["cache-control"], answer.headers["x-a"]) == ("no-store", "1")
    head = Resource(app).refuse(Problem(kind, "Not so."), method="HEAD")
    assert (head.body, head.headers["content-length"]) == (b"", str(len(answer.body)))
