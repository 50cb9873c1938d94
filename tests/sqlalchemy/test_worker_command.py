"""`thorn worker`: real processes that are stopped, killed, and left without their database."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import textwrap
import threading
from time import monotonic

import pytest
from sqlalchemy import create_engine, make_url, text

from thorn_core import DeliveryState, RetryPolicy, Settings, Thorn
from thorn_core.testing import LocalRecipient
from thorn_sqlalchemy import SqlStore

PATIENCE = 60.0
SHOP = """
    import os
    from thorn_core import RetryPolicy, Settings, Thorn

    app = Thorn(
        store=os.environ["SHOP_STORE"],
        dispatcher="outbox",
        settings=Settings(
            allowed_networks=["127.0.0.0/8"], allowed_ports=range(1, 65536),
            retry_policy=RetryPolicy((3600,)),
            event_timeout=2, lease=2.5, poll_interval=0.1,
            grace_period=float(os.environ.get("SHOP_GRACE", "5")),
        ),
    )
"""


def only(*kinds):
    """The same on other databases would show nothing more."""
    return pytest.mark.parametrize("place", kinds, indirect=True)


@pytest.fixture
def recipient():
    with LocalRecipient() as recipient:
        yield recipient


@pytest.fixture
def app(place):
    """An app of this process, on the same database."""
    store = SqlStore(place.url)
    store.create()
    settings = Settings(
        allowed_networks=["127.0.0.0/8"],
        allowed_ports=range(1, 65536),
        retry_policy=RetryPolicy((3600,)),
    )
    with Thorn(store=store, dispatcher="outbox", settings=settings) as app:
        yield app


class Workers:
    """Worker processes of a shop, ended with the test."""

    def __init__(self, directory, url):
        (directory / "shop.py").write_text(textwrap.dedent(SHOP))
        self.directory, self.url = directory, url
        self.started = []

    def start(self, *arguments, url=None, **options):
        environment = {"SHOP_STORE": url or self.url, **options.pop("env", {})}
        process = subprocess.Popen(
            [sys.executable, "-m", "thorn_core.cli", "--app", "shop:app", "worker", *arguments],
            cwd=self.directory,
            env={**os.environ, **environment},
            **{
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "text": True,
                **options,
            },
        )
        self.started.append(process)
        return process

    def end(self):
        for process in self.started:
            process.kill()
            process.communicate()


@pytest.fixture
def workers(tmp_path, place):
    workers = Workers(tmp_path, place.url)
    yield workers
    workers.end()


def stop(process, number=signal.SIGTERM):
    """Tell it to end; what it logged, and its exit code."""
    process.send_signal(number)
    return ended(process)


def ended(process):
    out, err = process.communicate(timeout=PATIENCE)
    assert err == ""
    return [json.loads(line) for line in out.splitlines()], process.returncode


def states(app):
    found = app.stats().deliveries
    return {str(state): count for state, count in found.items() if count}


def wait_for(condition):
    """Wait for what another process does."""
    deadline = monotonic() + PATIENCE
    pause = threading.Event()
    while not condition():
        assert monotonic() < deadline, "it took too long"
        pause.wait(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@only("sqlite")
def test_a_worker_delivers_until_it_is_told_to_stop(app, workers, recipient, number):
    app.subscribe("*", recipient.url)
    process = workers.start("--concurrency", "7")
    for _ in range(10):
        app.send("a.b")
    recipient.wait_for(10, PATIENCE)
    wait_for(lambda: states(app) == {"delivered": 10})
    records, code = stop(process, number)
    assert code == 0
    started, *_, stopped = records
    assert (started["level"], started["concurrency"], started["pid"]) == ("info", 7, process.pid)
    assert "worker started on <SqlStore sqlite:///" in started["message"]
    assert (stopped["delivered"], stopped["attempts"], stopped["failed"]) == (10, 10, 0)
    assert stopped["message"].startswith("worker stopped: 10 delivered in ")
    assert all(record["message"].startswith("stopping: ") for record in records[1:-1])
    assert {"time", "level", "logger", "message"} <= set(stopped)


@only("sqlite")
def test_requests_under_way_end_at_a_stop(app, workers, recipient):
    recipient.answer(delay=1.0)
    app.subscribe("*", recipient.url)
    app.send("a.b")
    process = workers.start()
    recipient.wait_for(1, PATIENCE)
    records, code = stop(process)
    assert code == 0
    assert "waiting for 1 requests in flight" in records[-2]["message"]
    assert states(app) == {"delivered": 1}


@only("sqlite")
def test_what_does_not_end_in_time_is_given_back(app, workers, recipient):
    recipient.hang()
    app.subscribe("*", recipient.url)
    for _ in range(3):
        app.send("a.b")
    process = workers.start(env={"SHOP_GRACE": "0.2"})
    recipient.wait_for(1, PATIENCE)
    _, code = stop(process)
    assert code == 0
    assert states(app) == {"pending": 3}
    assert all(delivery.attempt_count == 0 for delivery in app.deliveries())


@only("sqlite")
def test_a_second_ctrl_c_does_not_wait(app, workers, recipient):
    recipient.hang()
    app.subscribe("*", recipient.url)
    app.send("a.b")
    process = workers.start(env={"SHOP_GRACE": "3000"})
    recipient.wait_for(1, PATIENCE)
    process.send_signal(signal.SIGINT)
    line = ""
    while "stopping" not in line:
        line = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err.strip()) == (130, "Interrupted.")


@only("sqlite", "postgresql")
def test_another_takes_over_what_a_killed_worker_held(app, workers, recipient):
    recipient.hang()
    app.subscribe("*", recipient.url)
    for _ in range(3):
        app.send("a.b")
    process = workers.start()
    recipient.wait_for(1, PATIENCE)
    process.kill()
    process.wait()
    recipient.answer()
    other = workers.start()
    wait_for(lambda: states(app) == {"delivered": 3})
    assert stop(other)[1] == 0


@only("sqlite", "postgresql", "mariadb")
def test_several_workers_share_the_work(app, workers, recipient):
    recipient.answer(delay=0.02)
    app.subscribe("*", recipient.url)
    both = [workers.start(), workers.start()]
    sent = {app.send("a.b").message.id for _ in range(150)}
    for process in both:
        read_until(process, "worker started")
    wait_for(lambda: states(app) == {"delivered": 150})
    assert [stop(process)[1] for process in both] == [0, 0]
    arrived = [request.headers["webhook-id"] for request in recipient.received]
    assert sorted(arrived) == sorted(sent)


@only("sqlite")
def test_what_happens_is_summed_up_now_and_then(app, workers, recipient):
    app.subscribe("*", recipient.url)
    # Time enough for many reports of nothing.
    recipient.answer(delay=0.5)
    recipient.answer(status=500, times=1)
    process = workers.start("--report", "0.02")
    app.send("a.b")
    app.send("a.b")
    wait_for(lambda: states(app) == {"delivered": 1, "pending": 1})
    records, _ = stop(process)
    summaries = [record for record in records if record["message"].startswith("lately")]
    assert summaries
    assert all(summary["attempts"] for summary in summaries)
    assert sum(summary["attempts"] for summary in summaries) <= 2


@only("sqlite")
def test_the_level_and_the_form_can_be_chosen(app, workers, recipient):
    app.subscribe("*", recipient.url)
    app.send("a.b")
    quiet = workers.start("--once", "--log-level", "warning")
    assert ended(quiet) == ([], 0)
    out, err = workers.start("--once", "--log-format", "text").communicate(timeout=PATIENCE)
    assert err == ""
    first, second = out.splitlines()
    assert re.match(r"\d{4}-\d\d-\d\dT[\d:]{8}[+-]\d{4} INFO +worker started", first)
    assert "worker stopped: 0 delivered" in second


# -- once


@only("sqlite")
def test_once_tries_all_that_is_due_and_exits(app, workers, recipient):
    app.subscribe("a.*", recipient.url)
    gone = app.subscribe("b.*", recipient.url)
    for event in ("a.b", "a.b", "b.c"):
        app.send(event)
    recipient.answer(status=500, times=1)
    records, code = ended(workers.start("--once"))
    # Whatever the recipients answer: what failed is due in an hour.
    assert code == 0
    assert (records[-1]["attempts"], records[-1]["failed_attempts"], records[-1]["retrying"]) == (
        3,
        1,
        1,
    )
    assert states(app) == {"delivered": 2, "pending": 1}
    records, code = ended(workers.start("--once"))
    assert (code, records[-1]["attempts"]) == (0, 0)
    assert gone.enabled


@only("sqlite")
def test_once_can_be_stopped_too(app, workers, recipient):
    recipient.hang()
    app.subscribe("*", recipient.url)
    app.send("a.b")
    process = workers.start("--once", env={"SHOP_GRACE": "0.1"})
    recipient.wait_for(1, PATIENCE)
    assert stop(process)[1] == 0
    assert states(app) == {"pending": 1}
    assert next(app.deliveries()).attempt_count == 0


@only("sqlite")
def test_once_fails_where_the_database_does(workers):
    process = workers.start("--once", url="postgresql+psycopg://u:s3cret@127.0.0.1:1/x")
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (1, "")
    assert err.startswith("Error: the database postgresql+psycopg://u:***@127.0.0.1:1/x")


# -- the database


@only("postgresql", "mariadb")
@pytest.mark.parametrize("more", [[], ["--once"]])
def test_a_database_that_is_not_initialised_is_told_in_one_line(workers, more):
    process = workers.start(*more)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert "isn't initialised" in err
    assert "run: thorn init-db --store" in err


@only("sqlite", "postgresql")
def test_a_database_of_an_older_schema_is_told_in_one_line(app, workers, place):
    engine = create_engine(place.url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE thorn_schema_version SET version_num = '0000'"))
    engine.dispose()
    process = workers.start()
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert "older schema 0000" in err


class Road:
    """A port that leads to the database's, when it is open."""

    def __init__(self, url):
        self._to = (url.host, url.port)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._server = None
        self._cars = []

    def open(self):
        self._server = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._serve, args=(self._server,), daemon=True).start()

    def close(self):
        server, self._server = self._server, None
        if server is not None:
            # A thread in accept() keeps it open otherwise.
            server.shutdown(socket.SHUT_RDWR)
            server.close()
        for car in self._cars:
            with contextlib.suppress(OSError):
                car.shutdown(socket.SHUT_RDWR)
        self._cars = []

    def _serve(self, server):
        with contextlib.suppress(OSError):
            while True:
                ours, _ = server.accept()
                theirs = socket.create_connection(self._to)
                self._cars += [ours, theirs]
                for pair in ((ours, theirs), (theirs, ours)):
                    threading.Thread(target=self._carry, args=pair, daemon=True).start()

    @staticmethod
    def _carry(source, target):
        with source, contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def road(place):
    road = Road(make_url(place.url))
    yield road
    road.close()


