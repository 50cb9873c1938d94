"""A simulation of Thorn: senders, a database, worker processes, and recipients.

It is a discrete-event simulation: each activity is a generator, which yields either a number of
seconds to pass, or a queue in which it waits to be woken. `Load`, the settings and the retry policy
aren't modelled: the simulation uses the engine's own, with simulated time.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from unittest import mock

import attrs
from scale_costs import Cost, Costs

from thorn_core import Settings
from thorn_core.worker import lane, load, recorder

Line = deque["Steps"]
Steps = Iterator[float | Line]

RETRY_AFTER = 10.0
SLOW = 5.0


# -- time and processors


class Clock:
    """Simulated time in seconds, and the scheduled activities.

    Activities at the same time run in the order in which they were scheduled.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._serial = 0
        self._events: list[tuple[float, int, Steps]] = []

    def start(self, steps: Steps, seconds: float = 0.0) -> None:
        """Start or continue an activity after a number of seconds."""
        self._serial += 1
        heapq.heappush(self._events, (self.now + seconds, self._serial, steps))

    def wake(self, line: Line) -> None:
        """Continue all activities that wait in a queue."""
        while line:
            self.start(line.popleft())

    def run(self, until: float) -> None:
        """Run all activities before a time."""
        while self._events and self._events[0][0] < until:
            self.now, _, steps = heapq.heappop(self._events)
            wanted = next(steps, None)
            if isinstance(wanted, deque):
                wanted.append(steps)
            elif wanted is not None:
                self.start(steps, wanted)
        self.now = until


class Cores:
    """Processors, which serve one activity each, in the order of arrival.

    Args:
        clock: The time.
        number: Number of processors.
        on: Processors that these share, as threads do.
    """

    def __init__(self, clock: Clock, number: int, on: Cores | None = None) -> None:
        self.number, self.used = number, 0.0
        self._clock, self._free, self._on = clock, number, on
        self._line: Line = deque()

    def use(self, milliseconds: float) -> Steps:
        """Use a processor for a time, once one is free."""
        if self._free:
            self._free -= 1
        else:
            # The previous user hands the processor over.
            yield self._line
        self.used += milliseconds / 1000
        if self._on is None:
            yield milliseconds / 1000
        else:
            yield from self._on.use(milliseconds)
        if self._line:
            self._clock.start(self._line.popleft())
        else:
            self._free += 1


# -- the environment


@attrs.frozen(kw_only=True)
class World:
    """The recipients and their traffic.

    Attributes:
        recipients: Number of recipients.
        skew: Exponent of Zipf's law for messages per recipient; 0: all equal.
        median: Median of their response times in seconds; log-normal between recipients.
        spread: Sigma of this distribution.
        tail: Alpha of the Pareto distribution of one recipient's response times; None: constant.
        down: Fraction of recipients that never respond.
        limited: Fraction that responds with 429 half of the time, and Retry-After RETRY_AFTER.
        slow: Fraction that takes SLOW seconds.
    """

    recipients: int = 1000
    skew: float = 0.6
    median: float = 0.15
    spread: float = 0.8
    tail: float | None = 2.5
    down: float = 0.01
    limited: float = 0.01
    slow: float = 0.02


@attrs.frozen(kw_only=True)
class Site:
    """The resources for delivery.

    Attributes:
        processes: Number of worker processes, each with a processor.
        cores: Processors of the database server.
        settings: Thorn's settings.
        shared: Whether everything, including recipients, shares these processors.
    """

    processes: int
    cores: int
    settings: Settings = attrs.field(factory=Settings)
    shared: bool = False


@attrs.define(eq=False)
class Item:
    """A delivery and its claim, with the attributes that `Load` needs."""

    id: int
    subscription_id: str
    sent: float
    attempts: int = 0
    # When a worker leased its message, if it has no row of its own yet.
    direct: float | None = None

    @property
    def delivery(self) -> Item:
        """Return itself, as a claim's delivery."""
        return self


