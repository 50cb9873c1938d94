"""The extension: a Thorn for each Flask app, found by the context."""

from __future__ import annotations

import asyncio
import pickle
import threading
from types import SimpleNamespace

import pytest
from flask import Flask, current_app, g, has_app_context, has_request_context, request
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

from thorn_core import (
    ConfigurationError,
    Event,
    ModelEvent,
    Thorn,
    ThornError,
    get_app,
    hookimpl,
    model_reverser,
    signals,
    webhook_model,
)
from thorn_core.testing import capture
from thorn_flask import ThornFlask, current_thorn

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
paid = Event("flask_order.paid")


@pytest.fixture(autouse=True)
def _no_default(monkeypatch):
    """Whatever other tests have left."""
    for name in ("_default_app", "_make_default"):
        monkeypatch.setattr(f"thorn_core.current_app.{name}", None)


def payloads(app):
    return [message.payload for message in app.extensions["thorn"].messages_to_route()]


# -- which app


def test_each_flask_app_has_a_thorn_of_its_own(make):
    webhooks = ThornFlask()
    shop, blog = (make(n, webhooks, dispatcher="outbox") for n in ("shop", "blog"))
    for app in (shop, blog):
        with app.app_context():
            assert webhooks.thorn is app.extensions["thorn"] is get_app() is paid.app
            assert current_thorn == app.extensions["thorn"]
            assert isinstance(current_thorn, Thorn)
            paid.send({"app": app.name})
    assert (payloads(shop), payloads(blog)) == ([{"app": "shop"}], [{"app": "blog"}])


def test_the_innermost_context_counts(make):
    shop, blog = make("shop", dispatcher="outbox"), make("blog", dispatcher="outbox")
    with shop.app_context():
        paid.send(1)
        with blog.app_context():
            paid.send(2)
        paid.send(3)
    assert (payloads(shop), payloads(blog)) == ([1, 3], [2])


def test_threads_answer_requests_of_several_apps_at_once(make):
    apps = [make(f"app{n}", dispatcher="outbox") for n in range(4)]
    barrier, failures = threading.Barrier(len(apps)), []

    def serve(app):
        @app.post("/")
        def pay():
            barrier.wait(10)
            paid.send(current_app.name)
            return ""

        def run():
            statuses = [app.test_client().post("/").status_code for _ in range(20)]
            failures.extend(status for status in statuses if status != 200)

        return threading.Thread(target=run)

    threads = [serve(app) for app in apps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert [payloads(app) for app in apps] == [[app.name] * 20 for app in apps]


def test_outside_of_every_context_there_is_no_app(make):
    app = make(dispatcher="outbox")
    with pytest.raises(ConfigurationError, match="there is no app"):
        paid.send(1)
    with pytest.raises(RuntimeError, match="app_context"):
        _ = ThornFlask().thorn
    with pytest.raises(RuntimeError, match="app_context"):
        current_thorn.send("a.b")
    app.extensions["thorn"].make_default()
    paid.send(2)
    assert payloads(app) == [2]


def test_a_default_app_is_used_outside_only(make):
    app = make(dispatcher="outbox")
    with Thorn(dispatcher="outbox") as default:
        paid.send("outside")
        with app.app_context():
            paid.send("inside")
            # Whose it is to send is said.
            default.send(paid.name, "by name")
        assert [m.payload for m in default.messages_to_route()] == ["outside", "by name"]
    assert payloads(app) == ["inside"]


def test_a_flask_app_without_the_extension_says_so():
    with Flask("bare").app_context():
        with pytest.raises(ConfigurationError, match=r"'bare'.* has no Thorn; call .*init_app"):
            _ = ThornFlask().thorn
        with pytest.raises(ConfigurationError, match="there is no app"):
            get_app()


def test_an_app_is_given_a_thorn_once(make):
    app = make()
    with pytest.raises(ConfigurationError, match="already has a Thorn"):
        ThornFlask(app)


def test_what_an_app_sends_can_be_captured(make):
    app = make()

    @app.post("/")
    def pay():
        paid.send(7)
        return ""

    with capture(app.extensions["thorn"]) as sent:
        app.test_client().post("/")
    assert [(message.event, message.payload) for message in sent] == [("flask_order.paid", 7)]


# -- settings


def test_the_config_holds_the_settings(make):
    app = make(event_timeout=3, signatures='["github"]', retry="false")
    settings = app.extensions["thorn"].settings
    assert (settings.event_timeout, settings.signatures, settings.retry) == (3, ("github",), False)


def subscriber(message):
    return f"https://example.com/{message.payload}"


def public_only(url):
    """Refuse nothing; stands for a validator of the program's own."""


def test_subscribers_codecs_and_validators_may_be_named_by_a_dotted_path(make):
    app = make(
        subscribers={"a.*": [f"{__name__}.subscriber"]},
        codecs={"text/x": "pickle.dumps"},
        recipient_validators=[f"{__name__}.public_only"],
        allowed_ports=(),
    )
    settings = app.extensions["thorn"].settings
    assert settings.subscribers["a.*"] == [subscriber]
    assert settings.codecs["text/x"] is pickle.dumps
    assert [validator.function for validator in settings.validators[-1:]] == [public_only]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"retri": False}, "unknown setting retri; did you mean retry?"),
        ({"event_timeout": "soon"}, "event_timeout is 'soon'"),
        ({"dispatcher": "inlime"}, "no dispatcher 'inlime'"),
        ({"store": "nosuch://"}, "no store for 'nosuch'"),
        ({"codecs": {"a/b": "no.such.thing"}}, "THORN_CODECS names 'no.such.thing'"),
        ({"subscribers": {"a.b": "json.nothing"}}, "THORN_SUBSCRIBERS names 'json.nothing'"),
    ],
)
def test_what_is_wrong_with_the_config_is_said_when_the_app_is_made(make, settings, said):
    with pytest.raises(ConfigurationError, match=said.replace("?", r"\?")):
        make(**settings)


