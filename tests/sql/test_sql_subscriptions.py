"""Subscriptions in a database: changed under a lock, judged, matched."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import attrs
import parts
import pytest
import thin

from thorn_core.errors import ConfigurationError, NotFoundError
from thorn_core.stores.sql.subscriptions import Subscriptions
from thorn_core.testing.store_contract.steps import later, make_message, make_subscription
from thorn_core.values import Claim


class Heard:
    """Recipients that write down what changed."""

    def __init__(self) -> None:
        self.changes, self.removals = [], []

    def changed(self, statements, before, after) -> None:
        self.changes.append((before, after))

    def removed(self, statements, subscription_id, now) -> None:
        self.removals.append((subscription_id, now))


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def part(heard) -> Subscriptions:
    return Subscriptions(heard)


def matched(database, part, event, sender=None) -> list[str]:
    return [s.id for s in database.read(lambda s: part.matching(s, event, sender, None, 100))]


def version(database) -> int:
    return database.read(lambda s: s.first("SELECT version FROM $subscriptions"))[0]


def test_a_subscription_comes_back_as_it_was(database, part):
    full = make_subscription(
        events=("article.*", "user.created"),
        owner="42",
        secrets=("whsec_new", "whsec_old"),
        secret_expiry={"whsec_old": later(60)},
        headers={"X-A": "é"},
        description="Für den Laden 🏪",
        rate_limit=0.5,
        enabled=False,
        disabled_reason="holiday",
        failing_since=later(-60),
        failures=3,
        last_failure_at=later(-1),
        updated_at=later(1),
    )
    database.run(lambda s: part.add(s, full))
    assert database.read(lambda s: part.get(s, full.id)) == full
    assert database.read(lambda s: part.get(s, "sub_none")) is None
    with pytest.raises(ConfigurationError, match="already"):
        database.run(lambda s: part.add(s, full))


def test_a_change_writes_the_columns_that_differ(database, part, heard):
    made = make_subscription()
    database.run(lambda s: part.add(s, made))
    with pytest.raises(NotFoundError, match="sub_none"):
        database.run(lambda s: part.change(s, "sub_none", lambda each: each))
    with pytest.raises(ConfigurationError, match="gives it the id"):
        database.run(lambda s: part.change(s, made.id, lambda each: attrs.evolve(each, id="x")))
    database.run(lambda s: part.change(s, made.id, lambda each: each))
    assert (version(database), heard.changes) == (1, [])
    changed = database.run(
        lambda s: part.change(
            s, made.id, lambda each: attrs.evolve(each, events=("user.*",), owner="7")
        )
    )
    assert changed == attrs.evolve(made, events=("user.*",), owner="7")
    assert database.read(lambda s: part.get(s, made.id)) == changed
    assert version(database) == 2
    assert heard.changes == [(made, changed)]
    assert not matched(database, part, "article.created")
    assert matched(database, part, "user.created", "7") == [made.id]
    assert not matched(database, part, "user.created", "8")


def test_changes_at_once_undo_nothing_of_each_other(database, part):
    made = make_subscription()
    database.run(lambda s: part.add(s, made))

    def rotate(number: int) -> None:
        def change(each):
            return attrs.evolve(each, secrets=(*each.secrets, f"whsec_{number}"))

        database.run(lambda s: part.change(s, made.id, change))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(rotate, range(8)))
    kept = database.read(lambda s: part.get(s, made.id))
    assert sorted(kept.secrets) == [f"whsec_{number}" for number in range(8)]
    assert version(database) == 9


def test_a_removed_subscription_matches_nothing(database, part, heard):
    made = make_subscription()
    database.run(lambda s: part.add(s, made))
    assert database.run(lambda s: part.remove(s, made.id, 7))
    assert not database.run(lambda s: part.remove(s, made.id, 7))
    assert heard.removals == [(made.id, 7)]
    assert not matched(database, part, "article.created")
    assert not database.read(lambda s: part.page(s, None, None, 10))


def test_pages_go_by_owner_and_id(database, part):
    many = [make_subscription(number, owner=str(number % 2)) for number in range(1, 6)]
    database.run(lambda s: part.add_many(s, many))
    ids = [each.id for each in many]

    def page(owner=None, after=None, limit=100) -> list[str]:
        return [each.id for each in database.read(lambda s: part.page(s, owner, after, limit))]

    assert page() == ids
    assert page(after=ids[1], limit=2) == ids[2:4]
    assert page("1") == ids[::2]
    assert page("1", ids[0]) == ids[2::2]
    assert not page("none")


def test_matching_goes_by_pattern_and_owner_in_pages(database, part):
    many = [
        make_subscription(1, owner="ada"),
        make_subscription(2, events=("article.created", "*"), owner="bob"),
        make_subscription(3, events=("*.created", "article.*")),
        make_subscription(4, events=("user.*",)),
        make_subscription(5, enabled=False),
    ]
    database.run(lambda s: part.add_many(s, many))
    ids = [each.id for each in many]
    assert matched(database, part, "article.created") == ids[:3]
    assert matched(database, part, "article.created", "ada") == [ids[0], ids[2]]
    assert matched(database, part, "article.created", "") == [ids[2]]

    def page(after):
        return database.read(lambda s: part.matching(s, "article.created", None, after, 2))

    found: list[str] = []
    while some := page(found[-1] if found else None):
        assert len(some) <= 2
        found += [each.id for each in some]
    assert found == ids[:3]
    messages = [make_message(1), make_message(2, sender="ada"), make_message(3, event="user.x")]
    pages = database.read(lambda s: part.matching_each(s, messages, 100))
    assert [[each.id for each in page] for page in pages] == [
        ids[:3],
        [ids[0], ids[2]],
        [ids[1], ids[3]],
    ]
    pages = database.read(lambda s: part.matching_each(s, messages, 2))
    assert [[each.id for each in page] for page in pages] == [ids[:2]]


@pytest.fixture
def failing(store) -> list[Claim]:
    """Nine failures in five days, of a subscription that is stored and one that isn't."""
    one = make_subscription()
    store.run(lambda s: store.subscriptions.add(s, one))
    for n in range(12):
        store.deliver(parts.message(n), one, make_subscription(2))
    claims = store.claim(parts.later(1))
    mine = [c for c in claims if c.delivery.subscription_id == one.id]
    others = [c for c in claims if c not in mine]
    day = 86_400 / 2
    store.record(*(failed(c, n * day) for n, c in enumerate(mine[:9])))
    store.record(*(failed(c, n * day) for n, c in enumerate(others)))
    return mine[9:]


