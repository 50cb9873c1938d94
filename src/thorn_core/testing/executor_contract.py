"""The contract of executors, as tests: subclass it to test your own executor."""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import pytest

from thorn_core.errors import ConfigurationError
from thorn_core.plugins import Plugins
from thorn_core.ports.executor import Executor, Failure
from thorn_core.ports.tables import Column, Index, Kind, Table
from thorn_core.ports.unit_of_work import IMMEDIATE, UnitOfWork
from thorn_core.stores.sql.database import Database
from thorn_core.stores.sql.statements import Statements
from thorn_core.stores.sql.wording import Wording

T = TypeVar("T")
PATIENCE = 30.0
CONTRACT = Table(
    "contract",
    (
        Column("id", Kind.KEY, 8),
        Column("name", Kind.NAME, 40),
        Column("data", Kind.BYTES, null=True),
        Column("at", Kind.BIG),
        Column("number", Kind.INT),
        Column("state", Kind.SMALL),
        Column("rate", Kind.REAL, null=True),
        Column("note", Kind.TEXT, null=True),
    ),
    key=("id",),
    indexes=(Index(("name", "id")),),
)
NAMES = ", ".join(CONTRACT.names)
ALL = f"SELECT {NAMES} FROM $contract ORDER BY id"
COUNT = "SELECT count(*) FROM $contract"


def key(number: int) -> bytes:
    """Return a row's key; keys may contain any byte."""
    return b"\x00\xff\x80'" + number.to_bytes(4, "big")


def row(index: int, /, **changes: Any) -> tuple[Any, ...]:
    """Return a row; its key derives from the index."""
    made = {
        "id": key(index), "name": f"n{index}", "data": b"\x00\xff", "at": 1, "number": 0,
        "state": 0, "rate": None, "note": None, **changes,
    }  # fmt: skip
    return tuple(made[name] for name in CONTRACT.names)


class RefusedError(Exception):
    """Raised by a test inside a transaction."""


