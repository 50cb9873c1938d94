"""`thorn demo`: one article, three recipients, and a worker that crashes."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs
import click
from rich.console import Console
from rich.table import Table

from thorn_core import receiver, signals
from thorn_core.app import Thorn
from thorn_core.cli.common import console, plain, write_json
from thorn_core.cli.crash import run_crash
from thorn_core.cli.worker_process import WorkerProcess
from thorn_core.errors import ConfigurationError, ThornError
from thorn_core.models import ModelEvent, webhook_model
from thorn_core.receipts import Receipt
from thorn_core.retries import RetryPolicy
from thorn_core.settings import Settings
from thorn_core.testing.recipient import LocalRecipient
from thorn_core.values import DeliveryState, Message

EVENTS = ("article.created", "article.changed", "article.published", "article.removed")
# Seconds between attempts; the default policy waits for hours.
RETRIES = (0.2, 0.4, 0.8)
PATIENCE = 20.0
LOOPBACK = "127.0.0.0/8"
PORTS = range(1024, 65536)
MEMORY = "memory://"


def make_app(url: str = MEMORY, dispatcher: str = "background") -> Thorn:
    """Create the demo's app, which may deliver to this machine and retries after seconds.

    Args:
        url: The store's URL.
        dispatcher: The dispatcher's name.
    """
    settings = Settings(
        allowed_networks=[LOOPBACK],
        allowed_ports=PORTS,
        retry_policy=RetryPolicy(RETRIES, jitter=0),
        # By default, workers take over the deliveries of a dead worker after a minute.
        lease=4,
        event_timeout=3,
        poll_interval=0.1,
        grace_period=2,
    )
    return Thorn(store=url, settings=settings, dispatcher=dispatcher)


def worker_app() -> Thorn:
    """Create the app of the demo's worker processes."""
    return make_app(os.environ["THORN_STORE"], "outbox")


def declare_article(app: Thorn) -> type:
    """Declare the demo's model, whose events are sent by this app."""

    @webhook_model
    class Article:
        class webhooks:  # noqa: N801 - the name that webhook_model looks for
            on_create = ModelEvent("article.created", app=app)
            on_change = ModelEvent("article.changed", app=app)
            on_delete = ModelEvent("article.removed", app=app)
            on_publish = ModelEvent(
                "article.published", state__now_eq="PUBLISHED", app=app
            ).dispatches_on_change()

            def payload(self, article: Article) -> dict[str, object]:
                return {"title": article.title, "state": article.state}

        def __init__(self, number: int, title: str) -> None:
            self.number, self.title, self.state = number, title, "DRAFT"

        def get_absolute_url(self) -> str:
            return f"https://magazine.example/articles/{self.number}"

    return Article


@attrs.frozen(kw_only=True)
class Row:
    """One delivery, for the table.

    Attributes:
        event: The message's event.
        recipient: The recipient's name in the demo.
        attempts: Number of attempts.
        statuses: The response's status of each attempt.
        latency: Milliseconds of the last attempt; None if there was none.
        state: State of the delivery.
        message: The message's id.
    """

    event: str
    recipient: str
    attempts: int
    statuses: tuple[str, ...]
    latency: float | None
    state: str
    message: str


@attrs.frozen(kw_only=True)
class Report:
    """Results of the demo's first part.

    Attributes:
        settings: The settings that allow recipients on this machine.
        rows: All deliveries.
        checks: The checks, each with its result.
    """

    settings: tuple[str, ...]
    rows: tuple[Row, ...]
    checks: Mapping[str, bool]

    @property
    def good(self) -> bool:
        """Whether all checks passed."""
        return all(self.checks.values())


@attrs.frozen(kw_only=True)
class Recipients:
    """The three recipients."""

    healthy: LocalRecipient
    flaky: LocalRecipient
    gone: LocalRecipient

    def named(self) -> Iterator[tuple[str, LocalRecipient]]:
        """Return each recipient with its name."""
        return iter((("healthy", self.healthy), ("flaky", self.flaky), ("gone", self.gone)))


@contextmanager
def three_recipients() -> Iterator[Recipients]:
    """Start three recipients: one works, one fails twice and then works, one is gone."""
    with ExitStack() as stack:
        recipients = Recipients(
            healthy=stack.enter_context(LocalRecipient()),
            flaky=stack.enter_context(LocalRecipient()),
            gone=stack.enter_context(LocalRecipient()),
        )
        recipients.flaky.answer(status=503, times=2)
        recipients.gone.answer(status=410)
        yield recipients