def failed(claim, seconds: float, **outcome):
    values = {"due_at": parts.later(9e9), "disable_after": timedelta(days=4), **outcome}
    return parts.completion(claim, parts.PENDING, status=500, at=parts.later(seconds), **values)


def test_a_failing_subscription_is_disabled_once(store, failing):
    one = make_subscription()
    before = store.read(lambda s: store.subscriptions.get(s, one.id))
    assert (before.failures, before.enabled, before.failing_since) == (9, True, parts.NOW)
    assert version(store.database) == 1
    first, second, third = failing
    # A change meanwhile undoes neither.
    store.run(
        lambda s: store.subscriptions.change(
            s, one.id, lambda each: attrs.evolve(each, description="new")
        )
    )
    (disabled,) = store.record(failed(first, 9 * 43_200))
    assert (disabled.id, disabled.enabled, disabled.failures) == (one.id, False, 10)
    assert disabled.description == "new"
    assert "10 attempts" in disabled.disabled_reason
    assert disabled.updated_at == parts.later(9 * 43_200)
    assert version(store.database) == 3
    assert not matched(store.database, store.subscriptions, "article.created")
    assert not store.record(failed(second, 10 * 43_200))
    changed = store.run(
        lambda s: store.subscriptions.change(
            s, one.id, lambda each: attrs.evolve(each, description="newer")
        )
    )
    assert (changed.enabled, changed.failures) == (False, 11)
    store.record(parts.completion(third, at=parts.later(11 * 43_200)))
    assert store.read(lambda s: store.subscriptions.get(s, one.id)).failures == 0


def test_a_streak_is_warned_of(store, failing):
    (warned,) = store.record(failed(failing[0], 8.5 * 43_200, disable_after=timedelta(days=8.4)))
    assert (warned.id, warned.enabled, warned.failures) == (make_subscription().id, True, 10)


def test_failures_counted_at_once_are_all_counted(store):
    one = make_subscription()
    store.run(lambda s: store.subscriptions.add(s, one))
    for n in range(8):
        store.deliver(parts.message(n), one)
    claims = store.claim(parts.later(1))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda claim: store.record(failed(claim, 5)), claims))
    assert store.read(lambda s: store.subscriptions.get(s, one.id)).failures == 8


def test_the_table_may_have_a_name_and_columns_of_its_own(tmp_path):
    with thin.database("sqlite", tmp_path, names={"subscriptions": "blog_hook"}) as database:
        store = parts.Parts(database)
        database.run(lambda s: s.rows("ALTER TABLE blog_hook ADD COLUMN note text DEFAULT 'x'"))
        made = make_subscription()
        store.run(lambda s: store.subscriptions.add(s, made))
        changed = store.run(
            lambda s: store.subscriptions.change(
                s, made.id, lambda each: attrs.evolve(each, description="new")
            )
        )
        assert store.read(lambda s: store.subscriptions.page(s, None, None, 5)) == [changed]
        assert store.read(lambda s: s.rows("SELECT note FROM blog_hook")) == [("x",)]
        assert store.run(lambda s: store.subscriptions.remove(s, made.id, 7))
