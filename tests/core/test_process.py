"""An app in its process: real ones, that end, are told to end, and fork."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from importlib.util import find_spec

import pytest

from thorn_core import Settings, Thorn, ThornError
from thorn_core.testing import LocalRecipient
from thorn_core.worker import LoopThread

LOCAL = Settings(allowed_networks=["127.0.0.0/8"], allowed_ports=range(1, 65536))
HEAD = """
import os, signal, sys, threading
from thorn_core import Settings, Thorn, get_app
url = sys.argv[1]
settings = Settings(
    allowed_networks=["127.0.0.0/8"],
    allowed_ports=range(1, 65536),
    grace_period=5,
    event_timeout=10,
)
"""


def start(program, recipient, *, stdin=None):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", HEAD + program, recipient.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=stdin,
        text=True,
    )


def finish(process, timeout=30):
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


@pytest.fixture
def recipient():
    with LocalRecipient() as recipient:
        yield recipient


BACKGROUND = """
app = Thorn(dispatcher="background", settings=settings)
app.subscribe("*", url)
for n in range(20):
    app.send("a.b", {"n": n})
"""


def test_at_interpreter_exit_what_is_due_is_delivered(recipient):
    code, _, err = finish(start(BACKGROUND, recipient))
    assert (code, err) == (0, "")
    assert len(recipient.received) == 20


def test_sigterm_turned_into_an_exit_delivers_too(recipient):
    program = (
        """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
"""
        + BACKGROUND
        + """
print("ready", flush=True)
threading.Event().wait()
"""
    )
    process = start(program, recipient)
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    code, _, err = finish(process)
    assert (code, err) == (0, "")
    assert len(recipient.received) == 20


WORKER = """
app = Thorn(dispatcher="outbox", settings=settings)
app.subscribe("*", url)
for n in range(3):
    app.send("a.b", {"n": n})
