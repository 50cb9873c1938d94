"""Findings about a configuration: the same in the log at start and in `thorn check`."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from contextlib import closing

import pytest

from thorn_core import (
    ConfigurationError,
    Event,
    MemoryStore,
    ModelEvent,
    Settings,
    StoreSetupError,
    Thorn,
    hookimpl,
)
from thorn_core.checks import check_event, check_settings, findings
from thorn_core.cli.group import run
from thorn_core.dispatchers import BuiltinDispatchers
from thorn_core.recipients import (
    allow_cidr_network,
    block_internal_ips,
    ensure_port,
    ensure_protocol,
)
from thorn_core.testing import LocalRecipient


def names(found):
    return [finding.name for finding in found]


DOUBTFUL = {
    "no validators": ({"recipient_validators": []}, "internal-addresses-open", "169.254.0.0/16"),
    "only ports": (
        {"recipient_validators": [ensure_port(443)]},
        "internal-addresses-open",
        "127.0.0.0/8",
    ),
    "every address": (
        {"allowed_networks": ["0.0.0.0/0"]},
        "metadata-open",
        "allowed_networks permits 0.0.0.0/0, which includes every address",
    ),
    "every address, in a list": (
        {"recipient_validators": [allow_cidr_network("::/0")]},
        "metadata-open",
        "recipient_validators permits ::/0",
    ),
    "link-local": ({"allowed_networks": ["169.254.0.0/16"]}, "metadata-open", "169.254.0.0/16"),
    "a public network": (
        {"allowed_networks": ["93.184.215.0/24"]},
        "useless-exception",
        "93.184.215.0/24, which is public",
    ),
    "a static subscriber that is internal": (
        {"subscribers": {"a.*": [{"url": "http://localhost/?token=hunter2"}]}},
        "subscriber-refused",
        "subscribers['a.*'] contains 'http://localhost/', which is refused",
    ),
    "a static subscriber on another port": (
        {"subscribers": {"a.*": "https://example.com:8443/"}},
        "subscriber-refused",
        "uses port 8443; use one of: 80, 443",
    ),
    "no signature": ({"signatures": []}, "unsigned", "signatures is empty"),
}


@pytest.mark.parametrize(("settings", "name", "words"), DOUBTFUL.values(), ids=DOUBTFUL)
def test_a_doubtful_setting_is_found_and_logged_when_the_app_is_made(settings, name, words, caplog):
    settings = Settings(**settings)
    (finding,) = check_settings(settings)
    assert finding.name == name
    assert words in finding.message
    assert "hunter2" not in finding.message
    Thorn(settings=settings, default=False).close()
    (record,) = [r for r in caplog.records if r.name == "thorn_core.checks"]
    assert (record.levelname, record.finding) == ("WARNING", name)
    assert record.getMessage() == f"{finding.message} {finding.hint}"


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"allowed_networks": ["10.1.0.0/16", "fd12::/16"], "allowed_ports": ["8000-8999"]},
        {"recipient_validators": [allow_cidr_network("127.0.0.0/8")]},
        {"recipient_validators": [block_internal_ips(), ensure_protocol("https")]},
        {
            "allowed_networks": ["10.1.0.0/16"],
            "recipient_validators": [ensure_port(443)],
            "subscribers": {"a.*": ["https://10.1.0.1/", lambda message: "http://localhost/"]},
        },
    ],
)
def test_a_sound_setting_is_not_mentioned(settings, caplog):
    settings = Settings(**settings)
    assert check_settings(settings) == []
    Thorn(settings=settings, default=False).close()
    assert caplog.records == []


def test_a_static_subscriber_is_not_told_to_a_function_of_ones_own():
    asked = []
    Thorn(
        settings=Settings(
            recipient_validators=[block_internal_ips(), asked.append],
            subscribers={"a.*": "https://example.com/"},
        ),
        default=False,
    ).close()
    assert asked == []


def test_an_events_own_list_is_checked_with_the_settings_exceptions():
    event = Event("a.b", recipient_validators=[ensure_port(443)], subscribers="https://10.1.0.1/")
    assert names(check_event(event, Settings())) == ["internal-addresses-open"]
    assert check_event(event, Settings(allowed_networks=["10.1.0.0/16"])) == []


def test_an_events_list_that_leaves_addresses_open_is_logged_once(caplog):
    with LocalRecipient() as recipient, Thorn(default=False) as app:
        event = Event("a.b", app=app, recipient_validators=[], subscribers=recipient.url)
        assert event.send()
        assert event.send()
        assert names(findings(app)) == ["internal-addresses-open"]
        (record,) = [r for r in caplog.records if r.name == "thorn_core.checks"]
        assert "recipient_validators of event 'a.b' permits" in record.getMessage()


# --- dispatchers


@pytest.fixture
def kept(monkeypatch):
    """Only what the test declares is declared, and only as long as it runs."""
    for name in ("_kept", "_declared"):
        monkeypatch.setattr(f"thorn_core.events.{name}", {})


UNKNOWN = "event 'a.b': no dispatcher 'inlien'; did you mean 'inline'?"


def logged(caplog):
    return [r.getMessage() for r in caplog.records if r.name.startswith("thorn_core")]


@pytest.mark.parametrize("declare", [Event, ModelEvent])
def test_an_event_of_an_app_is_refused_with_a_dispatcher_that_the_app_does_not_know(declare, kept):
    with Thorn(default=False) as app:
        with pytest.raises(ConfigurationError) as refused:
            declare("a.b", app=app, dispatcher="inlien")
        assert str(refused.value).startswith(UNKNOWN)
        assert app.events() == []
        declare("a.b", app=app, dispatcher="outbox")


@pytest.mark.parametrize("declare", [Event, ModelEvent])
def test_a_dispatcher_unknown_to_the_default_app_is_logged_and_found(declare, kept, caplog):
    before = declare("a.b", dispatcher="inlien")
    assert logged(caplog) == []
    with Thorn(default=False) as other:
        assert logged(caplog) == []
        assert names(findings(other)) == ["unknown-dispatcher"]
    with Thorn() as app:
        (found,) = findings(app)
        assert found.message.startswith(UNKNOWN)
        assert logged(caplog) == [f"{found.message} {found.hint}"]
        after = declare("a.c", dispatcher="inlien")
        assert logged(caplog)[1:] == [found.message.replace("a.b", "a.c")]
        assert [finding.name for finding in findings(app)] == ["unknown-dispatcher"] * 2
    del before, after


def test_each_model_with_an_event_of_one_name_is_checked(kept):
    wrong = ModelEvent("a.b", dispatcher="inlien")
    right = ModelEvent("a.b", dispatcher="inline")
    with Thorn() as app:
        (found,) = findings(app)
        assert found.message.startswith(UNKNOWN)
    del wrong, right


class Mine:
    @hookimpl
    def thorn_dispatchers(self):
        return {"mine": BuiltinDispatchers().thorn_dispatchers()["outbox"]}


def test_a_dispatcher_of_a_plugin_is_known_to_the_app_that_has_it(kept):
    with Thorn(plugins=[Mine()]) as app:
        Event("a.b", dispatcher="mine", app=app)
        Event("a.c", dispatcher="mine")
        assert findings(app) == []


def test_check_imports_the_events_and_tells_a_misspelt_dispatcher(module, capsys, kept):
    declaring = module("event = Event('a.b', dispatcher='inlien')")
    name = module(f"app = Thorn(default=False, settings=Settings(imports=['{declaring}']))")
    assert run(["--app", f"{name}:app", "check"]) == 1
    assert UNKNOWN in capsys.readouterr().out
    sys.modules[name].app.close()


# --- thorn check


class Unready(MemoryStore):
    def check(self):
        raise StoreSetupError("there are no tables; run: thorn init-db")


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A user's module: give its lines, get its name."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(lines):
        name = f"shop_{os.urandom(4).hex()}"
        (tmp_path / f"{name}.py").write_text(f"from thorn_core import *\n{lines}\n")
        return name

    return make


def test_check_is_content_with_a_sound_app(module, capsys):
    assert run(["--app", f"{module('app = Thorn(default=False)')}:app", "check"]) == 0
    assert capsys.readouterr().out == "No problems found.\n"


def test_check_shows_findings_and_what_to_do_and_fails(module, capsys):
    name = module(
        "app = Thorn(default=False, settings=Settings(allowed_networks=['0.0.0.0/0']))\n"
        "event = Event('a.b', app=app, subscribers='http://[::1]/')"
    )
    assert run(["--app", f"{name}:app", "check"]) == 1
    out = capsys.readouterr().out
    assert "allowed_networks permits 0.0.0.0/0" in out
    assert '  To permit it, set allowed_networks=["::1/128"].' in out
    assert out.endswith("2 problems\n")
    assert run(["--app", f"{name}:app", "check", "--json"]) == 1
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [finding["name"] for finding in found] == ["metadata-open", "subscriber-refused"]
    sys.modules[name].app.close()


def test_check_says_that_the_store_is_not_ready(module, capsys):
    name = module(f"from {__name__} import Unready\napp = Thorn(default=False, store=Unready())")
    assert run(["--app", f"{name}:app", "check"]) == 1
    assert "there are no tables; run: thorn init-db" in capsys.readouterr().out


def test_check_looks_at_the_tables_of_a_sqlite_file(module, capsys, tmp_path):
    url = f"sqlite:///{tmp_path}/thorn.db"
    name = module(f"def app(): return Thorn(store={url!r}, dispatcher='outbox', default=False)")
    assert run(["--app", f"{name}:app", "check"]) == 0
    with closing(sqlite3.connect(tmp_path / "thorn.db")) as driver:
        driver.execute("ALTER TABLE thorn_outbox DROP COLUMN tries")
    capsys.readouterr()
    assert run(["--app", f"{name}:app", "check"]) == 1
    out = capsys.readouterr().out
    assert "thorn_outbox" in out
    assert "has no column tries" in out


def test_check_names_a_sqlite_file_that_can_not_be_opened(module, capsys, tmp_path):
    url = f"sqlite:///{tmp_path}/nowhere/thorn.db"
    name = module(f"app = Thorn(store={url!r}, dispatcher='outbox', default=False)")
    assert run(["--app", f"{name}:app", "check"]) == 1
    assert "nowhere/thorn.db can't be used: unable to open" in capsys.readouterr().out


def test_check_makes_a_transport_of_ones_own(module, capsys):
    def checked(lines):
        return run(["--app", f"{module(lines)}:app", "check"]), capsys.readouterr().err

    given = checked("app = Thorn(default=False, transport=lambda: None)")
    assert given == (2, f"Error: {given[1][7:]}")
    assert "returned None, which is not a Transport" in given[1]
    code, told = checked(
        "class Pool:\n"
        "    @hookimpl\n"
        "    def thorn_transport(self, settings):\n"
        "        raise OSError('no pool')\n"
        "app = Thorn(default=False, plugins=[Pool()])"
    )
    assert (code, told) == (2, "Error: the transport could not be created: no pool\n")


def test_check_names_a_setting_that_is_wrong(module, capsys):
    name = module("def app(): return Thorn(settings=Settings(alowed_networks=[]))")
    assert run(["--app", f"{name}:app", "check"]) == 2
    assert "did you mean allowed_networks?" in capsys.readouterr().err
