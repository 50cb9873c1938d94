"""The REST resource in a Django project: who asks, where it is, what Django does besides."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import contextmanager
from types import SimpleNamespace
from wsgiref.simple_server import WSGIRequestHandler, make_server

import httpx
import pytest
from asgiref.testing import ApplicationCommunicator
from django.contrib.auth.models import AnonymousUser, User
from django.core.asgi import get_asgi_application
from django.core.checks import run_checks
from django.core.wsgi import get_wsgi_application
from django.db import connections, transaction
from django.test import Client, RequestFactory, override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from rest_project import MIDDLEWARE, in_a_project

from thorn_core import SecurityError
from thorn_core.testing import LocalRecipient
from thorn_django import get_app
from thorn_django.rest import Access, access_of, below_of, resource_of
from thorn_django.views import webhooks

HOOK = {"event": "article.*", "url": "https://example.com/"}
TOKEN = "a" * 32


@pytest.fixture(params=["rest_plain_urls", "rest_framework_urls"])
def users(request, _databases):
    """A project with the resource, plain and with Django REST framework."""
    with in_a_project(request.param) as users:
        yield users


@pytest.fixture
def plain_users(_databases):
    """A project with the resource, plain."""
    with in_a_project("rest_plain_urls") as users:
        yield users


def client_of(user, **options):
    client = Client(**options)
    client.force_login(user)
    return client


def post(client, path, body=None, **more):
    return client.post(path, json.dumps(body or {}), content_type="application/json", **more)


# -- who asks


def test_who_is_logged_in_is_the_owner_and_staff_that_may_change_subscriptions_operators(
    plain_users,
):
    def access(user):
        return access_of(SimpleNamespace(user=User.objects.get(pk=user.pk)))

    ada, staff = plain_users["ada"], plain_users["staff"]
    assert access(ada) == Access(str(ada.pk))
    assert access(staff) == Access(str(staff.pk), operator=True)
    ada.user_permissions.set(staff.user_permissions.all())
    assert access(ada) == Access(str(ada.pk))
    staff.user_permissions.clear()
    assert access(staff) == Access(str(staff.pk))
    root = User.objects.create_superuser("root")
    assert access(root) == Access(str(root.pk), operator=True)
    root.is_active = False
    root.save()
    assert access(root) == Access(str(root.pk))
    for nobody in (AnonymousUser(), User(), None):
        assert access_of(SimpleNamespace(user=nobody)) == Access()
    assert access_of(SimpleNamespace()) == Access()


def test_of_a_swapped_model_the_permission_counts(plain_users):
    with override_settings(THORN_SUBSCRIBER_MODEL="magazine.Hook"):
        user = User.objects.get(pk=plain_users["staff"].pk)
        assert not access_of(SimpleNamespace(user=user)).operator


def test_unsafe_calls_of_a_session_need_the_token(users):
    client = client_of(users["ada"], enforce_csrf_checks=True)
    assert post(client, "/webhooks/", HOOK).status_code == 403
    client.cookies["csrftoken"] = TOKEN
    assert post(client, "/webhooks/", HOOK).status_code == 403
    made = post(client, "/webhooks/", HOOK, headers={"x-csrftoken": TOKEN})
    assert made.status_code == 201
    path = f"/webhooks/{made.json()['id']}/"
    for refused in (client.delete(path), client.patch(path, {}), client.post(path + "test/")):
        assert refused.status_code == 403
    assert client.get(path).status_code == 200
    removed = client.delete(path, headers={"x-csrftoken": TOKEN})
    assert removed.status_code == 204
    assert list(get_app().subscriptions()) == []


def test_a_form_of_another_site_does_nothing(users):
    client = client_of(users["ada"], enforce_csrf_checks=True)
    for data in ({"data": HOOK}, {"data": "event=*&url=x", "content_type": "text/plain"}):
        assert client.post("/webhooks/", **data).status_code in (403, 415)
    client.cookies["csrftoken"] = TOKEN
    with_token = client.post("/webhooks/", {**HOOK, "csrfmiddlewaretoken": TOKEN})
    assert with_token.status_code == 415
    assert list(get_app().subscriptions()) == []


def test_a_project_that_wants_everybody_logged_in_leaves_the_answer_to_the_resource(users):
    everybody = "django.contrib.auth.middleware.LoginRequiredMiddleware"
    with override_settings(MIDDLEWARE=[*MIDDLEWARE, everybody]):
        for path in ("/webhooks/", "/webhooks/none/at/all/", "/webhooks/event-types"):
            answer = Client().get(path)
            assert (answer.status_code, answer["content-type"]) == (401, "application/problem+json")


def test_without_anybody_who_authenticates_nobody_is_there(plain_users):
    request = RequestFactory().get("/webhooks/")
    assert webhooks(request).status_code == 401


# -- where it is mounted


@pytest.mark.parametrize(
    ("mount", "more", "base"),
    [
        ("/webhooks/", {}, "http://testserver/webhooks/"),
        ("/webhooks/", {"secure": True}, "https://testserver/webhooks/"),
        (
            "/webhooks/",
            {"headers": {"x-forwarded-proto": "https", "x-forwarded-host": "api.example.com"}},
            "https://api.example.com/webhooks/",
        ),
        ("/webhooks/", {"SCRIPT_NAME": "/shop"}, "http://testserver/shop/webhooks/"),
        (
            "/tenants/acme/h%C3%A4user%20&%20co/",
            {},
            "http://testserver/tenants/acme/h%C3%A4user%20&%20co/",
        ),
    ],
)
def test_links_lead_where_the_resource_is(users, mount, more, base):
    client = client_of(users["ada"])
    with override_settings(
        USE_X_FORWARDED_HOST=True, SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https")
    ):
        answers = [post(client, mount, HOOK, **more) for _ in range(2)]
        shown = answers[0].json()
        assert answers[0]["location"] == shown["subscription"] == f"{base}{shown['id']}/"
        assert shown["deliveries"] == f"{base}{shown['id']}/deliveries/"
        sent = post(client, f"{mount}{shown['id']}/test/", **more).json()
        assert sent["delivery"] == f"{base}deliveries/{sent['delivery_id']}/"
        page = client.get(mount + "?limit=1", **more)
        assert page.json()["next"].startswith(f"{base}?limit=1&cursor=")
        following = client.get(mount + "?" + page.json()["next"].partition("?")[2], **more)
        assert following.json()["items"][0]["id"] == answers[1].json()["id"]
        document = client.get(mount + "openapi.json", **more).json()
        assert document["servers"] == [{"url": base.rstrip("/")}]
        assert {"/", "/{id}/", "/deliveries/{id}/", "/openapi.json"} < set(document["paths"])


def test_urls_have_names(users):
    assert run_checks(tags=["urls"]) == []
    assert reverse("thorn:hook-list") == "/webhooks/"
    assert reverse("thorn:resource", kwargs={"below": "event-types/"}) == "/webhooks/event-types/"
    assert reverse("tenants:hook-list", kwargs={"tenant": "acme"}).startswith("/tenants/acme/")


def test_the_end_of_a_path_is_found():
    assert below_of("/", 0) == ""
    assert below_of("/hooks/sub_1", 1) == "sub_1"
    assert below_of("/hooks/sub_1/test/", 2) == "sub_1/test/"


def test_there_is_one_resource_for_each_app(plain_users):
    first = resource_of("views", dict)
    assert resource_of("views", dict) is first
    assert first.app is get_app()
    with override_settings(THORN_EVENT_TIMEOUT=3):
        second = resource_of("views", dict)
        assert (second is not first, second.app.settings.event_timeout) == (True, 3)


# -- servers


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        """Says nothing."""


@contextmanager
def served(application):
    """The base URL of a WSGI application on a server."""
    with make_server("127.0.0.1", 0, application, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_over_http_it_is_the_same(users):
    cookies = {"sessionid": client_of(users["ada"]).cookies["sessionid"].value}
    cookies["csrftoken"] = TOKEN
    with (
        served(get_wsgi_application()) as url,
        httpx.Client(base_url=url + "/webhooks", cookies=cookies, trust_env=False) as client,
    ):
        client.headers["x-csrftoken"] = TOKEN
        made = client.post("/", json=HOOK)
        assert (made.status_code, made.headers["location"]) == (201, made.json()["subscription"])
        path = made.json()["subscription"]
        assert client.get(path).json()["url"] == HOOK["url"]
        head = client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == client.get(path).headers["content-length"]
        assert client.post("/", content=b"x" * 65_537).status_code == 413
        assert client.post("/", files={"a": b"x" * 70_000}).status_code == 413
        assert client.post("/", files={"a": b"x"}).status_code == 415
        assert client.options("/").headers["allow"] == "GET, HEAD, OPTIONS, POST"
        removed = client.delete(path)
        assert (removed.status_code, removed.content) == (204, b"")
        assert "content-type" not in removed.headers


async def asked(method, path, headers, *parts):
    """Ask as an ASGI server does, without telling how long the body is."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "https",
        "path": "/api" + path,
        "root_path": "/api",
        "query_string": b"",
        "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
        "server": ("testserver", 443),
    }
    communicator = ApplicationCommunicator(get_asgi_application(), scope)
    for number, part in enumerate(parts, 1):
        more = number < len(parts)
        await communicator.send_input({"type": "http.request", "body": part, "more_body": more})
    start = await communicator.receive_output(5)
    body = await communicator.receive_output(5)
    await communicator.wait(5)
    return start["status"], body["body"]


