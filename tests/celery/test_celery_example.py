"""The blog on Celery, as its README says: web server, worker, beat and receiver, each a process."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import yaml
from celery_world import TIMEOUT
from running import heed_interrupts
from sqlalchemy import make_url

pytest.importorskip("rest_framework")

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "django_celery"
STEP = re.compile(r"^<!-- step: (.+?) -->\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STEPS = STEP.findall((EXAMPLE / "README.md").read_text("utf-8"))
COMPOSE = yaml.safe_load((EXAMPLE / "docker-compose.yml").read_text("utf-8"))
OURS = {name: of for name, of in COMPOSE["services"].items() if "build" in of}

# Names of the test's own in the broker, and no file in the example's folder.
SETTINGS = """
from blog_on_celery.settings import *

CELERY_TASK_DEFAULT_QUEUE = {name!r}
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False
CELERY_BROKER_TRANSPORT_OPTIONS = {transport!r}
CELERY_BEAT_SCHEDULE_FILENAME = {schedule!r}
"""


class Terminal:
    """A program in a terminal; `code` says how it ended.

    Attributes:
        text: What it has shown.
    """

    def __init__(self, command, environment):
        self.text, self.code = "", None
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            shlex.split(command),
            cwd=EXAMPLE,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=heed_interrupts,
        )
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self.code is None:
            self.stop()

    def _read(self):
        for line in self._process.stdout:
            with self._changed:
                self.text += line
                self._changed.notify_all()

    def type(self, text):
        self._process.stdin.write(text)
        self._process.stdin.flush()

    def wait_for(self, pattern):
        """The first match in what it shows."""
        with self._changed:
            assert self._changed.wait_for(lambda: re.search(pattern, self.text), TIMEOUT), self.text
        return re.search(pattern, self.text)

    def stop(self, how=signal.SIGTERM):
        self._process.send_signal(how)
        try:
            self.code = self._process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            raise
        finally:
            self._process.stdin.close()
            self._thread.join(TIMEOUT)
            self._process.stdout.close()


class FirstTerminal(Terminal):
    """A shell; its variables stay."""

    def __init__(self, environment):
        super().__init__("/bin/sh", environment)
        self._number = 0

    def run(self, text):
        """What commands say."""
        self._number += 1
        before = len(self.text)
        self.type(f"{text}\necho; echo ended-{self._number} $?\n")
        code = self.wait_for(rf"ended-{self._number} (\d+)")[1]
        said = self.text[before:]
        assert code == "0", said
        return said

    def stop(self, how=signal.SIGKILL):
        super().stop(how)


def step(kind):
    """The text of the only step of a kind."""
    (text,) = [text for step, text in STEPS if step.startswith(kind)]
    return text.strip()


def exported():
    """What the README has every terminal export."""
    words = shlex.split(step("in every terminal"))
    return dict(word.split("=", 1) for word in words if word != "export")


@pytest.fixture
def environment(broker, postgresql, tmp_path):
    """Of every terminal: as the README says, on the test's own database and broker."""
    if shutil.which("curl") is None:
        assert not os.environ.get("THORN_REQUIRE_SERVICES"), "curl is required here"
        pytest.skip("curl isn't installed")
    prefix = {"global_keyprefix": f"{broker.name}:"} if broker.kind == "redis" else {}
    settings = SETTINGS.format(
        name=broker.name, transport=prefix, schedule=str(tmp_path / "beat-schedule")
    )
    (tmp_path / "settings_of_test.py").write_text(settings, "utf-8")
    said = exported()
    database = make_url(postgresql.url).set(drivername="postgresql")
    return {
        **os.environ,
        **said,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{said['PYTHONPATH']}{os.pathsep}{tmp_path}",
        "PYTHONUNBUFFERED": "1",
        "DJANGO_SETTINGS_MODULE": "settings_of_test",
        "BLOG_DATABASE": database.render_as_string(hide_password=False),
        "BLOG_BROKER": broker.url,
        "GUNICORN_CMD_ARGS": "--bind=127.0.0.1:0",
        "RECEIVER_ADDRESS": "127.0.0.1:0",
    }


class Reader:
    """Somebody who follows the README.

    Args:
        environment: Of every terminal.
        stack: What ends the terminals.
    """

    def __init__(self, environment, stack):
        self.environment, self.ports, self._stack = environment, {}, stack
        self.first = stack.enter_context(FirstTerminal(environment))

    def open(self, name, environment=()):
        """A terminal with one of the programs, which is ready."""
        (found,) = [(kind, text) for kind, text in STEPS if kind.startswith(f"{name}, until")]
        command = found[1].strip()
        terminal = self._stack.enter_context(
            Terminal(command, {**self.environment, **dict(environment)})
        )
        terminal.wait_for(re.escape(re.search('says "(.+)"', found[0])[1]))
        return terminal

    def run(self, text):
        for of_readme, ours in self.ports.items():
            text = text.replace(f":{of_readme}/", f":{ours}/")
        return self.first.run(text)


