"""The command: what it prints, and its exit codes."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from time import monotonic

import pytest

from thorn_core import DeliveryState, SecurityError, Settings, Thorn
from thorn_core.cli.common import plain
from thorn_core.cli.group import run
from thorn_core.cli.send import _app_for
from thorn_core.recipients import allow_cidr_network, check_address
from thorn_core.signatures import SCHEMES, new_secret
from thorn_core.testing import LocalRecipient

COMMAND = [sys.executable, "-m", "thorn_core.cli"]
SHOP = """
from thorn_core import RetryPolicy, Settings, Thorn
from thorn_core.recipients import allow_cidr_network

def create_app():
    app = Thorn(settings=Settings(
        recipient_validators=[allow_cidr_network("127.0.0.0/8")],
        retry_policy=RetryPolicy((0.01,)),
    ))
    app.subscribe("order.*", URL, owner="7")
    app.send("order.paid", {"n": 1})
    return app

number = 5
"""


@pytest.fixture
def recipient():
    with LocalRecipient() as recipient:
        yield recipient


@pytest.fixture
def shop(tmp_path, monkeypatch, recipient):
    """A user's module, in the current folder."""
    name = f"shop_{os.urandom(4).hex()}"
    (tmp_path / f"{name}.py").write_text(f"URL = {recipient.url!r}\n{SHOP}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return name


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def test_send_delivers_to_one_url(capfd, recipient):
    secret = new_secret()
    recipient.secret = secret
    recipient.answer(body=b"thanks")
    arguments = ["--url", recipient.url, "--secret", secret, "--allow-local"]
    assert run(["send", "a.b", '{"n": 1}', *arguments]) == 0
    out = capfd.readouterr().out
    assert "delivered" in out
    assert "thanks" in out
    (request,) = recipient.received
    assert request.verified
    assert request.json["data"] == {"n": 1}


def test_send_fails_where_the_recipient_does(capfd, recipient):
    recipient.answer(status=500)
    assert run(["send", "a.b", "--url", recipient.url, "--allow-local", "--json"]) == 1
    (told,) = lines(capfd.readouterr().out)
    assert (told["state"], told["attempts"][0]["status"]) == ("exhausted", 500)


def test_send_refuses_this_machine_unless_it_is_allowed(capfd, recipient):
    assert run(["send", "a.b", "--url", recipient.url]) == 2
    err = capfd.readouterr().err
    assert "Error: The recipient URL" in err
    assert "--allow-local" in err
    assert recipient.connections == 0


def test_allowing_what_is_local_allows_nothing_else():
    with _app_for("http://127.0.0.1:8000/", None, allow_local=True) as app:
        validators = app.settings.recipient_validators
    for allowed in ("127.0.0.1", "::1", "10.1.2.3", "192.168.1.1", "fd00::1", "8.8.8.8"):
        check_address(allowed, validators)
    for refused in ("169.254.169.254", "fe80::1", "100.64.0.1", "0.0.0.0", "224.0.0.1"):
        with pytest.raises(SecurityError):
            check_address(refused, validators)


def test_allowing_what_is_local_keeps_the_rules_of_the_environment(monkeypatch, capfd):
    rules = '["block_internal_ips", ["ensure_protocol", "https"], ["ensure_port", 443]]'
    monkeypatch.setenv("THORN_RECIPIENT_VALIDATORS", rules)
    assert run(["send", "a.b", "--url", "http://127.0.0.1:8000/", "--allow-local"]) == 2
    err = capfd.readouterr().err
    assert "https" in err
    assert "--allow-local lets" not in err


def test_a_refusal_at_the_connection_tells_the_way_out(capfd, monkeypatch):
    """A name says only when it is resolved where it leads."""
    from thorn_core.plugins import Plugins
    from thorn_core.transports.httpx import HttpxTransport

    async def resolver(host, port):
        return ["127.0.0.1"]

    monkeypatch.setattr(
        Plugins, "transport", lambda self, settings: HttpxTransport(resolver=resolver)
    )
    assert run(["send", "a.b", "--url", "http://name.example/"]) == 1
    told = capfd.readouterr()
    assert "discarded" in told.out
    assert "--allow-local" in told.err


def test_an_answer_can_not_steer_the_terminal(capfd, recipient):
    recipient.answer(body=b"[/x] [bold]hi[/] \x1b[31mred\x1b]0;title\x07 \xc2\x9b2J")
    assert run(["send", "a.b", "--url", recipient.url, "--allow-local"]) == 0
    out = capfd.readouterr().out
    assert "[/x] [bold]hi[/]" in out.replace("\n", " ")
    assert not {"\x1b", "\x07", "\x9b"} & set(out)


@pytest.mark.parametrize(
    "steering", ["\x1b[2J", "\x9b2J", "\r", "\u202e", "\ud800", "\x08", "\x00"]
)
def test_what_steers_a_terminal_is_replaced(steering):
    assert plain(f"a{steering}b").plain == f"a\N{REPLACEMENT CHARACTER}{steering[1:]}b"


def test_text_stays_as_it_is():
    assert plain("naïve 文 [bold]\nline").plain == "naïve 文 [bold]\nline"
    assert plain(None).plain == ""


def test_data_comes_from_a_file_or_standard_input(tmp_path, recipient, monkeypatch, capfd):
    (tmp_path / "data.json").write_text('{"n": 2}')
    to = ["--url", recipient.url, "--allow-local"]
    assert run(["send", "a.b", f"@{tmp_path / 'data.json'}", *to]) == 0
    done = subprocess.run(
        [*COMMAND, "send", "a.b", "-", *to], input='{"n": 3}', capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert [r.json["data"]["n"] for r in recipient.received] == [2, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["send", "a.b", "{", "--url", "https://e.com/"], "DATA is no JSON"),
        (["send", "a.b", "@nowhere.json", "--url", "https://e.com/"], "can't be read"),
        (["send", "a..b", "--url", "https://e.com/"], "empty word"),
        (["send", "a.b"], "needs to know your app"),
        (["send", "a.b"], "--url https://"),
        (["send", "a.b", "--allow-local"], "go with --url"),
        (["send", "a.b", "--secret", "whsec_"], "go with --url"),
        (["send", "a.b", "[" * 200_000, "--url", "https://e.com/"], "DATA is no JSON"),
        (["send", "a.b", "--wait", "nan", "--url", "https://e.com/"], "not a number"),
        (["send", "a.b", "--wait", "-1", "--url", "https://e.com/"], "not in the range"),
        (["send", "a.b", "--secret", "short", "--url", "https://e.com/"], "8 characters"),
        (["listen", "--port", "99999"], "not in the range"),
        (["listen", "--status", "99"], "not in the range"),
        (["listen", "--secret", "short"], "8 characters"),
        (["stats", "--hours", "nan"], "not a number"),
        (["stats", "--hours", "0"], "not in the range"),
        (["subscriptions"], "thorn --app module:attribute"),
        (["--app", "shop", "stats"], "write module:attribute"),
        (["--app", "no_such_module:app", "stats"], "No module named 'no_such_module'"),
        (["--app", "json:app", "stats"], "has no 'app'"),
        (["--app", "json:dumps.__name__", "stats"], "no Thorn app"),
        (["--app", "json:dumps", "stats"], "can't be called without arguments"),
        (["replay", "--since", "yesterday"], "no time"),
        (["replay", "--since", "99999999999d"], "no time"),
        (["replay", "--since", "²h"], "no time"),
        (["replay", "--since", ""], "no time"),
        (["nonsense"], "No such command"),
    ],
)
def test_a_mistake_is_told_in_one_line(arguments, message, capfd):
    assert run(arguments) == 2
    err = capfd.readouterr().err
    assert message in err.replace("\n", " ")
    assert "Traceback" not in err


