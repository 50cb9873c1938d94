"""Plugins: found, asked, refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from thorn_core import ConfigurationError, MemoryStore, SecurityError, Settings, Thorn, hookimpl
from thorn_core.plugins import Plugins
from thorn_core.ports.unit_of_work import IMMEDIATE
from thorn_core.testing import LocalRecipient

LOCAL = Settings(allowed_networks=["127.0.0.0/8"], allowed_ports=range(1, 65536))
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(plugin, *, settings=LOCAL, event="a.b", **send):
    """Send one message with a plugin, and give back what arrived and what became of it."""
    with LocalRecipient() as recipient, Thorn(plugins=[plugin], settings=settings) as app:
        app.subscribe("*", recipient.url, secret="whsec_" + "A" * 32)
        receipt = app.send(event, {"n": 1}, **send)
        return recipient.received, receipt.deliveries


def test_a_plugin_can_leave_a_recipient_out():
    class Plugin:
        @hookimpl
        def thorn_accepts(self, message, subscription):
            return False if message.context.get("internal") else None

    assert len(run(Plugin())[0]) == 1
    assert run(Plugin(), context={"internal": True}) == ((), ())


def test_a_plugin_can_add_recipients():
    with LocalRecipient() as extra:

        class Plugin:
            @hookimpl
            def thorn_subscriptions(self, message):
                return [attrs.evolve(self.subscription, url=extra.url, id="sub_" + "e" * 32)]

        plugin = Plugin()
        with Thorn(plugins=[plugin], settings=LOCAL) as app:
            plugin.subscription = app.subscribe("never", extra.url)
            assert app.send("a.b")
            assert extra.received[0].headers["hook-subscription"] == "sub_" + "e" * 32


def test_a_plugin_can_refuse_a_recipient_even_later():
    class Plugin:
        refuse = False

        @hookimpl
        def thorn_validate_recipient(self, url):
            if self.refuse:
                raise SecurityError(f"{url} is on the list")

    plugin = Plugin()
    with LocalRecipient() as recipient, Thorn(plugins=[plugin], settings=LOCAL) as app:
        app.subscribe("*", recipient.url)
        plugin.refuse = True
        with pytest.raises(SecurityError, match="on the list"):
            app.subscribe("*", recipient.url)
        (delivery,) = app.send("a.b").deliveries
        assert (delivery.state, delivery.attempt_count) == ("cancelled", 0)
        assert "on the list" in delivery.reason
        assert recipient.received == ()


@pytest.mark.parametrize(("answer", "refused"), [(False, True), (True, False), (None, False)])
def test_a_plugin_may_refuse_a_recipient_by_false(answer, refused):
    class Plugin:
        @hookimpl
        def thorn_validate_recipient(self, url):
            return answer

    with Thorn(plugins=[Plugin()]) as app:
        if refused:
            with pytest.raises(SecurityError, match="use another recipient"):
                app.subscribe("*", "https://e.com/")
        else:
            assert app.subscribe("*", "https://e.com/")


def test_a_recipient_that_can_not_be_checked_is_refused():
    class Plugin:
        @hookimpl
        def thorn_validate_recipient(self, url):
            raise RuntimeError("no list")

    with (
        Thorn(plugins=[Plugin()]) as app,
        pytest.raises(SecurityError, match="a plugin failed to validate"),
    ):
        app.subscribe("*", "https://e.com/")


def test_plugins_change_requests_in_turn_before_they_are_signed():
    class First:
        @hookimpl(tryfirst=True)
        def thorn_prepare_request(self, request, delivery):
            return attrs.evolve(request, body=request.body.replace(b'"n":1', b'"n":2'))

    class Second:
        @hookimpl
        def thorn_prepare_request(self, request):
            assert b'"n":2' in request.body
            return attrs.evolve(request, headers={**request.headers, "X-Second": "1"})

    class Third:
        @hookimpl(trylast=True)
        def thorn_prepare_request(self, delivery):
            return None

    with (
        LocalRecipient(secret="whsec_" + "A" * 32) as recipient,
        Thorn(plugins=[First(), Second(), Third()], settings=LOCAL) as app,
    ):
        app.subscribe("*", recipient.url, secret="whsec_" + "A" * 32)
        assert app.send("a.b", {"n": 1})
        (request,) = recipient.received
        assert request.json["data"] == {"n": 2}
        assert request.headers["x-second"] == "1"
        assert request.verified


def test_plugins_observe_attempts_and_their_failure_changes_nothing(caplog):
    seen = []

    class Plugin:
        @hookimpl
        def thorn_attempted(self, attempt, delivery):
            seen.append((attempt.status, delivery.event))
            raise RuntimeError

    _, (delivery,) = run(Plugin())
    assert seen == [(200, "a.b")]
    assert delivery.state == "delivered"
    assert "failed in thorn_attempted" in caplog.text


def test_a_plugin_can_bring_codecs_schemes_and_stores():
    class Scheme:
        name = "mine"

        def sign(self, signable, secrets):
            return {"X-Mine": f"{signable.id}:{len(secrets)}"}

        def verify(self, headers, body, secrets, *, now, tolerance):
            raise AssertionError

    class Plugin:
        @hookimpl
        def thorn_codecs(self):
            return {"text/plain": lambda envelope: repr(envelope.document()).encode()}

        @hookimpl
        def thorn_signature_schemes(self):
            return {"mine": Scheme()}

        @hookimpl
        def thorn_stores(self):
            return {"elephant": lambda url, settings: MemoryStore()}

    settings = attrs.evolve(LOCAL, signatures=("mine",))
    with (
        LocalRecipient() as recipient,
        Thorn(store="elephant+pink://", plugins=[Plugin()], settings=settings) as app,
    ):
        app.subscribe("*", recipient.url, content_type="text/plain")
        receipt = app.send("a.b", {"n": 1})
        (request,) = recipient.received
        assert request.body.startswith(b"{'event': 'a.b'")
        assert request.headers["x-mine"] == f"{receipt.message.id}:1"
        assert "webhook-signature" not in request.headers


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"store": "mongodb://"}, "no store for 'mongodb'; available: .*memory"),
        ({"store": "mag.db"}, "no store for 'mag.db'; for a SQLite file, write sqlite:///mag.db$"),
        ({"store": "u:s3cret@h/x"}, "no store for 'u'; for a SQLite file, write sqlite:///thorn"),
        ({"dispatcher": "magic"}, "no dispatcher 'magic'; available: .*inline"),
        ({"settings": Settings(signatures=["rot13"])}, "names 'rot13'; available: .*github"),
        ({"plugins": [type("P", (), {"thorn_x": hookimpl(lambda self: 1)})()]}, "unknown hook"),
    ],
)
def test_what_no_plugin_knows_is_refused_with_what_is_known(options, message):
    with pytest.raises(ConfigurationError, match=message):
        Thorn(**options)


class Harmless:
    @hookimpl
    def thorn_accepts(self, message, subscription):
        return None


def test_a_plugin_given_twice_is_refused():
    plugin = Harmless()
    with pytest.raises(ConfigurationError, match="registered twice"):
        Plugins([plugin, plugin])


class Unmarked:
    def thorn_accepts(self, message, subscription):
        return False


class Misspelt:
    @hookimpl
    def thorn_accept(self, message, subscription):
        return False


class OtherArguments:
    @hookimpl
    def thorn_accepts(self, msg):
        return False


class Awaited:
    @hookimpl
    async def thorn_validate_recipient(self, url):
        raise SecurityError(url)


@pytest.mark.parametrize(
    ("plugins", "problem"),
    [
        ([Awaited()], "thorn_validate_recipient as a coroutine function"),
        ("shop.plugins", "plugins is 'shop.plugins'; use a list"),
        (Harmless(), "use a list of plugins"),
        (["shop.plugins"], "'shop.plugins' is not a plugin"),
        ([None], "None is not a plugin"),
        ([Harmless], "is a class; pass an instance"),
        ([object()], "has no hooks, so it would do nothing"),
        ([Unmarked()], "has thorn_accepts without @hookimpl"),
        ([Misspelt()], "unknown hook thorn_accept; did you mean 'thorn_accepts'"),
        ([OtherArguments()], "can't be used: .*'msg'"),
    ],
)
def test_a_plugin_that_would_do_nothing_is_refused(plugins, problem):
    with pytest.raises(ConfigurationError, match=f"(?s){problem}"):
        Thorn(plugins=plugins, default=False)


def giving(hook, answer):
    """A plugin that gives something in a hook."""
    function = hookimpl(lambda self: answer, specname=hook)
    return type("Giving", (), {hook: function})()


def test_the_nearest_known_name_is_told():
    for options, name in (
        ({"store": "memry://"}, "did you mean 'memory'"),
        ({"dispatcher": "inlien"}, "did you mean 'inline'"),
        (
            {"settings": Settings(signatures=["standard-webhook"])},
            "did you mean 'standard-webhooks'",
        ),
    ):
        with pytest.raises(ConfigurationError, match=name):
            Thorn(**options, default=False)


@pytest.mark.parametrize("answer", [[], "inline", 7, {"": print}, {7: print}])
@pytest.mark.parametrize(
    "hook", ["thorn_stores", "thorn_dispatchers", "thorn_codecs", "thorn_signature_schemes"]
)
def test_a_hook_that_gives_no_mapping_of_names_is_refused(hook, answer):
    with pytest.raises(ConfigurationError, match=f"{hook} of .* returned |names the content type"):
        Thorn(plugins=[giving(hook, answer)], default=False)


class NoScheme:
    name = "none"

    def verify(self, headers, body, secrets, *, now, tolerance):
        raise AssertionError


@pytest.mark.parametrize(
    ("hook", "answer", "options", "problem"),
    [
        ("thorn_stores", {"x": "memory"}, {}, "'memory' for 'x'; it must return a factory"),
        ("thorn_stores", {"x": lambda url, settings: None}, {"store": "x://"}, "not a Store"),
        (
            "thorn_stores",
            {"x": lambda url, settings: {}},
            {"store": "x://"},
            "returned {}.* not a Store",
        ),
        (
            "thorn_stores",
            {"x": lambda url, settings: MemoryStore},
            {"store": "x://"},
            "returned the class .*; return an instance",
        ),
        ("thorn_dispatchers", {"x": None}, {}, "it must return a factory"),
        (
            "thorn_dispatchers",
            {"x": lambda app: app},
            {"dispatcher": "x"},
            "not a Dispatcher; it lacks",
        ),
        (
            "thorn_dispatchers",
            {"x": lambda app: None},
            {"dispatcher": "x"},
            "returned None, which is",
        ),
        ("thorn_codecs", {"text/x": "json"}, {}, "'text/x', which is not callable"),
        (
            "thorn_codecs",
            {"xml": lambda envelope: b""},
            {},
            "content type 'xml'; write type/subtype",
        ),
        ("thorn_codecs", {"text/x\r\nX: 1": lambda envelope: b""}, {}, "write type/subtype"),
        ("thorn_codecs", {"text/x": json.dumps}, {}, "a codec for 'text/x' that fails: "),
        ("thorn_codecs", {"text/x": str}, {}, "that returns a str"),
        ("thorn_codecs", {"text/x": lambda e: e.items()}, {}, "that fails: .*'items'"),
        ("thorn_decoders", {"text/x": 7}, {}, "not callable"),
        ("thorn_signature_schemes", {"none": NoScheme()}, {}, "the methods of .*SignatureScheme"),
        ("thorn_signature_schemes", {"none": NoScheme}, {}, "the methods of .*SignatureScheme"),
        ("thorn_signature_schemes", {"none": None}, {}, "returned None for 'none'"),
    ],
)
def test_what_a_plugin_gives_is_checked_when_the_app_is_made(hook, answer, options, problem):
    with pytest.raises(ConfigurationError, match=problem):
        Thorn(plugins=[giving(hook, answer)], default=False, **options)


def test_a_hook_that_fails_when_the_app_is_made_is_named():
    class Failing:
        @hookimpl
        def thorn_stores(self):
            raise RuntimeError("no driver")

    with pytest.raises(ConfigurationError, match=r"thorn_stores of .*Failing.* failed: no driver"):
        Thorn(plugins=[Failing()], default=False)


def test_an_object_that_is_nearly_a_store_is_told_what_it_lacks():
    almost = MemoryStore()
    members = {n: getattr(almost, n) for n in dir(almost) if n[0] != "_" and n != "claim"}
    with pytest.raises(ConfigurationError, match=r"neither a store .*; it lacks claim"):
        Thorn(store=type("Almost", (), members)(), default=False)


@pytest.mark.parametrize("transport", [object(), "httpx"])
def test_a_transport_that_is_no_factory_is_refused(transport):
    with pytest.raises(ConfigurationError, match="use a function that creates a transport"):
        Thorn(transport=transport, default=False)


@pytest.mark.parametrize("answer", [object(), type("Half", (), {"send": print})()])
def test_a_factory_that_gives_no_transport_is_named_when_it_is_used(answer):
    with (
        Thorn(transport=lambda: answer, default=False) as app,
        pytest.raises(ConfigurationError, match=r"transport=.* which is not a Transport"),
    ):
        app.worker().drain()


def test_a_background_worker_that_fails_is_logged(caplog):
    app = Thorn(transport=lambda: None, dispatcher="background", default=False)
    app.send("a.b")
    with pytest.raises(ConfigurationError, match="not a Transport"):
        app.submit(app.engine.adrain()).result(10)
    app.close()
    (record,) = [r for r in caplog.records if r.name == "thorn_core.dispatchers.background"]
    assert "the background worker failed" in record.getMessage()


def test_a_unit_of_work_that_is_none_is_refused():
    class Plugin:
        @hookimpl
        def thorn_unit_of_work(self, handle):
            return "nonsense"

    with pytest.raises(ConfigurationError, match="returned 'nonsense', which is not a UnitOfWork"):
        Plugins([Plugin()]).unit_of_work("session")


def test_an_unknown_transaction_handle_is_refused():
    plugins = Plugins()
    assert plugins.unit_of_work(None) is IMMEDIATE
    assert plugins.unit_of_work(IMMEDIATE) is IMMEDIATE
    with pytest.raises(ConfigurationError, match="within=7 is not a transaction handle"):
        plugins.unit_of_work(7)


def test_a_plugin_can_make_a_unit_of_work_of_a_handle():
    class Plugin:
        @hookimpl
        def thorn_unit_of_work(self, handle):
            return IMMEDIATE if handle == "session" else None

    assert Plugins([Plugin()]).unit_of_work("session") is IMMEDIATE


PROGRAM = """
from thorn_core import Settings, Thorn
from thorn_core.testing import LocalRecipient
import thorn_dispatcher_interval

