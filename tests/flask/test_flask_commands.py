"""`flask thorn …`: the commands of `thorn`, for the app that Flask finds."""

from __future__ import annotations

import json
import subprocess
import sys

import click
import pytest
from flask import Flask, current_app
from flask_programs import FLASK, TIMEOUT, Running
from running import run as run_program

from thorn_core import hookimpl
from thorn_core.cli.group import group
from thorn_core.testing import LocalRecipient
from thorn_flask import ThornFlask

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NAMES = {*group.commands, "init-db"} - {"demo"}

SHOP = """
import os
from flask import Flask, current_app
from thorn_flask import ThornFlask

def recipients(message):
    return {"url": os.environ["RECIPIENT"] + current_app.name, "secret": os.environ["SECRET"]}

def create_app():
    app = Flask("shop")
    app.config["THORN_STORE"] = os.environ["STORE"]
    app.config["THORN_DISPATCHER"] = "outbox"
    app.config["THORN_ALLOWED_NETWORKS"] = ["127.0.0.0/8"]
    app.config["THORN_ALLOWED_PORTS"] = range(1, 65536)
    app.config["THORN_SUBSCRIBERS"] = {"order.*": "shop.recipients"}
    ThornFlask(app)
    return app
"""


@pytest.fixture
def app(make, tmp_path):
    return make(store=f"sqlite:///{tmp_path / 'thorn.db'}", dispatcher="outbox")


@pytest.fixture
def run(app):
    return lambda *arguments: app.test_cli_runner().invoke(args=["thorn", *arguments])


def test_the_commands_are_those_of_thorn(run):
    listed = run("--help").output.split("Commands:")[1]
    assert {line.split()[0] for line in listed.splitlines() if line.strip()} == NAMES
    for name in NAMES:
        assert run(name, "--help").exit_code == 0
    assert "No such command 'demo'" in run("demo").output


def test_what_is_sent_is_delivered_and_looked_at(app, run, recipient):
    thorn = app.extensions["thorn"]
    subscription = thorn.subscribe("order.*", recipient.url, secret=SECRET, owner="ada")
    assert "up to date" in run("init-db").output
    sent = run("send", "order.paid", '{"number": 7}', "--wait", "0")
    assert (sent.exit_code, "0 deliveries" in sent.output) == (1, True)
    assert run("worker", "--once").exit_code == 0
    (request,) = recipient.wait_for(1)
    assert (request.verified, request.json["data"]) == (True, {"number": 7})
    listed = run("subscriptions", "--json")
    assert json.loads(listed.output)["id"] == subscription.id
    (delivery,) = [json.loads(line) for line in run("deliveries", "--json").output.splitlines()]
    assert delivery["state"] == "delivered"
    attempt = json.loads(run("attempts", delivery["id"], "--json").output)
    assert attempt["status"] == 200
    assert run("replay", delivery["id"]).exit_code == 0
    assert run("worker", "--once").exit_code == 0
    assert len(recipient.wait_for(2)) == 2
    assert run("stats", "--json").exit_code == 0
    assert run("purge", "--older-than", "30d", "--yes").exit_code == 0


def test_exit_codes_are_kept(run, app):
    usage = run("deliveries", "--state", "nonsense")
    assert (usage.exit_code, "nonsense" in usage.output) == (2, True)
    missing = run("attempts", "dlv_missing")
    assert missing.exit_code == 1, missing.output
    app.extensions["thorn"].store.close()


def test_a_store_in_memory_has_no_worker(make):
    result = make().test_cli_runner().invoke(args=["thorn", "worker", "--once"])
    assert result.exit_code == 2
    assert "store lives in its own process" in result.output


def test_plugins_add_commands_that_run_in_the_apps_context(make):
    @click.command()
    @click.pass_obj
    def hello(app_path):
        click.echo(f"hello from {current_app.name}, {app_path()!r}")

    class Plugin:
        @hookimpl
        def thorn_cli(self, group):
            group.add_command(hello)

    runner = make("shop", ThornFlask(plugins=[Plugin()])).test_cli_runner()
    assert runner.invoke(args=["thorn", "hello"]).output.startswith("hello from shop, <Thorn")
    other = make("blog").test_cli_runner().invoke(args=["thorn", "hello"])
    assert other.exit_code == 2


def test_it_says_what_is_missing():
    program = """
import sys
sys.modules["rich.live"] = None
from flask import Flask
from thorn_flask import ThornFlask
app = Flask("shop")
ThornFlask(app)
result = app.test_cli_runner().invoke(args=["thorn", "stats"])
print(result.output)
sys.exit(result.exit_code)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (2, "")
    assert "pip install 'thorn-flask[cli]'" in done.stdout


def test_a_worker_runs_in_the_shell_until_it_is_told_to_stop(tmp_path):
    (tmp_path / "shop.py").write_text(SHOP, "utf-8")
    with LocalRecipient(secret=SECRET) as recipient:
        environment = {
            "STORE": f"sqlite:///{tmp_path / 'thorn.db'}",
            "RECIPIENT": recipient.url,
            "SECRET": SECRET,
        }
        command = (FLASK, "--app", "shop", "thorn")
        with Running(tmp_path, environment, *command, "worker") as worker:
            run_program(tmp_path, environment, *command, "send", "order.paid", "7")
            (request,) = recipient.wait_for(1, TIMEOUT)
    assert (request.verified, request.path, worker.code) == (True, "/shop", 0)


def test_outside_of_flask_the_group_says_whose_it_is():
    app = Flask("shop")
    ThornFlask(app)
    command = app.cli.commands["thorn"]
    with pytest.raises(click.UsageError, match="flask --app shop thorn"):
        command.main(["stats"], standalone_mode=False)
    app.extensions["thorn"].close()