def test_the_store_is_made_in_the_apps_context_unless_the_config_names_one(make, tmp_path):
    def store():
        return f"sqlite:///{tmp_path}/{current_app.name}.db"

    webhooks = ThornFlask(store=store)
    assert "shop.db" in repr(make("shop", webhooks).extensions["thorn"].store)
    assert "blog.db" in repr(make("blog", webhooks).extensions["thorn"].store)
    assert not make("test", webhooks, store="memory://").extensions["thorn"].store.shared


# -- where the program's own code runs


class Seen:
    """Notes in which context something is called."""

    def __init__(self):
        self.calls = []
        self.called = threading.Event()

    def __call__(self, *args, **kwargs):
        self.calls.append((current_app.name, has_request_context(), "marked" in g))
        g.marked = True
        self.called.set()


@pytest.mark.parametrize("dispatcher", ["inline", "background"])
def test_callbacks_run_in_a_context_of_the_app_and_of_no_request(make, recipient, dispatcher):
    app, seen, ended = make(dispatcher=dispatcher), Seen(), []
    app.extensions["thorn"].subscribe("flask_order.*", recipient.url, secret=SECRET)
    app.teardown_appcontext(lambda error: ended.append(threading.current_thread().name))

    @app.post("/")
    def pay():
        g.marked = True
        paid.send({"number": 7}, on_success=seen).wait(10)
        return ""

    for _ in range(2):
        seen.called.clear()
        app.test_client().post("/")
        assert seen.called.wait(10)
    assert seen.calls == [("shop", False, False)] * 2
    # Each had a context of its own, which has ended: what is in it, such as a session, is closed.
    assert ended.count("thorn-engine") == 2


def test_subscribers_plugins_and_receivers_are_called_in_the_apps_context(make, recipient):
    seen = {name: Seen() for name in ("subscribers", "accepts", "attempted", "signal", "prepare")}

    class Plugin:
        @hookimpl
        def thorn_accepts(self, message, subscription):
            seen["accepts"]()

        @hookimpl
        def thorn_attempted(self, attempt, delivery):
            seen["attempted"]()

        @hookimpl
        def thorn_prepare_request(self, request, delivery):
            seen["prepare"]()

    def subscribers(message):
        seen["subscribers"]()
        return {"url": recipient.url, "secret": SECRET}

    app = make(
        "shop",
        ThornFlask(plugins=[Plugin()]),
        dispatcher="background",
        subscribers={"flask_order.*": subscribers},
    )
    app.extensions["thorn"].subscribe("flask_order.*", recipient.url, secret=SECRET)

    def receive(sender, **values):
        seen["signal"]()

    with (
        signals.delivery_delivered.connected_to(receive, sender=app.extensions["thorn"]),
        app.test_request_context(),
    ):
        assert paid.send(7).wait(10)
    assert len(recipient.wait_for(2)) == 2
    for name, calls in seen.items():
        assert calls.called.wait(10), name
        assert set(calls.calls) == {("shop", False, False)}, name


def test_a_callback_that_fails_changes_nothing(make, recipient, caplog):
    app = make()
    app.extensions["thorn"].subscribe("flask_order.*", recipient.url, secret=SECRET)

    def fail(attempt):
        raise RuntimeError(f"no stock in {current_app.name}")

    with app.app_context():
        assert paid.send(7, on_success=fail)
    assert "no stock in shop" in caplog.text