thorn_dispatcher_interval.INTERVAL = 0.05
settings = Settings(allowed_networks=["127.0.0.0/8"], allowed_ports=range(1, 65536))
with LocalRecipient() as recipient:
    with Thorn(dispatcher="interval", settings=settings) as app:
        app.subscribe("*", recipient.url)
        assert app.send("a.b", {"n": 1}).wait(10)
        thorn_dispatcher_interval.INTERVAL = 3600
        app.send("a.b", {"n": 2})
    assert [r.json["data"]["n"] for r in recipient.received] == [1, 2]
print("delivered")
"""


def test_a_packaged_dispatcher_is_found_by_its_entry_point(tmp_path):
    target = tmp_path / "installed"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    done = subprocess.run(
        [
            *install,
            str(target),
            "--no-build-isolation",
            str(EXAMPLES / "thorn-dispatcher-interval"),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={"PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "delivered\n", done.stderr


def test_the_guides_plugin_is_the_examples():
    guide = (EXAMPLES.parent / "docs" / "plugins.md").read_text("utf-8")
    module = EXAMPLES / "thorn-dispatcher-interval" / "thorn_dispatcher_interval.py"
    assert module.read_text("utf-8").partition("\n\n")[2] in guide


def test_a_broken_installed_plugin_is_named(tmp_path):
    broken = tmp_path / "broken-1.0.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (broken / "entry_points.txt").write_text("[thorn]\nbroken = no_such_module\n")
    done = subprocess.run(
        [sys.executable, "-c", "from thorn_core import Thorn; Thorn()"],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "an installed plugin (entry point group 'thorn') can't be loaded" in done.stderr
    assert "no_such_module" in done.stderr
