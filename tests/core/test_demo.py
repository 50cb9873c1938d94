"""The demo: that it goes well, and that it tells when something doesn't."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from thorn_core import get_app
from thorn_core.cli import crash as crash_module
from thorn_core.cli import demo as demo_module
from thorn_core.cli.crash import run_crash
from thorn_core.cli.demo import Recipients, make_app, run_article, three_recipients
from thorn_core.cli.group import run
from thorn_core.testing import LocalRecipient

COMMAND = [sys.executable, "-m", "thorn_core.cli", "demo"]
HEALTHY = "the healthy recipient got all five messages at the first attempt"
FLAKY = "the flaky recipient got its message at the third attempt"
GONE = "the gone recipient got one request"
DISABLED = "the subscription of the gone recipient is disabled"
REF = "every request links to the article"
UNASKED = "no recipient got an event it didn't subscribe to"
IN_MEMORY = ["demo", "--store", "memory://"]


def run_demo(recipients):
    with make_app() as app:
        return run_article(app, recipients)


def is_alive(pid):
    """Whether there is such a process; one that has ended and wasn't waited for doesn't count."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def failed_checks(report):
    return {check for check, held in report.checks.items() if not held}


@pytest.fixture(scope="module")
def done():
    """The command, run once."""
    return subprocess.run(COMMAND, capture_output=True, text=True, timeout=60)


def test_the_command_shows_what_happened_and_exits_0(done):
    assert (done.returncode, done.stderr) == (0, "")
    assert "allowed_networks = ['127.0.0.0/8']" in done.stdout
    assert "allowed_ports = range(1024, 65536)" in done.stdout
    heading = next(line for line in done.stdout.splitlines() if line.startswith("message"))
    assert heading.split() == ["message", "recipient", "attempts", "status", "latency", "state"]
    (flaky,) = [line for line in done.stdout.splitlines() if "3  503, 503, 200" in line]
    assert flaky.split()[:3] == ["article.published", "flaky", "3"]
    assert flaky.split()[-1] == "delivered"
    assert "✗" not in done.stdout
    assert "\x1b" not in done.stdout
    assert "All checks passed." in done.stdout


def test_the_second_act_shows_a_crash_and_that_nothing_is_lost(done):
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.split("Now a crash")
    assert "Store: <SqlStore sqlite:///" in first
    (pid,) = re.findall(r"Worker: process (\d+)", first)
    assert "200 orders committed, 50 rolled back" in second
    assert f"worker {pid} killed: " in second
    (other,) = re.findall(r"worker (\d+) started", second)
    assert "200 delivered" in second
    assert "✓ every committed order arrived" in second
    assert "✓ no rolled-back order arrived" in second
    assert not is_alive(pid)
    assert not is_alive(other)


def test_it_fits_80_columns(done):
    lines = done.stdout.splitlines()
    # The path of a temporary folder is as long as it is.
    assert max(len(line) for line in lines if not line.startswith("Store:")) <= 80
    # Nothing is broken over two lines.
    assert len([line for line in lines if line.startswith("✓")]) == len(
        [line for line in lines if "✓" in line]
    )


def test_in_memory_there_is_the_first_act(capfd):
    assert run(IN_MEMORY) == 0
    out = capfd.readouterr().out
    assert "Store: memory" in out
    assert "Now a crash" not in out


def test_the_demo_in_json(capfd):
    assert run([*IN_MEMORY, "--json"]) == 0
    *rows, checks = map(json.loads, capfd.readouterr().out.splitlines())
    assert len(rows) == 7
    assert len({row["message"] for row in rows}) == 5
    assert all(checks["checks"].values())


def test_it_leaves_no_app_behind():
    with three_recipients() as recipients:
        before = _default_app()
        assert run_demo(recipients).good
    assert _default_app() is before


def _default_app():
    try:
        return get_app()
    except Exception:
        return None


def test_a_healthy_recipient_that_fails_is_named_and_the_exit_code_is_1(capfd, monkeypatch):
    with three_recipients() as recipients:
        recipients.healthy.answer(status=500, times=1)
        report = run_demo(recipients)
    # Its retry is a request too many.
    assert failed_checks(report) == {HEALTHY, UNASKED}
    assert not report.good
    monkeypatch.setattr(demo_module, "run_article", lambda app, recipients: report)
    assert run(IN_MEMORY) == 1
    out = capfd.readouterr().out
    assert f"✗ {HEALTHY}" in out
    assert f"✓ {FLAKY}" in out
    assert "Some checks failed." in out


def test_a_flaky_recipient_that_does_not_recover_is_seen():
    with three_recipients() as recipients:
        recipients.flaky.answer(status=503)
        report = run_demo(recipients)
    assert failed_checks(report) == {FLAKY, UNASKED}
    (row,) = [row for row in report.rows if row.recipient == "flaky"]
    assert (row.state, row.statuses) == ("failed", ("503",) * 4)


def test_a_recipient_that_is_not_gone_is_seen():
    with three_recipients() as recipients:
        recipients.gone.answer(status=200)
        report = run_demo(recipients)
    assert failed_checks(report) == {GONE, DISABLED}


