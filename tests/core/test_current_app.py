"""The app of what is going on, and the context that the program's own code is called in."""

from __future__ import annotations

import re
from contextlib import contextmanager
from contextvars import ContextVar

import pytest

from thorn_core import (
    ConfigurationError,
    Event,
    Settings,
    Thorn,
    find_app_by,
    get_app,
    hookimpl,
    signals,
)
from thorn_core.testing import LocalRecipient

answering: ContextVar[Thorn | None] = ContextVar("answering", default=None)
happened = Event("current_app.happened")


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    for name, value in {"_default_app": None, "_make_default": None, "_finders": ()}.items():
        monkeypatch.setattr(f"thorn_core.current_app.{name}", value)


@contextmanager
def within(app):
    token = answering.set(app)
    try:
        yield app
    finally:
        answering.reset(token)


def payloads(app):
    return [message.payload for message in app.messages_to_route()]


def test_the_app_of_what_is_going_on_goes_before_the_default():
    find_app_by(answering.get)
    find_app_by(answering.get)
    with Thorn(dispatcher="outbox") as default, Thorn(dispatcher="outbox") as other:
        assert get_app() is default
        with within(other):
            assert get_app() is happened.app is other
            happened.send("other's")
            # By name too, it is sent by the app that is asked to.
            default.send(happened.name, "default's")
            other.send(happened.name, "other's too")
        happened.send("default's too")
        assert payloads(default) == ["default's", "default's too"]
        assert payloads(other) == ["other's", "other's too"]


def test_an_app_need_not_become_the_default():
    with Thorn(default=False) as app:
        with pytest.raises(ConfigurationError, match="there is no app yet"):
            get_app()
        assert app.make_default() is get_app()


class Calling:
    """Marks what is called inside of it, and notes what was."""

    def __init__(self):
        self.inside = False
        self.noted = {}
        self.inherited = set()

    def note(self, name):
        self.noted.setdefault(name, self.inside)
        self.inherited.add(answering.get())

    @hookimpl
    @contextmanager
    def thorn_calling(self):
        former, self.inside = self.inside, True
        try:
            yield
        finally:
            self.inside = former

    @hookimpl
    def thorn_accepts(self, message, subscription):
        self.note("accepts")

    @hookimpl
    def thorn_subscriptions(self, message):
        self.note("subscriptions")

    @hookimpl
    def thorn_validate_recipient(self, url):
        self.note("validate")

    @hookimpl
    def thorn_prepare_request(self, request):
        self.note("prepare")

    @hookimpl
    def thorn_attempted(self, attempt):
        self.note("attempted")


def test_the_programs_own_code_is_called_within_what_plugins_enter():
    calling = Calling()
    settings = Settings(
        allowed_networks=["127.0.0.0/8"],
        allowed_ports=range(1, 65536),
        subscribers={"current_app.*": lambda message: calling.note("subscriber")},
    )

    def receive(app, **values):
        calling.note("receiver")

    with (
        LocalRecipient() as recipient,
        Thorn(settings=settings, plugins=[calling]) as app,
        signals.delivery_delivered.connected_to(receive, sender=app),
        within(app),
    ):
        app.subscribe("current_app.*", recipient.url)
        sent = app.send(happened.name, 7, on_success=lambda attempt: calling.note("callback"))
        assert sent.wait(10)
    names = ("accepts", "subscriptions", "validate", "prepare", "attempted")
    assert calling.noted == dict.fromkeys((*names, "subscriber", "receiver", "callback"), True)


def test_the_engine_inherits_no_context_of_whoever_sends():
    calling = Calling()
    settings = Settings(allowed_networks=["127.0.0.0/8"], allowed_ports=range(1, 65536))
    with (
        LocalRecipient() as recipient,
        Thorn(settings=settings, dispatcher="background") as app,
        within(app),
    ):
        app.subscribe("current_app.*", recipient.url)
        for _ in range(2):
            app.send(happened.name, 7, on_success=lambda attempt: calling.note("x")).wait(10)
    assert calling.inherited == {None}


@pytest.mark.parametrize(
    ("setting", "value", "found"),
    [
        ("SUBSCRIBERS", {"a.b": ["json.dumps", "https://e.com/"]}, "subscribers"),
        ("CODECS", {"text/x": "pickle.dumps"}, "codecs"),
        ("RECIPIENT_VALIDATORS", ["json.dumps", ("ensure_port", 80)], "recipient_validators"),
    ],
)
def test_a_dotted_path_is_imported_where_that_is_asked_for(setting, value, found):
    mapping = {f"THORN_{setting}": value}
    assert "dumps" in repr(getattr(Settings.from_mapping(mapping, dotted=True), found))
    missing = {f"THORN_{setting}": eval(re.sub(r"\w+\.dumps", "json.nothing", repr(value)))}
    with pytest.raises(ConfigurationError, match=f"THORN_{setting} names 'json.nothing'"):
        Settings.from_mapping(missing, dotted=True)


def test_what_is_a_url_or_a_name_is_no_path():
    mapping = {
        "THORN_SUBSCRIBERS": {"a.b": "https://example.com/hook", "c.d": {"url": "http://e.com/"}},
        "THORN_RECIPIENT_VALIDATORS": ["block_internal_ips"],
    }
    settings = Settings.from_mapping(mapping, dotted=True)
    assert settings.subscribers == mapping["THORN_SUBSCRIBERS"]