worker = app.worker()
print("ready", flush=True)
worker.run()
print("states", sorted(str(d.state) for d in app.deliveries()), flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_told_to_stop_ends_its_requests_first(recipient, number):
    recipient.answer(delay=0.5)
    process = start(WORKER, recipient)
    recipient.wait_for(3)
    process.send_signal(number)
    code, out, err = finish(process)
    assert (code, err) == (0, "")
    assert out.endswith("states ['delivered', 'delivered', 'delivered']\n")


def test_a_worker_that_is_told_to_stop_waits_no_longer_than_the_grace_period(recipient):
    recipient.hang()
    program = WORKER.replace("settings=settings", "settings=settings.evolve(grace_period=0.1)")
    process = start(program, recipient)
    recipient.wait_for(3)
    began = time.monotonic()
    process.terminate()
    code, out, err = finish(process)
    assert (code, err) == (0, "")
    assert out.endswith("states ['pending', 'pending', 'pending']\n")
    assert time.monotonic() - began < 8


FORK = """
app = Thorn(dispatcher="DISPATCHER", settings=settings)
app.subscribe("*", url)
assert app.send("a.parent").wait(10)
children = []
for number in range(2):
    child = os.fork()
    if child == 0:
        assert app.send("a.child", {"number": number}).wait(10)
        assert len(list(app.deliveries())) == 1
        sys.exit(0)
    children.append(child)
statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
assert statuses == [0, 0], statuses
for number in range(5):
    assert app.send("a.parent", {"number": number}).wait(10)
app.close()
print("fine")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system doesn't fork")
@pytest.mark.parametrize("dispatcher", ["inline", "background"])
def test_a_forked_child_has_an_engine_of_its_own_and_leaves_the_parents_alone(
    recipient, dispatcher
):
    program = FORK.replace("DISPATCHER", dispatcher)
    # Python 3.12 warns of any fork while threads run; that is what is tested here.
    program = "import warnings; warnings.simplefilter('ignore')\n" + program
    code, out, err = finish(start(program, recipient))
    assert (code, out, err) == (0, "fine\n", "")
    events = [request.headers["hook-event"] for request in recipient.received]
    assert (events.count("a.parent"), events.count("a.child")) == (6, 2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system doesn't fork")
def test_a_child_does_not_deliver_what_was_pending_in_its_parent(recipient):
    program = """
import warnings; warnings.simplefilter('ignore')
app = Thorn(dispatcher="outbox", settings=settings)
app.subscribe("*", url)
app.send("a.parent")
child = os.fork()
if child == 0:
    assert app.worker().drain() == 0
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert app.worker().drain() == 1
"""
    code, _, err = finish(start(program, recipient))
    assert (code, err) == (0, "")
    assert len(recipient.received) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system doesn't fork")
def test_children_that_make_apps_of_their_own_mint_ids_of_their_own(recipient):
    program = """
import datetime
from thorn_core.keys import new_id
at = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
ours, theirs = os.pipe()
for _ in range(3):
    child = os.fork()
    if child == 0:
        os.write(theirs, new_id("msg", at).encode())
        os._exit(0)
    os.waitpid(child, 0)
ids = {os.read(ours, 36) for _ in range(3)} | {new_id("msg", at).encode()}
assert len(ids) == 4, ids
"""
    code, _, err = finish(start(program, recipient))
    assert (code, err) == (0, "")


def test_closing_twice_is_fine_and_sending_afterwards_is_told():
    app = Thorn(settings=LOCAL)
    app.close()
    app.close()
    with pytest.raises(ThornError, match="this app is closed"):
        app.send("a.b")


def test_closing_waits_for_what_is_under_way(recipient):
    recipient.answer(delay=0.2)
    with Thorn(dispatcher="background", settings=LOCAL) as app:
        app.subscribe("*", recipient.url)
        receipt = app.send("a.b")
        recipient.wait_for(1)
    assert receipt
    assert "thorn-engine" not in [thread.name for thread in threading.enumerate()]


def test_a_dispatcher_that_fails_to_close_does_not_keep_the_app_open(caplog):
    class Failing:
        publishes = True

        def dispatch(self, messages):
            return None

        def close(self):
            raise RuntimeError("stuck")

    from thorn_core import hookimpl

    class Plugin:
        @hookimpl
        def thorn_dispatchers(self):
            return {"failing": lambda app: Failing()}

    app = Thorn(plugins=[Plugin()], dispatcher="failing")
    app.close()
    assert "failed to close" in caplog.text


def test_disabled_keeps_messages_out_of_the_store():
    with Thorn(dispatcher="disabled") as app:
        receipt = app.send("a.b")
        assert app.message(receipt.message.id) is None
        assert app.messages_to_route() == []


def test_default_is_thorns_name_for_inline(recipient):
    with Thorn(dispatcher="default", settings=LOCAL) as app:
        app.subscribe("*", recipient.url)
        assert app.send("a.b")


def test_many_threads_may_send_inline_at_once(recipient):
    with Thorn(settings=LOCAL.evolve(recipient_concurrency=1)) as app:
        app.subscribe("*", recipient.url)
        receipts = []
        threads = [
            threading.Thread(target=lambda: receipts.append(app.send("a.b"))) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(receipts) == 8
        assert all(receipts)


def test_waiting_has_an_end(recipient):
    with Thorn(dispatcher="outbox", settings=LOCAL) as app:
        app.subscribe("*", recipient.url)
        receipt = app.send("a.b")
        assert receipt.wait(timeout=0.05) is False


def test_a_loop_thread_that_was_never_used_stops_at_once():
    thread = LoopThread("idle")
    assert not thread.running
    thread.stop()
    with pytest.raises(ThornError, match="closed"):
        thread.run(_nothing())
    thread.call_soon(lambda: None)


async def _nothing():
    return None


def test_without_uvloop_asyncios_own_loop_is_used(monkeypatch):
    import asyncio

    from thorn_core.worker import new_event_loop

    monkeypatch.setitem(sys.modules, "uvloop", None)
    loop = new_event_loop()
    assert isinstance(loop, asyncio.SelectorEventLoop)
    loop.close()


GREENLETS = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}


@pytest.mark.parametrize("name", GREENLETS)
def test_where_threads_are_greenlets_others_go_on_while_the_loop_waits(name):
    # Imported here, eventlet would warn of every later fork.
    if find_spec(name) is None:
        pytest.skip(f"{name} isn't installed")
    program = f"""
{GREENLETS[name]}
import sys
from thorn_core import Settings, Thorn

settings = Settings(allowed_networks=["127.0.0.0/8"], allowed_ports=range(1, 65536))
with Thorn(dispatcher="background", settings=settings) as app:
    app.subscribe("*", sys.argv[1])
    assert app.send("article.created", {{}}).wait(20)
print("delivered")
"""
    with LocalRecipient() as recipient:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program, recipient.url],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert done.stdout.strip() == "delivered", done.stderr


def test_a_signal_that_another_thread_gets_stops_a_worker():
    program = """
import signal, sys, threading, time
from thorn_core import Thorn

main = threading.main_thread().ident

def waits():
    # Whether the main thread waits for the worker.
    frame = sys._current_frames()[main]
    waiting = frame.f_code.co_name == "wait" and frame.f_code.co_filename == threading.__file__
    return waiting and signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL

def terminate():
    while not waits():
        time.sleep(0.01)
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

with Thorn(dispatcher="outbox") as app:
    threading.Thread(target=terminate).start()
    app.worker().run()
print("stopped")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30
    )
    assert done.stdout.strip() == "stopped", done.stderr
