"""A model of Thorn at work: senders, a database, workers' processes, and recipients.

Discrete events: whatever goes on is a generator, which yields how many seconds pass, or a line in
which it waits to be woken. How a process keeps count of what is under way is not modelled: it is
the engine's own `Load`, on the model's time. So are the settings and the retry policy.
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
from thorn_core.worker import load

Line = deque["Steps"]
Steps = Iterator[float | Line]

RETRY_AFTER = 10.0
SLOW = 5.0


# -- time and processors


class Clock:
    """Seconds since the beginning, and what goes on.

    What is to happen at the same time does so in the order in which it was asked for.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._serial = 0
        self._events: list[tuple[float, int, Steps]] = []

    def start(self, steps: Steps, seconds: float = 0.0) -> None:
        """Have something begin, or go on, in so many seconds."""
        self._serial += 1
        heapq.heappush(self._events, (self.now + seconds, self._serial, steps))

    def wake(self, line: Line) -> None:
        """Have all that wait in a line go on."""
        while line:
            self.start(line.popleft())

    def run(self, until: float) -> None:
        """Let happen what does before then."""
        while self._events and self._events[0][0] < until:
            self.now, _, steps = heapq.heappop(self._events)
            wanted = next(steps, None)
            if isinstance(wanted, deque):
                wanted.append(steps)
            elif wanted is not None:
                self.start(steps, wanted)
        self.now = until


class Cores:
    """Processors that serve who comes first, each one at a time.

    Args:
        clock: The time.
        number: How many.
        on: Processors that these are only threads on.
    """

    def __init__(self, clock: Clock, number: int, on: Cores | None = None) -> None:
        self.number, self.used = number, 0.0
        self._clock, self._free, self._on = clock, number, on
        self._line: Line = deque()

    def use(self, milliseconds: float) -> Steps:
        """Have one for so long, once it is free."""
        if self._free:
            self._free -= 1
        else:
            # Who gives it up hands it over.
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


# -- what there is


@attrs.frozen(kw_only=True)
class World:
    """Recipients, and what is sent to them.

    Attributes:
        recipients: How many.
        skew: Exponent of Zipf's law by which messages are for them; 0: all alike.
        median: Seconds that half of them answer within; log-normal between recipients.
        spread: Sigma of that.
        tail: Alpha of the Pareto distribution of one recipient's answers; None: always the same.
        down: Part of recipients that never answer.
        limited: Part that answers 429, with a Retry-After of RETRY_AFTER seconds, half of the time.
        slow: Part that takes SLOW seconds.
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
    """What there is to deliver with.

    Attributes:
        processes: Workers' processes, each with a processor.
        cores: Processors of the database server.
        settings: Of Thorn.
        shared: All of it, recipients included, shares those processors.
    """

    processes: int
    cores: int
    settings: Settings = attrs.field(factory=Settings)
    shared: bool = False


@attrs.define(eq=False)
class Item:
    """A delivery, and a claim of it: what `Load` needs to know of both."""

    id: int
    subscription_id: str
    sent: float
    attempts: int = 0

    @property
    def delivery(self) -> Item:
        """Itself."""
        return self


class Recipients:
    """Who answers how."""

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
        """Whom messages are for, without end."""
        while True:
            yield from self._chance.choices(self.names, self._weights, k=10_000)

    def answer(self, name: str, timeout: float) -> tuple[float, int | None]:
        """Seconds until a recipient answers, and the status; None if it doesn't in time."""
        if name in self.down:
            return timeout, None
        if name in self.limited and self._chance.random() < 0.5:
            return self._medians[name], 429
        tail = self._world.tail
        factor = self._chance.paretovariate(tail) if tail else 1.0
        seconds = SLOW if name in self.slow else self._medians[name] * factor
        return (timeout, None) if seconds >= timeout else (seconds, 200)


class Database:
    """What waits, and whose turn it is."""

    def __init__(self, clock: Clock) -> None:
        self.unrouted: deque[Item] = deque()
        # Processes that wait for more to do; recipients of claims under way.
        self.idle: Line = deque()
        self.locked: set[str] = set()
        self.delivered = 0
        self._clock = clock
        self._lines: dict[str, deque[Item]] = {}
        self._turns: deque[str] = deque()
        self._paused: dict[str, float] = {}

    def publish(self, item: Item) -> None:
        """A message is there, and workers are told."""
        self.unrouted.append(item)
        self._clock.wake(self.idle)

    def due(self, item: Item) -> None:
        """A delivery may be claimed."""
        line = self._lines.setdefault(item.subscription_id, deque())
        if not line:
            self._turns.append(item.subscription_id)
        line.append(item)

    def later(self, item: Item, seconds: float) -> None:
        """A delivery is due again in so many seconds."""

        def steps() -> Steps:
            yield seconds
            self.due(item)

        self._clock.start(steps())

    def pause(self, recipient: str, seconds: float) -> None:
        """Claim nothing of a recipient's for so long."""
        self._paused[recipient] = self._clock.now + seconds

    def claim(self, limit: int, most: int, busy: Mapping[str, int]) -> list[Item]:
        """Some of what is due, recipients taking turns, as the stores do.

        Those recipients are passed over by other claims until `unlock`.

        Args:
            limit: How many at most.
            most: How many of a recipient, what is under way included.
            busy: How many are under way.
        """
        room: dict[str, int] = {}
        passed: list[str] = []
        while self._turns and len(room) < limit:
            name = self._turns.popleft()
            paused = self._paused.get(name, 0) > self._clock.now
            if name in self.locked or paused or busy.get(name, 0) >= most:
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
        """A claim has ended."""
        self.locked.difference_update(item.subscription_id for item in claims)
        self._clock.wake(self.idle)


