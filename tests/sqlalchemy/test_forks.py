"""Forks beside an engine at work on a SQLite file: the child is locked out of nothing."""

from __future__ import annotations

import os

import pytest
from running import run

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system doesn't fork")

HEAD = """
import os, sys, threading, time, warnings
warnings.simplefilter("ignore")  # Python 3.12 warns of any fork while threads run
from sqlalchemy import create_engine, event
from thorn_core import Settings, Thorn
from thorn_sqlalchemy import SqlStore

def forked(work):
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)

def ended(pid):
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""

# The parent's engine is inside a transaction, or about to read, when the parent forks.
BUSY = """
engine = create_engine("sqlite:///forked.db", connect_args={"timeout": 1})
inside = threading.Event()

@event.listens_for(engine, "after_cursor_execute")
def linger(connection, cursor, statement, *_):
    if threading.current_thread().name.startswith("thorn-store") and statement.startswith("KIND"):
        inside.set()
        time.sleep(0.2)

store = SqlStore(engine)
store.create()
settings = Settings(allowed_networks=["127.0.0.0/8"], allowed_ports=[9], poll_interval=0.01)
app = Thorn(store=store, dispatcher="background", settings=settings)
app.subscribe("*", "http://127.0.0.1:9/")
app.send("a.parent", {"n": 1})
assert inside.wait(10)
ended(forked(lambda: app.send("a.child")))
app.close()
"""

# Each of the two believes that it is the last to use the file, if they share its locks.
CLOSED = """
app = Thorn(store="sqlite:///forked.db", dispatcher="outbox")
app.send("a.parent")
closed, close = os.pipe()
kept, keep = os.pipe()

def work():
    app.send("a.child", {"n": 1})
    os.write(keep, b"1")
    os.read(closed, 1)
    app.send("a.child", {"n": 2})

pid = forked(work)
os.read(kept, 1)
app.close()
with Thorn(store="sqlite:///forked.db", dispatcher="outbox") as other:
    other.send("a.other")
os.write(close, b"1")
ended(pid)
with Thorn(store="sqlite:///forked.db", dispatcher="outbox") as other:
    events = sorted(message.event for message in other.messages_to_route())
assert events == ["a.child", "a.child", "a.other", "a.parent"], events
"""

# The engine's thread imports something when its process forks; a thread of the child's does too.
IMPORTING = """
import importlib
from concurrent.futures import Future

with open("slow.py", "w") as file:
    file.write("import threading, time; threading.importing.set(); time.sleep(0.2)")
threading.importing = threading.Event()
sys.path.insert(0, os.getcwd())
app = Thorn(store="sqlite:///forked.db", dispatcher="outbox")

async def load():
    importlib.import_module("slow")

app.submit(load())
assert threading.importing.wait(10)

def work():
    # Else the engine's new thread has the id of its parent's, and with it its locks.
    threading.Thread(target=time.sleep, args=(10,), daemon=True).start()
    app.submit(load()).result(5)

ended(forked(work))
app.close()
"""


@pytest.mark.parametrize("kind", ["UPDATE", "SELECT"])
def test_a_child_can_write_though_its_parent_was_at_work_when_it_forked(tmp_path, kind):
    run(tmp_path, {}, "-c", HEAD + BUSY.replace("KIND", kind))


def test_a_child_keeps_what_it_writes_when_its_parent_closes_the_file(tmp_path):
    run(tmp_path, {}, "-c", HEAD + CLOSED)


def test_a_child_can_import_what_its_parent_was_importing(tmp_path):
    run(tmp_path, {}, "-c", HEAD + IMPORTING)
