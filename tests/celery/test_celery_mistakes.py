"""What one is told who has forgotten something, or mistyped it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest
from celery import Celery
from celery_program import Setup
from celery_world import PYTHONPATH, TIMEOUT

from thorn_celery import hints, install
from thorn_celery.options import PLAIN


def python(environment, *command):
    return subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "PYTHONPATH": PYTHONPATH, "PYTHONWARNINGS": "ignore", **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )


@pytest.mark.parametrize(
    ("program", "conf", "error"),
    [
        (
            "worker",
            {"thorn_sweep": 3},
            "unknown setting thorn_sweep; did you mean thorn_sweep_interval?",
        ),
        ("beat", {"thorn_retry_queue": 7}, "thorn_retry_queue is 7; use a queue's name"),
        ("worker", {"thorn_routes": {"bill..": "bills"}}, "bill.."),
    ],
)
def test_celery_does_not_start_with_a_configuration_that_isn_t_allowed(
    program, conf, error, tmp_path
):
    setup = Setup(f"sqlite:///{tmp_path / 'thorn.db'}", "memory://", "mistaken", conf=conf)
    schedule = ["-s", str(tmp_path / "schedule")] if program == "beat" else []
    done = python(
        setup.environment(), "-m", "celery", "-A", "celery_program:celery", program, *schedule
    )
    assert done.returncode == 1
    assert error in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_send_says_that_nobody_has_made_a_celery_app(tmp_path):
    program = f"""
from thorn_core import Thorn
with Thorn(store="sqlite:///{tmp_path / "thorn.db"}", dispatcher="celery") as app:
    app.send("order.paid", {{}})
    app.send("order.paid", {{}})
"""
    done = python({"CELERY_BROKER_URL": "memory://"}, "-c", program)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("import the module that calls thorn_celery.install") == 1


def test_a_broker_whose_client_isn_t_installed_says_what_to_install(monkeypatch, caplog):
    def connection(celery):
        raise ModuleNotFoundError("No module named 'redis'")

    monkeypatch.setattr(hints, "bounded_connection", connection)
    celery = Celery("shop", broker="redis://", set_as_current=False)
    install(celery)
    telling = hints.Hints(celery, 100)
    with caplog.at_level(logging.WARNING, "thorn_celery"):
        telling.add(PLAIN, ["msg_1"])
        telling.close()
    assert "No module named 'redis' (Redis needs pip install 'thorn-celery[redis]');" in caplog.text