def test_a_file_that_is_no_text_is_told(tmp_path, capfd):
    (tmp_path / "data.json").write_bytes(b"\xff\xfe\xfa{}")
    assert run(["send", "a.b", f"@{tmp_path / 'data.json'}", "--url", "https://e.com/"]) == 2
    assert "DATA is no JSON" in capfd.readouterr().err


def test_the_users_app_is_asked(shop, capfd, recipient):
    app = ["--app", f"{shop}:create_app"]
    assert run([*app, "subscriptions"]) == 0
    assert recipient.url in capfd.readouterr().out
    assert run([*app, "subscriptions", "--owner", "8"]) == 0
    assert "There are no subscriptions." in capfd.readouterr().out
    assert run([*app, "subscriptions", "--json"]) == 0
    assert lines(capfd.readouterr().out)[0]["owner"] == "7"
    assert run([*app, "deliveries", "--state", "delivered", "--event", "order.*"]) == 0
    assert "order.paid" in capfd.readouterr().out
    assert run([*app, "deliveries", "--json", "--since", "1h"]) == 0
    assert lines(capfd.readouterr().out)[0]["state"] == "delivered"
    assert run([*app, "deliveries", "--since", "2100-01-01"]) == 0
    assert "There are no such deliveries." in capfd.readouterr().out
    assert run([*app, "stats"]) == 0
    assert "deliveries delivered" in capfd.readouterr().out
    assert run([*app, "stats", "--json"]) == 0
    assert lines(capfd.readouterr().out)[0]["deliveries"]["delivered"] == 1
    assert run(["--app", f"{shop}:number", "stats"]) == 2