def test_on_an_asgi_server_it_is_the_same(users):
    client = client_of(users["ada"])
    cookie = f"sessionid={client.cookies['sessionid'].value}; csrftoken={TOKEN}"
    headers = {"cookie": cookie, "x-csrftoken": TOKEN, "content-type": "application/json"}
    headers |= {"host": "testserver", "referer": "https://testserver/"}

    async def all_of_it():
        body = json.dumps(HOOK).encode()
        status, made = await asked("POST", "/webhooks/", headers, body[:9], body[9:])
        assert status == 201
        link = json.loads(made)["subscription"]
        assert link.startswith("https://testserver/api/webhooks/sub_")
        status, _ = await asked("GET", link.partition("/api")[2], headers, b"")
        assert status == 200
        status, problem = await asked("POST", "/webhooks/", headers, b"x" * 40_000, b"x" * 40_000)
        assert (status, json.loads(problem)["title"]) == (413, "The request is too large")
        form = {**headers, "content-type": "multipart/form-data; boundary=x"}
        assert (await asked("POST", "/webhooks/", form, b"--x\r\n", b"x" * 9))[0] in (403, 415)

    asyncio.run(all_of_it())


def test_what_is_too_large_is_not_read(users):
    class Unread:
        def read(self, *_):
            raise AssertionError("it is read")

        readline = read

    large = {"CONTENT_LENGTH": str(10**12), "wsgi.input": Unread()}
    request = {"content_type": "application/json", "data": b"x", **large}
    client = client_of(users["ada"], enforce_csrf_checks=True)
    client.cookies["csrftoken"] = TOKEN
    answer = client.post("/webhooks/", **request, headers={"x-csrftoken": TOKEN})
    assert answer.status_code == 413


