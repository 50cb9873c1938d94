"""Pages far behind in a long list, on MariaDB: they are read from where they begin."""

from __future__ import annotations

import deep_pages
import magazine_project
import pytest

from thorn_django.store import history


@pytest.fixture(scope="module")
def store(_databases):
    from thorn_django.store import DjangoStore

    magazine_project.make_database("mariadb")
    magazine_project.clear_database("mariadb")
    store = DjangoStore("mariadb")
    deep_pages.fill(store)
    yield store
    store.close()
    magazine_project.clear_database("mariadb")


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize("query", deep_pages.QUERIES)
def test_mariadb_goes_straight_to_a_page(store, query, newest_first):
    def status(connection):
        with connection.cursor() as cursor:
            cursor.execute(deep_pages.READ)
            return deep_pages.rows_of(cursor.fetchall())

    def counted(asked, after, limit):
        def work(connection):
            before = status(connection)
            page = history.deliveries(connection, asked, after, limit, newest_first=newest_first)
            return page, status(connection) - before

        return store.database.read(work)

    deep_pages.check_a_page_far_behind(store, query, newest_first, counted)
