"""The contract of stores: subscriptions, and the lookup of those that match an event."""

from __future__ import annotations

import threading
from functools import partial

import attrs
import pytest

from thorn_core.errors import ConfigurationError, NotFoundError
from thorn_core.ports.store import Store
from thorn_core.testing.store_contract.steps import (
    StoreSteps,
    later,
    make_message,
    make_subscription,
)
from thorn_core.values import OPERATOR, DeliveryState, Subscription


class SubscriptionContract(StoreSteps):
    """A store keeps subscriptions and finds those that match an event."""

    def test_a_subscription_comes_back_as_it_was(self, store: Store) -> None:
        full = make_subscription(
            events=("article.*", "user.created"),
            owner="42",
            secrets=("whsec_new", "whsec_old"),
            secret_expiry={"whsec_old": later(60)},
            content_type="application/x-www-form-urlencoded",
            hmac_digest="sha512",
            headers={"X-A": "é"},
            description="Für den Laden 🏪",
            rate_limit=0.5,
            enabled=False,
            paused=True,
            disabled_reason="holiday",
            failing_since=later(-60),
            failures=3,
            last_failure_at=later(-1),
            updated_at=later(1),
        )
        store.add_subscription(full)
        assert store.subscription(full.id) == full
        assert store.subscription("sub_none") is None

    def test_an_id_is_taken_once(self, store: Store) -> None:
        store.add_subscription(make_subscription())
        with pytest.raises(ConfigurationError, match="already"):
            store.add_subscription(make_subscription(url="https://other.example.com/"))

    def test_a_subscription_is_changed_and_removed(self, store: Store) -> None:
        subscription = make_subscription()

        def move(current: Subscription) -> Subscription:
            assert current == subscription
            return attrs.evolve(current, events=("user.*",), owner="7", updated_at=later(1))

        with pytest.raises(NotFoundError, match=subscription.id):
            store.change_subscription(subscription.id, move)
        store.add_subscription(subscription)
        moved = store.change_subscription(subscription.id, move)
        assert store.subscription(subscription.id) == moved
        assert (moved.events, moved.owner, moved.updated_at) == (("user.*",), "7", later(1))
        assert not self.matched(store, "article.created")
        assert self.matched(store, "user.created") == [subscription.id]
        assert store.remove_subscription(subscription.id, now=later(2))
        assert not store.remove_subscription(subscription.id, now=later(2))
        assert store.subscription(subscription.id) is None
        assert not self.matched(store, "user.created")
        assert not store.subscriptions()
        assert not store.subscriptions(owner="7")

    def test_a_change_that_fails_changes_nothing(self, store: Store) -> None:
        subscription = make_subscription()
        store.add_subscription(subscription)

        def refuse(current: Subscription) -> Subscription:
            raise ValueError(current.id)

        with pytest.raises(ValueError, match=subscription.id):
            store.change_subscription(subscription.id, refuse)
        for wrong in (
            attrs.evolve(subscription, id="sub_other"),
            attrs.evolve(subscription, paused=True),
        ):
            with pytest.raises(ConfigurationError, match=subscription.id):
                store.change_subscription(subscription.id, partial(_becoming, wrong))
        assert store.subscription(subscription.id) == subscription
        assert store.subscription("sub_other") is None

    def test_no_change_undoes_another(self, store: Store) -> None:
        subscription = make_subscription(secrets=("whsec_0",))
        store.add_subscription(subscription)
        handles = [self.reopen(store) for _ in range(8)]
        start = threading.Barrier(8)

        def rotate(number: int) -> None:
            start.wait()
            for turn in range(3):
                add = partial(_signing_with, f"whsec_{number}.{turn}")
                handles[number].change_subscription(subscription.id, add)

        threads = [threading.Thread(target=rotate, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        kept = store.subscription(subscription.id)
        assert kept is not None
        made = {f"whsec_{number}.{turn}" for number in range(8) for turn in range(3)}
        assert set(kept.secrets) == {"whsec_0", *made}

    def test_a_change_does_not_undo_what_a_worker_writes(self, store: Store) -> None:
        subscription = make_subscription()
        store.add_subscription(subscription)
        self.deliver(store, make_message(), subscription)
        (claim,) = self.claim(store)
        completion = self.completion(claim, DeliveryState.CANCELLED, status=410, disable="gone")
        start = threading.Barrier(2)
        worker = self.reopen(store)

        def record() -> None:
            start.wait()
            worker.record([completion])

        thread = threading.Thread(target=record)
        thread.start()
        start.wait()
        store.change_subscription(subscription.id, lambda s: attrs.evolve(s, description="mine"))
        thread.join()
        kept = store.subscription(subscription.id)
        assert kept is not None
        assert (kept.description, kept.enabled, kept.disabled_reason) == ("mine", False, "gone")

    def test_subscriptions_are_listed_by_owner_and_paged(self, store: Store) -> None:
        for number in (3, 1, 2, 5, 4):
            store.add_subscription(make_subscription(number, owner=str(number % 2)))
        ids = [make_subscription(number).id for number in range(1, 6)]
        assert [s.id for s in store.subscriptions()] == ids
        assert [s.id for s in store.subscriptions(limit=2)] == ids[:2]
        assert [s.id for s in store.subscriptions(after=ids[1], limit=2)] == ids[2:4]
        assert [s.id for s in store.subscriptions(owner="1")] == ids[::2]
        assert [s.id for s in store.subscriptions(owner="1", after=ids[0])] == ids[2::2]
        assert not store.subscriptions(owner="none")

    def test_matching_goes_by_pattern_each_subscription_once(self, store: Store) -> None:
        patterns = [("article.*",), ("article.created", "*"), ("user.*",), ("*.created",), ("a.*",)]
        for number, events in enumerate(patterns, 1):
            store.add_subscription(make_subscription(number, events=events))
        ids = [make_subscription(number).id for number in range(1, 6)]
        assert self.matched(store, "article.created") == [ids[0], ids[1], ids[3]]
        assert self.matched(store, "article.tag.added") == [ids[0], ids[1]]
        assert self.matched(store, "user.removed") == [ids[1], ids[2]]

    def test_matching_goes_by_owner(self, store: Store) -> None:
        for number, owner in enumerate(("ada", "bob", None), 1):
            store.add_subscription(make_subscription(number, owner=owner))
        ids = [make_subscription(number).id for number in range(1, 4)]
        assert self.matched(store, "article.created", "ada") == [ids[0], ids[2]]
        assert self.matched(store, "article.created", "eve") == [ids[2]]
        assert self.matched(store, "article.created", OPERATOR) == [ids[2]]
        assert self.matched(store, "article.created") == ids

    def test_a_disabled_subscription_matches_nothing(self, store: Store) -> None:
        disabled = make_subscription(enabled=False)
        store.add_subscription(disabled)
        assert not self.matched(store, "article.created")
        store.change_subscription(disabled.id, lambda s: attrs.evolve(s, enabled=True))
        assert self.matched(store, "article.created") == [disabled.id]
        store.change_subscription(disabled.id, lambda s: attrs.evolve(s, enabled=False))
        assert not self.matched(store, "article.created")

    def test_matching_is_paged(self, store: Store) -> None:
        for number in range(1, 8):
            events = ("article.*",) if number % 2 else ("article.created", "*")
            store.add_subscription(make_subscription(number, events=events))
        found: list[str] = []
        while page := store.matching(
            "article.created", sender=None, after=found[-1] if found else None, limit=3
        ):
            assert len(page) <= 3
            found += [subscription.id for subscription in page]
        assert found == [make_subscription(number).id for number in range(1, 8)]

    def test_several_messages_are_matched_at_once(self, store: Store) -> None:
        for number, owner in enumerate(("ada", "bob", None), 1):
            store.add_subscription(make_subscription(number, owner=owner))
        store.add_subscription(make_subscription(4, events=("user.created", "*"), owner="ada"))
        ids = [make_subscription(number).id for number in range(1, 5)]
        messages = [
            make_message(1),
            make_message(2, sender="ada"),
            make_message(3, sender="eve"),
            make_message(4, event="user.created", sender="ada"),
            make_message(5, event="user.created", sender="bob"),
            make_message(6, event="user.created"),
            make_message(7, sender=OPERATOR),
        ]
        found: list[list[str]] = []
        while len(found) < len(messages):
            pages = store.matching_each(messages[len(found) :], limit=100)
            assert pages
            found += [[s.id for s in page] for page in pages]
        assert found == [ids, [ids[0], ids[2], ids[3]], [ids[2]], [ids[3]], [], [ids[3]], [ids[2]]]

    def test_the_first_pages_of_several_messages_are_bounded(self, store: Store) -> None:
        for number in range(1, 8):
            store.add_subscription(make_subscription(number))
        messages = [make_message(number) for number in range(1, 4)]
        pages = store.matching_each(messages, limit=5)
        assert [s.id for s in pages[0]] == [make_subscription(n).id for n in range(1, 6)]
        assert sum(len(page) for page in pages) < 15
        rest = store.matching_each(messages[len(pages) :], limit=5)
        assert [s.id for s in rest[0]] == [s.id for s in pages[0]]


def _becoming(wanted: Subscription, current: Subscription) -> Subscription:
    return wanted


def _signing_with(secret: str, current: Subscription) -> Subscription:
    return attrs.evolve(current, secrets=(secret, *current.secrets))