def by_road(place, road):
    url = make_url(place.url).set(host="127.0.0.1", port=road.port)
    return url.render_as_string(hide_password=False)


def read_until(process, words):
    """Read records until one says this; all of them."""
    records = []
    while not records or words not in records[-1]["message"]:
        line = process.stdout.readline()
        assert line, records
        records.append(json.loads(line))
    return records


@only("postgresql", "mariadb")
def test_a_worker_waits_for_a_database_that_is_down(app, workers, recipient, place, road):
    app.subscribe("*", recipient.url)
    app.send("a.b")
    process = workers.start(url=by_road(place, road))
    first, *_ = read_until(process, "trying again in 0.2 s")
    assert (first["level"], first["logger"]) == ("warning", "thorn_core.cli.worker")
    assert first["message"].endswith("retrying until it succeeds")
    assert process.poll() is None
    road.open()
    assert read_until(process, "the store works again")
    recipient.wait_for(1, PATIENCE)
    # Gone in the middle, and back again.
    road.close()
    again = read_until(process, "trying again in")[-1]
    assert again["retry_in"] > 0
    app.send("a.b")
    road.open()
    recipient.wait_for(2, PATIENCE)
    assert stop(process)[1] == 0


@only("postgresql")
def test_a_worker_that_waits_for_its_database_can_be_stopped(workers, place, road):
    process = workers.start(url=by_road(place, road))
    read_until(process, "trying again in")
    assert stop(process)[1] == 0


