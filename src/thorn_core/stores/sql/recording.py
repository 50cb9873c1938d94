"""Recording: writes the results of attempts, of leased deliveries and of direct ones.

A direct delivery has no rows yet. Its worker attempts it under the lease of its message; then this
module inserts it in its final form. Locks on the messages' rows in the outbox exclude others.
If the lease was lost, or a first commit succeeded unnoticed, rows may exist already; the careful
way compares with them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Protocol

from thorn_core.keys import MESSAGE_KEY, recipient_of
from thorn_core.ports.tables import Column
from thorn_core.stores.sql.outbox import KEPT, ROUTED, locked
from thorn_core.stores.sql.queue import REMOVE, standing
from thorn_core.stores.sql.recipients import Recipients
from thorn_core.stores.sql.rows import (
    STATES,
    attempt_row,
    clean,
    delivery_row,
    key_of_delivery,
    key_of_message,
    micros,
)
from thorn_core.stores.sql.schema import ATTEMPTS, DELIVERIES, QUEUE, SMALL
from thorn_core.stores.sql.statements import Statements
from thorn_core.values import Completion, DeliveryState, Subscription

LEASED = (
    "SELECT message_id, token FROM $outbox WHERE message_id IN (:keys.key*) ORDER BY message_id"
)
THERE = "SELECT id FROM $deliveries WHERE id IN (:keys.key*) ORDER BY id"
ATTEMPTED = (
    "SELECT delivery_id, at FROM $attempts WHERE delivery_id IN (:keys.key*) AND at >= :since.big"
)

_ID, _MORE = DELIVERIES.column("id"), Column("more", SMALL)
_OUTCOME = (
    _ID,
    _MORE,
    *(DELIVERIES.column(name) for name in ("state", "finished_at", "reason")),
)
RECORD = (
    "state = v.state, attempts = t.attempts + v.more, finished_at = v.finished_at,"
    " reason = v.reason"
)
_AGAIN = (QUEUE.column("id"), _MORE, QUEUE.column("due_at"))
AGAIN = "due_at = v.due_at, tries = t.tries + v.more, token = NULL, leased_until = NULL"

# A delivery's key and an attempt's time.
AttemptKey = tuple[bytes, int]


class Subscriptions(Protocol):
    """Applies the results of attempts to subscriptions."""

    def judge(
        self, statements: Statements, completions: Sequence[Completion]
    ) -> list[Subscription]:
        """Apply the results of attempts to subscriptions."""
        ...


class Recording:
    """Records completions.

    Args:
        recipients: The recipients of the deliveries.
        subscriptions: Holds the deliveries' subscriptions.
    """

    def __init__(self, recipients: Recipients, subscriptions: Subscriptions) -> None:
        self._recipients, self._subscriptions = recipients, subscriptions

    def record(
        self,
        statements: Statements,
        completions: Sequence[Completion],
        routed: Collection[str] = (),
        *,
        careful: bool = False,
    ) -> list[Subscription]:
        """Record completions; store and count every attempt once.

        Args:
            statements: Runs the SQL, in a transaction.
            completions: The completions.
            routed: Ids of messages of direct claims whose other deliveries are stored.
            careful: Compare all direct deliveries with existing rows. It is necessary after a
                duplicate key.

        Returns:
            The newly disabled subscriptions, and those whose owners need a warning.
        """
        direct = sorted((c for c in completions if c.claim.direct), key=_key_of)
        known = [c for c in completions if not c.claim.direct]
        new: dict[bytes, Completion] = {}
        tokens = _leased(statements, direct)
        if direct:
            new, existing = self._split(statements, direct, tokens, careful=careful)
            known += existing
            self._insert(statements, new)
        held = self._update(statements, known) if known else []
        counted = [*new.values(), *held]
        judged = self._subscriptions.judge(statements, counted)
        self._set_times(statements, counted)
        self._finish(statements, direct, tokens, routed)
        return judged

    @staticmethod
    def _finish(
        statements: Statements,
        direct: Sequence[Completion],
        tokens: Mapping[bytes, str | None],
        routed: Collection[str],
    ) -> None:
        """Delete routed messages from the outbox, unless another worker has leased them."""
        done = {
            key
            for c in direct
            if c.claim.message.id in routed
            and tokens.get(key := key_of_message(c.claim.message.id)) == c.claim.token
        }
        if done:
            statements.change(ROUTED, keys=sorted(done))

    def _split(
        self,
        statements: Statements,
        direct: Sequence[Completion],
        tokens: Mapping[bytes, str | None],
        *,
        careful: bool,
    ) -> tuple[dict[bytes, Completion], list[Completion]]:
        """Return the deliveries to insert, by key, and the completions of existing ones."""
        new: dict[bytes, Completion] = {}
        doubtful: list[Completion] = []
        for each in direct:
            token = tokens.get(key_of_message(each.claim.message.id))
            if (
                careful
                or token != each.claim.token
                or new.setdefault(_key_of(each), each) is not each
            ):
                doubtful.append(each)
        if not doubtful:
            return new, []
        messages = {key_of_message(c.claim.message.id) for c in doubtful} - tokens.keys()
        stored = tokens.keys() | locked(statements, KEPT, messages)
        there = new.keys() | locked(statements, THERE, {_key_of(c) for c in doubtful})
        existing: list[Completion] = []
        for each in doubtful:
            key = _key_of(each)
            if key not in there and key[:MESSAGE_KEY] not in stored:
                continue  # The message was deleted.
            if key in there or new.setdefault(key, each) is not each:
                existing.append(each)
        return new, existing

    def _insert(self, statements: Statements, new: dict[bytes, Completion]) -> None:
        """Insert deliveries and their first attempts."""
        subscriptions = {
            c.claim.delivery.subscription_id: c.claim.subscription
            for c in new.values()
            if c.claim.subscription is not None
        }
        keys = self._recipients.keys(
            statements,
            {c.claim.delivery.subscription_id for c in new.values()},
            lambda _: subscriptions,
        )
        for key, each in list(new.items()):
            if each.claim.delivery.subscription_id not in keys:
                del new[key]
        rows = [new[key] for key in sorted(new)]
        statements.insert_fast(DELIVERIES, [_first_row(each) for each in rows])
        attempts = [attempt_row(each.attempt) for each in rows if each.attempt is not None]
        statements.insert_fast(ATTEMPTS, attempts)
        pending = [_queue_row(each) for each in rows if each.outcome.state is DeliveryState.PENDING]
        statements.insert(QUEUE, pending, own=True)

    def _update(
        self, statements: Statements, completions: Sequence[Completion]
    ) -> list[Completion]:
        """Update deliveries and add their attempts; return the completions that took effect."""
        ordered = sorted(completions, key=_key_of)
        tokens = dict(standing(statements, {_key_of(c) for c in ordered}))
        held, late = [], []
        for each in ordered:
            key = _key_of(each)
            if key in tokens and (
                tokens[key] == each.claim.token or each.outcome.state is DeliveryState.DELIVERED
            ):
                # The first completion ends the lease; another one of the same claim is late.
                del tokens[key]
                held.append(each)
            else:
                late.append(each)
        statements.update(DELIVERIES, _OUTCOME, [_outcome(each) for each in held], RECORD)
        made = {_attempt_key(c): c for c in held if c.attempt is not None}
        made |= _count_late(statements, late, made)
        rows = [attempt_row(c.attempt) for c in made.values() if c.attempt is not None]
        statements.insert(ATTEMPTS, sorted(rows, key=itemgetter(0, 1)), ignoring=True, own=True)
        again = [c for c in held if c.outcome.state is DeliveryState.PENDING]
        statements.update(QUEUE, _AGAIN, [_retry(each) for each in again], AGAIN)
        if ended := [_key_of(c) for c in held if c.outcome.state.finished]:
            statements.change(REMOVE, keys=ended)
        return held

    def _set_times(self, statements: Statements, completions: Iterable[Completion]) -> None:
        """Record the due times of retries and the pauses that recipients asked for."""
        due, blocks = [], []
        for each in completions:
            recipient, outcome = recipient_of(_key_of(each)), each.outcome
            if outcome.state is DeliveryState.PENDING:
                due.append((recipient, _due_at(each)))
            if outcome.pause_until is not None:
                blocks.append((recipient, micros(outcome.pause_until)))
        self._recipients.due(statements, due, blocks)


def _leased(statements: Statements, direct: Sequence[Completion]) -> dict[bytes, str | None]:
    """Lock the rows of messages in the outbox; return their tokens."""
    keys = {key_of_message(c.claim.message.id) for c in direct}
    text = f"{LEASED}{statements.wording.for_update}"
    return dict(statements.rows(text, keys=sorted(keys))) if keys else {}


def _count_late(
    statements: Statements, late: Sequence[Completion], held: Collection[AttemptKey]
) -> dict[AttemptKey, Completion]:
    """Count attempts that ended after their lease; return those not counted before.

    A completion arrives twice if the outcome of the first commit was unknown. Attempts of deleted
    deliveries are ignored.

    Args:
        statements: Runs the SQL, in the transaction that records the attempts.
        late: The completions; those without an attempt are ignored.
        held: The keys of attempts that this transaction counts already.
    """
    made = {_attempt_key(c): c for c in late if c.attempt is not None}
    made = {key: c for key, c in made.items() if key not in held}
    if not made:
        return {}
    keys = {key for key, _ in made}
    there = locked(statements, THERE, keys)
    since = min(at for _, at in made)
    known = set(statements.rows(ATTEMPTED, keys=sorted(keys), since=since))
    new = {key: c for key, c in made.items() if key[0] in there and key not in known}
    counts = Counter(key for key, _ in new)
    statements.update(
        DELIVERIES, (_ID, _MORE), sorted(counts.items()), "attempts = t.attempts + v.more"
    )
    return new


def _key_of(completion: Completion) -> bytes:
    return key_of_delivery(completion.claim.delivery.id)


def _attempt_key(completion: Completion) -> AttemptKey:
    assert completion.attempt is not None
    return _key_of(completion), micros(completion.attempt.at)


def _due_at(completion: Completion) -> int:
    return micros(completion.outcome.due_at or completion.at)


def _finished_at(completion: Completion) -> int | None:
    return micros(completion.at) if completion.outcome.state.finished else None


def _outcome(completion: Completion) -> tuple[Any, ...]:
    outcome = completion.outcome
    return (
        _key_of(completion),
        int(completion.attempt is not None),
        STATES[outcome.state],
        _finished_at(completion),
        clean(outcome.reason),
    )


def _retry(completion: Completion) -> tuple[bytes, int, int]:
    return (_key_of(completion), int(completion.attempt is not None), _due_at(completion))


def _first_row(completion: Completion) -> tuple[Any, ...]:
    """Return the row of a direct delivery."""
    outcome = completion.outcome
    key, recipient, _, _, created_at, _, _, target = delivery_row(completion.claim.delivery)
    return (
        key,
        recipient,
        STATES[outcome.state],
        int(completion.attempt is not None),
        created_at,
        _finished_at(completion),
        clean(outcome.reason),
        target,
    )


def _queue_row(completion: Completion) -> tuple[Any, ...]:
    """Return the queue row of a direct delivery that needs another attempt."""
    key, tries, due_at = _retry(completion)
    return (key, recipient_of(key), due_at, tries, None, None, None, None)
