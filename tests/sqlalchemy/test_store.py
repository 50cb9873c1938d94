"""The store, by the contract of all stores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import pytest
from places import Place, make_place
from scale import size

from thorn_core import Subscription
from thorn_core.testing.store_contract import StoreContract
from thorn_sqlalchemy import SqlStore


@pytest.fixture(scope="module", params=["memory", "sqlite", "postgresql", "mariadb"])
def shared_place(request, tmp_path_factory) -> Iterator[Place]:
    """Any database, for all tests of this module: each begins with empty tables."""
    yield from make_place(request.param, tmp_path_factory.mktemp(request.param))


class TestSqlStore(StoreContract):
    fan_out = size(6000, short=20_000, long=200_000)

    @pytest.fixture(autouse=True)
    def _database(self, shared_place):
        self.place = shared_place
        self.handles: list[SqlStore] = []
        yield
        for handle in self.handles:
            handle.close()

    def make_store(self) -> SqlStore:
        store = SqlStore(self.place.url)
        store.create()
        with store.transaction() as connection:
            for table in store.tables.all():
                connection.execute(table.delete())
        return store

    def reopen(self, store: SqlStore) -> SqlStore:
        if self.place.kind == "memory":
            return store
        self.handles.append(SqlStore(self.place.url))
        return self.handles[-1]

    def populate(self, store: SqlStore, subscriptions: Iterable[Subscription]) -> None:
        rest = iter(subscriptions)
        while some := list(islice(rest, 1000)):
            store.database.run(lambda s, some=some: store._subscriptions.add_many(s, some))