# -- in a terminal


class Terminal:
    """A pseudo terminal of 80 columns, and what a process shows on it."""

    def __init__(self):
        self._ours, self.theirs = pty.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.shown = ""

    def read_until(self, words):
        deadline = monotonic() + PATIENCE
        while words not in self.plain:
            assert monotonic() < deadline, self.shown
            self._read()

    def _read(self):
        if select.select([self._ours], [], [], 0.2)[0]:
            self.shown += os.read(self._ours, 65536).decode()

    @property
    def plain(self):
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.shown)

    def close(self):
        os.close(self._ours)
        os.close(self.theirs)


@pytest.fixture
def terminal():
    terminal = Terminal()
    yield terminal
    terminal.close()


def start_in(terminal, workers, *arguments, **options):
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), terminal.theirs)
    environment = {"TERM": "xterm", "COLUMNS": "80"}
    return workers.start(*arguments, env=environment, **streams, **options)


@only("sqlite")
def test_a_terminal_shows_a_line_that_lives(app, workers, recipient, terminal):
    app.subscribe("*", recipient.url)
    recipient.answer(status=500, times=1)
    process = start_in(terminal, workers)
    terminal.read_until("nothing waiting")
    for _ in range(4):
        app.send("a.b")
    terminal.read_until("3 delivered")
    terminal.read_until("1 failed  1 to retry  0 in flight")
    recipient.hang()
    app.send("a.b")
    terminal.read_until("1 in flight")
    process.send_signal(signal.SIGINT)
    terminal.read_until("stopping after the requests in flight")
    assert process.wait(PATIENCE) == 0
    terminal.read_until("worker stopped: 3 delivered, ")
    assert "{" not in terminal.plain
    assert "\x1b[?25h" in terminal.shown  # the cursor is back
    status = [line for line in re.split(r"[\r\n]+", terminal.plain) if "/s " in line]
    assert max(map(len, status)) <= 80


