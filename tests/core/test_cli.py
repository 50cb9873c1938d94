"""The command: what it prints, and its exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from thorn_core import DeliveryState, Settings, Thorn
from thorn_core.cli import demo as demo_module
from thorn_core.cli.demo import run_demo, three_recipients
from thorn_core.cli.group import run
from thorn_core.recipients import allow_cidr_network
from thorn_core.signatures import new_secret
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


def test_the_demo_goes_as_it_must(capfd):
    assert run(["demo"]) == 0
    out = capfd.readouterr().out
    assert "allow_cidr_network('127.0.0.0/8')" in out
    assert "503, 503, 200" in out
    assert "✗" not in out
    assert "All went as it must." in out


def test_the_demo_in_json(capfd):
    assert run(["demo", "--json"]) == 0
    *rows, checks = lines(capfd.readouterr().out)
    assert len(rows) == 7
    assert all(checks["checks"].values())


def test_the_demo_says_what_did_not_go_as_it_must(capfd, monkeypatch):
    with three_recipients() as recipients:
        recipients.healthy.answer(status=500, times=1)
        report = run_demo(recipients)
    failed = [check for check, held in report.checks.items() if not held]
    assert "the healthy one got all five, each at the first attempt" in failed
    assert not report.good
    monkeypatch.setattr(demo_module, "run_demo", lambda recipients: report)
    assert run(["demo"]) == 1
    assert "✗ the healthy one" in capfd.readouterr().out


def test_the_demo_sees_a_signature_that_is_wrong(monkeypatch):
    monkeypatch.setattr("thorn_core.signatures._base64_hmac", lambda key, signed, digest: "x" * 44)
    monkeypatch.setattr(
        demo_module.receiver, "verify", _raising(demo_module.ThornError("no signature"))
    )
    with three_recipients() as recipients:
        report = run_demo(recipients)
    assert report.checks["every signature verifies (0 requests)"] is False


def _raising(error):
    def function(*args, **kwargs):
        raise error

    return function


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
    assert "Error:" in capfd.readouterr().err
    assert recipient.connections == 0


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
        (["subscriptions"], "thorn --app module:attribute"),
        (["--app", "shop", "stats"], "write module:attribute"),
        (["--app", "no_such_module:app", "stats"], "No module named 'no_such_module'"),
        (["--app", "json:app", "stats"], "has no 'app'"),
        (["--app", "json:dumps.__name__", "stats"], "no Thorn app"),
        (["replay", "--since", "yesterday"], "no time"),
        (["nonsense"], "No such command"),
    ],
)
def test_a_mistake_is_told_in_one_line(arguments, message, capfd):
    assert run(arguments) == 2
    err = capfd.readouterr().err
    assert message in err.replace("\n", " ")
    assert "Traceback" not in err


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
    assert "1 deliveries are pending again." in capfd.readouterr().out
    assert run(["replay", "--state", "exhausted", "--json"]) == 0
    assert lines(capfd.readouterr().out) == [{"replayed": 1}]
    assert run(["replay", "--since", "1d"]) == 1
    assert run(["replay"]) == 2
    assert all(d.state is DeliveryState.DELIVERED for d in app.deliveries())
    app.close()


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
    for _ in range(100):
        if run(["send", "a.b", "--url", url, "--secret", secret, "--allow-local"]) == 0:
            break
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
