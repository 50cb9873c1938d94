"""Views that receive webhooks: verified, each once, and answered without a word too many."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from wsgiref.simple_server import WSGIRequestHandler, make_server

import httpx
import pytest
from django.core.cache import caches
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command
from django.db import connection, transaction
from django.http import Http404, HttpResponse, UnreadablePostError
from django.test import AsyncClient, Client, RequestFactory, override_settings
from django.urls import path
from django.utils.decorators import method_decorator
from django.views import View

from thorn_core import ConfigurationError, Settings, Thorn, get_app, hookimpl, receiver
from thorn_core.signatures import SCHEMES, HookHMAC, Signable, new_ed25519_keypair
from thorn_django.receiving import CacheReplayGuard, verify_webhook

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_" + "B" * 32
BODY = b'{"event":"order.paid","data":{"number":7}}'

# -- the project


class Handled:
    """What views got, and what they are to do with it."""

    def __init__(self):
        self.messages = []
        self.then = None

    def __call__(self, message):
        self.messages.append(message)
        return HttpResponse(status=204) if self.then is None else self.then()


handled = Handled()


@verify_webhook(SECRET)
def orders(request, message):
    return handled(message)


@verify_webhook(SECRET)
async def orders_async(request, message):
    return handled(message)


@verify_webhook(SECRET)
async def orders_slow(request, message):
    handled(message)
    await asyncio.get_running_loop().create_future()


@method_decorator(verify_webhook(SECRET), name="dispatch")
class Orders(View):
    def post(self, request, message, place):
        assert place == "oslo"
        return handled(message)


@method_decorator(verify_webhook(SECRET), name="dispatch")
class AsyncOrders(View):
    async def post(self, request, message):
        return handled(message)


def secret_of(request):
    tenant = request.resolver_match.kwargs["tenant"]
    if tenant == "gone":
        raise Http404
    return {"ada": [OTHER, SECRET]}.get(tenant)


async def secret_of_async(request):
    return secret_of(request)


@verify_webhook(secret_of)
def tenants(request, message, tenant):
    return handled(message)


@verify_webhook(secret_of_async)
def tenants_by_coroutine(request, message, tenant):
    return handled(message)


@verify_webhook(secret_of_async)
async def tenants_async(request, message, tenant):
    return handled(message)


@verify_webhook(setting="ORDERS_SECRET")
def by_setting(request, message):
    return handled(message)


@verify_webhook(SECRET, limit=100)
def small(request, message):
    assert request.body == BODY
    return handled(message)


@verify_webhook(SECRET, cache="durable")
def durable(request, message):
    return handled(message)


@verify_webhook(SECRET, cache="durable")
@transaction.atomic
def durable_atomic(request, message):
    return handled(message)


urlpatterns = [
    path("orders/", orders),
    path("async/", orders_async),
    path("slow/", orders_slow),
    path("class/<place>/", Orders.as_view()),
    path("async-class/", AsyncOrders.as_view()),
    path("tenants/<tenant>/", tenants),
    path("tenants-by-coroutine/<tenant>/", tenants_by_coroutine),
    path("tenants-async/<tenant>/", tenants_async),
    path("setting/", by_setting),
    path("small/", small),
    path("durable/", durable),
    path("durable-atomic/", durable_atomic),
]


@pytest.fixture(autouse=True)
def _receiving(default_alias):
    durable = {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "webhooks"}
    local = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "receiving"}
    handled.__init__()
    with override_settings(
        ROOT_URLCONF=__name__, CACHES={"default": local, "durable": durable}, MIDDLEWARE=CSRF
    ):
        call_command("createcachetable", verbosity=0)
        caches["default"].clear()
        caches["durable"].clear()
        yield


CSRF = ["django.middleware.csrf.CsrfViewMiddleware"]


def signed(body=BODY, *, identity="msg_1", scheme="standard-webhooks", secret=SECRET, at=None):
    timestamp = int((at or datetime.now(UTC)).timestamp())
    signable = Signable(id=identity, timestamp=timestamp, body=body)
    own = {"webhook-id": identity, "webhook-timestamp": str(timestamp)}
    return {**own, **SCHEMES[scheme].sign(signable, [secret])}


@pytest.fixture
def post():
    client = Client(enforce_csrf_checks=True, raise_request_exception=False)

    def post(url="/orders/", body=BODY, headers=None, **options):
        headers = signed(body, **options) if headers is None else headers
        return client.post(url, body, content_type="application/json", headers=headers)

    return post


# -- what is genuine


@pytest.mark.parametrize("url", ["/orders/", "/async/", "/class/oslo/", "/async-class/"])
def test_views_of_every_kind_get_the_message_and_their_answer_goes_back(post, url):
    assert post(url).status_code == 204
    (message,) = handled.messages
    assert (message.id, message.event, message.payload) == ("msg_1", "order.paid", {"number": 7})


@pytest.mark.parametrize("url", ["/orders/", "/async/", "/async-class/", "/durable/"])
def test_what_was_handled_is_answered_200_and_not_handled_again(post, url):
    assert post(url).status_code == 204
    repeated = post(url, at=datetime.now(UTC) - timedelta(seconds=5))
    assert (repeated.status_code, repeated.content) == (200, b"")
    assert post(url, identity="msg_2").status_code == 204
    assert [message.id for message in handled.messages] == ["msg_1", "msg_2"]


def refuse():
    return HttpResponse(status=503)


def fail():
    raise RuntimeError("no stock")


@pytest.mark.parametrize("url", ["/orders/", "/async/", "/async-class/", "/durable/"])
@pytest.mark.parametrize(("then", "status"), [(refuse, 503), (fail, 500)])
def test_what_the_view_could_not_handle_comes_to_it_again(post, url, then, status):
    handled.then = then
    assert post(url).status_code == status
    handled.then = None
    assert post(url).status_code == 204
    assert post(url).status_code == 200
    assert len(handled.messages) == 2


def test_the_same_message_for_two_endpoints_is_handled_at_each(post):
    assert [post(url).status_code for url in ("/orders/", "/async/")] == [204, 204]


@pytest.mark.parametrize("scheme", ["standard-webhooks", "hook-hmac", "github", "stripe"])
def test_every_scheme_is_verified(scheme):
    view = verify_webhook(SECRET, scheme=scheme)(lambda request, message: handled(message))
    requests = RequestFactory()

    def status(headers):
        request = requests.post("/hook/", BODY, "application/json", headers=headers)
        return view(request).status_code

    assert status(signed(scheme=scheme)) == 204
    assert status(signed(scheme=scheme)) == 200
    assert status(signed(b"{}", scheme=scheme)) == 401


def test_a_public_key_verifies():
    private, public = new_ed25519_keypair()
    scheme = "standard-webhooks-ed25519"
    view = verify_webhook(public, scheme=scheme)(lambda request, message: handled(message))
    headers = signed(scheme=scheme, secret=private)
    request = RequestFactory().post("/hook/", BODY, "application/json", headers=headers)
    assert view(request).status_code == 204


def test_a_scheme_of_ones_own_verifies():
    scheme = HookHMAC(digest="sha512")
    view = verify_webhook(SECRET, scheme=scheme)(lambda request, message: handled(message))
    headers = scheme.sign(Signable(id="", timestamp=0, body=BODY, digest="sha512"), [SECRET])
    request = RequestFactory().post("/hook/", BODY, "application/json", headers=headers)
    assert view(request).status_code == 204


@pytest.mark.parametrize("url", ["/tenants/", "/tenants-by-coroutine/", "/tenants-async/"])
def test_secrets_may_depend_on_the_request(post, url):
    assert post(f"{url}ada/").status_code == 204
    assert post(f"{url}ada/", identity="msg_2", secret=OTHER).status_code == 204
    assert post(f"{url}bob/").status_code == 401
    assert post(f"{url}gone/").status_code == 404


def test_a_setting_is_read_for_each_request(post):
    with override_settings(ORDERS_SECRET=[SECRET]):
        assert post("/setting/").status_code == 204
    with override_settings(ORDERS_SECRET=OTHER):
        assert post("/setting/").status_code == 401


def test_a_setting_that_is_missing_is_a_mistake_that_is_named():
    request = RequestFactory().post("/setting/", BODY, "application/json")
    with pytest.raises(ConfigurationError, match="setting ORDERS_SECRET is empty or missing"):
        by_setting(request)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "secrets is not given, and setting is None"),
        ({"secrets": SECRET, "setting": "X"}, "secrets is given, and setting is 'X'"),
        ({"secrets": ""}, "are empty"),
        ({"secrets": []}, "are empty"),
    ],
)
def test_a_view_without_secrets_can_not_be_made(options, words):
    with pytest.raises(ConfigurationError, match=words):
        verify_webhook(**options)


@pytest.mark.parametrize("secrets", ["whsec_", [SECRET, ""], [SECRET, "whsec_AA=="], [None]])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_secret_must_be_a_good_one(secrets, scheme):
    with pytest.raises(ConfigurationError, match="secret"):
        verify_webhook(secrets, scheme=scheme)
    request = RequestFactory().post("/setting/", BODY, "application/json", headers=signed())
    with override_settings(ORDERS_SECRET=secrets), pytest.raises(ConfigurationError):
        by_setting(request)


def test_a_scheme_that_there_is_not_is_refused_at_once():
    with pytest.raises(ConfigurationError, match="unknown signature scheme 'rot13'"):
        verify_webhook(SECRET, scheme="rot13")


@pytest.mark.parametrize("url", ["/orders/", "/async/"])
def test_headers_that_are_not_signed_change_nothing(post, url):
    assert post(url, headers={**signed(), "Hook-Event": "order.refunded"}).status_code == 204
    assert post(url, headers={**signed(), "webhook-id": "msg_9"}).status_code == 401
    (message,) = handled.messages
    assert (message.event, message.id) == ("order.paid", "msg_1")


def test_an_audience_is_checked():
    body = b'{"event":"order.paid","data":{},"audience":"https://shop.example/orders/"}'

    def status(audience):
        view = verify_webhook(SECRET, audience=audience)(lambda request, message: handled(message))
        headers = signed(body)
        return view(
            RequestFactory().post("/", body, "application/json", headers=headers)
        ).status_code

    assert status("https://shop.example/other/") == 401
    assert status("https://shop.example/orders/") == 204


def test_a_body_by_a_codec_of_ones_own_is_received():
    class Shouted:
        @hookimpl
        def thorn_decoders(self):
            return {"text/x-shouted": lambda body: json.loads(body.lower())}

    body = b'{"EVENT":"ORDER.PAID","DATA":{"NUMBER":7}}'

    def received(identity, **options):
        view = verify_webhook(SECRET, **options)(lambda request, message: handled(message))
        headers = signed(body, identity=identity)
        assert (
            view(RequestFactory().post("/", body, "text/x-shouted", headers=headers)).status_code
            == 204
        )
        return handled.messages[-1].event

    assert received("msg_1", decoders=Shouted().thorn_decoders()) == "order.paid"
    assert received("msg_2") == "unknown"
    before = get_app()
    with Thorn(plugins=[Shouted()]).make_default():
        assert received("msg_3") == "order.paid"
    before.make_default()


# -- what is refused


def test_what_is_not_genuine_is_refused_without_a_reason(post):
    old = datetime.now(UTC) - timedelta(minutes=6)
    refused = [
        post(headers={}),
        post(headers=signed(b"{ }")),
        post(secret=OTHER),
        post(at=old),
        post(at=old + timedelta(minutes=12)),
    ]
    assert {answer.status_code for answer in refused} == {401}
    assert {answer.content for answer in refused} == {b'{"title":"Unauthorized","status":401}'}
    assert {answer["Content-Type"] for answer in refused} == {"application/problem+json"}
    assert handled.messages == []


def test_what_is_genuine_but_malformed_is_refused(post):
    assert post(body=b"{").status_code == 400
    assert post("/async/", body=b"\xff").status_code == 400


def test_only_post_is_taken():
    answer = Client().get("/orders/")
    assert (answer.status_code, answer["Allow"]) == (405, "POST")
    assert Client().put("/async/").status_code == 405


@pytest.mark.parametrize("size", [101, 10_000_000])
def test_a_body_that_is_too_large_is_refused(post, size):
    answer = post("/small/", body=b"x" * size)
    assert (answer.status_code, json.loads(answer.content)["status"]) == (413, 413)
    assert post("/small/").status_code == 204


class Endless:
    """A body without an end; remembers how much of it was asked for."""

    def __init__(self):
        self.read_bytes = 0

    def read(self, size=-1):
        assert size > 0
        self.read_bytes += size
        return b"x" * size


def test_no_more_of_a_body_is_read_than_shows_that_it_is_too_large():
    body = Endless()
    request = RequestFactory().post("/small/", BODY, "application/json")
    request._stream = body
    assert small(request).status_code == 413
    assert body.read_bytes <= 101


def test_a_body_that_can_not_be_read_is_refused():
    class Broken:
        def read(self, size=-1):
            raise OSError("connection reset")

    request = RequestFactory().post("/orders/", BODY, "application/json")
    request._stream = Broken()
    with pytest.raises(UnreadablePostError):
        request.read(1)
    assert orders(request).status_code == 400


def test_a_body_that_a_middleware_has_read_is_verified_all_the_same():
    request = RequestFactory().post("/orders/", BODY, "application/json", headers=signed())
    assert request.body == BODY
    assert orders(request).status_code == 204


# -- several at once


@contextmanager
def in_the_middle():
    """Let a view wait until the block has ended; gives what is set when it has begun."""
    begun, go_on = threading.Event(), threading.Event()

    def wait():
        begun.set()
        assert go_on.wait(30)
        return HttpResponse(status=204)

    handled.then = wait
    try:
        yield begun
    finally:
        go_on.set()


def test_while_one_is_handled_another_is_to_come_again(post):
    answers = []
    with in_the_middle() as begun:
        first = threading.Thread(target=lambda: answers.append(post("/orders/")))
        first.start()
        assert begun.wait(30)
        answer = post("/orders/")
        assert (answer.status_code, answer["Retry-After"]) == (409, "30")
    first.join()
    assert answers[0].status_code == 204
    assert post("/orders/").status_code == 200
    assert len(handled.messages) == 1


def test_a_coroutine_that_is_cancelled_has_not_handled_it():
    async def scenario():
        client = AsyncClient()
        call = asyncio.ensure_future(
            client.post("/slow/", BODY, content_type="application/json", headers=signed())
        )
        while not handled.messages:
            await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(scenario())
    guard = CacheReplayGuard()
    now = datetime.now(UTC)
    key = "/slow/:standard-webhooks:msg_1"
    assert guard.begin(key, now=now, until=now + timedelta(1)) is receiver.Seen.NEW


# -- transactions


def test_what_is_rolled_back_has_not_been_handled(post):
    handled.then = fail
    assert post("/durable-atomic/").status_code == 500
    handled.then = None
    assert post("/durable-atomic/").status_code == 204
    assert post("/durable-atomic/").status_code == 200


@pytest.fixture
def atomic_requests():
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    yield
    connection.settings_dict["ATOMIC_REQUESTS"] = False


@pytest.mark.parametrize("url", ["/orders/", "/durable/"])
def test_with_atomic_requests_it_has_been_handled_once_that_has_committed(
    post, atomic_requests, url
):
    assert post(url).status_code == 204
    assert post(url).status_code == 200
    handled.then = fail
    assert post(url, identity="msg_2").status_code == 500
    handled.then = None
    assert post(url, identity="msg_2").status_code == 204


def test_what_can_not_be_committed_comes_to_the_view_again_after_a_while(post, atomic_requests):
    def commit_to_nothing():
        transaction.set_rollback(True)
        return HttpResponse(status=204)

    handled.then = commit_to_nothing
    assert post("/orders/").status_code == 204
    # Nobody said that it failed, so that it counts as under way until its time is up.
    assert post("/orders/").status_code == 409
    caches["default"].clear()
    handled.then = None
    assert post("/orders/").status_code == 204


def test_a_broken_transaction_keeps_its_own_error(post, atomic_requests, caplog):
    def break_it():
        connection.needs_rollback = True
        raise RuntimeError("no stock")

    handled.then = break_it
    assert post("/durable/").status_code == 500
    assert "no stock" in caplog.text
    handled.then = None
    assert post("/durable/").status_code == 204


# -- the cache


def test_the_guard_names_entries_so_that_every_cache_takes_them():
    guard, now = CacheReplayGuard("durable"), datetime.now(UTC)
    until = now + timedelta(seconds=60)
    for key in ("x" * 1000, "a b\n", "\udcff", "ä"):
        assert guard.begin(key, now=now, until=until) is receiver.Seen.NEW
        assert guard.begin(key, now=now, until=until) is receiver.Seen.UNDER_WAY
        guard.finish(key, now=now, until=until)
        assert guard.begin(key, now=now, until=until) is receiver.Seen.HANDLED
        guard.forget(key)
        assert guard.begin(key, now=now, until=until) is receiver.Seen.NEW


def test_the_guard_forgets_when_it_may():
    guard, now = CacheReplayGuard("durable"), datetime.now(UTC)
    assert guard.begin("a", now=now, until=now) is receiver.Seen.NEW
    assert guard.begin("a", now=now, until=now + timedelta(1)) is receiver.Seen.NEW


# -- over HTTP


class Quiet(WSGIRequestHandler):
    def log_message(self, *args):
        pass


@contextmanager
def serving():
    """The project behind a real server; gives its URL."""
    with make_server("127.0.0.1", 0, WSGIHandler(), handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_what_thorn_sends_is_received():
    settings = Settings(allowed_networks=["127.0.0.0/8"], allowed_ports=range(1, 65536))
    with serving() as url, Thorn(settings=settings) as app:
        app.subscribe("order.*", f"{url}/orders/", secret=SECRET)
        receipt = app.send("order.paid", {"number": 7})
        assert receipt
        (delivery,) = receipt.deliveries
        # Once more: the recipient recognises it.
        app.replay(delivery.id)
        app.worker().drain()
        assert [attempt.status for attempt in app.attempts(delivery.id)] == [204, 200]
    (message,) = handled.messages
    assert (message.id, message.payload) == (receipt.message.id, {"number": 7})


def test_a_body_of_unknown_length_is_bounded_behind_asgi_too():
    async def endless():
        for _ in range(3):
            yield b"x" * 60

    async def scenario():
        transport = httpx.ASGITransport(ASGIHandler())
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answer = await client.post("/small/", content=endless(), headers={"Host": "test"})
            assert answer.status_code == 413
            answer = await client.post("/small/", content=BODY, headers=signed())
            assert answer.status_code == 204

    asyncio.run(scenario())
