"""Modules that declare events: workers import them."""

from __future__ import annotations

import sys

import pytest

from thorn_core import ConfigurationError, Settings, Thorn, hookimpl
from thorn_core.cli.group import run_for
from thorn_core.testing import LocalRecipient

LOCAL = Settings(allowed_networks=["127.0.0.0/8"], allowed_ports=range(1, 65536))


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module, and forgets it again."""
    monkeypatch.syspath_prepend(tmp_path)
    names = []

    def write(name, text):
        names.append(name)
        (tmp_path / f"{name}.py").write_text(text)
        return name

    yield write
    for name in names:
        sys.modules.pop(name, None)


def declaring(name, url):
    return f"from thorn_core import Event\nEvent({name!r}, subscribers=[{url!r}])\n"


def test_a_worker_imports_the_modules_of_the_setting(module):
    with LocalRecipient() as recipient:
        name = module("till_events_a", declaring("till.opened_a", recipient.url))
        with Thorn(settings=LOCAL.evolve(imports=[name]), dispatcher="outbox") as app:
            assert name not in sys.modules
            app.send("till.opened_a", 1)
            app.worker().drain()
            assert len(recipient.received) == 1


def test_what_is_listed_of_events_knows_them_too(module):
    name = module("till_events_b", declaring("till.opened_b", "https://example.com/"))
    with Thorn(settings=LOCAL.evolve(imports=[name])) as app:
        assert "till.opened_b" in [event.name for event in app.events()]


def test_a_command_imports_more(module, tmp_path):
    with LocalRecipient() as recipient:
        name = module("till_events_c", declaring("till.opened_c", recipient.url))
        store = f"sqlite:///{tmp_path}/thorn.db"
        with Thorn(settings=LOCAL, store=store, dispatcher="outbox") as app:
            app.send("till.opened_c", 1)
            arguments = ["--once", "--log-format", "text", "--import", name]
            assert run_for(lambda: app, "worker", arguments) == 0
            assert len(recipient.received) == 1


def test_plugins_may_import_theirs_once():
    class Plugin:
        calls = 0

        @hookimpl
        def thorn_import_events(self):
            self.calls += 1

    plugin = Plugin()
    with Thorn(plugins=[plugin], dispatcher="outbox") as app:
        assert plugin.calls == 0
        for _ in range(2):
            app.worker()
        assert plugin.calls == 1


@pytest.mark.parametrize("names", ["till", ["till events"], [""], ["till."], [7]])
def test_what_is_no_name_of_a_module_is_refused(names):
    with pytest.raises(ConfigurationError, match="setting imports is"):
        Settings(imports=names)


def test_a_module_that_is_not_there_is_named():
    with Thorn(settings=Settings(imports=["till.nowhere"]), dispatcher="outbox") as app:
        for _ in range(2):
            with pytest.raises(ConfigurationError, match=r"module 'till\.nowhere' .* imports"):
                app.worker()


def test_what_a_module_raises_is_raised(module):
    name = module("till_events_d", "raise OSError('no configuration')")
    with (
        Thorn(settings=Settings(imports=[name]), dispatcher="outbox") as app,
        pytest.raises(OSError, match="no configuration"),
    ):
        app.worker()