def test_sending_by_the_users_app(shop, capfd, recipient):
    assert run(["--app", f"{shop}:create_app()", "send", "order.shipped", '{"n": 2}']) == 0
    assert recipient.received[-1].headers["hook-event"] == "order.shipped"


def test_replaying(capfd, recipient, monkeypatch):
    recipient.answer(status=500)
    settings = Settings(
        recipient_validators=[allow_cidr_network("127.0.0.0/8")], retry=False, grace_period=1
    )
    app = Thorn(settings=settings)
    app.subscribe("*", recipient.url)
    ids = [app.send("a.b").deliveries[0].id for _ in range(2)]
    recipient.answer(status=200)
    monkeypatch.setattr("thorn_core.cli.history.find_app", lambda path: _Open(app))
    assert run(["replay", ids[0]]) == 0
    assert capfd.readouterr() == ("Replayed 1 delivery.\n", "")
    assert run(["replay", "--state", "exhausted", "--json"]) == 0
    assert lines(capfd.readouterr().out) == [{"replayed": 1}]
    assert run(["replay", "--since", "1d"]) == 1
    assert run(["replay"]) == 2
    assert "give ids of deliveries" in capfd.readouterr().err.replace("\n", " ")
    assert all(d.state is DeliveryState.DELIVERED for d in app.deliveries())
    app.close()


def test_replaying_by_criteria_takes_what_failed_in_steps(capfd, recipient, monkeypatch):
    monkeypatch.setattr("thorn_core.cli.history.STEP", 2)
    settings = Settings(recipient_validators=[allow_cidr_network("127.0.0.0/8")], retry=False)
    with Thorn(settings=settings) as app:
        app.subscribe("*", recipient.url)
        app.send("a.b")
        recipient.answer(status=500)
        for _ in range(5):
            app.send("a.b")
        app.send("c.d")
        recipient.answer(status=200)
        recipient.clear()
        monkeypatch.setattr("thorn_core.cli.history.find_app", lambda path: _Open(app))
        assert run(["replay", "--event", "a.*"]) == 0
        assert capfd.readouterr().out == "Replayed 5 deliveries.\n"
        # What was delivered stays so, and the other event waits.
        assert len(recipient.received) == 5
        assert [d.event for d in app.deliveries(state="exhausted")] == ["c.d"]
        assert run(["replay", "--event", "a.*", "--state", "delivered"]) == 0
        assert capfd.readouterr().out == "Replayed 6 deliveries.\n"


def test_a_disabled_subscription_says_so(capfd, recipient, monkeypatch):
    settings = Settings(recipient_validators=[allow_cidr_network("127.0.0.0/8")])
    with Thorn(settings=settings) as app:
        one, other = (app.subscribe(e, recipient.url) for e in ("a.b", "c.d"))
        app.update_subscription(one.id, enabled=False)
        app.update_subscription(other.id, enabled=False, disabled_reason="[red]asked for")
        monkeypatch.setattr("thorn_core.cli.history.find_app", lambda path: _Open(app))
        assert run(["subscriptions"]) == 0
    first, second = capfd.readouterr().out.splitlines()[1:3]
    assert first.split()[-1] == "no"
    assert "no: [red]asked" in second


class _Open:
    """An app that a command doesn't close."""

    def __init__(self, app):
        self.app = app

    def __enter__(self):
        return self.app

    def __exit__(self, *exception):
        return None


