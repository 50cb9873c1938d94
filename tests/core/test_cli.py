"""The command: what it prints, and its exit codes."""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import subprocess
import sys
from time import monotonic

import pytest
from rich.console import Console

from thorn_core import DeliveryState, RetryPolicy, Routing, SecurityError, Settings, Thorn
from thorn_core.cli.common import plain
from thorn_core.cli.group import run
from thorn_core.cli.send import _app_for
from thorn_core.delivery import make_delivery
from thorn_core.recipients import check_address, origin_of
from thorn_core.signatures import new_secret
from thorn_core.testing import LocalRecipient

COMMAND = [sys.executable, "-m", "thorn_core.cli"]
SHOP = """
from thorn_core import RetryPolicy, Settings, Thorn

def create_app():
    app = Thorn(settings=Settings(
        allowed_networks=["127.0.0.0/8"], allowed_ports=range(1, 65536),
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
    assert (told["state"], told["attempts"][0]["status"]) == ("failed", 500)


def test_send_refuses_this_machine_unless_it_is_allowed(capfd, recipient):
    assert run(["send", "a.b", "--url", recipient.url]) == 2
    err = capfd.readouterr().err
    assert "Error: The recipient URL" in err
    assert "--allow-local" in err
    assert recipient.connections == 0


def test_allowing_what_is_local_allows_nothing_else():
    with _app_for("http://127.0.0.1:8000/", None, allow_local=True) as app:
        validators = app.settings.validators
    for allowed in ("127.0.0.1", "::1", "10.1.2.3", "192.168.1.1", "fd00::1", "8.8.8.8"):
        check_address(allowed, validators)
    for refused in (
        "169.254.169.254",
        "fd00:ec2::254",
        "fe80::1",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
    ):
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
    assert "refused" in told.out
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
        (["send", "a.b", "{", "--url", "https://e.com/"], "DATA is not valid JSON"),
        (["send", "a.b", "@nowhere.json", "--url", "https://e.com/"], "cannot be read"),
        (["send", "a..b", "--url", "https://e.com/"], "empty word"),
        (["send", "a.b"], "needs your app"),
        (["send", "a.b"], "--url https://"),
        (["send", "a.b", "--allow-local"], "need --url"),
        (["send", "a.b", "--secret", "whsec_"], "need --url"),
        (["send", "a.b", "[" * 200_000, "--url", "https://e.com/"], "DATA is not valid JSON"),
        (["send", "a.b", "--wait", "nan", "--url", "https://e.com/"], "not a number"),
        (["send", "a.b", "--wait", "-1", "--url", "https://e.com/"], "not in the range"),
        (["send", "a.b", "--secret", "short", "--url", "https://e.com/"], "8 to 255 characters"),
        (["listen", "--port", "99999"], "not in the range"),
        (["listen", "--status", "99"], "not in the range"),
        (["listen", "--secret", "short"], "8 to 255 characters"),
        (["stats", "--hours", "nan"], "not a number"),
        (["stats", "--hours", "0"], "not in the range"),
        (["purge"], "--older-than 30d"),
        (["purge", "--older-than", "30d"], "pass --yes"),
        (["purge", "--older-than", "30x", "--yes"], "not a time"),
        (["purge", "--older-than", "1d", "--state", "pending"], "'pending' is not one of"),
        (["purge", "--older-than", "1d", "--yes", "--batch", "0"], "not in the range"),
        (["purge", "--older-than", "1d", "--yes"], "--app module:attribute after thorn"),
        (["attempts"], "Missing argument"),
        (["worker"], "--app module:attribute after thorn"),
        (["worker", "--concurrency", "0"], "not in the range"),
        (["worker", "--report", "0"], "not in the range"),
        (["worker", "--log-level", "loud"], "'loud' is not one of"),
        (["subscriptions"], "--app module:attribute after thorn"),
        (["--app", "shop", "stats"], "write module:attribute"),
        (["--app", "no_such_module:app", "stats"], "No module named 'no_such_module'"),
        (["--app", "json:app", "stats"], "has no 'app'"),
        (["--app", "json:dumps.__name__", "stats"], "not a Thorn app"),
        (["--app", "json:dumps", "stats"], "can't be called without arguments"),
        (["replay", "--since", "yesterday"], "not a time"),
        (["replay", "--since", "99999999999d"], "not a time"),
        (["replay", "--since", "²h"], "not a time"),
        (["replay", "--since", ""], "not a time"),
        (["replay", "--state", "pending"], "not one of 'delivered', 'failed', 'cancelled'"),
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
    assert "DATA is not valid JSON" in capfd.readouterr().err


def test_the_users_app_is_asked(shop, capfd, recipient):
    app = ["--app", f"{shop}:create_app"]
    assert run([*app, "subscriptions"]) == 0
    assert recipient.url in capfd.readouterr().out
    assert run([*app, "subscriptions", "--owner", "8"]) == 0
    assert "No subscriptions." in capfd.readouterr().out
    assert run([*app, "subscriptions", "--json"]) == 0
    assert lines(capfd.readouterr().out)[0]["owner"] == "7"
    assert run([*app, "deliveries", "--state", "delivered", "--event", "order.*"]) == 0
    assert "order.paid" in capfd.readouterr().out
    assert run([*app, "deliveries", "--json", "--since", "1h"]) == 0
    assert lines(capfd.readouterr().out)[0]["state"] == "delivered"
    assert run([*app, "deliveries", "--since", "2100-01-01"]) == 0
    assert "No deliveries match these filters." in capfd.readouterr().out
    assert run([*app, "stats"]) == 0
    counts = dict(line.split()[:2] for line in capfd.readouterr().out.splitlines()[:9])
    assert (counts["messages"], counts["delivered"], counts["failed"]) == ("1", "1", "0")
    assert run([*app, "stats", "--json"]) == 0
    (told,) = lines(capfd.readouterr().out)
    assert told["deliveries"]["delivered"] == 1
    assert (told["attempts"], told["failed_attempts"], told["due_since"]) == (1, 0, None)
    assert run(["--app", f"{shop}:number", "stats"]) == 2


def test_sending_by_the_users_app(shop, capfd, recipient):
    assert run(["--app", f"{shop}:create_app()", "send", "order.shipped", '{"n": 2}']) == 0
    assert recipient.received[-1].headers["hook-event"] == "order.shipped"


def test_replaying(capfd, recipient, monkeypatch):
    recipient.answer(status=500)
    settings = Settings(
        allowed_networks=["127.0.0.0/8"],
        allowed_ports=range(1, 65536),
        retry=False,
        grace_period=1,
    )
    app = Thorn(settings=settings)
    app.subscribe("*", recipient.url)
    ids = [app.send("a.b").deliveries[0].id for _ in range(2)]
    recipient.answer(status=200)
    monkeypatch.setattr("thorn_core.cli.replay.find_app", lambda path: _Open(app))
    assert run(["replay", ids[0]]) == 0
    assert capfd.readouterr() == ("Replayed 1 delivery.\n", "")
    assert run(["replay", "--state", "failed", "--json"]) == 0
    assert lines(capfd.readouterr().out) == [{"replayed": 1}]
    assert run(["replay", "--since", "1d"]) == 1
    assert run(["replay"]) == 2
    assert "needs delivery ids or a filter" in capfd.readouterr().err.replace("\n", " ")
    assert all(d.state is DeliveryState.DELIVERED for d in app.deliveries())
    app.close()


def test_replaying_by_criteria_takes_what_failed_by_the_page(capfd, recipient, monkeypatch):
    monkeypatch.setattr("thorn_core.paging.PAGE", 2)
    settings = Settings(
        allowed_networks=["127.0.0.0/8"], allowed_ports=range(1, 65536), retry=False
    )
    with Thorn(settings=settings) as app:
        app.subscribe("*", recipient.url)
        app.send("a.b")
        recipient.answer(status=500)
        for _ in range(5):
            app.send("a.b")
        app.send("c.d")
        recipient.answer(status=200)
        recipient.clear()
        monkeypatch.setattr("thorn_core.cli.replay.find_app", lambda path: _Open(app))
        assert run(["replay", "--event", "a.*"]) == 0
        assert capfd.readouterr().out == "Replayed 5 deliveries.\n"
        # What was delivered stays so, and the other event waits.
        assert len(recipient.received) == 5
        assert [d.event for d in app.deliveries(state="failed")] == ["c.d"]
        assert run(["replay", "--event", "a.*", "--state", "delivered"]) == 0
        assert capfd.readouterr().out == "Replayed 6 deliveries.\n"


def test_the_attempts_of_a_delivery_are_shown(capfd, recipient, monkeypatch):
    recipient.answer(status=200, headers={"x-trace": "7"}, body=b"thanks")
    recipient.answer(status=503, body=b"upstream\x1b[2J\nis away " + b"x" * 400, times=1)
    settings = Settings(
        allowed_networks=["127.0.0.0/8"],
        allowed_ports=range(1, 65536),
        retry_policy=RetryPolicy((0.01,)),
    )
    with Thorn(settings=settings, dispatcher="background") as app:
        app.subscribe("*", recipient.url)
        receipt = app.send("a.b")
        assert receipt.wait(10)
        (delivery,) = receipt.deliveries
        monkeypatch.setattr("thorn_core.cli.history.find_app", lambda path: _Open(app))
        assert run(["attempts", delivery.id]) == 0
        out = capfd.readouterr().out
        assert run(["attempts", delivery.id, "--json"]) == 0
        told = lines(capfd.readouterr().out)
        assert run(["attempts", "dlv_x"]) == 1
        assert "no delivery 'dlv_x'" in capfd.readouterr().err
    assert out.startswith(f"a.b to {origin_of(recipient.url)}: delivered after 2 attempts")
    assert "503     upstream\N{REPLACEMENT CHARACTER}[2J is away" in out
    assert "200     thanks" in out
    assert "\x1b" not in out
    assert out.count("x") < 320
    assert [t["status"] for t in told] == [503, 200]
    assert (told[1]["headers"]["x-trace"], told[1]["body"]) == ("7", "thanks")


def test_a_delivery_that_waits_says_until_when_and_why(capfd, monkeypatch):
    settings = Settings(
        allowed_networks=["127.0.0.0/8"],
        allowed_ports=range(1, 65536),
        retry_policy=RetryPolicy((90,)),
    )
    with Thorn(settings=settings) as app:
        app.subscribe("*", "http://127.0.0.1:9/")
        (delivery,) = app.send("a.b").deliveries
        monkeypatch.setattr("thorn_core.cli.history.find_app", lambda path: _Open(app))
        assert run(["deliveries"]) == 0
        row, reason, name = capfd.readouterr().out.splitlines()[1:]
        assert run(["attempts", delivery.id]) == 0
        out = capfd.readouterr().out
    assert row.split()[:5] == ["a.b", "http://127.0.0.1:9", "pending", "in", "1"]
    assert "no connection" in reason
    assert name == f"  {delivery.id}"
    assert "pending after 1 attempt, no connection" in out.replace("\n", " ")
    assert f"Next attempt at {delivery.due_at.astimezone():%Y-%m-%d %H:%M:%S}" in out


@pytest.mark.parametrize("width", [80, 120])
def test_lists_fit_the_terminal(capfd, monkeypatch, width):
    """But for ids, URLs and reasons, which are there to be copied."""
    monkeypatch.setattr(
        "thorn_core.cli.history.console", lambda: Console(width=width, highlight=False)
    )
    with Thorn(dispatcher="outbox") as app:
        app.subscribe("*", f"https://{'sub.' * 12}example.com/hook", owner="o" * 200)
        app.send("article." + "published-again." * 8 + "now")
        message = app.messages_to_route()[0]
        deliveries = [make_delivery(message, s, message.at) for s in app.subscriptions()]
        app.store.route([Routing(message=message, deliveries=deliveries)])
        for module in ("history", "subscriptions"):
            monkeypatch.setattr(f"thorn_core.cli.{module}.find_app", lambda path: _Open(app))
        for command in ("deliveries", "subscriptions"):
            assert run([command]) == 0
            heading, row, *_ = capfd.readouterr().out.splitlines()
            assert len(row) <= width
            assert len(heading) <= width
            assert "…" in row
            assert row.endswith(("0", "enabled"))


def test_purging_removes_what_is_finished_and_old_enough(capfd, recipient, monkeypatch):
    settings = Settings(
        allowed_networks=["127.0.0.0/8"], allowed_ports=range(1, 65536), retry=False
    )
    with Thorn(settings=settings) as app:
        app.subscribe("*", recipient.url)
        monkeypatch.setattr("thorn_core.cli.purge.find_app", lambda path: _Open(app))
        receipts = [app.send(event) for event in ("a.b", "a.c", "d.e")]
        recipient.answer(status=500)
        receipts.append(app.send("a.b"))
        assert run(["purge", "--older-than", "1h", "--yes"]) == 0
        assert capfd.readouterr().out == "Deleted 0 deliveries.\n"
        now = app.clock().isoformat()
        assert run(["purge", "--older-than", now, "--event", "a.*", "--dry-run", "--json"]) == 0
        (told,) = lines(capfd.readouterr().out)
        assert (told["purged"], told["found"], told["dry_run"]) == (0, 3, True)
        assert run(["purge", "--older-than", now, "--event", "a.*", "--dry-run"]) == 0
        assert capfd.readouterr().out == "Would delete 3 deliveries.\n"
        failed = ["--state", "failed", "--batch", "1"]
        assert run(["purge", "--older-than", now, *failed, "--yes", "--json"]) == 0
        assert lines(capfd.readouterr().out)[0]["purged"] == 1
        assert [app.message(r.message.id) is None for r in receipts] == [False] * 3 + [True]
        assert run(["purge", "--older-than", "0s", "--yes"]) == 0
        assert capfd.readouterr().out == "Deleted 3 deliveries.\n"
        assert list(app.deliveries()) == []


@pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, 0), ("n\n", 1, 1), ("\n", 1, 1)])
def test_purging_asks_a_person_first(capfd, recipient, monkeypatch, answer, code, left):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    settings = Settings(allowed_networks=["127.0.0.0/8"], allowed_ports=range(1, 65536))
    with Thorn(settings=settings) as app:
        app.subscribe("*", recipient.url)
        app.send("a.b")
        monkeypatch.setattr("thorn_core.cli.purge.find_app", lambda path: _Open(app))
        monkeypatch.setattr(sys, "stdin", Terminal(answer))
        assert run(["purge", "--older-than", "0s"]) == code
        assert len(list(app.deliveries())) == left
    assert "Delete 1 delivery created before" in capfd.readouterr().err


def test_a_worker_process_makes_no_sense_on_a_store_in_memory(shop, capfd):
    for more in ([], ["--once"]):
        assert run(["--app", f"{shop}:create_app", "worker", *more]) == 2
        told = capfd.readouterr()
        assert told.out == ""
        assert "<MemoryStore>" in told.err
        assert "dispatcher='background'" in told.err


def test_a_disabled_subscription_says_so(capfd, recipient, monkeypatch):
    settings = Settings(allowed_networks=["127.0.0.0/8"], allowed_ports=range(1, 65536))
    with Thorn(settings=settings) as app:
        one, other = (app.subscribe(e, recipient.url) for e in ("a.b", "c.d"))
        app.update_subscription(one.id, enabled=False)
        app.update_subscription(other.id, enabled=False, disabled_reason="[red]asked for")
        monkeypatch.setattr("thorn_core.cli.subscriptions.find_app", lambda path: _Open(app))
        assert run(["subscriptions"]) == 0
    out = [line.rstrip() for line in capfd.readouterr().out.splitlines()]
    assert out[1].split() == ["a.b", "disabled"]
    assert out[2:4] == [f"  to {recipient.url}", f"  {one.id}"]
    assert out[4].split() == ["c.d", "disabled"]
    assert out[5:] == [f"  to {recipient.url}", "  disabled: [red]asked for", f"  {other.id}"]


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


# One that signs by default, one that doesn't, and one with two keys.
@pytest.mark.parametrize("scheme", ["standard-webhooks", "github", "standard-webhooks-ed25519"])
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
