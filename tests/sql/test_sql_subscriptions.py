"""Subscriptions in a database: changed under a lock, judged, matched."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import attrs
import pytest

from thorn_core.errors import ConfigurationError, NotFoundError
from thorn_core.stores.sql.subscriptions import Subscriptions
from thorn_core.testing.store_contract.steps import later, make_message, make_subscription


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
    with pytest.raises(ConfigurationError, match="leave the id as it is"):
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


def test_a_removed_subscription_matches_nothing(database, part):
    made = make_subscription()
    database.run(lambda s: part.add(s, made))
    assert database.run(lambda s: part.remove(s, made.id, 0))
    assert not database.run(lambda s: part.remove(s, made.id, 0))
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
    found: list[str] = []
    while page := database.read(
        lambda s: part.matching(s, "article.created", None, found[-1] if found else None, 2)
    ):
        assert len(page) <= 2
        found += [each.id for each in page]
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