class Recipients:
    """Simulates recipients and their responses."""

    def __init__(self, world: World, chance: random.Random) -> None:
        self._world, self._chance = world, chance
        self.names = [f"r{n}" for n in range(world.recipients)]
        self._weights = [(n + 1) ** -world.skew for n in range(world.recipients)]
        self._medians = {
            name: world.median * chance.lognormvariate(0, world.spread) for name in self.names
        }
        odd = iter(chance.sample(self.names, len(self.names)))
        self.down, self.limited, self.slow = (
            {next(odd) for _ in range(round(part * world.recipients))}
            for part in (world.down, world.limited, world.slow)
        )

    def chosen(self) -> Iterator[str]:
        """Yield the recipients of messages, endlessly."""
        while True:
            yield from self._chance.choices(self.names, self._weights, k=10_000)

    def answer(self, name: str, timeout: float) -> tuple[float, int | None]:
        """Return a response's seconds and status; None for a timeout."""
        if name in self.down:
            return timeout, None
        if name in self.limited and self._chance.random() < 0.5:
            return self._medians[name], 429
        tail = self._world.tail
        factor = self._chance.paretovariate(tail) if tail else 1.0
        seconds = SLOW if name in self.slow else self._medians[name] * factor
        return (timeout, None) if seconds >= timeout else (seconds, 200)


class Database:
    """Simulates the backlog and the turns of recipients."""

    def __init__(self, clock: Clock) -> None:
        self.unrouted: deque[Item] = deque()
        # Processes that wait for work; recipients of current claims.
        self.idle: Line = deque()
        self.locked: set[str] = set()
        self.delivered = 0
        self._clock = clock
        self._lines: dict[str, deque[Item]] = {}
        self._turns: deque[str] = deque()
        self._paused: dict[str, float] = {}

    def publish(self, item: Item) -> None:
        """Add a message, and wake workers."""
        self.unrouted.append(item)
        self._clock.wake(self.idle)

    def due(self, item: Item) -> None:
        """Make a delivery due."""
        line = self._lines.setdefault(item.subscription_id, deque())
        if not line:
            self._turns.append(item.subscription_id)
        line.append(item)

    def later(self, item: Item, seconds: float) -> None:
        """Make a delivery due again after a number of seconds."""

        def steps() -> Steps:
            yield seconds
            self.due(item)

        self._clock.start(steps())

    def pause(self, recipient: str, seconds: float) -> None:
        """Pause a recipient for a number of seconds."""
        self._paused[recipient] = self._clock.now + seconds

    def is_paused(self, recipient: str) -> bool:
        """Return True if a recipient is paused."""
        return self._paused.get(recipient, 0) > self._clock.now

    def waits(self, recipient: str) -> bool:
        """Return True if deliveries to a recipient are due."""
        return bool(self._lines.get(recipient))

    def claim(self, limit: int, most: int, busy: Mapping[str, int]) -> list[Item]:
        """Claim due deliveries, with turns of recipients, as stores do.

        Other claims skip these recipients until `unlock`.

        Args:
            limit: Maximum number of deliveries.
            most: Maximum per recipient, including those in flight.
            busy: Number in flight per recipient.
        """
        room: dict[str, int] = {}
        passed: list[str] = []
        while self._turns and len(room) < limit:
            name = self._turns.popleft()
            if name in self.locked or self.is_paused(name) or busy.get(name, 0) >= most:
                passed.append(name)
            else:
                room[name] = most - busy.get(name, 0)
        self._turns.extendleft(reversed(passed))
        turns, claims = list(room), list[Item]()
        while room and len(claims) < limit:
            for name in list(room)[: limit - len(claims)]:
                claims.append(self._lines[name].popleft())
                room[name] -= 1
                if not (room[name] and self._lines[name]):
                    del room[name]
        self._turns.extend(name for name in turns if self._lines[name])
        self.locked.update(turns)
        return claims

    def unlock(self, claims: Sequence[Item]) -> None:
        """End a claim."""
        self.locked.difference_update(item.subscription_id for item in claims)
        self._clock.wake(self.idle)


# -- activities