class Tampering(LocalRecipient):
    """Reports bodies that nobody signed."""

    @property
    def received(self):
        return tuple(attrs.evolve(r, body=r.body + b" ") for r in super().received)


def test_a_body_that_was_tampered_with_is_seen():
    with three_recipients() as recipients, Tampering() as tampering:
        report = run_demo(
            Recipients(healthy=tampering, flaky=recipients.flaky, gone=recipients.gone)
        )
    assert failed_checks(report) == {"every signature verifies (4 requests)"}


def test_a_wrong_ref_is_seen(monkeypatch):
    declare = demo_module.declare_article

    def elsewhere(app):
        model = declare(app)
        model.get_absolute_url = lambda self: "https://elsewhere.example/"
        return model

    monkeypatch.setattr(demo_module, "declare_article", elsewhere)
    with three_recipients() as recipients:
        assert failed_checks(run_demo(recipients)) == {REF}


class Worker:
    """In place of a process: what the checks say doesn't depend on it."""

    pid = 1
    running = True

    def __init__(self, app, code=0):
        self._app, self._code = app, code

    def __enter__(self):
        self._app.dispatcher("background").dispatch([])
        return self

    def __exit__(self, *exception):
        self.stop()

    def kill(self):
        self._app.dispatcher("background").close()

    def stop(self):
        self.kill()
        return self._code


def crash(code=0):
    said = []
    with make_app(dispatcher="outbox") as app:
        worker = Worker(app)
        with worker:
            checks = run_crash(app, worker, lambda: Worker(app, code), said.append)
    return {check.partition("(")[0].strip(): held for check, held in checks.items()}, said


ARRIVED = "every committed order arrived"
TWICE = "only orders in flight arrived twice, with the same webhook-id"
SIGNED = "every signature of an order verifies"
ENDED = "the second worker exited cleanly on SIGTERM"


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(crash_module, "ANSWERED", 5)
    monkeypatch.setattr(crash_module, "TRANSACTIONS", 3)
    monkeypatch.setattr(crash_module, "PATIENCE", 5.0)


def test_a_store_without_transactions_rolls_nothing_back(quick):
    checks, said = crash()
    assert checks[ARRIVED]
    assert checks[SIGNED]
    assert checks[ENDED]
    assert not any("rolled" in text for text in (*checks, *said))


def test_an_order_that_is_lost_is_seen(quick, monkeypatch):
    send = crash_module._send
    monkeypatch.setattr(
        crash_module,
        "_send",
        lambda app: attrs.evolve(sent := send(app), committed=sent.committed | {999}),
    )
    assert not crash()[0][ARRIVED]


def test_an_order_that_was_rolled_back_and_arrives_is_seen(quick, monkeypatch):
    send = crash_module._send
    monkeypatch.setattr(
        crash_module, "_send", lambda app: attrs.evolve(send(app), undone=frozenset({3}))
    )
    assert not crash()[0]["no rolled-back order arrived"]


def test_a_worker_that_does_not_end_well_is_seen(quick):
    assert not crash(code=1)[0][ENDED]


def test_an_order_that_is_forged_is_seen(quick, monkeypatch):
    monkeypatch.setattr(crash_module, "LocalRecipient", Tampering)
    assert not crash()[0][SIGNED]


def test_an_order_that_comes_twice_without_need_is_seen(quick, monkeypatch):
    class Doubling(LocalRecipient):
        @property
        def received(self):
            return super().received * 2

    monkeypatch.setattr(crash_module, "LocalRecipient", Doubling)
    assert not crash()[0][TWICE]


@pytest.mark.parametrize(
    ("arguments", "number", "code"),
    [([], signal.SIGINT, 130), (["--json"], signal.SIGINT, 130), ([], signal.SIGTERM, 143)],
)
def test_a_signal_ends_it_with_its_code_no_traceback_and_no_worker_left(arguments, number, code):
    # Held up by a recipient that never answers, so that the signal finds it at work.
    program = (
        "import signal, sys\n"
        # Where the tests run in the background, a shell had it ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from thorn_core.cli import demo, group\n"
        "run_article = demo.run_article\n"
        "class WorkerProcess(demo.WorkerProcess):\n"
        "    def __init__(self, *arguments):\n"
        "        super().__init__(*arguments)\n"
        "        print(self.pid, file=sys.stderr, flush=True)\n"
        "def held_up(app, recipients):\n"
        "    recipients.flaky.hang()\n"
        "    print('at work', file=sys.stderr, flush=True)\n"
        "    return run_article(app, recipients)\n"
        "demo.run_article, demo.WorkerProcess = held_up, WorkerProcess\n"
        "sys.exit(group.run(['demo', *sys.argv[1:]]))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    pids = []
    while (line := process.stderr.readline()) != "at work\n":
        pids.append(int(line))
    assert len(pids) == 1
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert ("Interrupted." in err) == (code == 130)
    assert "Traceback" not in err
    assert not any(map(is_alive, pids))
