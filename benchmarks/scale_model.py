"""A model of Thorn at work: senders, a database, workers' processes, and recipients.

How a process keeps count of what is under way is not modelled: it is the engine's own `Load`, on
the model's time. So are the settings and the retry policy. What a step costs is measured
(scale_measure.py).
"""

from __future__ import annotations

import contextlib
import heapq
import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from unittest import mock

import attrs
from scale_costs import Cost, Costs
from scale_engine import Clock, Cores, Thread

from thorn_core import RetryPolicy, Settings
from thorn_core.worker import load

# Of a request's cost, the part before it is on its way.
BEGINNING = 0.6
RETRY_AFTER = 10.0
SLOW = 5.0


@attrs.define(eq=False)
class Item:
    """A delivery, and a claim of it: what `Load` needs to know of both."""

    id: int
    recipient: str
    sent: float
    attempts: int = 0

    @property
    def delivery(self) -> Item:
        """Itself."""
        return self


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
        shared: All of it, recipients included, shares these many processors instead.
    """

    processes: int
    cores: int
    settings: Settings = attrs.field(factory=Settings)
    shared: int | None = None


class Recipients:
    """Who answers how.

    Args:
        world: What they are like.
        chance: Source of random numbers.
    """

    def __init__(self, world: World, chance: random.Random) -> None:
        self._world, self._chance = world, chance
        self.names = [f"r{n}" for n in range(world.recipients)]
        self.weights = [1 / (n + 1) ** world.skew for n in range(world.recipients)]
        self._medians = {
            name: world.median * chance.lognormvariate(0, world.spread) for name in self.names
        }
        odd = chance.sample(self.names, len(self.names))
        parts = [round(part * len(odd)) for part in (world.down, world.limited, world.slow)]
        self.down = set(odd[: parts[0]])
        self.limited = set(odd[parts[0] : sum(parts[:2])])
        self.slow = set(odd[sum(parts[:2]) : sum(parts)])

    def choose(self, number: int) -> Sequence[str]:
        """Whom messages are for."""
        return self._chance.choices(self.names, self.weights, k=number)

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
    """What waits, and whose turn it is.

    Args:
        clock: The time.
        cores: The server's.
    """

    def __init__(self, clock: Clock, cores: Cores) -> None:
        self.clock, self.cores = clock, cores
        self.unrouted: deque[Item] = deque()
        # Counts what was sent, so that a process knows whether it has looked since.
        self.sent = 0
        self.listeners: list[Process] = []
        self.delivered = 0
        self._lines: dict[str, deque[Item]] = {}
        self._turns: deque[str] = deque()
        self._later: list[tuple[float, int, Item]] = []
        self._paused: dict[str, float] = {}

    def call(
        self, work: Callable[[], tuple[int, float]], wait: float, then: Callable[[int], None]
    ) -> None:
        """Do work on the server, then wait for the disk, then say how many rows there were."""
        rows = 0

        def begin() -> float:
            nonlocal rows
            rows, seconds = work()
            return seconds

        self.cores.run(begin, lambda: self.clock.after(wait, lambda: then(rows)))

    def publish(self, item: Item) -> None:
        """A message is there, and workers are told."""
        self.unrouted.append(item)
        self.sent += 1
        listeners, self.listeners = self.listeners, []
        for process in listeners:
            process.wake()

    def ready(self, item: Item) -> None:
        """A delivery is due."""
        line = self._lines.get(item.recipient)
        if line is None:
            line = self._lines[item.recipient] = deque()
        if not line:
            self._turns.append(item.recipient)
        line.append(item)

    def again(self, item: Item, due: float, pause: float | None) -> None:
        """A delivery is due later; its recipient may be paused."""
        heapq.heappush(self._later, (due, item.id, item))
        if pause is not None:
            self._paused[item.recipient] = pause

    def claim(self, limit: int, most: int, busy: Mapping[str, int]) -> list[Item]:
        """Some of what is due, recipients taking turns; as the stores do."""
        while self._later and self._later[0][0] <= self.clock.now:
            self.ready(heapq.heappop(self._later)[2])
        turns: list[str] = []
        passed: list[str] = []
        while self._turns and len(turns) < limit:
            name = self._turns.popleft()
            held = busy.get(name, 0) >= most or self._paused.get(name, 0) > self.clock.now
            (passed if held else turns).append(name)
        self._turns.extendleft(reversed(passed))
        share = max(4 * limit // max(len(turns), 1), 1)
        room = {name: min(most - busy.get(name, 0), share) for name in turns}
        claims: list[Item] = []
        while room and len(claims) < limit:
            for name in list(room):
                if len(claims) == limit:
                    break
                claims.append(self._lines[name].popleft())
                room[name] -= 1
                if not (room[name] and self._lines[name]):
                    del room[name]
        self._turns.extend(name for name in turns if self._lines[name])
        return claims

    @property
    def backlog(self) -> int:
        """How many wait, those of recipients that are busy or paused included."""
        return len(self.unrouted) + sum(map(len, self._lines.values()))


@attrs.define
class Seen:
    """What came of it: seconds from send to first attempt, of recipients that answer."""

    waits: list[float] = attrs.field(factory=list)

    def quantile(self, part: float) -> float:
        """The wait that this part of them doesn't exceed."""
        return sorted(self.waits)[int(part * (len(self.waits) - 1))] if self.waits else 0.0


