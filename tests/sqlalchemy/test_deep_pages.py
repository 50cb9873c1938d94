"""Pages far behind in a long list, on MariaDB: they are read from where they begin."""

from __future__ import annotations

import deep_pages
import pytest
from places import make_place
from sqlalchemy import text

from thorn_sqlalchemy import SqlStore


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    for place in make_place("mariadb", tmp_path_factory.mktemp("mariadb")):
        store = SqlStore(place.url)
        store.create()
        deep_pages.fill(store)
        yield store
        store.close()


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize("query", deep_pages.QUERIES)
def test_mariadb_goes_straight_to_a_page(store, query, newest_first):
    def counted(asked, after, limit):
        def work(connection):
            before = deep_pages.rows_of(connection.execute(text(deep_pages.READ)))
            page = store._history.deliveries(
                connection, asked, after, limit, newest_first=newest_first
            )
            return page, deep_pages.rows_of(connection.execute(text(deep_pages.READ))) - before

        return store.database.read(work)

    deep_pages.check_a_page_far_behind(store, query, newest_first, counted)
