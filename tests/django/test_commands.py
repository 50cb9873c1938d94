"""The management commands: `thorn`'s own, for the project's app; as processes and from Python."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import transaction
from django.test import override_settings

from thorn_core import DeliveryState, Event, Thorn
from thorn_core.testing import LocalRecipient
from thorn_django import get_app

PATIENCE = 30
LOCAL = {"THORN_ALLOWED_NETWORKS": ["127.0.0.0/8"], "THORN_ALLOWED_PORTS": range(1, 65536)}
paid = Event("order.paid")

SETTINGS = """
from pathlib import Path

HERE = Path(__file__).parent
OPTIONS = {
    "timeout": 10,
    "transaction_mode": "IMMEDIATE",
    "init_command": "PRAGMA journal_mode=WAL;",
}
DATABASES = {
    alias: {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": HERE / f"{alias}.sqlite3",
        "OPTIONS": OPTIONS,
    }
    for alias in ("default", "other")
}
SECRET_KEY = "of the shop"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "thorn_django"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
THORN_DATABASES = ["other"]
THORN_DISPATCHER = "outbox"
THORN_ALLOWED_NETWORKS = ["127.0.0.0/8"]
THORN_ALLOWED_PORTS = range(1, 65536)
THORN_POLL_INTERVAL = 0.1
"""
MANAGE = """
import os
import sys

from django.core.management import execute_from_command_line

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop_settings")
execute_from_command_line(sys.argv)
"""
# What a project's own code does: subscribe, and send in the transaction of either database.
SELL = """
import sys

import django

django.setup()
from django.db import transaction

from thorn_core import Event
from thorn_django import get_app

subscription = get_app().subscribe("order.*", sys.argv[1])
for alias in ("default", "other"):
    with transaction.atomic(using=alias):
        Event("order.paid").send({"database": alias}, within=alias)
print(subscription.secret)
"""


class Shop:
    """A Django project in a directory, worked on by processes."""

    def __init__(self, directory):
        self.directory = directory
        for name, text in (("shop_settings", SETTINGS), ("manage", MANAGE), ("sell", SELL)):
            (directory / f"{name}.py").write_text(text)
        self._environment = {
            **{name: value for name, value in os.environ.items() if "COLOR" not in name},
            "DJANGO_SETTINGS_MODULE": "shop_settings",
            "PYTHONPATH": str(directory),
        }

    def use(self, settings):
        self._environment["DJANGO_SETTINGS_MODULE"] = settings

    def start(self, *arguments):
        command = [sys.executable, "-W", "error", *arguments]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=self.directory, env=self._environment, **streams)

    def run(self, *arguments):
        process = self.start(*arguments)
        out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, out, err

    def manage(self, *arguments):
        return self.run("manage.py", *arguments)


@pytest.fixture(scope="module")
def bare_shop(tmp_path_factory):
    """A project without tables."""
    return Shop(tmp_path_factory.mktemp("bare"))


@pytest.fixture
def shop(tmp_path):
    """A project with tables in both of its databases."""
    shop = Shop(tmp_path)
    migrate = (
        "import django; django.setup(); from django.core.management import call_command as call;"
        "[call('migrate', database=alias, verbosity=0) for alias in ('default', 'other')]"
    )
    assert shop.run("-c", migrate) == (0, "", "")
    return shop


@pytest.fixture
def recipient():
    with LocalRecipient() as recipient:
        yield recipient


# -- processes


def test_a_worker_knows_the_events_that_every_app_declares(shop, recipient):
    (shop.directory / "till").mkdir()
    for name, text in {
        "till/__init__.py": "",
        "till/events.py": f"""
from thorn_core import Event
Event("till.opened", subscribers=[{recipient.url!r}])
""",
        "till/webhooks.py": "raise OSError('no configuration')",
        "till_settings.py": "from shop_settings import *; INSTALLED_APPS += ['till']",
        "open.py": """
