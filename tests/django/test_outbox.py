"""The outbox: what is sent in a transaction shares its fate."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import suppress
from datetime import timedelta

import attrs
import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import DatabaseError, IntegrityError, connection, connections, transaction
from django.db.backends.signals import connection_created
from django.db.transaction import TransactionManagementError
from django_outbox import Abandoned, Recorder, abandoned, number_of, world_at

from thorn_core import (
    ConfigurationError,
    Event,
    Settings,
    StoreError,
    StoreSetupError,
    Thorn,
    buffer_events,
)
from thorn_core.keys import new_id
from thorn_core.testing import LocalRecipient

LEASE = timedelta(seconds=60)
LOCAL = Settings(allowed_networks=["127.0.0.0/8"], allowed_ports=range(1, 65536))


@pytest.fixture
def world(alias):
    with world_at(alias) as world:
        yield world


@pytest.fixture
def sqlite_world(default_alias):
    with world_at(default_alias) as world:
        yield world


def tags():
    from magazine.models import Tag

    return sorted(tag.pk for tag in Tag.objects.all())


def add_tag(pk):
    from magazine.models import Tag

    Tag.objects.create(pk=pk, name=str(pk))


def unsaid(alias):
    return None


def by_alias(alias):
    return alias


def by_connection(alias):
    return connections[alias]


HANDLES = pytest.mark.parametrize(
    "within", [unsaid, by_alias, by_connection], ids=lambda f: f.__name__
)


@HANDLES
def test_what_is_sent_in_a_transaction_is_there_and_told_when_it_has_committed(world, within):
    with transaction.atomic(using=world.alias):
        add_tag(1)
        for number in (1, 2):
            world.send(number, within(world.alias))
        assert world.told == []
        assert world.kept() == []
    assert world.told == [1, 2]
    assert world.kept() == [1, 2]
    assert tags() == [1]


@HANDLES
def test_what_is_sent_in_a_transaction_that_is_rolled_back_never_existed(world, within):
    with abandoned(), transaction.atomic(using=world.alias):
        add_tag(1)
        world.send(1, within(world.alias))
        raise Abandoned
    assert (world.told, world.kept(), tags()) == ([], [], [])


def test_a_statement_that_fails_takes_the_message_with_it(world):
    with pytest.raises(IntegrityError), transaction.atomic(using=world.alias):
        world.send(1)
        add_tag(1)
        add_tag(1)
    assert (world.told, world.kept(), tags()) == ([], [], [])


@HANDLES
def test_without_a_transaction_it_is_sent_at_once(world, within):
    world.send(1, within(world.alias))
    assert (world.told, world.kept()) == ([1], [1])


def test_the_threads_connection_serves_if_it_is_open(alias):
    opened = []

    def note(connection, **_):
        opened.append(threading.current_thread())

    connections[alias].ensure_connection()
    with world_at(alias) as world:
        connection_created.connect(note)
        try:
            world.send(1)
            # PostgreSQL notifies from another one.
            assert threading.current_thread() not in opened
            connections[alias].close()
            for number in (2, 3):
                world.send(number)
            # None, if the one that notified is free by now.
            assert opened.count(threading.current_thread()) <= 1
            assert connections[alias].connection is None
        finally:
            connection_created.disconnect(note)
        assert world.kept() == [1, 2, 3]


# -- savepoints


def released(send, block):
    send(1)
    with block():
        send(2)
    send(3)
    return [1, 2, 3]


def rolled_back(send, block):
    send(1)
    with abandoned(), block():
        send(2)
        raise Abandoned
    send(3)
    return [1, 3]


def released_in_one_that_is_rolled_back(send, block):
    send(1)
    with abandoned(), block():
        send(2)
        with block():
            send(3)
        send(4)
        raise Abandoned
    with block():
        send(5)
    return [1, 5]


def rolled_back_in_one_that_is_released(send, block):
    with block():
        send(1)
        with abandoned(), block():
            send(2)
            raise Abandoned
        send(3)
    return [1, 3]


def one_after_the_other(send, block):
    for number in range(1, 7):
        with abandoned(), block():
            send(number)
            if number % 2:
                raise Abandoned
    return [2, 4, 6]


SCENARIOS = pytest.mark.parametrize(
    "scenario",
    [
        released,
        rolled_back,
        released_in_one_that_is_rolled_back,
        rolled_back_in_one_that_is_released,
        one_after_the_other,
    ],
    ids=lambda f: f.__name__,
)


@SCENARIOS
def test_savepoints_keep_what_is_released(world, scenario):
    with transaction.atomic(using=world.alias):
        wanted = scenario(world.send, lambda: transaction.atomic(using=world.alias))
        assert world.told == []
    assert (world.told, world.kept()) == (wanted, wanted)


@SCENARIOS
def test_savepoints_of_a_transaction_that_is_rolled_back_keep_nothing(world, scenario):
    with abandoned(), transaction.atomic(using=world.alias):
        scenario(world.send, lambda: transaction.atomic(using=world.alias))
        raise Abandoned
    assert (world.told, world.kept()) == ([], [])


@SCENARIOS
def test_a_buffer_around_savepoints_keeps_what_is_released(world, scenario):
    with buffer_events(), transaction.atomic(using=world.alias):
        wanted = scenario(world.send, lambda: transaction.atomic(using=world.alias))
    assert (world.told, world.kept()) == (wanted, wanted)


@SCENARIOS
def test_a_buffer_inside_a_transaction_keeps_what_is_released(world, scenario):
    with transaction.atomic(using=world.alias), buffer_events():
        wanted = scenario(world.send, lambda: transaction.atomic(using=world.alias))
    assert (world.told, world.kept()) == (wanted, wanted)


def test_a_block_without_a_savepoint_takes_the_whole_with_it(world):
    with pytest.raises(TransactionManagementError), transaction.atomic(using=world.alias):
        world.send(1)
        with abandoned(), transaction.atomic(using=world.alias, savepoint=False):
            world.send(2)
            raise Abandoned
        world.send(3)
    assert (world.told, world.kept()) == ([], [])


def test_a_durable_block_is_as_any_other(world):
    with transaction.atomic(using=world.alias, durable=True):
        world.send(1)
    with abandoned(), transaction.atomic(using=world.alias, durable=True):
        world.send(2)
        raise Abandoned
    assert (world.told, world.kept()) == ([1], [1])


def test_a_transaction_that_is_marked_for_rollback_sends_nothing(world):
    with transaction.atomic(using=world.alias):
        world.send(1)
        transaction.set_rollback(True, using=world.alias)
    assert (world.told, world.kept()) == ([], [])


# -- autocommit off


@pytest.fixture
def without_autocommit(world):
    transaction.set_autocommit(False, using=world.alias)
    yield
    transaction.rollback(using=world.alias)
    transaction.set_autocommit(True, using=world.alias)


def test_with_autocommit_off_commit_keeps_and_rollback_drops(world, without_autocommit, caplog):
    world.send(1)
    world.send(2)
    assert world.kept() == []
    transaction.commit(using=world.alias)
    assert world.kept() == [1, 2]
    world.send(3)
    transaction.rollback(using=world.alias)
    assert world.kept() == [1, 2]
    # Django doesn't tell.
    assert world.told == []
    assert caplog.text.count(f"autocommit of the database {world.alias!r} is off") <= 1


# -- requests


def view(request):
    from django.http import HttpResponse

    add_tag(1)
    VIEW["world"].send(1)
    if "fail" in request.GET:
        raise Abandoned
    return HttpResponse("fine")


async def async_view(request):
    from django.http import HttpResponse

    world = VIEW["world"]
    await world.asend(1)

    def change():
        with transaction.atomic(using=world.alias):
            add_tag(1)
            async_to_sync(world.asend)(2)
            assert world.told == [1]
            if "fail" in request.GET:
                raise Abandoned

    await sync_to_async(change)()
    return HttpResponse("fine")


VIEW = {}


@pytest.fixture
def client(world, settings_of):
    from django.test import AsyncClient, Client
    from django.urls import path

    VIEW["world"] = world
    urls = type("urls", (), {"urlpatterns": [path("sync/", view), path("async/", async_view)]})
    with settings_of(ROOT_URLCONF=urls):
        yield Client(raise_request_exception=False), AsyncClient(raise_request_exception=False)


@pytest.fixture
def settings_of():
    from django.test import override_settings

    return override_settings


@pytest.mark.parametrize("fails", [False, True])
def test_with_atomic_requests_a_view_that_fails_sends_nothing(world, client, monkeypatch, fails):
    monkeypatch.setitem(connections[world.alias].settings_dict, "ATOMIC_REQUESTS", True)
    response = client[0].get("/sync/?fail" if fails else "/sync/")
    assert response.status_code == (500 if fails else 200)
    expected = [] if fails else [1]
    assert (world.told, world.kept(), tags()) == (expected, expected, expected)


@pytest.mark.parametrize("fails", [False, True])
def test_a_buffer_around_requests_publishes_nothing_that_was_rolled_back(
    world, client, monkeypatch, fails
):
    monkeypatch.setitem(connections[world.alias].settings_dict, "ATOMIC_REQUESTS", True)
    expected = [] if fails else [1]
    with buffer_events():
        client[0].get("/sync/?fail" if fails else "/sync/")
        assert world.told == expected
    assert (world.told, world.kept()) == (expected, expected)


@pytest.mark.parametrize("fails", [False, True])
def test_asynchronous_views_send_in_the_transactions_of_their_threads(world, client, fails):
    response = asyncio.run(client[1].get("/async/?fail" if fails else "/async/"))
    assert response.status_code == (500 if fails else 200)
    expected = [1] if fails else [1, 2]
    assert (world.told, world.kept()) == (expected, expected)


# -- asynchronous code


def test_asend_keeps_and_tells(world):
    async def main():
        await asyncio.gather(*(world.asend(number) for number in range(5)))

    asyncio.run(main())
    assert sorted(world.told) == sorted(world.kept()) == list(range(5))


def test_asend_joins_the_transaction_of_the_code_that_waits_for_it(world):
    with abandoned(), transaction.atomic(using=world.alias):
        async_to_sync(world.asend)(1)
        assert world.told == []
        raise Abandoned
    with transaction.atomic(using=world.alias):
        async_to_sync(world.asend)(2)
        async_to_sync(world.asend)(3, world.alias)
        assert world.told == []
    assert (world.told, world.kept()) == ([2, 3], [2, 3])


def test_in_an_event_loops_thread_the_way_out_is_said(world):
    async def main():
        for call in (
            lambda: world.send(1),
            lambda: world.app.subscribe("*", "https://example.com/"),
            lambda: world.app.stats(),
        ):
            with pytest.raises(ConfigurationError, match=r"await event\.asend"):
                call()

    asyncio.run(main())
    assert world.kept() == []


# -- buffers


def test_what_is_sent_in_a_transaction_does_not_wait_in_a_buffer(world):
    with buffer_events():
        world.send(1)
        with transaction.atomic(using=world.alias):
            world.send(2)
            world.send(3)
        with abandoned(), transaction.atomic(using=world.alias):
            world.send(4)
            raise Abandoned
        with transaction.atomic(using=world.alias):
            world.send(5, world.alias)
        assert (world.told, world.kept()) == ([2, 3, 5], [2, 3, 5])
    assert (world.told, sorted(world.kept())) == ([2, 3, 5, 1], [1, 2, 3, 5])


def test_what_waits_in_a_buffer_is_published_in_the_transaction_of_its_flush(world):
    with buffer_events() as buffer:
        world.send(1)
        with abandoned(), transaction.atomic(using=world.alias):
            assert buffer.flush() == 1
            assert world.app.stats().messages == 1
            raise Abandoned
    assert (world.told, world.kept()) == ([], [])


def inserts_of_a_send(world):
    """The message's, and that of what waits to be routed; on PostgreSQL they are one."""
    return 1 if world.vendor == "postgresql" else 2


