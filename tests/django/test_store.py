"""The store, by the contract of all stores."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import islice

import pytest
from django.db import connections, transaction
from django.test import override_settings
from scale import size

from thorn_core import Subscription
from thorn_core.stores.sql.schema import TABLES
from thorn_core.testing.store_contract import (
    LEASE,
    NOW,
    StoreContract,
    make_message,
    make_subscription,
)


class TestDjangoStore(StoreContract):
    fan_out = size(6000, short=20_000, long=200_000)

    @pytest.fixture(autouse=True)
    def _database(self, alias):
        self.alias = alias
        self.handles = []
        yield
        for handle in self.handles:
            handle.close()

    def make_store(self):
        from thorn_django.store import DjangoStore

        return DjangoStore(self.alias)

    def reopen(self, store):
        self.handles.append(self.make_store())
        return self.handles[-1]

    def populate(self, store, subscriptions: Iterable[Subscription]) -> None:
        rest = iter(subscriptions)
        while some := list(islice(rest, 1000)):
            store.database.run(lambda s, some=some: store._subscriptions.add_many(s, some))


class TestDjangoStoreOnTheThreadsConnection(TestDjangoStore):
    """As in a request: the thread's connection is open, and the store works on it."""

    fan_out = 3000
    fan_out_memory = None

    @pytest.fixture(autouse=True)
    def _database(self, default_alias):
        self.alias, self.handles = default_alias, []
        connections[default_alias].ensure_connection()
        yield
        assert connections[default_alias].connection is not None
        for handle in self.handles:
            handle.close()


class TestDjangoStoreInATransaction(TestDjangoStoreOnTheThreadsConnection):
    """As in a TestCase: a transaction is open, and all that the store does belongs to it."""

    test_two_claimers_at_once_never_get_the_same = None
    test_threads_may_publish_at_once = None
    test_of_keyed_messages_at_once_one_is_the_first = None
    test_no_change_undoes_another = None
    test_a_change_does_not_undo_what_a_worker_writes = None

    @pytest.fixture(autouse=True)
    def _transaction(self, _database):
        with transaction.atomic(using=self.alias):
            yield
            transaction.set_rollback(True, using=self.alias)
        store = self.make_store()
        assert store.stats(now=NOW, window=LEASE).messages == 0
        store.close()


# -- connections


def test_a_store_is_in_whichever_database_its_alias_has(server_alias):
    from magazine_project import administered

    from thorn_django.store import DjangoStore
    from thorn_django.tables import wording_of

    settings, store = connections[server_alias].settings_dict, DjangoStore(server_alias)
    assert store.stats(now=NOW, window=LEASE).messages == 0
    first, second = settings["NAME"], f"{settings['NAME']}_run"
    with administered(server_alias) as cursor:
        cursor.execute(f"CREATE DATABASE {second}")
        try:
            connections[server_alias].close()
            # As Django's test runner does.
            settings["NAME"] = second
            with connections[server_alias].cursor() as there:
                for statement in wording_of(store.executor.dialect).ddl(TABLES):
                    there.execute(statement)
            with transaction.atomic(using=server_alias):
                store.publish([make_message(1)], within=store.unit_of_work())
            store.publish([make_message(2)], within=store.unit_of_work())
            assert store.stats(now=NOW, window=LEASE).messages == 2
            connections[server_alias].close()
            settings["NAME"] = first
            assert store.stats(now=NOW, window=LEASE).messages == 0
        finally:
            settings["NAME"] = first
            store.close()
            connections[server_alias].close()
            cursor.execute(f"DROP DATABASE {second}")


# -- fields


def test_times_are_kept_to_the_microsecond(alias):
    from django.db.models import Max, Min

    from thorn_django.models import Recipient

    exact = [
        datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2026, 3, 1, 12, 0, 0, 123457, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    ]
    for use_tz in (True, False):
        with override_settings(USE_TZ=use_tz):
            rows = Recipient._base_manager.using(alias)
            rows.all().delete()
            for number, at in enumerate(exact):
                rows.create(
                    id=number,
                    subscription_id=str(number),
                    origin="",
                    ready_at=at,
                    paused=False,
                    blocked_until=at,
                    circuit=0,
                )
            assert [row.ready_at for row in rows.order_by("ready_at")] == exact
            assert list(rows.filter(ready_at=exact[1]).values_list("pk", flat=True)) == [1]
            assert rows.filter(ready_at__gt=exact[1]).count() == 1
            assert rows.aggregate(a=Min("ready_at"), b=Max("ready_at")) == {
                "a": exact[0],
                "b": exact[2],
            }
            with connections[alias].cursor() as cursor:
                cursor.execute("SELECT ready_at FROM thorn_recipients WHERE id = 1")
                assert cursor.fetchone() == (1772366400123457,)


def test_rows_travel_through_djangos_serializers(default_alias):
    from django.core import serializers

    from thorn_django.models import Subscription
    from thorn_django.store import DjangoStore

    # Django's serializers write times to the millisecond.
    at = NOW.replace(microsecond=123000)
    full = make_subscription(
        secrets=("whsec_x",),
        headers={"X-A": "1"},
        secret_expiry={"whsec_x": NOW},
        rate_limit=0.5,
        created_at=at,
        updated_at=at,
    )
    store = DjangoStore(default_alias)
    store.add_subscription(full)
    text = serializers.serialize("json", Subscription.objects.all())
    Subscription.objects.all().delete()
    for restored in serializers.deserialize("json", text):
        restored.save()
    assert store.subscription(full.id) == full
    store.close()