def run_article(app: Thorn, recipients: Recipients) -> Report:
    """Create, change, publish and remove an article, and check the deliveries.

    Args:
        app: The app that sends; a worker delivers.
        recipients: The recipients to subscribe.
    """
    subscriptions = {
        "healthy": app.subscribe("article.*", recipients.healthy.url),
        "flaky": app.subscribe("article.published", recipients.flaky.url),
        "gone": app.subscribe(["article.created", "thorn.*"], recipients.gone.url),
    }
    messages = _live_an_article(app)
    for message in messages:
        Receipt(app, message).wait(PATIENCE)
    names = {subscription.id: name for name, subscription in subscriptions.items()}
    rows = tuple(_rows(app, messages, names))
    secrets = {name: s.secret or "" for name, s in subscriptions.items()}
    gone = app.subscription(subscriptions["gone"].id)
    checks = {
        **_check_deliveries(rows),
        "the subscription of the gone recipient is disabled": (
            gone is not None and not gone.enabled
        ),
        **_check_requests(recipients, secrets),
    }
    shown = (f"allowed_networks = [{LOOPBACK!r}]", f"allowed_ports = {PORTS!r}")
    return Report(settings=shown, rows=rows, checks=checks)


def _live_an_article(app: Thorn) -> list[Message]:
    """Create, change, publish and remove the article; return the messages sent."""
    model = declare_article(app)
    sent: list[Message] = []

    def remember(sender: Thorn, *, message: Message) -> None:
        sent.append(message)

    with signals.message_sent.connected_to(remember, sender=app):
        article = model(1, "Hello")
        signals.model_created.send(model, instance=article)
        article.title = "Hello, world"
        signals.model_changed.send(model, instance=article, previous={"title": "Hello"})
        article.state = "PUBLISHED"
        signals.model_changed.send(model, instance=article, previous={"state": "DRAFT"})
        signals.model_deleted.send(model, instance=article)
    return sent


def _rows(app: Thorn, messages: Sequence[Message], names: Mapping[str, str]) -> Iterator[Row]:
    for message in messages:
        for delivery in app.deliveries(message_id=message.id):
            attempts = list(app.attempts(delivery.id))
            yield Row(
                event=message.event,
                recipient=names[delivery.subscription_id],
                attempts=delivery.attempt_count,
                statuses=tuple(str(a.status or a.error) for a in attempts),
                latency=1000 * attempts[-1].duration if attempts else None,
                state=str(delivery.state),
                message=message.id,
            )


def _check_deliveries(rows: Sequence[Row]) -> dict[str, bool]:
    by_name: dict[str, list[Row]] = {"healthy": [], "flaky": [], "gone": []}
    for row in rows:
        by_name[row.recipient].append(row)
    delivered, cancelled = str(DeliveryState.DELIVERED), str(DeliveryState.CANCELLED)
    return {
        "the healthy recipient got all five messages at the first attempt": (
            Counter(row.event for row in by_name["healthy"])
            == {**dict.fromkeys(EVENTS, 1), "article.changed": 2}
            and all((r.state, r.statuses) == (delivered, ("200",)) for r in by_name["healthy"])
        ),
        "the flaky recipient got its message at the third attempt": (
            [(r.event, r.state, r.statuses) for r in by_name["flaky"]]
            == [("article.published", delivered, ("503", "503", "200"))]
        ),
        "the gone recipient got one request": (
            [(r.event, r.state, r.statuses) for r in by_name["gone"]]
            == [("article.created", cancelled, ("410",))]
        ),
    }


def _check_requests(recipients: Recipients, secrets: Mapping[str, str]) -> dict[str, bool]:
    """Check the requests with the recipients' code."""
    verified: list[Message] = []
    refused = 0
    for name, recipient in recipients.named():
        for request in recipient.received:
            try:
                verified.append(receiver.verify(request.body, request.headers, secrets[name]))
            except ThornError:
                refused += 1
    return {
        f"every signature verifies ({len(verified)} requests)": refused == 0 and bool(verified),
        "every request links to the article": all(
            message.ref == "https://magazine.example/articles/1" for message in verified
        ),
        "no recipient got an event it didn't subscribe to": len(verified) + refused == 9,
    }