class Process:
    """A worker process: routes, claims, sends requests and records, as the engine does."""

    def __init__(self, model: Model, cpu: Cores) -> None:
        self.model, self.cpu = model, cpu
        self.settings = model.site.settings
        self.load = load.Load(self.settings, self.settings.chunksize)
        self.dead = False
        self.held: set[Item] = set()
        self._busy = 0
        # The deliveries without rows that wait for a slot, in the order of their leases.
        self._waiting: dict[int, Item] = {}
        self._unrecorded: list[tuple[Item, int | None]] = []
        self._recording = False
        self._room: Line = deque()
        for steps in (self._route(), self._claim(), self._poll(), self._sweep()):
            model.clock.start(steps)

    def die(self) -> None:
        """Stop immediately; its claims become due again when the leases expire."""
        self.dead = True
        for item in sorted(self.held, key=lambda item: item.id):
            self.model.database.later(item, self.settings.lease)

    def _call(self, cost: Cost, rows: int) -> Steps:
        """Call the store: use this processor and the server's, and wait for disk and network."""
        yield from self.cpu.use(cost.client + rows * cost.client_each)
        yield from self.model.cores.use(cost.server + rows * cost.server_each)
        yield (cost.wait + rows * cost.wait_each) / 1000

    def _poll(self) -> Steps:
        while not self.dead:
            yield self.settings.poll_interval
            self.model.clock.wake(self._room)
            self.model.clock.wake(self.model.database.idle)

    def _route(self) -> Steps:
        """Lease messages; attempt their deliveries directly, or store them."""
        database, costs, size = self.model.database, self.model.costs, self.settings.chunksize
        while not self.dead:
            if not database.unrouted:
                yield database.idle
                continue
            if len(self._waiting) > size // 2:
                yield self._room
                continue
            some = [database.unrouted.popleft() for _ in range(min(size, len(database.unrouted)))]
            self.held.update(some)
            yield from self._call(costs.lease, len(some))
            most = self.settings.unrecorded // lane.SHARE
            busy = dict(self.load.by_recipient(most))
            others = []
            for item in some:
                name = item.subscription_id
                limit = self.load.half if database.waits(name) else most
                if database.is_paused(name) or busy.get(name, 0) >= limit:
                    others.append(item)
                    continue
                busy[name] = busy.get(name, 0) + 1
                item.direct = self.model.clock.now
                self._waiting[item.id] = item
                self.load.claimed([item])
            yield from self._store(others)
            self._fill_slots()

    def _store(self, items: Sequence[Item]) -> Steps:
        """Write rows for pending deliveries."""
        if items:
            # Less the lease, which has been paid.
            whole, lease = self.model.costs.route, self.model.costs.lease
            yield from self.cpu.use(len(items) * max(whole.client_each - lease.client_each, 0))
            yield from self.model.cores.use(
                len(items) * max(whole.server_each - lease.server_each, 0)
            )
        for item in items:
            item.direct = None
            self.held.discard(item)
            self.model.database.due(item)
        self.model.clock.wake(self.model.database.idle)

    def _sweep(self) -> Steps:
        """Store deliveries that have waited for too long."""
        while not self.dead:
            yield lane.LONGEST_WAIT / 2
            horizon = self.model.clock.now - lane.LONGEST_WAIT
            late = [
                item
                for item in self._waiting.values()
                if item.direct is not None and item.direct < horizon
            ]
            for item in late:
                del self._waiting[item.id]
                self.load.withdraw(item)
            yield from self._store(late)
            self.model.clock.wake(self._room)

    def _claim(self) -> Steps:
        database, size = self.model.database, self.settings.chunksize
        while not self.dead:
            self._fill_slots()
            wanted = self.load.wanted(len(self._unrecorded))
            if wanted <= size // 2:
                yield self._room
                continue
            claims = database.claim(wanted, self.load.per_recipient, self.load.by_recipient())
            if not claims:
                yield database.idle
                continue
            self.held.update(claims)
            yield from self._call(self.model.costs.claim, len(claims))
            database.unlock(claims)
            self.load.claimed(claims)

    def _fill_slots(self) -> None:
        for _ in range(min(self.load.startable, self.load.slots() - self._busy)):
            self._busy += 1
            self.model.clock.start(self._slot())

    def _slot(self) -> Steps:
        """Make requests one after the other, while any may start."""
        model, half = self.model, self.model.costs.request / 2
        while not self.dead and (item := self.load.next()) is not None:
            self._waiting.pop(item.id, None)
            yield from self.cpu.use(half)
            model.attempted(item)
            seconds, status = model.recipients.answer(
                item.subscription_id, self.settings.event_timeout
            )
            if model.site.shared:
                yield from model.cores.use(model.costs.recipient)
            yield seconds
            yield from self.cpu.use(half)
            self.load.heed(item.subscription_id, answered=status is not None)
            self.load.ended(item)
            self._unrecorded.append((item, status))
            if not self._recording:
                self._recording = True
                model.clock.start(self._record())
            model.clock.wake(self._room)
        self._busy -= 1

    def _record(self) -> Steps:
        while self._unrecorded and not self.dead:
            yield recorder.PACE
            batch = self._unrecorded[: recorder.BATCH]
            direct = sum(item.direct is not None for item, _ in batch)
            yield from self._call(self.model.costs.insert, direct)
            if direct < len(batch):
                yield from self._call(self.model.costs.record, len(batch) - direct)
            if self.dead:
                return
            del self._unrecorded[: len(batch)]
            for item, status in batch:
                self.held.discard(item)
                item.direct = None
                self.model.finished(item, status)
            # Deliveries held back for this recipient can be claimed again.
            self.model.clock.wake(self.model.database.idle)
        self._recording = False


