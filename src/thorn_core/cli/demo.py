"""`thorn demo`: three recipients, one article, and what became of it all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import attrs
import click
from rich.table import Table

from thorn_core import receiver, signals
from thorn_core.app import Thorn
from thorn_core.cli.common import console, write_json
from thorn_core.errors import ThornError
from thorn_core.events import Receipt
from thorn_core.models import ModelEvent, webhook_model
from thorn_core.recipients import allow_cidr_network, block_internal_ips, ensure_protocol
from thorn_core.retries import RetryPolicy
from thorn_core.settings import Settings
from thorn_core.testing.recipient import LocalRecipient
from thorn_core.values import DeliveryState, Message

EVENTS = ("article.created", "article.changed", "article.published", "article.removed")
# Seconds; the default policy waits for hours.
RETRIES = (0.2, 0.4, 0.8)
PATIENCE = 20.0
LOOPBACK = "127.0.0.0/8"


def declare_article(app: Thorn) -> type:
    """Declare what the demo publishes, sent by this app whatever the default is."""

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
        attempts: How many were made.
        statuses: What each got.
        latency: Milliseconds of the last attempt; None if there was none.
        state: Where the delivery stands.
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
    """What happened.

    Attributes:
        setting: The setting that allows recipients on this machine.
        rows: Every delivery.
        checks: What had to be, and whether it was.
    """

    setting: str
    rows: tuple[Row, ...]
    checks: Mapping[str, bool]

    @property
    def good(self) -> bool:
        """Whether all of it went as it must."""
        return all(self.checks.values())


@attrs.frozen(kw_only=True)
class Recipients:
    """The three recipients."""

    healthy: LocalRecipient
    flaky: LocalRecipient
    gone: LocalRecipient

    def named(self) -> Iterator[tuple[str, LocalRecipient]]:
        """Each with its name."""
        return iter((("healthy", self.healthy), ("flaky", self.flaky), ("gone", self.gone)))


@contextmanager
def three_recipients() -> Iterator[Recipients]:
    """Start a healthy one, one that fails twice and then works, and one that is gone."""
    with ExitStack() as stack:
        recipients = Recipients(
            healthy=stack.enter_context(LocalRecipient()),
            flaky=stack.enter_context(LocalRecipient()),
            gone=stack.enter_context(LocalRecipient()),
        )
        recipients.flaky.answer(status=503, times=2)
        recipients.gone.answer(status=410)
        yield recipients


def run_demo(recipients: Recipients) -> Report:
    """Create, change, publish and remove an article, and see what the recipients got.

    Args:
        recipients: Whom to tell.
    """
    settings = Settings(
        recipient_validators=[
            allow_cidr_network(LOOPBACK),
            block_internal_ips(),
            ensure_protocol("http"),
        ],
        retry_policy=RetryPolicy(RETRIES, jitter=0),
    )
    with Thorn(settings=settings, dispatcher="background") as app:
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
            "the subscription of the one that is gone is disabled": (
                gone is not None and not gone.enabled
            ),
            **_check_requests(recipients, secrets),
        }
    shown = f"recipient_validators = [allow_cidr_network({LOOPBACK!r}), …]"
    return Report(setting=shown, rows=rows, checks=checks)


def _live_an_article(app: Thorn) -> list[Message]:
    """What happens to the article; gives back the messages that it sends."""
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
    delivered, discarded = str(DeliveryState.DELIVERED), str(DeliveryState.DISCARDED)
    return {
        "the healthy one got all five, each at the first attempt": (
            Counter(row.event for row in by_name["healthy"])
            == {**dict.fromkeys(EVENTS, 1), "article.changed": 2}
            and all((r.state, r.statuses) == (delivered, ("200",)) for r in by_name["healthy"])
        ),
        "the flaky one got what it wants at the third attempt": (
            [(r.event, r.state, r.statuses) for r in by_name["flaky"]]
            == [("article.published", delivered, ("503", "503", "200"))]
        ),
        "the one that is gone was asked once": (
            [(r.event, r.state, r.statuses) for r in by_name["gone"]]
            == [("article.created", discarded, ("410",))]
        ),
    }


def _check_requests(recipients: Recipients, secrets: Mapping[str, str]) -> dict[str, bool]:
    """What the recipients' own code makes of the requests."""
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
        "every request says where the article is": all(
            message.ref == "https://magazine.example/articles/1" for message in verified
        ),
        "nothing arrived that wasn't asked for": len(verified) + refused == 9,
    }


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Lines of JSON: deliveries, then the checks.")
def demo(*, as_json: bool) -> int:
    """Show Thorn at work, on this machine alone.

    Exits 1 if anything did not go as it must.
    """
    with three_recipients() as recipients:
        if not as_json:
            _introduce(recipients)
        report = run_demo(recipients)
    if as_json:
        write_json([*map(attrs.asdict, report.rows), {"checks": report.checks}])
    else:
        _show(report)
    return 0 if report.good else 1


def _introduce(recipients: Recipients) -> None:
    out = console()
    out.print("[bold]Thorn demo[/]: an article is created, changed, published and removed.\n")
    table = Table("recipient", "listens on", "wants", "answers", box=None, pad_edge=False)
    wants = ("article.*", "article.published", "article.created, thorn.*")
    answers = ("200", "503 twice, then 200", "410: gone for good")
    for (name, recipient), want, answer in zip(recipients.named(), wants, answers, strict=True):
        table.add_row(name, recipient.url, want, answer)
    out.print(table)


def _show(report: Report) -> None:
    out = console()
    out.print(
        f"\nRecipients on this machine are allowed here by\n  {report.setting}\n", markup=False
    )
    table = Table(box=None, pad_edge=False)
    for column in ("message", "recipient", "attempts", "status", "latency", "state"):
        right = column in ("attempts", "latency")
        table.add_column(column, justify="right" if right else "left", no_wrap=True)
    colours = {"delivered": "green", "discarded": "yellow", "exhausted": "red"}
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
    for check, held in report.checks.items():
        out.print(f"{'[green]✓[/]' if held else '[red]✗[/]'} {check}")
    out.print()
    out.print(
        "[bold green]All went as it must.[/]"
        if report.good
        else "[bold red]Not all went as it must.[/]"
    )
