"""The executor on sqlite3 keeps the contract, in a file and in memory."""

from __future__ import annotations

import os
import sqlite3

import pytest

from thorn_core import ConfigurationError
from thorn_core.plugins import Plugins
from thorn_core.ports.executor import Failure
from thorn_core.stores.sql import sqlite
from thorn_core.stores.sql.sqlite import SqliteExecutor
from thorn_core.testing.executor_contract import ALL, CONTRACT, ExecutorContract, row


class Limited(SqliteExecutor):
    """Opens connections that are made to fail sooner."""

    def __init__(self, url, limit):
        super().__init__(url)
        self.limit = limit

    def _open(self):
        connection = super()._open()
        self.limit(connection.driver)
        return connection


class Kept(ExecutorContract):
    def unit_of_work(self, handle):
        # Without installed plugins: the core is enough.
        return Plugins(discover=False).unit_of_work(handle)


def no_blobs(driver):
    driver.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1_000_000)


class TestSqliteFile(Kept):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path):
        self.path = tmp_path / "thorn.db"

    def make_executor(self):
        return Limited(f"sqlite:///{self.path}", no_blobs)

    def make_impatient(self):
        return Limited(
            f"sqlite:///{self.path}", lambda driver: driver.execute("PRAGMA busy_timeout = 100")
        )

    def make_read_only(self):
        def query_only(driver):
            driver.execute("PRAGMA query_only = 1")

        return Limited(f"sqlite:///{self.path}", query_only)

    def make_full(self):
        def few_pages(driver):
            driver.execute("PRAGMA max_page_count = 20")

        return Limited(f"sqlite:///{self.path}", few_pages)

    def too_large(self):
        return bytes(1_000_001)

    def test_what_is_committed_outlives_a_power_failure_unless_it_is_bookkeeping(self):
        executor = self.make_executor()
        for durable, synchronous in ((True, 2), (False, 1), (True, 2)):
            with executor.transaction(durable=durable) as connection:
                assert connection.execute("PRAGMA synchronous") == [(synchronous,)]
                assert connection.execute("PRAGMA journal_mode") == [("wal",)]
        executor.close()

    def test_a_transaction_that_has_read_may_write(self, executor):
        other = self.make_impatient()
        with executor.transaction() as connection:
            assert self.statements(executor, connection).rows(ALL) == []
            failure = self.failure(other, lambda s: s.insert(CONTRACT, [row(2)]))
            assert failure is Failure.RETRY
            self.statements(executor, connection).insert(CONTRACT, [row(1)])
        assert self.kept(executor) == [row(1)]
        other.close()

    def test_a_transaction_of_another_executor_on_the_file_is_borrowed(self, executor):
        other = self.make_executor()
        with other.begin() as transaction:
            assert executor.borrow(transaction) is not None
        elsewhere = SqliteExecutor("sqlite://")
        with elsewhere.begin() as transaction:
            assert executor.borrow(transaction) is None
        for each in (other, elsewhere):
            each.close()

    def test_a_connection_that_is_used_while_its_process_forks_is_left_alone(self, executor):
        child = None
        try:
            with executor.transaction() as connection:
                self.statements(executor, connection).insert_fast(CONTRACT, [row(1)])
                executor.before_fork()
                child = os.fork()
                if child == 0:
                    executor.after_fork()
        except ConfigurationError as error:
            os._exit(0 if "forked" in str(error) else 2)
        finally:
            if child == 0:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert self.kept(executor) == [row(1)]


class TestSqliteInMemory(Kept):
    def make_executor(self):
        return Limited("sqlite://", no_blobs)

    def too_large(self):
        return bytes(1_000_001)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite",
        "sqlite:",
        "sqlite:thorn.db",
        "sqlite://thorn.db",
        "sqlite:///a.db?mode=ro",
        "file:///a",
        7,
    ],
)
def test_what_is_no_url_of_a_database_is_refused(url):
    with pytest.raises(ConfigurationError, match="is not"):
        SqliteExecutor(url)


def test_a_relative_path_stays_what_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    executor = SqliteExecutor("sqlite:///thorn.db")
    monkeypatch.chdir("/")
    with executor.transaction() as connection:
        connection.execute("CREATE TABLE a (b)")
    executor.close()
    assert (tmp_path / "thorn.db").exists()


def test_a_savepoint_undoes_what_was_to_be_called_back():
    executor, called = SqliteExecutor("sqlite://"), []
    with executor.begin() as transaction:
        transaction.execute("CREATE TABLE a (b)")
        with transaction.savepoint():
            transaction.execute("INSERT INTO a VALUES (?)", [1])
            transaction.on_commit(lambda: called.append(1))
        with pytest.raises(ZeroDivisionError), transaction.savepoint():
            transaction.execute("INSERT INTO a VALUES (?)", [2])
            transaction.on_commit(lambda: called.append(2))
            raise ZeroDivisionError
        transaction.on_commit(lambda: 1 / 0)
        transaction.on_commit(lambda: called.append(3))
    assert called == [1, 3]
    with executor.reading() as connection:
        assert connection.execute("SELECT b FROM a") == [(1,)]
    executor.close()


def test_a_thread_that_waits_too_long_is_told(monkeypatch):
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT", 0.01)
    executor = SqliteExecutor("sqlite://")
    with executor.transaction():
        for use in (executor.transaction, executor.reading):
            with pytest.raises(sqlite3.OperationalError, match=r"locked|in use"), use():
                pass
    executor.close()
