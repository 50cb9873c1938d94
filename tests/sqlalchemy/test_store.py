"""The store, by the contract of all stores."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import pytest
from thorn_sqlalchemy import SqlStore

from thorn_core import Subscription
from thorn_core.testing.store_contract import StoreContract


class TestSqlStore(StoreContract):
    @pytest.fixture(autouse=True)
    def _database(self, any_place):
        self.place = any_place
        self.handles: list[SqlStore] = []
        yield
        for handle in self.handles:
            handle.close()

    def make_store(self) -> SqlStore:
        store = SqlStore(self.place.url)
        store.create()
        return store

    def reopen(self, store: SqlStore) -> SqlStore:
        if self.place.kind == "memory":
            return store
        self.handles.append(SqlStore(self.place.url))
        return self.handles[-1]

    def populate(self, store: SqlStore, subscriptions: Iterable[Subscription]) -> None:
        rest = iter(subscriptions)
        while some := list(islice(rest, 1000)):
            store.database.run(lambda c, some=some: store._subscriptions.add_many(c, some))