# -- what goes on


class Process:
    """A worker: routes, claims, requests and records, as the engine does."""

    def __init__(self, model: Model, cpu: Cores) -> None:
        self.model, self.cpu = model, cpu
        self.settings = model.site.settings
        self.load = load.Load(self.settings, self.settings.chunksize)
        self.dead = False
        self.held: set[Item] = set()
        self._busy = 0
        self._unrecorded: list[tuple[Item, int | None]] = []
        self._recording = False
        self._room: Line = deque()
        for steps in (self._route(), self._claim(), self._poll()):
            model.clock.start(steps)

    def die(self) -> None:
        """End at once; what it has claimed is due again when the lease is over."""
        self.dead = True
        for item in sorted(self.held, key=lambda item: item.id):
            self.model.database.later(item, self.settings.lease)

    def _call(self, cost: Cost, rows: int) -> Steps:
        """Call the store: work here, work on its server, and wait for disk and network."""
        yield from self.cpu.use(cost.client + rows * cost.client_each)
        yield from self.model.cores.use(cost.server + rows * cost.server_each)
        yield (cost.wait + rows * cost.wait_each) / 1000

    def _poll(self) -> Steps:
        while not self.dead:
            yield self.settings.poll_interval
            self.model.clock.wake(self._room)
            self.model.clock.wake(self.model.database.idle)

    def _route(self) -> Steps:
        database = self.model.database
        while not self.dead:
            if not database.unrouted:
                yield database.idle
                continue
            some = [
                database.unrouted.popleft()
                for _ in range(min(self.settings.chunksize, len(database.unrouted)))
            ]
            yield from self._call(self.model.costs.route, len(some))
            for item in some:
                database.due(item)
            self.model.clock.wake(database.idle)

    def _claim(self) -> Steps:
        database, size = self.model.database, self.settings.chunksize
        while not self.dead:
            self._fill_lanes()
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

    def _fill_lanes(self) -> None:
        for _ in range(min(self.load.startable, self.load.slots() - self._busy)):
            self._busy += 1
            self.model.clock.start(self._lane())

    def _lane(self) -> Steps:
        """Make requests, one after the other, while there are any that may begin."""
        model, half = self.model, self.model.costs.request / 2
        while not self.dead and (item := self.load.next()) is not None:
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
            batch = self._unrecorded[: self.settings.chunksize]
            yield from self._call(self.model.costs.record, len(batch))
            if self.dead:
                return
            del self._unrecorded[: len(batch)]
            for item, status in batch:
                self.held.discard(item)
                self.model.finished(item, status)
            # What it held of a recipient may be claimed.
            self.model.clock.wake(self.model.database.idle)
        self._recording = False


class Model:
    """All of it, on one clock.

    Args:
        costs: What steps cost.
        world: Recipients.
        site: What there is to deliver with.
        seed: Of all chance.
    """

    def __init__(self, costs: Costs, world: World, site: Site, *, seed: int = 1) -> None:
        self.costs, self.site, self.clock = costs, site, Clock()
        self.chance = random.Random(seed)
        self.recipients = Recipients(world, self.chance)
        self._chosen = self.recipients.chosen()
        self._serial = 0
        self.cores = Cores(self.clock, site.cores)
        self.database = Database(self.clock)
        # Seconds from send to first attempt, of recipients that answer.
        self.waits: list[float] = []
        on = self.cores if site.shared else None
        self.processes = [Process(self, Cores(self.clock, 1, on)) for _ in range(site.processes)]

    def fill(self, number: int) -> None:
        """Have so many messages there."""
        self.database.unrouted.extend(self._item() for _ in range(number))

    def send(self, rate: float, until: float) -> None:
        """Send so many a second, each in a transaction of its own, until then."""
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
        """A request begins."""
        item.attempts += 1
        odd = self.recipients
        if item.attempts == 1 and not any(
            item.subscription_id in some for some in (odd.down, odd.limited, odd.slow)
        ):
            self.waits.append(self.clock.now - item.sent)

    def finished(self, item: Item, status: int | None) -> None:
        """A request has ended."""
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
        """Let time pass, for `Load` too."""
        now: Callable[[], float] = lambda: self.clock.now  # noqa: E731
        with mock.patch.object(load, "monotonic", now):
            self.clock.run(until)

    def quantile(self, part: float) -> float:
        """The seconds to a first attempt that this part of them doesn't exceed."""
        return sorted(self.waits)[int(part * (len(self.waits) - 1))] if self.waits else 0.0