@only("postgresql")
def test_a_terminal_shows_that_the_database_is_away(app, workers, place, road, terminal):
    road.open()
    process = start_in(terminal, workers, url=by_road(place, road))
    terminal.read_until("worker started")
    terminal.read_until("nothing waiting")
    road.close()
    terminal.read_until("the store is failing, retrying in 1 s")
    assert terminal.plain.count("trying again in 0.1 s") == 1
    assert "trying again in 0.4 s" not in terminal.plain
    road.open()
    terminal.read_until("the store works again")
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0


@only("sqlite")
def test_a_log_format_is_kept_in_a_terminal_too(app, workers, terminal):
    process = start_in(terminal, workers, "--once", "--log-format", "json")
    assert process.wait(PATIENCE) == 0
    terminal.read_until('"message": "worker stopped')
    assert "in flight" not in terminal.plain


@only("sqlite")
def test_long_work_shows_how_far_it_is(app, workers, recipient, terminal, tmp_path):
    app.subscribe("*", recipient.url)
    for _ in range(3):
        app.send("a.b")
    app.worker().drain()
    assert states(app) == {str(DeliveryState.DELIVERED): 3}
    for command, shown, said in (
        (["replay", "--state", "delivered"], "Replaying", "Replayed 3 deliveries."),
        (["purge", "--older-than", "0s", "--yes"], "Deleting", "Deleted 3 deliveries."),
    ):
        process = subprocess.run(
            [sys.executable, "-m", "thorn_core.cli", "--app", "shop:app", *command],
            cwd=tmp_path,
            env={**os.environ, "SHOP_STORE": workers.url, "TERM": "xterm"},
            stdout=subprocess.PIPE,
            stderr=terminal.theirs,
            text=True,
            timeout=PATIENCE,
        )
        assert (process.returncode, process.stdout) == (0, f"{said}\n")
        terminal.read_until(shown)
        app.worker().drain()