def start_listening(*arguments):
    process = subprocess.Popen(
        [*COMMAND, "listen", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    url = process.stdout.readline().split()[2].rstrip(".")
    return process, url


def test_listen_shows_what_send_sends():
    process, url = start_listening("--count", "2")
    secret = process.stdout.readline().split()[1]
    trying = process.stdout.readline()
    assert f"--url {url} --secret {secret} --allow-local" in trying
    assert run(["send", "a.b", '{"n": 1}', "--url", url, "--secret", secret, "--allow-local"]) == 0
    assert run(["send", "a.c", "--url", url, "--secret", new_secret(), "--allow-local"]) == 0
    out, err = process.communicate(timeout=30)
    assert process.returncode == 1, err
    assert "a.b ✓ verified" in out
    assert "a.c ✗ no signature of this body matches" in out
    assert '"n": 1' in out


def post(url, body, headers):
    import httpx

    return httpx.post(url, content=body, headers=headers, trust_env=False)


def test_listen_shows_whatever_arrives_and_goes_on():
    process, url = start_listening("--secret", new_secret(), "--count", "3", "--status", "204")
    evil = {"hook-event": "[/x]", "webhook-id": "[bold]"}
    assert post(url, b'{"n": "[/x]"}', evil).status_code == 204
    assert post(url, b"\x1b[2J not JSON", {}).status_code == 204
    assert post(url, b"[" * 100_000, {}).status_code == 204
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (1, "")
    assert "[/x]" in out
    assert "(no Hook-Event)" in out
    assert "\x1b" not in out


def test_listen_outlasts_what_its_recipient_remembers():
    process, url = start_listening("--secret", new_secret(), "--count", "5")
    for number in range(5):
        post(url, b'{"n": %d}' % number, {})
    out, _ = process.communicate(timeout=30)
    assert [f'"n": {n}' in out for n in range(5)] == [True] * 5


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_what_listen_says_to_try_works(scheme):
    process, _ = start_listening("--scheme", scheme, "--count", "1")
    process.stdout.readline()
    line = process.stdout.readline().removeprefix("Try: ")
    thorn = shlex.join([*COMMAND, "send"])
    tried = subprocess.run(
        line.replace("thorn send", thorn), shell=True, capture_output=True, text=True
    )
    assert tried.returncode == 0, tried.stderr
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, out + err
    assert "article.created ✓ verified" in out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_listen_ends_when_it_is_told_to(number):
    process, _ = start_listening("--secret", new_secret())
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")


def test_listen_in_json(recipient):
    secret = new_secret()
    with LocalRecipient() as free:
        port = free.url.split(":")[2].rstrip("/")
    process = subprocess.Popen(
        [*COMMAND, "listen", "--port", port, "--secret", secret, "--json", "--count", "1"],
        stdout=subprocess.PIPE,
        text=True,
    )
    url = f"http://127.0.0.1:{port}/"
    deadline = monotonic() + 60
    while run(["send", "a.b", "--url", url, "--secret", secret, "--allow-local"]) != 0:
        assert monotonic() < deadline, "it doesn't listen"
    (told,) = lines(process.communicate(timeout=30)[0])
    assert process.returncode == 0
    assert (told["event"], told["verified"]) == ("a.b", True)


def test_a_port_that_is_taken_is_told(recipient, capfd):
    port = recipient.url.split(":")[2].rstrip("/")
    assert run(["listen", "--port", port]) == 1
    assert "choose another --port" in capfd.readouterr().err


def test_a_plugin_can_add_commands(monkeypatch, capfd):
    import click

    from thorn_core import hookimpl
    from thorn_core.cli import group as group_module
    from thorn_core.plugins import Plugins

    class Plugin:
        @hookimpl
        def thorn_cli(self, group):
            @group.command()
            def hello():
                click.echo("hello from a plugin")

    monkeypatch.setattr(group_module, "Plugins", lambda: Plugins([Plugin()]))
    assert run(["hello"]) == 0
    assert "hello from a plugin" in capfd.readouterr().out
    del group_module.group.commands["hello"]


def test_help_and_version(capfd):
    assert run(["--help"]) == 0
    assert "Exit codes" in capfd.readouterr().out
    assert run(["--version"]) == 0
    assert "2.0.0" in capfd.readouterr().out


def test_without_click_the_extra_is_named():
    program = "import sys; sys.modules['click'] = None; from thorn_core.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        "the thorn command needs click and rich; run: pip install 'thorn-core[cli]'\n"
    )
