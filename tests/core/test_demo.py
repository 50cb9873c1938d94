"""The demo: that it goes well, and that it tells when something doesn't."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from time import monotonic

import attrs
import pytest
from rich.console import Console

from thorn_core import get_app
from thorn_core.cli import demo as demo_module
from thorn_core.cli.demo import Recipients, run_demo, three_recipients
from thorn_core.cli.group import run
from thorn_core.testing import LocalRecipient

COMMAND = [sys.executable, "-m", "thorn_core.cli", "demo"]
HEALTHY = "the healthy one got all five, each at the first attempt"
FLAKY = "the flaky one got what it wants at the third attempt"
GONE = "the one that is gone was asked once"
DISABLED = "the subscription of the one that is gone is disabled"
REF = "every request says where the article is"
UNASKED = "nothing arrived that wasn't asked for"


def failed_checks(report):
    return {check for check, held in report.checks.items() if not held}


def test_the_command_shows_what_happened_and_exits_0():
    began = monotonic()
    done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "allow_cidr_network('127.0.0.0/8')" in done.stdout
    heading = next(line for line in done.stdout.splitlines() if line.startswith("message"))
    assert heading.split() == ["message", "recipient", "attempts", "status", "latency", "state"]
    (flaky,) = [line for line in done.stdout.splitlines() if "503, 503, 200" in line]
    assert flaky.split()[:3] == ["article.published", "flaky", "3"]
    assert flaky.split()[-1] == "delivered"
    assert "✗" not in done.stdout
    assert "\x1b" not in done.stdout
    assert "All went as it must." in done.stdout
    assert monotonic() - began < 30


def test_it_fits_80_columns(capfd, monkeypatch):
    monkeypatch.setattr(demo_module, "console", lambda: Console(width=80))
    assert run(["demo"]) == 0
    assert max(map(len, capfd.readouterr().out.splitlines())) <= 80


def test_the_demo_in_json(capfd):
    assert run(["demo", "--json"]) == 0
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
    monkeypatch.setattr(demo_module, "run_demo", lambda recipients: report)
    assert run(["demo"]) == 1
    out = capfd.readouterr().out
    assert f"✗ {HEALTHY}" in out
    assert f"✓ {FLAKY}" in out
    assert "Not all went as it must." in out


def test_a_flaky_recipient_that_does_not_recover_is_seen():
    with three_recipients() as recipients:
        recipients.flaky.answer(status=503)
        report = run_demo(recipients)
    assert failed_checks(report) == {FLAKY, UNASKED}
    (row,) = [row for row in report.rows if row.recipient == "flaky"]
    assert (row.state, row.statuses) == ("exhausted", ("503",) * 4)


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


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_ctrl_c_ends_it_with_130_and_no_traceback(arguments):
    # Held up by a recipient that never answers, so that the signal finds it at work.
    program = (
        "import sys\n"
        "from thorn_core.cli import demo, group\n"
        "run_demo = demo.run_demo\n"
        "def held_up(recipients):\n"
        "    recipients.flaky.hang()\n"
        "    print('at work', file=sys.stderr, flush=True)\n"
        "    return run_demo(recipients)\n"
        "demo.run_demo = held_up\n"
        "sys.exit(group.run(['demo', *sys.argv[1:]]))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stderr.readline() == "at work\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped" in err
    assert "Traceback" not in err