def test_what_a_buffer_holds_is_inserted_at_once(world):
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connections[world.alias]) as captured, buffer_events():
        for number in range(8):
            world.send(number)
    inserts = [q["sql"] for q in captured.captured_queries if "INSERT" in q["sql"]]
    assert len(inserts) == inserts_of_a_send(world), captured.captured_queries
    assert world.kept() == list(range(8))


# -- what a send costs


@HANDLES
def test_a_send_in_a_transaction_is_inserts_alone(world, within):
    from django.test.utils import CaptureQueriesContext

    with transaction.atomic(using=world.alias):
        with CaptureQueriesContext(connections[world.alias]) as captured:
            world.send(1, within(world.alias))
        assert len(captured) == inserts_of_a_send(world), captured.captured_queries


# -- apart from the transaction


def test_what_is_to_be_sent_at_once_does_not_wait_for_the_transaction(world):
    from thorn_core import ImmediateUnitOfWork

    with abandoned(), transaction.atomic(using=world.alias):
        add_tag(1)
        world.send(1, ImmediateUnitOfWork())
        assert world.recorder.told == [1]
        raise Abandoned
    # SQLite lets one connection write at a time.
    assert world.kept() == ([] if world.vendor == "sqlite" else [1])


# -- subscriptions


def test_subscribing_belongs_to_the_transaction(world):
    with abandoned(), transaction.atomic(using=world.alias):
        subscription = world.app.subscribe("*", "https://example.com/")
        assert world.app.subscription(subscription.id) == subscription
        raise Abandoned
    assert world.app.subscription(subscription.id) is None