import django; django.setup()
from till import events
from thorn_django import get_app
get_app().send("till.opened", 1)
""",
    }.items():
        (shop.directory / name).write_text(text)
    shop.use("till_settings")
    assert shop.run("open.py") == (0, "", "")
    code, _, err = shop.manage("thorn_worker", "--once", "--log-format", "text")
    assert code == 0
    assert len(recipient.received) == 1
    assert "till.webhooks can't be imported" in err
    assert "no configuration" in err


def test_a_worker_drains_every_database_and_ends_well_on_sigterm(shop, recipient):
    code, secret, err = shop.run("sell.py", recipient.url)
    assert (code, err) == (0, "")
    recipient.secret = secret.strip()
    worker = shop.start("manage.py", "thorn_worker", "--concurrency", "5", "--log-level=info")
    try:
        recipient.wait_for(2, PATIENCE)
        worker.send_signal(signal.SIGTERM)
        out, err = worker.communicate(timeout=PATIENCE)
    finally:
        worker.kill()
    assert (worker.returncode, err) == (0, "")
    told = [json.loads(line) for line in out.splitlines()]
    assert told[0]["message"] == "worker started on <DjangoStore default>"
    assert told[0]["concurrency"] == 5
    assert told[-1]["message"].startswith("worker stopped: 2 delivered")
    assert all(request.verified for request in recipient.received)
    assert {request.json["data"]["database"] for request in recipient.received} == {
        "default",
        "other",
    }
    code, out, err = shop.manage("thorn_stats", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["deliveries"]["delivered"] == 2


def test_a_worker_ends_by_itself_once_all_is_tried(shop, recipient):
    recipient.answer(status=503)
    shop.run("sell.py", recipient.url)
    code, out, err = shop.manage("thorn_worker", "--once", "--log-format", "text")
    assert (code, err) == (0, "")
    assert "worker stopped: 0 delivered, 2" in out


def test_exit_codes_are_kept(bare_shop):
    code, _, err = bare_shop.manage("thorn_worker")
    assert code == 2
    assert "CommandError: " in err
    assert "manage.py migrate" in err
    code, out, err = bare_shop.manage("thorn_worker", "--concurrency", "many")
    assert (code, out) == (2, "")
    assert "Invalid value for '--concurrency'" in err
    code, _, err = bare_shop.manage("thorn_purge", "--older-than", "30d")
    assert code == 2
    assert "pass --yes" in err


def test_help_shows_its_options_and_djangos(bare_shop):
    code, out, err = bare_shop.manage("thorn_purge", "--help")
    assert (code, err) == (0, "")
    assert "usage: manage.py thorn_purge" in out
    assert "Delete finished deliveries older than a given time." in out
    assert "[default: 500]" in out
    for option in ("--older-than", "--dry-run", "--settings", "--no-color"):
        assert option in out


def test_another_projects_settings_may_be_named(shop):
    (shop.directory / "memory_settings.py").write_text(
        "from shop_settings import *\nTHORN_STORE = 'memory://'\n"
    )
    code, _, err = shop.manage("thorn_worker", "--settings", "memory_settings")
    assert code == 2
    assert "this app's store lives in its own process" in err


def test_without_click_the_extra_is_named(bare_shop):
    program = f"import sys; sys.modules['rich'] = None\n{MANAGE}"
    code, out, err = bare_shop.run("-c", program, "thorn_stats")
    assert (code, out) == (2, "")
    assert "thorn_stats needs click and rich; run: pip install 'thorn-django[cli]'" in err


def test_a_local_recipient_listens_and_ends_well(bare_shop):
    process = bare_shop.start("manage.py", "thorn_listen", "--port", "0")
    try:
        assert "Listening on http://127.0.0.1:" in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert (process.returncode, err) == (0, "")


# -- from Python


@pytest.fixture
def app(default_alias):
    with override_settings(THORN_RETRY=False, **LOCAL):
        yield get_app()


def called(*arguments, **options):
    out = StringIO()
    call_command(*arguments, **options, stdout=out)
    return out.getvalue()


@pytest.fixture
def failed(app, recipient):
    """Deliveries that have failed."""
    recipient.answer(status=500)
    app.subscribe("order.*", recipient.url)
    receipts = [paid.send({"n": n}) for n in range(3)]
    app.worker().drain()
    recipient.answer(status=200)
    return [delivery for receipt in receipts for delivery in receipt.deliveries]


def test_options_are_given_as_words_or_by_name(app, failed):
    assert called("thorn_replay", failed[0].id) == "Replayed 1 delivery.\n"
    by_name = called("thorn_replay", state=["failed"], since=app.clock().replace(year=2020))
    assert by_name == "Replayed 2 deliveries.\n"
    assert called("thorn_worker", once=True, log_format="text").count("3 delivered") == 1
    assert all(app.delivery(d.id).state is DeliveryState.DELIVERED for d in failed)
    assert json.loads(called("thorn_stats", hours=2, json=True))["attempts"] == 6
    assert "delivered" in called("thorn_stats")
    until = app.clock().replace(year=2100).isoformat()
    assert called("thorn_purge", f"--older-than={until}", "--dry-run") == (
        "Would delete 3 deliveries.\n"
    )
    assert called("thorn_purge", older_than=until, yes=True, state=["delivered"]) == (
        "Deleted 3 deliveries.\n"
    )


def test_what_goes_wrong_is_a_command_error_with_its_exit_code(app):
    with pytest.raises(CommandError, match="needs delivery ids or a filter") as refused:
        called("thorn_replay")
    assert refused.value.returncode == 2
    with pytest.raises(CommandError, match="exited with code 1") as nothing:
        called("thorn_replay", "dlv_none")
    assert nothing.value.returncode == 1
    with pytest.raises(CommandError, match="event pattern 'order paid' holds"):
        called("thorn_replay", event="order paid")
    with pytest.raises(TypeError, match="Unknown option"):
        called("thorn_stats", days=1)


def test_the_projects_app_is_used_and_left_open(app, failed):
    with Thorn(store="django://default", dispatcher="outbox", settings=app.settings) as other:
        other.make_default()
        called("thorn_stats")
        assert other.send("order.paid").message
        assert get_app() is other


def test_an_open_transaction_stays_open(app, failed):
    with transaction.atomic():
        paid.send({"n": 4})
        called("thorn_stats")
        transaction.set_rollback(True)
    assert json.loads(called("thorn_stats", "--json"))["messages"] == 3
