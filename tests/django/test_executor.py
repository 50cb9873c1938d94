"""The executor on Django's databases keeps the contract, and what it does with Django's own."""

from __future__ import annotations

import pytest
from django.db import connections

from thorn_core.testing.executor_contract import ExecutorContract
from thorn_django.executor import DjangoExecutor


class DjangoContract(ExecutorContract):
    """The contract on one database, of which threads have no connection open."""

    alias: str

    @pytest.fixture(autouse=True)
    def _place(self, request, _databases):
        request.getfixturevalue(self.fixture)
        connections[self.alias].close()

    def make_executor(self):
        return DjangoExecutor(self.alias)

    def make_impatient(self):
        executor = self.make_executor()
        executor.own.lock_timeout = 0.2
        return executor

    def prepared(self, *statements):
        """An executor whose own connections have run statements."""
        executor = self.make_executor()
        opened = executor.own._opened

        def prepare(connection):
            opened(connection)
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)

        executor.own._opened = prepare
        return executor


class TestSqlite(DjangoContract):
    alias, fixture = "default", "default_alias"

    def make_read_only(self):
        return self.prepared("PRAGMA query_only = 1")

    def make_full(self):
        return self.prepared("PRAGMA max_page_count = 100")


class TestPostgresql(DjangoContract):
    alias, fixture = "postgresql", "postgresql_alias"

    def make_read_only(self):
        return self.prepared("SET default_transaction_read_only = on")


class TestMariadb(DjangoContract):
    alias, fixture = "mariadb", "mariadb_alias"

    def make_read_only(self):
        return self.prepared("SET SESSION TRANSACTION READ ONLY")

    def too_large(self):
        return bytes(DjangoExecutor(self.alias).max_bytes)