def test_what_fails_in_the_store_leaves_the_callers_transaction_usable(world):
    from thorn_core import NotFoundError

    subscription = world.app.subscribe("*", "https://example.com/")
    with transaction.atomic(using=world.alias):
        with pytest.raises(ConfigurationError, match="already"):
            world.app.store.add_subscription(subscription)
        with pytest.raises(NotFoundError):
            world.app.update_subscription("sub_none", enabled=False)
        add_tag(1)
        world.send(1)
    assert (world.kept(), tags()) == ([1], [1])


# -- idempotency


def test_the_same_key_sends_once_also_in_transactions(world):
    with transaction.atomic(using=world.alias):
        for number in (1, 2):
            world.send(number, idempotency_key="a")
    with transaction.atomic(using=world.alias):
        world.send(3, idempotency_key="a")
        world.send(4)
    assert world.kept() == [1, 4]


def test_a_receipt_tells_a_second_send_in_a_transaction_and_after_it(world):
    with transaction.atomic(using=world.alias):
        receipts = [world.send(number, idempotency_key="a") for number in (1, 2)]
        assert [receipt.duplicate for receipt in receipts] == [False, True]
    receipts.append(world.send(3, idempotency_key="a"))
    assert [receipt.duplicate for receipt in receipts] == [False, True, True]
    assert {receipt.message.payload["number"] for receipt in receipts} == {1}
    assert world.send(4, idempotency_key="a", sender="ada").duplicate is False
    assert world.told == [1, 4]