def test_a_context_that_is_there_already_is_kept(make, recipient):
    app, seen = make(), []
    app.extensions["thorn"].subscribe("flask_order.*", recipient.url, secret=SECRET)

    def receive(sender, *, message):
        seen.append((g.marked, request.path))

    with (
        signals.message_sent.connected_to(receive, sender=app.extensions["thorn"]),
        app.test_request_context("/pay"),
    ):
        g.marked = True
        paid.send(7)
    assert seen == [(True, "/pay")]


def test_an_asynchronous_view_sends(make, recipient):
    app = make()
    app.extensions["thorn"].subscribe("flask_order.*", recipient.url, secret=SECRET)

    @app.post("/")
    async def pay():
        await asyncio.sleep(0)
        return {"delivered": bool(await paid.asend({"number": 7}))}

    assert app.test_client().post("/").json == {"delivered": True}


def test_closing_ends_what_runs(make):
    app = make(dispatcher="background")
    thorn = app.extensions["thorn"]
    with app.app_context():
        paid.send(1).wait(10)
        thorn.close()
        thorn.close()
        with pytest.raises(ThornError, match="this app is closed"):
            paid.send(2)


# -- URLs


@pytest.fixture
def article():
    @webhook_model
    class FlaskArticle:
        class webhooks:
            reverse = model_reverser("blog.article", number="number")
            on_create = ModelEvent("flask_article.created", propagate_errors=True)

            def payload(self, article):
                return {}

        number = 7

    return FlaskArticle()


def routed(app):
    app.add_url_rule("/articles/<int:number>", "blog.article", lambda number: "")
    return app


def refs(app):
    return [message.ref for message in app.extensions["thorn"].messages_to_route()]


def create(article):
    signals.model_created.send(type(article), instance=article)
    return ""


@pytest.mark.parametrize(
    ("config", "ref"),
    [
        ({}, "/articles/7"),
        ({"APPLICATION_ROOT": "/blog"}, "/blog/articles/7"),
        ({"SERVER_NAME": "blog.example.com"}, "http://blog.example.com/articles/7"),
        (
            {"SERVER_NAME": "blog.example.com", "PREFERRED_URL_SCHEME": "https"},
            "https://blog.example.com/articles/7",
        ),
        ({"THORN_BASE_URL": "https://example.com"}, "https://example.com/articles/7"),
        (
            {"THORN_BASE_URL": "https://example.com", "SERVER_NAME": "b.example.com"},
            "https://example.com/articles/7",
        ),
    ],
)
def test_a_model_is_referred_to_by_its_view(make, article, config, ref):
    settings = {k.removeprefix("THORN_"): v for k, v in config.items() if k.startswith("THORN_")}
    app = routed(make(dispatcher="outbox", **settings))
    app.config.update(config)
    with app.app_context():
        create(article)
    assert refs(app) == [ref]


def test_a_reference_in_a_request_has_its_root_and_never_its_host(make, article):
    shop, blog = (routed(make(name, dispatcher="outbox")) for name in ("shop", "blog"))
    shop.add_url_rule("/", view_func=lambda: create(article))

    @blog.get("/")
    def both():
        create(article)
        with shop.app_context():
            return create(article)

    site = DispatcherMiddleware(shop, {"/blog": blog})
    client = Client(site)
    for path in ("/", "/blog/"):
        assert client.get(path, headers={"Host": "evil.example.com"}).status_code == 200
    assert refs(blog) == ["/blog/articles/7"]
    # In the request of another app, it has that one's root nowhere.
    assert refs(shop) == ["/articles/7", "/articles/7"]


def test_url_defaults_hold(make, article):
    app = make(dispatcher="outbox")
    app.add_url_rule("/<language>/articles/<int:number>", "blog.article", lambda: "")
    app.url_defaults(lambda endpoint, values: values.setdefault("language", "de"))
    with app.app_context():
        create(article)
    assert refs(app) == ["/de/articles/7"]


def test_what_has_no_url_is_said(make):
    app = routed(make())
    instance = SimpleNamespace(number=7)
    for reverser, said in (
        (model_reverser("blog.nothing"), "no URL for view 'blog.nothing'"),
        (model_reverser("blog.article", missing="number"), "no URL for view 'blog.article'"),
        (model_reverser("blog.article", "number"), "take keyword arguments only"),
    ):
        with app.app_context(), pytest.raises(ConfigurationError, match=said):
            reverser(instance)
    assert not has_app_context()
