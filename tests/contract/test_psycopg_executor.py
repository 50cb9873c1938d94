"""The executor in examples/, on bare psycopg, keeps the contract, and so does a store on it."""

from __future__ import annotations

import sys
import uuid
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import psycopg
import pytest
from places import make_place
from scale import campaign

from thorn_core import StoreError, Thorn
from thorn_core.plugins import Plugins
from thorn_core.ports import Failure
from thorn_core.stores.sql import SqlStore
from thorn_core.testing.executor_contract import ExecutorContract
from thorn_core.testing.store_contract import StoreContract

FILE = Path(__file__).resolve().parents[2] / "examples" / "psycopg_executor.py"
_spec = spec_from_file_location("psycopg_executor", FILE)
example = sys.modules["psycopg_executor"] = module_from_spec(_spec)
_spec.loader.exec_module(example)


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    for place in make_place("postgresql", tmp_path_factory.mktemp("postgresql")):
        yield place.url.replace("+psycopg", "")


class Impatient(example.PsycopgExecutor):
    options = "-c lock_timeout=300ms"


class ReadOnly(example.PsycopgExecutor):
    options = "-c default_transaction_read_only=on"


class TestExecutorOnPostgresql(ExecutorContract):
    @pytest.fixture(autouse=True)
    def _place(self, url):
        self.url = url

    def make_executor(self):
        return example.PsycopgExecutor(self.url)

    def make_impatient(self):
        return Impatient(self.url)

    def make_read_only(self):
        return ReadOnly(self.url)

    def unit_of_work(self, handle):
        return Plugins(discover=False).unit_of_work(handle)

    def test_a_connection_that_was_lost_is_made_again(self, executor):
        kill = "SELECT pg_terminate_backend(pg_backend_pid())"
        assert self.failure(executor, lambda s: s.rows(kill)) is Failure.LOST
        assert self.kept(executor) == []

    def test_a_thread_that_waits_too_long_is_told(self, executor, monkeypatch):
        pool = executor._pools[-1]
        monkeypatch.setattr(pool, "get", lambda timeout: (_ for _ in ()).throw(example.Empty))
        with pytest.raises(psycopg.OperationalError, match="in use") as caught, executor.reading():
            pass
        assert executor.classify(caught.value) is Failure.LOST
        monkeypatch.undo()


@campaign
class TestStoreOnPostgresql(StoreContract):
    fan_out = 6000

    @pytest.fixture(autouse=True)
    def _place(self, url):
        self.url, self.prefix, self.opened = url, f"t{uuid.uuid4().hex[:8]}_", []
        yield
        for store in self.opened:
            store.close()

    def make_store(self):
        store = self.reopen(None)
        store.create()
        return store

    def reopen(self, store):
        self.opened.append(SqlStore(example.PsycopgExecutor(self.url), prefix=self.prefix))
        return self.opened[-1]


def test_an_app_works_on_postgresql_by_it(url):
    store = SqlStore(example.PsycopgExecutor(url))
    with pytest.raises(StoreError, match="run: thorn --app module:attribute init-db"):
        store.check()
    with Thorn(store=store, dispatcher="outbox") as app:
        assert store.create() is None
        with store.transaction() as transaction:
            transaction.execute("CREATE TABLE orders (number integer)")
            with pytest.raises(ZeroDivisionError), transaction.savepoint():
                app.send("order.paid", {"number": 1}, within=transaction)
                raise ZeroDivisionError
            transaction.execute("INSERT INTO orders VALUES (%s)", [2])
            app.send("order.paid", {"number": 2}, within=transaction)
        assert [message.payload for message in app.messages_to_route()] == [{"number": 2}]


def test_the_guide_shows_it():
    guide = (FILE.parents[1] / "docs" / "extending" / "executor.md").read_text("utf-8")
    assert f"```python\n{FILE.read_text('utf-8')}```" in guide


def test_it_is_short():
    lines = [line.strip() for line in FILE.read_text("utf-8").splitlines()]
    assert len([line for line in lines if line and not line.startswith(("#", '"""'))]) < 80