class ExecutorContract:
    """The requirements of every executor.

    Subclass it in a test module and override `make_executor`. Override the other `make_…` methods
    and `too_large` for further tests::

        class TestMyExecutor(ExecutorContract):
            def make_executor(self): return MyExecutor("my://")
    """

    def make_executor(self) -> Executor:
        """Create an executor for an empty database, the same one for all calls in a test."""
        return pytest.fail("a subclass makes its executor here")

    def make_impatient(self) -> Executor:
        """Create one for the same database that waits at most half a second for locks."""
        return pytest.skip("no executor that gives up early")

    def make_read_only(self) -> Executor:
        """Create one for the same database that must not write."""
        return pytest.skip("no read-only executor")

    def make_full(self) -> Executor:
        """Create one for the same database with less than a mebibyte of free space."""
        return pytest.skip("no full database")

    def too_large(self) -> bytes:
        """Return data that is too large for a statement or a value."""
        return pytest.skip("nothing is too large")

    def unit_of_work(self, handle: Any) -> UnitOfWork:
        """Return the unit of work of a handle from `begin`."""
        return Plugins(discover=True).unit_of_work(handle)

    @pytest.fixture
    def executor(self) -> Iterator[Executor]:
        """Yield an executor whose database has the tests' table."""
        executor = self.make_executor()
        database = self.database(executor)
        database.run(lambda s: s.rows("DROP TABLE IF EXISTS $contract"))
        database.run(lambda s: s.create([CONTRACT]))
        yield executor
        executor.close()
        executor.close()

    def database(self, executor: Executor) -> Database:
        """Return the database of an executor."""
        return Database(executor, Wording(executor.dialect, executor.placeholder, "thorn_", None))

    def statements(self, executor: Executor, connection: Any) -> Statements:
        """Yield statements on a connection."""
        return Statements(connection, self.database(executor).wording)

    def insert(self, executor: Executor, *rows: Sequence[Any]) -> None:
        """Insert rows in a transaction."""
        with executor.transaction() as connection:
            self.statements(executor, connection).insert(CONTRACT, rows)

    def kept(self, executor: Executor) -> list[tuple[Any, ...]]:
        """Return all rows."""
        with executor.reading() as connection:
            return self.statements(executor, connection).rows(ALL)

    def failure(self, executor: Executor, work: Callable[[Statements], Any]) -> Failure | None:
        """Return the meaning of an error inside a transaction."""
        try:
            with executor.transaction() as connection:
                work(self.statements(executor, connection))
        except Exception as error:
            return executor.classify(error)
        return pytest.fail("nothing was raised")

    # -- attributes

    def test_it_is_an_executor(self, executor: Executor) -> None:
        assert isinstance(executor, Executor)
        assert executor.dialect in ("postgresql", "mysql", "sqlite")
        assert executor.placeholder in ("%s", "?", "$")
        assert executor.max_bytes >= 1024 * 1024
        assert executor.place
        assert executor.way_out

    # -- values

    def test_values_come_back_as_they_were(self, executor: Executor) -> None:
        rows = [
            row(1, name="Hé 🎉 ", data=bytes(range(256)), at=2**63 - 1, number=2**31 - 1, state=1),
            row(
                2, name=" a\\%_'\"?:x$1", data=b"", at=-(2**63), number=-(2**31), state=-1, rate=0.1
            ),
            row(3, name="", data=None, rate=-1e300, note='%s {"a": 1}\n' * 1000),
        ]
        self.insert(executor, *rows)
        kept = self.kept(executor)
        assert kept == rows
        for each in kept:
            assert type(each) is tuple
            assert {type(value) for value in each} <= {bytes, str, int, float, type(None)}

    def test_bytes_are_bytes_after_a_row_without_them(self, executor: Executor) -> None:
        self.insert(executor, row(1, data=None), row(2, data=b"\x00a"))
        with executor.reading() as connection:
            statements = self.statements(executor, connection)
            rows = statements.rows("SELECT data FROM $contract ORDER BY id")
        assert rows == [(None,), (b"\x00a",)]
        assert type(rows[1][0]) is bytes

    def test_names_are_compared_by_code_points(self, executor: Executor) -> None:
        names = ["a", "a ", "A", "á", "Z", "🎉", "z"]
        self.insert(executor, *(row(n, name=name) for n, name in enumerate(names)))
        with executor.reading() as connection:
            statements = self.statements(executor, connection)
            ordered = statements.rows("SELECT name FROM $contract ORDER BY name")
            assert [name for (name,) in ordered] == sorted(names)
            assert statements.rows(f"{COUNT} WHERE name = :name.name", name="a") == [(1,)]

    def test_rows_are_inserted_in_bulk(self, executor: Executor) -> None:
        rows = [row(n, data=None if n % 2 else bytes(n), note="\\N\t\n") for n in range(1, 1500)]
        with executor.transaction() as connection:
            self.statements(executor, connection).insert_fast(CONTRACT, rows)
        assert self.kept(executor) == rows

    def test_a_statement_runs_for_each_of_many_parameters(self, executor: Executor) -> None:
        self.insert(executor, *(row(n) for n in range(300)))
        change = "UPDATE $contract SET number = :number.int WHERE id = :id.key"
        with executor.transaction() as connection:
            statements = self.statements(executor, connection)
            statements.each(change, [{"id": key(n), "number": n} for n in range(300)])
        assert [number for _, _, _, _, number, *_ in self.kept(executor)] == list(range(300))

    def test_changed_rows_are_those_that_matched(self, executor: Executor) -> None:
        self.insert(executor, row(1), row(2), row(3, number=1))
        with executor.transaction() as connection:
            statements = self.statements(executor, connection)
            same = "UPDATE $contract SET number = 1 WHERE number = :was.int"
            assert statements.change(same, was=0) == 2
            assert statements.change(same, was=1) == 3
            assert statements.change(same, was=7) == 0
            assert statements.change("DELETE FROM $contract WHERE id = :id.key", id=key(2)) == 1

    def test_rows_are_changed_to_values_of_their_own(self, executor: Executor) -> None:
        self.insert(executor, *(row(n) for n in range(300)))
        given = tuple(CONTRACT.column(name) for name in ("id", "at", "note"))
        with executor.transaction() as connection:
            self.statements(executor, connection).update(
                CONTRACT, given, [(key(n), n, None if n % 2 else "é") for n in range(0, 300, 3)],
                "at = v.at + t.number, note = v.note", " AND t.number = 0",
            )  # fmt: skip
        kept = {each[0]: (each[3], each[7]) for each in self.kept(executor)}
        assert [kept[key(n)] for n in (0, 1, 3, 6)] == [(0, "é"), (1, None), (3, None), (6, "é")]

    def test_rows_are_inserted_or_changed(self, executor: Executor) -> None:
        self.insert(executor, row(1, number=5))
        with executor.transaction() as connection:
            statements = self.statements(executor, connection)
            statements.insert(CONTRACT, [row(1, number=9), row(2)], ignoring=True)
            change = "number = new.number, note = new.note"
            statements.upsert(CONTRACT, [row(2, number=7, note="b"), row(3)], change)
        assert [each[4] for each in self.kept(executor)] == [5, 7, 0]

    # -- transactions

    def test_a_transaction_is_kept_or_undone(self, executor: Executor) -> None:
        for durable in (True, False):
            with executor.transaction(durable=durable) as connection:
                self.statements(executor, connection).insert(CONTRACT, [row(int(durable))])
            with pytest.raises(RefusedError), executor.transaction(durable=durable) as connection:
                self.statements(executor, connection).insert_fast(CONTRACT, [row(7)])
                raise RefusedError
        with pytest.raises(KeyboardInterrupt), executor.transaction() as connection:
            self.statements(executor, connection).insert(CONTRACT, [row(8)])
            raise KeyboardInterrupt
        assert self.kept(executor) == [row(0), row(1)]

    def test_a_transaction_goes_on_after_nothing_but_success(self, executor: Executor) -> None:
        self.insert(executor, row(1))

        def work(statements: Statements) -> None:
            statements.insert(CONTRACT, [row(2)])
            statements.insert_fast(CONTRACT, [row(3), row(1)])

        assert self.failure(executor, work) is Failure.DUPLICATE
        assert self.kept(executor) == [row(1)]

    def test_a_reader_sees_what_is_committed(self, executor: Executor) -> None:
        if executor.embedded:
            pytest.skip("readers wait for the writer")
        self.insert(executor, row(1))
        with executor.transaction() as connection:
            self.statements(executor, connection).insert(CONTRACT, [row(2)])
            assert self.kept(executor) == [row(1)]
        assert self.kept(executor) == [row(1), row(2)]

    def test_a_transaction_waits_for_another_s_rows(self, executor: Executor) -> None:
        self.insert(executor, row(1))
        add = "UPDATE $contract SET number = number + 1 WHERE id = :id.key"
        database = self.database(executor)

        def count() -> None:
            for _ in range(25):
                assert database.run(lambda s: s.change(add, id=key(1)), durable=False) == 1

        self.at_once([count] * 4)
        assert self.kept(executor) == [row(1, number=100)]

    def test_each_sees_what_the_others_have_committed(self, executor: Executor) -> None:
        self.insert(executor, row(1))
        other = self.make_executor()
        if executor.embedded or executor.dialect == "sqlite":
            pytest.skip("one writes at a time")
        with executor.transaction() as connection:
            statements = self.statements(executor, connection)
            assert statements.rows(COUNT) == [(1,)]
            self.insert(other, row(2))
            assert statements.rows(COUNT) == [(2,)]
        other.close()

    def at_once(self, functions: Sequence[Callable[[], None]]) -> None:
        """Call functions in threads; re-raise an exception of any of them."""
        failures: list[BaseException] = []

        def call(function: Callable[[], None]) -> None:
            try:
                function()
            except BaseException as failure:
                failures.append(failure)

        threads = [threading.Thread(target=call, args=[each]) for each in functions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        if failures:
            raise failures[0]

    # -- errors

    def test_errors_are_classified(self, executor: Executor) -> None:
        self.insert(executor, row(1))
        works: dict[Failure, list[Callable[[Statements], Any]]] = {
            Failure.DUPLICATE: [
                lambda s: s.insert(CONTRACT, [row(1)]),
                lambda s: s.insert_fast(CONTRACT, [row(2), row(1)]),
            ],
            Failure.MISSING: [
                lambda s: s.rows("SELECT 1 FROM $nowhere"),
                lambda s: s.change("UPDATE $contract SET lacking = 1"),
                lambda s: s.rows("INSERT INTO $contract (lacking) VALUES (1)"),
            ],
            Failure.DATA: [
                lambda s: s.insert(CONTRACT, [row(3, note="\ud800")]),
                lambda s: s.insert(CONTRACT, [row(3, at=2**63)]),
                lambda s: s.insert(CONTRACT, [row(3, name=None)]),
            ],
            Failure.OTHER: [lambda s: s.rows("SELEC 1")],
        }
        for failure, some in works.items():
            for number, work in enumerate(some):
                assert self.failure(executor, work) is failure, (failure, number)
        assert self.kept(executor) == [row(1)]
        assert executor.classify(ValueError("no database's")) is None

    def test_a_nul_is_kept_or_refused(self, executor: Executor) -> None:
        try:
            self.insert(executor, row(1, note="a\0b"))
        except Exception as error:
            assert executor.classify(error) is Failure.DATA
        else:
            assert self.kept(executor) == [row(1, note="a\0b")]

    def test_what_is_too_long_is_kept_or_refused(self, executor: Executor) -> None:
        try:
            self.insert(executor, row(1, name="n" * 41))
        except Exception as error:
            assert executor.classify(error) is Failure.DATA
        else:
            assert self.kept(executor) == [row(1, name="n" * 41)]

    def test_what_is_too_large_is_refused(self, executor: Executor) -> None:
        data = self.too_large()
        work: Callable[[Statements], Any] = lambda s: s.insert(CONTRACT, [row(1, data=data)])  # noqa: E731
        assert self.failure(executor, work) is Failure.TOO_LARGE
        self.insert(executor, row(1))
        assert self.kept(executor) == [row(1)]

    def test_a_lock_that_is_not_had_in_time_is_tried_again(self, executor: Executor) -> None:
        self.insert(executor, row(1))
        change = "UPDATE $contract SET number = 1 WHERE id = :id.key"
        impatient = self.make_impatient()
        with executor.transaction() as connection:
            self.statements(executor, connection).change(change, id=key(1))
            assert self.failure(impatient, lambda s: s.change(change, id=key(1))) is Failure.RETRY
        with impatient.transaction() as connection:
            assert self.statements(impatient, connection).change(change, id=key(1)) == 1
        impatient.close()

    def test_a_read_only_database_is_read(self, executor: Executor) -> None:
        self.insert(executor, row(1))
        with self.other(executor, self.make_read_only()) as reader:
            failure = self.failure(reader, lambda s: s.insert(CONTRACT, [row(2)]))
            assert failure is Failure.READ_ONLY
            assert self.kept(reader) == [row(1)]

    def test_a_full_database_says_so(self, executor: Executor) -> None:
        self.insert(executor, row(1))
        with self.other(executor, self.make_full()) as full:
            large = row(2, data=bytes(1024 * 1024))
            assert self.failure(full, lambda s: s.insert(CONTRACT, [large])) is Failure.FULL
            assert self.kept(full) == [row(1)]

    @contextlib.contextmanager
    def other(self, executor: Executor, other: Executor) -> Iterator[Executor]:
        """Yield another executor for the same database, and close it at the end."""
        executor.close()
        try:
            yield other
        finally:
            other.close()

    # -- the program's transactions

    def test_the_program_s_transaction_holds_what_is_written_in_it(
        self, executor: Executor
    ) -> None:
        called: list[str] = []
        with executor.begin() as handle:
            unit = self.unit_of_work(handle)
            assert unit.open
            connection = executor.borrow(unit)
            assert connection is not None
            statements = self.statements(executor, connection)
            statements.insert(CONTRACT, [row(1)])
            assert statements.rows(ALL) == [row(1)]
            # The executor's own transactions begin after the program's transaction has ended.
            unit.on_commit(lambda: called.append("one"))
            unit.on_commit(lambda: self.insert(executor, row(2)))
            assert not called
        assert called == ["one"]
        assert self.kept(executor) == [row(1), row(2)]

    def test_the_program_s_transaction_is_undone_with_what_it_holds(
        self, executor: Executor
    ) -> None:
        called: list[str] = []
        with pytest.raises(RefusedError), executor.begin() as handle:
            unit = self.unit_of_work(handle)
            connection = executor.borrow(unit)
            assert connection is not None
            self.statements(executor, connection).insert(CONTRACT, [row(1)])
            unit.on_commit(lambda: called.append("one"))
            raise RefusedError
        assert not called
        assert self.kept(executor) == []

    def test_what_is_elsewhere_is_not_borrowed(self, executor: Executor) -> None:
        assert executor.borrow(IMMEDIATE) is None

    def test_a_transaction_that_is_over_is_not_borrowed(self, executor: Executor) -> None:
        with executor.begin() as handle:
            unit = self.unit_of_work(handle)
        # A unit of work whose transaction has ended counts as none until it begins again.
        with contextlib.suppress(ConfigurationError):
            assert executor.borrow(unit) is None
            assert not unit.open

    # -- life cycle

    def test_it_can_be_used_after_it_was_closed(self, executor: Executor) -> None:
        if executor.embedded:
            pytest.skip("that ends the database")
        self.insert(executor, row(1))
        executor.close()
        assert self.kept(executor) == [row(1)]

    def test_a_forked_child_works_on_connections_of_its_own(self, executor: Executor) -> None:
        if executor.embedded:
            pytest.skip("a child has another database")
        self.insert(executor, row(1))
        executor.before_fork()
        child = os.fork()
        if child == 0:
            code = 1
            with contextlib.suppress(BaseException):
                executor.after_fork()
                self.insert(executor, row(2))
                code = 0 if len(self.kept(executor)) == 2 else 2
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        self.insert(executor, row(3))
        assert self.kept(executor) == [row(1), row(2), row(3)]

    def test_a_listener_hears_of_a_notification(self, executor: Executor) -> None:
        listening = executor.listening("thorn_contract")
        if listening is None:
            pytest.skip("one has to poll")
        with listening as driver:
            notify = "SELECT pg_notify(:channel.text, '')"
            self.database(executor).run(lambda s: s.rows(notify, channel="thorn_contract"))
            assert select.select([driver], [], [], PATIENCE)[0]