class Process:
    """A worker: routes, claims, requests and settles, in the order in which the engine does.

    Args:
        model: The whole.
        cores: Its processor.
    """

    def __init__(self, model: Model, cores: Cores) -> None:
        self.model, self.settings = model, model.site.settings
        self.thread = Thread(cores)
        self.load = load.Load(self.settings, self.settings.chunksize)
        self.dead = False
        self.held: set[Item] = set()
        self._lanes = 0
        self._looked = -1
        self._poll_due = True
        self._pumping = self._woken = self._settling = False
        self._parts = self._worked = 0
        self._unsettled: list[tuple[Item, int | None]] = []
        self._tick()

    def wake(self) -> None:
        """There may be work."""
        if self._pumping:
            self._woken = True
        elif not self.dead:
            self._pump()

    def die(self) -> None:
        """End at once; what it has claimed is due again when the lease is over."""
        self.dead = True
        lost, self.held = self.held, set()
        for item in sorted(lost, key=lambda item: item.id):
            self.model.clock.after(self.settings.lease, self.model.database.ready, item)

    def _tick(self) -> None:
        if not self.dead:
            self._poll_due = True
            self.model.clock.after(self.settings.poll_interval, self._tick)
            self.wake()

    # -- route and claim

    def _pump(self) -> None:
        database, costs = self.model.database, self.model.costs
        self._pumping, self._woken, self._worked = True, False, 0
        steps: list[tuple[Cost, Callable[[], int]]] = []
        if self._poll_due or database.sent != self._looked:
            self._poll_due, self._looked = False, database.sent
            steps.append((costs.route, self._route))
        self._fill_lanes()
        if self.load.wanted(len(self._unsettled)) > self.settings.chunksize // 2:
            steps.append((costs.claim, self._claim))
        self._parts = len(steps)
        for cost, work in steps:
            self._call(cost, work, self._counted)
        if not steps:
            self._rest()

    def _call(self, cost: Cost, work: Callable[[], int], then: Callable[[int], None]) -> None:
        """Call the store: what precedes it here, the server, the disk, and what follows here."""

        def server() -> tuple[int, float]:
            rows = work()
            return rows, (cost.server + rows * cost.server_each) / 1000

        def back(rows: int) -> None:
            self.thread.run(rows * cost.client_each / 1000, lambda: then(rows))

        wait = max(cost.wall - cost.client - cost.server, 0) / 1000
        self.thread.run(cost.client / 1000, lambda: self.model.database.call(server, wait, back))

    def _route(self) -> int:
        database, limit = self.model.database, self.settings.chunksize
        number = min(limit, len(database.unrouted))
        for _ in range(number):
            database.ready(database.unrouted.popleft())
        if number == limit:
            self._poll_due = True
        return number

    def _claim(self) -> int:
        wanted = self.load.wanted(len(self._unsettled))
        if wanted <= 0 or self.dead:
            return 0
        claims = self.model.database.claim(
            wanted, self.load.per_recipient, self.load.by_recipient()
        )
        self.held.update(claims)
        self.load.claimed(claims)
        return len(claims)

    def _counted(self, rows: int) -> None:
        if self.dead:
            return
        self._worked += rows
        self._parts -= 1
        self._fill_lanes()
        if not self._parts:
            if self._worked or self._woken:
                self._pump()
            else:
                self._rest()

    def _rest(self) -> None:
        self._pumping = False
        self.model.database.listeners.append(self)

    # -- request

    def _fill_lanes(self) -> None:
        for _ in range(min(self.load.startable, self.load.lanes() - self._lanes)):
            self._lanes += 1
            self._next()

    def _next(self) -> None:
        item = None if self.dead else self.load.next()
        if item is None:
            self._lanes -= 1
            return
        cost = BEGINNING * self.model.costs.request / 1000
        self.thread.run(cost, lambda: self._request(item))

    def _request(self, item: Item) -> None:
        model = self.model
        model.attempted(item)
        seconds, status = model.recipients.answer(item.recipient, self.settings.event_timeout)
        cost = (1 - BEGINNING) * model.costs.request / 1000

        def answered() -> None:
            self.thread.run(cost, lambda: self._ended(item, status))

        model.recipient_works(lambda: model.clock.after(seconds, answered))

    def _ended(self, item: Item, status: int | None) -> None:
        if self.dead:
            return
        self.load.heed(item.recipient, answered=status is not None)
        self.load.ended(item)
        self._unsettled.append((item, status))
        if not self._settling:
            self._settle()
        self._next()
        self.wake()

    # -- settle

    def _settle(self) -> None:
        self._settling = True
        batch = self._unsettled[: self.settings.chunksize]

        def write() -> int:
            if self.dead:
                return 0
            for item, status in batch:
                self.model.settled(item, status)
            return len(batch)

        self._call(self.model.costs.settle, write, lambda _: self._written(batch))

    def _written(self, batch: Sequence[tuple[Item, int | None]]) -> None:
        del self._unsettled[: len(batch)]
        self.held.difference_update(item for item, _ in batch)
        self._settling = False
        if self._unsettled and not self.dead:
            self._settle()