class Model:
    """The whole simulation, on one clock.

    Args:
        costs: Costs of the steps.
        world: The recipients.
        site: The resources.
        seed: Seed of all random numbers.
    """

    def __init__(self, costs: Costs, world: World, site: Site, *, seed: int = 1) -> None:
        self.costs, self.site, self.clock = costs, site, Clock()
        self.chance = random.Random(seed)
        self.recipients = Recipients(world, self.chance)
        self._chosen = self.recipients.chosen()
        self._serial = 0
        self.cores = Cores(self.clock, site.cores)
        self.database = Database(self.clock)
        # Seconds from send to first attempt, for recipients that respond.
        self.waits: list[float] = []
        on = self.cores if site.shared else None
        self.processes = [Process(self, Cores(self.clock, 1, on)) for _ in range(site.processes)]

    def fill(self, number: int) -> None:
        """Add a number of messages."""
        self.database.unrouted.extend(self._item() for _ in range(number))

    def send(self, rate: float, until: float) -> None:
        """Send messages at a rate until a time, each in its own transaction."""
        self.clock.start(self._send(rate, until))

    def _send(self, rate: float, until: float) -> Steps:
        while self.clock.now < until:
            self.clock.start(self._publish(self._item()))
            yield self.chance.expovariate(rate)

    def _publish(self, item: Item) -> Steps:
        cost = self.costs.send
        yield from self.cores.use(cost.server + cost.server_each)
        yield (cost.wait + cost.wait_each) / 1000
        self.database.publish(item)

    def _item(self) -> Item:
        self._serial += 1
        return Item(self._serial, next(self._chosen), self.clock.now)

    def attempted(self, item: Item) -> None:
        """Count the start of a request."""
        item.attempts += 1
        odd = self.recipients
        if item.attempts == 1 and not any(
            item.subscription_id in some for some in (odd.down, odd.limited, odd.slow)
        ):
            self.waits.append(self.clock.now - item.sent)

    def finished(self, item: Item, status: int | None) -> None:
        """Count the end of a request."""
        if status == 200:
            self.database.delivered += 1
            return
        policy = self.site.settings.retry_policy
        delay = policy.delay(item.attempts, random=self.chance.random())
        if status == 429:
            self.database.pause(item.subscription_id, RETRY_AFTER)
        if delay is not None:
            least = RETRY_AFTER if status == 429 else 0.0
            self.database.later(item, max(delay.total_seconds(), least))

    def run(self, until: float) -> None:
        """Let time pass, also for `Load`."""
        now: Callable[[], float] = lambda: self.clock.now  # noqa: E731
        with mock.patch.object(load, "monotonic", now):
            self.clock.run(until)

    def quantile(self, part: float) -> float:
        """Return a quantile of the seconds from send to first attempt."""
        return sorted(self.waits)[int(part * (len(self.waits) - 1))] if self.waits else 0.0