def test_a_body_that_others_have_read_is_read_again(plain_users):
    class Reader:
        def __init__(self, get_response):
            self.get_response = get_response

        def __call__(self, request):
            assert request.body
            return self.get_response(request)

    reading = f"{__name__}.Reader"
    globals()["Reader"] = Reader
    with override_settings(MIDDLEWARE=[*MIDDLEWARE, reading]):
        assert post(client_of(plain_users["ada"]), "/webhooks/", HOOK).status_code == 201


# -- the database


@pytest.fixture
def atomic(monkeypatch):
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)


def test_a_call_in_a_transaction_that_is_rolled_back_never_was(plain_users, atomic):
    class Abandoned(Exception):
        """Something after it goes wrong."""

    factory = RequestFactory()
    request = factory.post("/webhooks/", json.dumps(HOOK), content_type="application/json")
    request.user = plain_users["ada"]
    with pytest.raises(Abandoned), transaction.atomic():
        assert webhooks(request).status_code == 201
        assert len(list(get_app().subscriptions())) == 1
        raise Abandoned
    assert list(get_app().subscriptions()) == []


def note_and_refuse(url):
    """A validator that leaves something behind."""
    from magazine.models import Tag

    Tag.objects.create(name=url)
    if "refused" in url:
        raise SecurityError("no")


@pytest.mark.parametrize("atomic_requests", [True, False])
def test_of_a_call_that_is_refused_nothing_is_left(users, monkeypatch, atomic_requests):
    from magazine.models import Tag

    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", atomic_requests)
    client = client_of(users["ada"])
    with override_settings(THORN_RECIPIENT_VALIDATORS=[note_and_refuse]):
        assert post(client, "/webhooks/", HOOK).status_code == 201
        refused = {**HOOK, "url": "https://refused.example.com/"}
        assert post(client, "/webhooks/", refused).status_code == 422
    left = [tag.name for tag in Tag.objects.all() if "refused" in tag.name]
    assert bool(left) is not atomic_requests
    assert len(list(get_app().subscriptions())) == 1


def test_what_is_sent_in_a_request_is_delivered_when_it_has_committed(users, atomic):
    local = {"THORN_ALLOWED_NETWORKS": ["127.0.0.0/8"], "THORN_ALLOWED_PORTS": range(1, 65536)}
    with LocalRecipient() as recipient, override_settings(THORN_DISPATCHER="inline", **local):
        client = client_of(users["ada"])
        made = post(client, "/webhooks/", {**HOOK, "url": recipient.url}).json()
        sent = post(client, f"/webhooks/{made['id']}/test/")
        assert sent.status_code == 202
        assert recipient.wait_for(1)[0].headers["webhook-id"] == sent.json()["message_id"]
        seen = client.get(f"/webhooks/deliveries/{sent.json()['delivery_id']}/").json()
        assert seen["state"] == "delivered"


def test_a_list_costs_as_many_queries_however_long_it_is(users):
    staff, ada = client_of(users["staff"]), client_of(users["ada"])
    connections["default"].ensure_connection()

    def queries(client, path):
        with CaptureQueriesContext(connections["default"]) as captured:
            assert client.get(path).status_code == 200
        return len(captured)

    made = post(ada, "/webhooks/", HOOK).json()
    paths = ("/webhooks/?limit=100", f"/webhooks/{made['id']}/deliveries/?limit=100")
    post(ada, f"/webhooks/{made['id']}/test/")
    get_app().worker().drain()
    few = [queries(client, path) for client in (ada, staff) for path in paths]
    for number in range(30):
        assert post(ada, "/webhooks/", {**HOOK, "event": f"a.b{number}"}).status_code == 201
        assert post(ada, f"/webhooks/{made['id']}/test/").status_code == 202
    get_app().worker().drain()
    many = [queries(client, path) for client in (ada, staff) for path in paths]
    assert many == few
    # The user; the permissions of staff, their own and their groups'; the subscription; the page,
    # and the events and subscriptions of its deliveries.
    assert many[0] <= 2
    assert max(many) <= 7