class Model:
    """All of it, on one clock.

    Args:
        costs: What steps cost.
        world: Recipients.
        site: What there is to deliver with.
        seed: Of all chance.
    """

    def __init__(self, costs: Costs, world: World, site: Site, *, seed: int = 1) -> None:
        self.costs, self.site = costs, site
        self.clock = Clock()
        self.chance = random.Random(seed)
        self.recipients = Recipients(world, self.chance)
        shared = Cores(self.clock, site.shared) if site.shared else None
        self.shared = shared
        self.database = Database(self.clock, shared or Cores(self.clock, site.cores))
        self.seen = Seen()
        self.policy: RetryPolicy = site.settings.retry_policy
        self._serial = 0
        self._names: list[str] = []
        self.processes = [
            Process(self, shared or Cores(self.clock, 1)) for _ in range(site.processes)
        ]

    # -- sending

    def fill(self, number: int) -> None:
        """Have so many messages there, and workers told of them when time passes."""
        for _ in range(number):
            self.clock.after(0, self.database.publish, self._item())

    def send(self, rate: float, until: float) -> None:
        """Send so many a second, each in a transaction of its own, until then."""
        if self.clock.now >= until:
            return
        cost = self.costs.send
        seconds = (cost.server + cost.server_each) / 1000
        item = self._item()

        def committed(_: int) -> None:
            self.database.publish(item)

        wait = max(cost.wall - cost.client - cost.server, 0) / 1000
        self.database.call(lambda: (1, seconds), wait, committed)
        self.clock.after(self.chance.expovariate(rate), self.send, rate, until)

    def _item(self) -> Item:
        if not self._names:
            self._names.extend(self.recipients.choose(10_000))
        self._serial += 1
        return Item(self._serial, self._names.pop(), self.clock.now)

    # -- what becomes of it

    def attempted(self, item: Item) -> None:
        """A request begins."""
        item.attempts += 1
        odd = self.recipients
        if item.attempts == 1 and item.recipient not in odd.down | odd.limited | odd.slow:
            self.seen.waits.append(self.clock.now - item.sent)

    def recipient_works(self, then: Callable[[], None]) -> None:
        """The recipient has a request, on our processors if they are shared."""
        if self.shared is None:
            then()
        else:
            self.shared.run(lambda: self.costs.recipient / 1000, then)

    def settled(self, item: Item, status: int | None) -> None:
        """A request has ended."""
        if status == 200:
            self.database.delivered += 1
            return
        now = self.clock.now
        delay = self.policy.delay(item.attempts, random=self.chance.random())
        if delay is not None:
            pause = now + RETRY_AFTER if status == 429 else None
            self.database.again(item, max(now + delay.total_seconds(), pause or 0), pause)

    def run(self, until: float) -> None:
        """Let time pass."""
        with virtual(self.clock):
            self.clock.run(until)


@contextlib.contextmanager
def virtual(clock: Clock) -> Iterator[None]:
    """`Load` goes by this clock."""

    def now() -> float:
        return clock.now

    with mock.patch.object(load, "monotonic", now):
        yield
