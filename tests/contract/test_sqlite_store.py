"""The SQL store on SQLite keeps the contract, and lends its transactions to the program."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading

import pytest

from thorn_core import ConfigurationError, Settings, StoreError, StoreSetupError, Thorn
from thorn_core.delivery import make_delivery
from thorn_core.plugins import Plugins
from thorn_core.ports.unit_of_work import IMMEDIATE
from thorn_core.queries import DeliveryQuery
from thorn_core.stores.sql import SqlStore, sqlite_store
from thorn_core.testing.store_contract import (
    LEASE,
    NOW,
    StoreContract,
    make_message,
    make_subscription,
)
from thorn_core.values import Routing


class TestInMemory(StoreContract):
    fan_out = 6000

    def make_store(self):
        return sqlite_store("sqlite://")


class TestFile(StoreContract):
    fan_out = 6000

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path):
        self.url = f"sqlite:///{tmp_path}/thorn.db"

    def make_store(self):
        return sqlite_store(self.url)

    def reopen(self, store):
        return sqlite_store(self.url)


@pytest.fixture(params=["memory", "file"])
def store(request, tmp_path):
    place = "" if request.param == "memory" else f"/{tmp_path}/thorn.db"
    store = sqlite_store(f"sqlite://{place}")
    yield store
    store.close()


def test_an_event_is_sent_with_the_rows_of_its_transaction(store):
    woken = []
    store.on_work(lambda: woken.append(store.message(make_message(1).id)))
    with store.transaction() as transaction:
        transaction.execute("CREATE TABLE orders (number INTEGER)")
    with store.transaction() as transaction:
        transaction.execute("INSERT INTO orders VALUES (?)", [7])
        store.publish([make_message(1)], within=transaction)
        assert not woken
    assert woken == [make_message(1)]
    with pytest.raises(ZeroDivisionError), store.transaction() as transaction:
        transaction.execute("INSERT INTO orders VALUES (?)", [8])
        store.publish([make_message(2)], within=transaction)
        raise ZeroDivisionError
    with store.transaction() as transaction:
        assert transaction.execute("SELECT number FROM orders") == [(7,)]
        with pytest.raises(ZeroDivisionError), transaction.savepoint():
            store.publish([make_message(3)], within=transaction)
            raise ZeroDivisionError
    assert [store.message(make_message(n).id) for n in (2, 3)] == [None, None]
    assert len(woken) == 1
    with pytest.raises(ConfigurationError, match="has ended"):
        store.publish([make_message(4)], within=transaction)


def test_a_transaction_of_the_program_locks_the_store(store):
    with store.transaction() as transaction:
        assert store.locked_by(transaction)
    assert not store.locked_by(sqlite_store("sqlite://").transaction)


def test_a_forked_child_works_on_its_own(store):
    def deliver(number):
        message, subscription = make_message(number), make_subscription(1)
        store.publish([message], within=IMMEDIATE)
        delivery = make_delivery(message, subscription, NOW)
        store.route([Routing(message=message, deliveries=[delivery])])
        options = {"lease": LEASE, "limit": 9, "token": "t", "per_recipient": 9, "busy": {}}
        assert len(store.claim(now=NOW, **options)) == 1

    deliver(1)
    store.before_fork()
    child = os.fork()
    if child == 0:
        code = 9
        with contextlib.suppress(BaseException):
            store.after_fork()
            deliver(2)
            code = store.count(DeliveryQuery())
        os._exit(code)
    there = 2 if store.shared else 1
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == there
    assert store.count(DeliveryQuery()) == there


def test_the_first_users_at_once_create_the_tables(tmp_path):
    start, failures = threading.Barrier(6), []
    stores = [sqlite_store(f"sqlite:///{tmp_path}/thorn.db") for _ in range(6)]

    def use(store):
        start.wait()
        try:
            assert store.count(DeliveryQuery()) == 0
        except Exception as failure:
            failures.append(failure)

    threads = [threading.Thread(target=use, args=[store]) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    for store in stores:
        store.check()
        assert store.create() == "0001"
        store.close()


def test_what_is_wrong_with_the_tables_is_said(tmp_path):
    path = tmp_path / "thorn.db"
    store = sqlite_store(f"sqlite:///{path}")
    store.check()
    store.close()
    with sqlite3.connect(path) as driver:
        driver.execute("ALTER TABLE thorn_outbox RENAME COLUMN tries TO attempts")
    driver.close()
    for use in (store.check, lambda: store.publish([make_message()], within=IMMEDIATE)):
        with pytest.raises(StoreSetupError, match=r"thorn_outbox in .* has no column tries"):
            use()
    store.close()
    with sqlite3.connect(path) as driver:
        driver.execute("DROP TABLE thorn_messages")
    driver.close()
    other = sqlite_store(f"sqlite:///{path}")
    with pytest.raises(StoreError, match="thorn_messages"):
        other.check()
    other.close()


def test_a_folder_that_is_not_there_is_named(tmp_path):
    store = sqlite_store(f"sqlite:///{tmp_path}/none/thorn.db")
    with pytest.raises(StoreError, match=r"none/thorn\.db can't be used: .*; create its directory"):
        store.check()


def test_an_app_finds_it_by_the_url(tmp_path):
    made = Plugins(discover=False).store(f"sqlite:///{tmp_path}/thorn.db", Settings())
    assert isinstance(made, SqlStore)
    with Thorn(store=made, dispatcher="outbox") as app:
        with made.transaction() as transaction:
            receipt = app.send("order.paid", {"number": 7}, within=transaction)
        assert app.message(receipt.message.id).payload == {"number": 7}