@click.command()
@click.option(
    "--store",
    "url",
    metavar="URL",
    help="An empty store to use (default: a temporary SQLite file).",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines: deliveries, then checks.")
def demo(url: str | None, *, as_json: bool) -> int:
    """Demonstrate Thorn on this machine.

    An article is created, changed, published and removed, and a worker process delivers the events
    to three recipients. Then the worker is killed while it delivers, and another one takes over.
    Other processes can't use the memory store, so --store memory:// skips the second part.

    Exits 1 if any check fails.
    """
    out = Console(stderr=True, quiet=True) if as_json else console()
    with _ending_on_sigterm(), staged(url) as stage, three_recipients() as recipients:
        _introduce(out, recipients, stage)
        report = run_article(stage.app, recipients)
        _show(out, report)
        checks = dict(report.checks)
        if stage.worker is not None:
            _introduce_crash(out)
            crash = run_crash(
                stage.app, stage.worker, stage.start_worker, lambda text: out.print(plain(text))
            )
            out.print()
            _show_checks(out, crash)
            checks |= crash
        good = all(checks.values())
        if not good:
            stage.tell_log()
    if as_json:
        write_json([*map(attrs.asdict, report.rows), {"checks": checks}])
    out.print()
    out.print("[bold green]All checks passed.[/]" if good else "[bold red]Some checks failed.[/]")
    return 0 if good else 1


@attrs.frozen(kw_only=True)
class Stage:
    """The app and the worker of a demo.

    Attributes:
        app: The app that sends.
        worker: The worker process; None if the app itself delivers.
        start_worker: Starts another worker.
        log: The log file of the workers.
    """

    app: Thorn
    worker: WorkerProcess | None
    start_worker: Callable[[], WorkerProcess]
    log: Path

    def tell_log(self) -> None:
        """Print the log of the workers."""
        if self.log.exists():
            click.echo(self.log.read_text("utf-8", "replace"), err=True)


@contextmanager
def staged(url: str | None) -> Iterator[Stage]:
    """Open an app on a store, and start a worker process if processes can share the store.

    Args:
        url: URL of an empty store; None creates a SQLite file.

    Raises:
        ConfigurationError: The URL is invalid, or the store isn't empty.
    """
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="thorn-demo-")))
        url = url or f"sqlite:///{directory / 'thorn.db'}"
        app = stack.enter_context(make_app(url, "outbox"))
        log = directory / "worker.log"
        start = partial(WorkerProcess, f"{__name__}:{worker_app.__name__}", url, log)
        if not app.store.shared:
            app.close()
            app = stack.enter_context(make_app(url))
            yield Stage(app=app, worker=None, start_worker=start, log=log)
            return
        app.store.check()
        held = app.stats()
        if held.subscriptions or held.messages:
            raise ConfigurationError(
                f"{app.store!r} is not empty ({held.messages} messages, {held.subscriptions}"
                " subscriptions), and the demo would deliver them; pass an empty --store"
            )
        worker = stack.enter_context(start())
        yield Stage(app=app, worker=worker, start_worker=start, log=log)


@contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """Exit by an exception on SIGTERM, so that the worker process is stopped, too."""
    former = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def _introduce(out: Console, recipients: Recipients, stage: Stage) -> None:
    out.print("[bold]Thorn demo[/]: an article is created, changed, published and removed.\n")
    table = Table("recipient", "URL", "subscribed to", "responds", box=None, pad_edge=False)
    wants = ("article.*", "article.published", "article.created, thorn.*")
    answers = ("200", "503, 503, 200", "410 Gone")
    for (name, recipient), want, answer in zip(recipients.named(), wants, answers, strict=True):
        table.add_row(name, recipient.url, want, answer)
    out.print(table)
    out.print()
    if stage.worker is not None:
        out.print(plain(f"Store: {stage.app.store!r}"))
        out.print(f"Worker: process {stage.worker.pid}")
    else:
        out.print("Store: memory. Without --store, you see a worker crash and recover, too.")


def _introduce_crash(out: Console) -> None:
    out.print("\n[bold]Now a crash[/]: the worker is killed while it delivers orders.\n")


def _show(out: Console, report: Report) -> None:
    out.print("\nThe demo may deliver to this machine because of", markup=False)
    for setting in report.settings:
        out.print(f"  {setting}", markup=False)
    out.print()
    table = Table(box=None, pad_edge=False)
    for column in ("message", "recipient", "attempts", "status", "latency", "state"):
        right = column in ("attempts", "latency")
        table.add_column(column, justify="right" if right else "left", no_wrap=True)
    colours = {"delivered": "green", "cancelled": "yellow", "failed": "red"}
    for row in report.rows:
        table.add_row(
            row.event,
            row.recipient,
            str(row.attempts),
            ", ".join(row.statuses),
            "" if row.latency is None else f"{row.latency:.1f} ms",
            f"[{colours.get(row.state, 'red')}]{row.state}[/]",
        )
    out.print(table)
    out.print()
    _show_checks(out, report.checks)


def _show_checks(out: Console, checks: Mapping[str, bool]) -> None:
    for check, held in checks.items():
        out.print(f"{'[green]✓[/]' if held else '[red]✗[/]'} {check}")
