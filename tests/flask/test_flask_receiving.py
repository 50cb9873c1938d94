"""Views that receive webhooks: verified, and each once."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import islice

import pytest
from flask import Flask, abort, jsonify, request
from flask.views import MethodView

from thorn_core import ConfigurationError, hookimpl
from thorn_core.receiver import CacheReplayGuard, MemoryReplayGuard
from thorn_core.signatures import SCHEMES, Signable, new_secret
from thorn_flask import ThornFlask, verify_webhook

SECRET = new_secret()
BODY = b'{"event":"order.paid","data":{"number":7}}'


def signed(body=BODY, *, identity="msg_1", secret=SECRET, scheme="standard-webhooks", at=None):
    at = int(time.time()) if at is None else at
    made = SCHEMES[scheme].sign(Signable(id=identity, timestamp=at, body=body), [secret])
    return {"webhook-id": identity, "webhook-timestamp": str(at), **made}


@pytest.fixture
def app():
    app = Flask("warehouse")
    app.config["ORDERS_SECRET"] = SECRET
    app.handled = []
    return app


def received(app, *arguments, path="/orders/", status=204, **options):
    """Let a view receive; gives a function that posts."""

    @app.route(path, endpoint=path, methods=["POST", "GET"])
    @verify_webhook(*arguments, **options)
    def orders(message):
        app.handled.append(message.payload)
        return "", status

    return lambda body=BODY, headers=None, **more: app.test_client().post(
        path,
        data=body,
        headers=headers or signed(body),
        **{"content_type": "application/json", **more},
    )


def test_a_webhook_is_handled_once(app):
    post = received(app, SECRET)
    assert [post().status_code for _ in range(3)] == [204, 200, 200]
    assert app.handled == [{"number": 7}]
    assert post(headers=signed(identity="msg_2")).status_code == 204
    assert len(app.handled) == 2


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (401, BODY, lambda: {"x": "y"}),
        (401, BODY + b" ", signed),
        (401, BODY, lambda: signed(secret=new_secret())),
        (401, BODY, lambda: signed(at=int(time.time()) - 3600)),
        (400, b"nonsense", lambda: signed(b"nonsense")),
        (413, b" " * 2_000_000, signed),
    ],
)
def test_what_is_not_a_webhook_is_refused_and_not_handled(app, status, body, headers):
    # Signed here and not when tests are collected: a webhook that is five minutes old is refused.
    answer = received(app, SECRET)(body, headers())
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json")
    assert app.handled == []


def test_only_post_is_taken(app):
    received(app, SECRET)
    answer = app.test_client().get("/orders/")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


def test_flasks_own_limit_holds_where_it_is_lower(app):
    app.config["MAX_CONTENT_LENGTH"] = 10
    assert received(app, SECRET)().status_code == 413


def test_secrets_may_be_in_the_config_several_or_found_for_a_request(app):
    async def secret():
        return {"/c/": SECRET}.get(request.path)

    posts = [
        received(app, setting="ORDERS_SECRET", path="/a/"),
        received(app, [new_secret(), SECRET], path="/b/"),
        received(app, secret, path="/c/"),
        received(app, secret, path="/d/"),
    ]
    assert [post().status_code for post in posts] == [204, 204, 204, 401]
    app.testing = True
    app.config["ORDERS_SECRET"] = ""
    with pytest.raises(ConfigurationError, match="setting ORDERS_SECRET is empty"):
        posts[0]()


@pytest.mark.parametrize(
    ("arguments", "options"), [((), {}), ((SECRET,), {"setting": "X"}), (("",), {}), (([],), {})]
)
def test_there_must_be_secrets(arguments, options):
    with pytest.raises(ConfigurationError, match="secrets"):
        verify_webhook(*arguments, **options)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("secrets", ["whsec_", [SECRET, ""], [SECRET, "whsec_AA=="], [None]])
def test_each_secret_must_be_a_good_one(app, scheme, secrets):
    with pytest.raises(ConfigurationError, match="secret"):
        verify_webhook(secrets, scheme=scheme)
    app.testing = True
    app.config["ORDERS_SECRET"] = secrets
    with pytest.raises(ConfigurationError, match="secret"):
        received(app, setting="ORDERS_SECRET", scheme=scheme)()


def test_headers_that_are_not_signed_change_nothing(app):
    events = []

    @app.post("/orders/")
    @verify_webhook(SECRET)
    def orders(message):
        events.append((message.event, message.id))
        return "", 204

    headers = [*signed().items(), ("Hook-Event", "order.refunded"), ("webhook-id", "msg_9")]
    post = app.test_client().post
    assert post("/orders/", data=BODY, headers=headers).status_code == 401
    assert post("/orders/", data=BODY, headers=headers[:-1]).status_code == 204
    assert events == [("order.paid", "msg_1")]


def test_an_audience_is_checked(app):
    body = b'{"event":"order.paid","data":{},"audience":"https://shop.example/orders/"}'
    ours = received(app, SECRET, audience="https://shop.example/orders/")
    other = received(app, SECRET, audience="https://shop.example/other/", path="/other/")
    assert (ours(body).status_code, other(body).status_code) == (204, 401)


def test_a_body_by_a_codec_of_the_apps_plugins_is_received(app):
    class Shouted:
        @hookimpl
        def thorn_decoders(self):
            return {"text/x-shouted": lambda body: json.loads(body.lower())}

    body = b'{"EVENT":"ORDER.PAID","DATA":{"NUMBER":7}}'

    def payload(app, **options):
        post = received(app, SECRET, **options)
        assert post(body, signed(body), content_type="text/x-shouted").status_code == 204
        return app.handled.pop()

    plain = Flask("without")
    plain.handled = []
    assert payload(plain) == {"EVENT": "ORDER.PAID", "DATA": {"NUMBER": 7}}
    ThornFlask(app, plugins=[Shouted()])
    assert payload(app) == {"number": 7}
    other = Flask("given")
    other.handled = []
    assert payload(other, decoders=Shouted().thorn_decoders()) == {"number": 7}
    app.extensions["thorn"].close()


def test_every_scheme_is_verified(app):
    schemes = ("hook-hmac", "github", "stripe")
    posts = {s: received(app, SECRET, scheme=s, path=f"/{s}/") for s in schemes}
    for scheme, post in posts.items():
        headers = signed(scheme=scheme)
        assert [post(headers=headers).status_code for _ in range(2)] == [204, 200]
    assert len(app.handled) == 3


@pytest.mark.parametrize("status", [302, 400, 500])
def test_what_could_not_be_handled_comes_again(app, status):
    post = received(app, SECRET, status=status)
    assert [post().status_code for _ in range(2)] == [status] * 2
    assert len(app.handled) == 2


def test_a_view_that_raises_gets_it_again(app):
    ways = iter([RuntimeError("no stock"), None, KeyError("x"), "done"])

    @app.post("/orders/")
    @verify_webhook(SECRET)
    def orders(message):
        way = next(ways)
        if isinstance(way, Exception):
            raise way
        if way is None:
            abort(503)
        return jsonify(message.payload)

    client = app.test_client()
    post = lambda: client.post("/orders/", data=BODY, headers=signed())  # noqa: E731
    assert [post().status_code for _ in range(5)] == [500, 503, 500, 200, 200]
    assert next(ways, "over") == "over"


def test_views_may_be_coroutines_methods_and_take_more(app):
    @app.post("/a/<shop>")
    @verify_webhook(SECRET)
    async def coroutine(shop, message):
        app.handled.append((shop, message.id))
        return request.json

    class Orders(MethodView):
        decorators = (verify_webhook(SECRET),)

        def post(self, shop, message):
            app.handled.append((shop, message.id))
            return {}

    class Returns(MethodView):
        @verify_webhook(SECRET)
        def post(self, shop, message):
            app.handled.append((shop, message.id))
            return {}

    app.add_url_rule("/b/<shop>", view_func=Orders.as_view("orders"))
    app.add_url_rule("/c/<shop>", view_func=Returns.as_view("returns"))
    for path in "abc":
        answer = app.test_client().post(
            f"/{path}/{path}", data=BODY, content_type="application/json", headers=signed()
        )
        assert answer.status_code == 200
    # The same webhook, at each of them.
    assert app.handled == [(path, "msg_1") for path in "abc"]
    assert app.view_functions["coroutine"].__name__ == "coroutine"


def test_of_those_that_come_at_once_one_is_handled(app):
    entered, leave = [], threading.Event()

    @app.post("/orders/")
    @verify_webhook(SECRET)
    def orders(message):
        entered.append(message.id)
        assert leave.wait(10)
        return "", 204

    headers = signed()

    def post(_):
        return app.test_client().post("/orders/", data=BODY, headers=headers)

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(post, number) for number in range(8)]
        others = list(islice(as_completed(asked, 10), 7))
        assert [future.result().status_code for future in others] == [409] * 7
        assert others[0].result().headers["Retry-After"] == "30"
        leave.set()
        assert sorted(future.result().status_code for future in asked) == [204] + [409] * 7
    assert entered == ["msg_1"]


class DictCache:
    """What Flask-Caching's caches do, in a dict."""

    def __init__(self):
        self.kept = {}

    def add(self, key, value, timeout):
        if key in self.kept:
            return False
        self.kept[key] = value
        return True

    def get(self, key):
        return self.kept.get(key)

    def set(self, key, value, timeout):
        self.kept[key] = value

    def delete(self, key):
        self.kept.pop(key, None)


def test_processes_that_share_a_cache_know_of_each_others(app):
    cache = DictCache()
    posts = []
    for name in ("one", "another"):
        process = Flask(name)
        process.handled = app.handled
        posts.append(received(process, SECRET, guard=CacheReplayGuard(cache)))
    assert [post().status_code for post in posts] == [204, 200]
    assert app.handled == [{"number": 7}]
    failing = received(app, SECRET, guard=CacheReplayGuard(cache), status=500, path="/x/")
    assert [failing().status_code for _ in range(2)] == [500, 500]
    assert len(cache.kept) == 1


def test_what_is_not_remembered_is_handled_again(app):
    post = received(app, SECRET, remember=0, guard=MemoryReplayGuard())
    assert [post().status_code for _ in range(2)] == [204, 204]