@pytest.mark.parametrize("commits", [True, False])
def test_on_sqlite_a_message_that_waits_for_no_commit_waits_all_the_same(
    sqlite_world, caplog, commits
):
    world = sqlite_world
    with suppress(Abandoned), transaction.atomic(using=world.alias):
        message = world.send(1).message
        world.app.send_message(attrs.evolve(message, id=new_id("msg", message.at)), at_once=True)
        assert world.told == []
        if not commits:
            raise Abandoned
    assert world.told == ([1, 1] if commits else [])
    assert caplog.text.count("signal_honors_transaction=False has no effect") == 1


def test_two_threads_send_the_same_key_at_once(world):
    barrier = threading.Barrier(2)

    def send(number):
        with transaction.atomic(using=world.alias):
            barrier.wait()
            world.send(number, idempotency_key="a")
        connections[world.alias].close()

    if world.vendor == "sqlite":
        pytest.skip("one writes after the other")
    threads = [threading.Thread(target=send, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(world.kept()) == 1


def test_a_user_is_a_sender_and_an_owner(sqlite_world):
    from django.contrib.auth import get_user_model

    from thorn_django.models import Subscription

    users = get_user_model()._base_manager.using(sqlite_world.alias)
    ada = users.create(username="ada")
    subscription = sqlite_world.app.subscribe("*", "https://example.com/", owner=ada)
    receipt = sqlite_world.send(1, sender=ada)
    assert subscription.owner == receipt.message.sender == str(ada.pk)
    assert receipt.message.sender_name == "ada"
    row = Subscription._base_manager.using(sqlite_world.alias).get(pk=subscription.id)
    assert row.owner_user == ada
    for owner in (None, "", "nobody", "99"):
        row.owner = owner
        assert row.owner_user is None


# -- delivery


@pytest.mark.parametrize("dispatcher", ["inline", "background"])
def test_a_commit_delivers_and_a_rollback_does_not(alias, dispatcher):
    from thorn_django.store import DjangoStore

    with (
        LocalRecipient() as recipient,
        Thorn(store=DjangoStore(alias), dispatcher=dispatcher, settings=LOCAL) as app,
    ):
        app.subscribe("*", recipient.url)
        with abandoned(), transaction.atomic(using=alias):
            app.send("a.b", 1)
            raise Abandoned
        with transaction.atomic(using=alias):
            receipt = app.send("a.b", 2)
            assert not receipt
        assert receipt.wait(10)
        assert app.send("a.b", 3).wait(10)
        assert [request.json["data"] for request in recipient.received] == [2, 3]


def test_what_goes_wrong_after_the_commit_is_logged(sqlite_world, caplog):
    class Broken(Recorder):
        def dispatch(self, messages):
            raise RuntimeError("no broker")

    with sqlite_world.app.dispatching_by(Broken()):
        with transaction.atomic(using=sqlite_world.alias):
            sqlite_world.send(1)
            sqlite_world.send(2)
        assert sqlite_world.kept() == [1, 2]
        assert caplog.text.count("no broker") >= 2
        with pytest.raises(RuntimeError, match="no broker"):
            sqlite_world.send(3)


def test_what_can_not_be_kept_after_a_commit_elsewhere_is_logged(alias, other_alias, caplog):
    with world_at(alias) as world, transaction.atomic(using="other"):
        world.send(1, "other")
        world.app.store.database.run = broken
    assert "no disk" in caplog.text


def broken(*_, **__):
    raise StoreError("no disk")


# -- other databases


@pytest.fixture
def two_databases(alias, other_alias):
    with world_at(alias, databases=[other_alias]) as world:
        yield world


def test_a_transaction_of_another_database_holds_its_own_messages(two_databases):
    world = two_databases
    with transaction.atomic(using="other"):
        receipt = world.send(1, "other")
        assert world.told == []
    assert (world.told, world.kept("other"), world.kept()) == ([1], [1], [])
    assert not world.app.store.routed(receipt.message.id)
    assert world.app.message(receipt.message.id).payload == {"number": 1}
    assert (world.app.stats().messages, world.app.stats().unrouted) == (1, 1)
    with abandoned(), transaction.atomic(using="other"):
        world.send(2, "other")
        raise Abandoned
    assert (world.told, world.kept("other")) == ([1], [1])
    world.app.worker().drain()
    assert (world.kept("other"), world.kept()) == ([], [1])
    assert world.app.store.routed(receipt.message.id)


def test_without_saying_it_belongs_to_the_transaction_that_is_open(two_databases):
    world = two_databases
    with transaction.atomic(using="other"):
        world.send(1)
        with transaction.atomic(using=world.alias):
            world.send(2)
        world.send(3)
    assert (world.kept("other"), world.kept()) == ([1, 3], [2])
    assert world.told == [2, 1, 3]


def test_what_is_moved_again_after_a_crash_is_delivered_once(two_databases, monkeypatch):
    world = two_databases
    from thorn_django import outboxes

    with transaction.atomic(using="other"):
        world.send(1)

    def crash():
        raise KeyboardInterrupt
        yield

    with monkeypatch.context() as patched:
        patched.setattr(outboxes, "FORGET", crash())
        with pytest.raises(KeyboardInterrupt):
            world.app.messages_to_route()
    assert (world.kept("other"), world.kept()) == ([1], [1])
    assert len(world.app.messages_to_route()) == 1
    assert (world.kept("other"), world.kept()) == ([], [1])


def test_two_workers_move_each_message_once(alias, other_alias):
    with world_at(alias, databases=["other"]) as one, world_at(alias, databases=["other"]) as two:
        with transaction.atomic(using="other"):
            for number in range(50):
                one.send(number)
        moved = [[], []]

        def move(index, world):
            for _ in range(10):
                moved[index] += world.app.store.claim_messages(
                    now=world.app.clock(), lease=LEASE, limit=7
                )

        threads = [
            threading.Thread(target=move, args=(index, world))
            for index, world in enumerate((one, two))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert sorted(number_of(m) for some in moved for m in some) == list(range(50))


def test_an_inline_send_in_another_database_is_delivered(alias, other_alias):
    from thorn_django.store import DjangoStore

    store = DjangoStore(alias, databases=["other"])
    with (
        LocalRecipient() as recipient,
        Thorn(store=store, dispatcher="inline", settings=LOCAL) as app,
    ):
        app.subscribe("*", recipient.url)
        with transaction.atomic(using="other"):
            receipt = app.send("a.b", 1)
        assert receipt
        assert len(recipient.received) == 1


def test_a_database_without_the_tables_keeps_its_messages_after_the_commit(
    alias, other_alias, caplog
):
    caplog.set_level(logging.WARNING)
    with world_at(alias) as world:
        with abandoned(), transaction.atomic(using="other"):
            world.send(1, "other")
            raise Abandoned
        with transaction.atomic(using="other"):
            world.send(2, "other")
            assert (world.told, world.kept()) == ([], [])
        assert (world.told, world.kept(), world.kept("other")) == ([2], [2], [])
    assert caplog.text.count("name it in THORN_DATABASES") == 1


def test_another_alias_of_the_same_database_holds_messages(server_alias, settings_of):
    from django.conf import settings as project

    connections.settings["twin"] = {**connections[server_alias].settings_dict}
    try:
        with world_at(server_alias) as world:
            with abandoned(), transaction.atomic(using="twin"):
                world.send(1, "twin")
                raise Abandoned
            with transaction.atomic(using="twin"):
                world.send(2, "twin")
                assert world.kept() == []
            assert (world.told, world.kept()) == ([2], [2])
            connections["twin"].close()
    finally:
        del connections.settings["twin"]
    assert "twin" not in project.DATABASES


def test_what_is_no_alias_is_refused(sqlite_world):
    with pytest.raises(ConfigurationError, match="thorn-django a database alias"):
        sqlite_world.send(1, "nowhere")


def test_the_default_connection_is_a_handle(sqlite_world):
    with transaction.atomic():
        sqlite_world.send(1, connection)
        assert sqlite_world.told == []
    assert sqlite_world.told == [1]


def test_a_store_opens_a_transaction_for_programs_that_have_none(world):
    with world.app.store.transaction() as handle:
        world.send(1, handle)
        assert world.told == []
    with abandoned(), world.app.store.transaction() as handle:
        world.send(2, handle)
        raise Abandoned
    assert (world.told, world.kept()) == ([1], [1])


# -- what goes wrong


@pytest.fixture
def without_table(world):
    with connections[world.alias].cursor() as cursor:
        cursor.execute("ALTER TABLE thorn_messages RENAME TO thorn_hidden")
    yield
    with connections[world.alias].cursor() as cursor:
        cursor.execute("ALTER TABLE thorn_hidden RENAME TO thorn_messages")


def test_a_missing_table_is_named_with_the_way_out(world, without_table):
    database = "" if world.alias == "default" else f" --database {world.alias}"
    way_out = f"missing table thorn_messages; run: manage.py migrate{database}$"
    for call in (lambda: world.send(1), world.app.stats, world.app.store.check):
        with pytest.raises(StoreSetupError, match=way_out):
            call()
    saying = pytest.raises(StoreSetupError, match=r"run: manage\.py migrate")
    with saying, transaction.atomic(using=world.alias):
        world.send(1)


def test_a_transaction_whose_message_is_lost_is_not_committed_silently(world, without_table):
    if world.vendor != "postgresql":
        pytest.skip("a statement that fails leaves the transaction as it was")
    with transaction.atomic(using=world.alias):
        add_tag(1)
        with pytest.raises(StoreError):
            world.send(1)
        with pytest.raises((TransactionManagementError, DatabaseError)):
            add_tag(2)
    assert tags() == []


def test_an_event_of_an_app_that_is_closed_says_so(sqlite_world):
    event = Event("a.b")
    sqlite_world.app.close()
    assert event.app is not sqlite_world.app