def port_of(terminal):
    return terminal.wait_for(r"http://127\.0\.0\.1:([1-9]\d*)")[1]


def attempts(reader):
    """The deliveries of the newest message, by how often they were tried."""
    token = re.search(r"token=(\w+)", reader.first.run('echo "token=$TOKEN"'))[1]
    url, headers = f"http://127.0.0.1:{reader.ports['8000']}", {"Authorization": f"Token {token}"}
    with httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT) as client:
        (subscription,) = client.get("/hooks/").json()["items"]
        found = client.get(subscription["deliveries"]).json()["items"]
    return {delivery["id"]: (delivery["state"], delivery["attempt_count"]) for delivery in found}


def wait_until(reader, done):
    """Wait until deliveries are as they should be; gives them."""
    until = time.monotonic() + TIMEOUT
    while not done(found := attempts(reader).values()):
        assert time.monotonic() < until, json.dumps(list(found))
        time.sleep(0.05)
    return sorted(found)


def test_the_readme_leads_to_verified_webhooks(environment):
    with ExitStack() as stack:
        reader = Reader(environment, stack)
        migrate, token, publish = [text for kind, text in STEPS if kind == "run"]
        shown = [text for kind, text in STEPS if kind == "the receiver shows"]
        reader.run(migrate)
        web, worker, receiver = map(reader.open, ("web", "worker", "receiver"))
        reader.ports = {"8000": port_of(web), "8099": port_of(receiver)}

        reader.run(token)
        reader.run(publish)
        for line in shown[0].splitlines():
            receiver.wait_for(re.escape(line))
        # It shows what came before it answers.
        wait_until(reader, lambda found: {state for state, _ in found} == {"delivered"})

        receiver.stop(signal.SIGINT)
        # Not before: first attempts need no sweep.
        beat = reader.open("beat")
        reader.run(step("run without the receiver"))
        wait_until(reader, lambda found: any(state == "pending" and n for state, n in found))
        again = {"RECEIVER_ADDRESS": f"127.0.0.1:{reader.ports['8099']}"}
        second = reader.open("receiver", again)
        second.wait_for(re.escape(shown[1].strip()))
        ended = wait_until(reader, lambda found: {state for state, _ in found} == {"delivered"})
        assert [count for _, count in ended] == [1, 1, 1, 2]

        second.stop(signal.SIGINT)
        for terminal in (beat, web, worker):
            terminal.stop()
    assert [t.code for t in (receiver, second, beat, web, worker)] == [0] * 5
    for terminal in (web, worker, beat, receiver, second):
        assert "Traceback" not in terminal.text
    assert second.text.count("verified: ") == 1


def test_a_stranger_is_refused_by_the_receiver():
    secret = exported()["RECEIVER_SECRET"]
    environment = {**os.environ, "RECEIVER_ADDRESS": "127.0.0.1:0", "RECEIVER_SECRET": secret}
    with Terminal(f"{sys.executable} receiver.py", environment) as receiver:
        url = f"http://127.0.0.1:{port_of(receiver)}/"
        assert httpx.post(url, json={"event": "article.created"}).status_code == 401
        receiver.stop(signal.SIGINT)
    assert (receiver.code, "verified" in receiver.text) == (0, False)


# -- with Docker


def test_the_containers_run_what_the_readme_says():
    programs = {kind.split(",")[0]: text.strip() for kind, text in STEPS if ", until" in kind}
    migrate = next(text.strip() for kind, text in STEPS if kind == "run")
    commands = {name: service["command"] for name, service in OURS.items()}
    assert commands == {"migrate": migrate, **programs}


def test_the_containers_know_what_the_readme_exports():
    told = {name for service in OURS.values() for name in service["environment"]}
    assert exported().keys() <= told
    for name in ("PYTHONPATH", "DJANGO_SETTINGS_MODULE", "BLOG_DEBUG"):
        assert OURS["web"]["environment"][name] == exported()[name]
    assert OURS["receiver"]["environment"]["RECEIVER_SECRET"] == exported()["RECEIVER_SECRET"]


def test_the_containers_are_made_of_what_is_there():
    for service in COMPOSE["services"].values():
        assert service.get("depends_on", {}).keys() <= COMPOSE["services"].keys()
    build = OURS["web"]["build"]
    context = (EXAMPLE / build["context"]).resolve()
    assert context == ROOT
    recipe = (context / build["dockerfile"]).read_text("utf-8")
    for line in re.findall(r"^COPY (.+)", recipe, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
    for package, extras in re.findall(r"'\./(adapters/\w+)\[([\w,]+)\]'", recipe):
        declared = (ROOT / package / "pyproject.toml").read_text("utf-8")
        for extra in extras.split(","):
            assert re.search(rf"^{extra} = \[", declared, re.MULTILINE), (package, extra)
