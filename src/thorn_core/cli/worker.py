"""`thorn worker`: deliver messages from the store."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from time import monotonic

import attrs
import click
from rich.live import Live

from thorn_core.app import Thorn
from thorn_core.cli.app import find_app
from thorn_core.cli.common import Amount, console, plain
from thorn_core.cli.logs import JsonFormatter, TextFormatter, logging_by
from thorn_core.cli.status import Backlog, Figures, Rate, Tally, Trouble, status_line
from thorn_core.errors import ConfigurationError, StoreError, StoreSetupError
from thorn_core.signals import attempt_made
from thorn_core.worker import Worker
from thorn_core.worker.collector import relaxed_collector
from thorn_core.worker.thread import result_of, stopping_on_signals

logger = logging.getLogger(__name__)

LEVELS = ("debug", "info", "warning", "error")


@click.command()
@click.option("--once", is_flag=True, help="Attempt every due delivery once, then exit.")
@click.option(
    "--concurrency",
    type=click.IntRange(1, 100_000),
    help="Concurrent requests (default: the setting).",
)
@click.option(
    "--import",
    "modules",
    multiple=True,
    metavar="MODULE",
    help="Import a module that declares events, in addition to the setting imports (repeatable).",
)
@click.option(
    "--report",
    default=60.0,
    show_default=True,
    type=Amount(0, 86_400, min_open=True),
    help="Seconds between summaries in the log.",
)
@click.option("--log-level", default="info", show_default=True, type=click.Choice(LEVELS))
@click.option(
    "--log-format",
    type=click.Choice(["json", "text"]),
    help="Log format (default: a status line on a terminal, else json).",
)
@click.pass_obj
def worker(
    app_path: str | None,
    concurrency: int | None,
    modules: tuple[str, ...],
    report: float,
    log_level: str,
    log_format: str | None,
    *,
    once: bool,
) -> int:
    """Deliver messages from the store until SIGTERM or Ctrl-C.

    Any number of workers may share one database. A stopping worker finishes requests in flight
    within the grace period, leaves the rest to other workers and exits 0; a second Ctrl-C exits
    immediately. If the store is unreachable, the worker waits and retries. It exits 2 if the store
    isn't set up. Only the logs of Thorn and its plugins are written here; your app's logging
    configuration stays unchanged.

    With --once, for example from cron, it attempts everything that is due and exits 0, whatever
    recipients respond; failed deliveries are retried by a later run. It exits 1 if the store fails.
    """
    with find_app(app_path) as app, ExitStack() as stack:
        if not app.store.shared:
            raise ConfigurationError(
                f"this app's store lives in its own process ({app.store!r}), where no worker can"
                f" reach it; use a database, Thorn(store='sqlite:///thorn.db'), or deliver in the"
                f" app's process, Thorn(dispatcher='background')"
            )
        app.import_events(*modules)
        job = Job(app, app.worker(concurrency=concurrency), once=once)
        stack.enter_context(job.tally)
        stack.enter_context(stopping_on_signals(job.stop))
        if log_format is None and sys.stdout.isatty():
            stack.enter_context(_showing(job, log_level))
        else:
            stack.enter_context(_logging(job, log_level, log_format or "json", report))
        job.run()
    return 0


class Job:
    """The worker that this process runs.

    Args:
        app: The worker's app.
        worker: The worker.
        once: Attempt every due delivery once.
    """

    def __init__(self, app: Thorn, worker: Worker, *, once: bool) -> None:
        self.app = app
        self.worker = worker
        self.tally = Tally(app)
        self.stopping = threading.Event()
        self._once = once

    def stop(self) -> None:
        """Finish requests in flight, then let `run` return; safe in a signal handler."""
        self.stopping.set()
        self.worker.stop()

    def run(self) -> None:
        """Run the worker until it stops.

        Raises:
            StoreSetupError: The store isn't set up.
            StoreError: The store fails, with `once`.
        """
        try:
            self.app.store.check()
        except StoreSetupError:
            raise
        except StoreError as error:
            if self._once:
                raise
            logger.warning("%s; retrying until it succeeds", error, extra={"retry_in": 0.0})
        began = monotonic()
        logger.info(
            "worker started on %r",
            self.app.store,
            extra={"pid": os.getpid(), "concurrency": self.worker.concurrency},
        )
        try:
            with relaxed_collector():
                if self._once:
                    self.worker.drain()
                else:
                    result_of(self.app.submit(self.worker.arun()))
        finally:
            seconds = monotonic() - began
            tell("worker stopped", self.tally.figures, seconds)


def tell(what: str, figures: Figures, seconds: float) -> None:
    """Log figures, in the message and as the record's attributes."""
    numbers = {**attrs.asdict(figures), "seconds": round(seconds, 3)}
    logger.info("%s: %s in %.1f s", what, figures, seconds, extra=numbers)


def _loggers(app: Thorn) -> set[str]:
    """Return the names of the loggers of Thorn and of installed plugins."""
    installed = (plugin for plugin, _ in app.plugins.manager.list_plugin_distinfo())
    modules = (getattr(p, "__name__", type(p).__module__) for p in installed)
    return {"thorn_core", *(module.partition(".")[0] for module in modules)}


@contextmanager
def _logging(job: Job, level: str, form: str, report: float) -> Iterator[None]:
    """Log to standard output, with a summary at intervals."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    ended = threading.Event()

    def summarise() -> None:
        former, began = job.tally.figures, monotonic()
        while not job.stopping.wait(report):
            figures, now = job.tally.figures, monotonic()
            done = figures.since(former)
            if done != Figures():
                tell("lately", done, now - began)
            former, began = figures, now
        if not ended.is_set():
            logger.info("stopping: waiting for %d requests in flight", job.worker.in_flight)

    thread = threading.Thread(target=summarise, name="thorn-report", daemon=True)
    with logging_by(handler, _loggers(job.app), level):
        thread.start()
        try:
            yield
        finally:
            ended.set()
            job.stopping.set()
            thread.join()


@contextmanager
def _showing(job: Job, level: str) -> Iterator[None]:
    """Show a status line, and log records above it."""
    out, rate = console(), Rate()
    trouble = Trouble(lambda text: out.print(plain(text), soft_wrap=True))
    trouble.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    with (
        logging_by(trouble, _loggers(job.app), level),
        attempt_made.connected_to(trouble.over, sender=job.app),
        Backlog(job.app) as backlog,
        Live(
            get_renderable=lambda: status_line(
                figures := job.tally.figures,
                rate=rate.of(figures.delivered, at=monotonic()),
                in_flight=job.worker.in_flight,
                backlog=str(backlog),
                trouble=trouble.seconds,
                stopping=job.stopping.is_set(),
            ),
            console=out,
            transient=True,
        ),
    ):
        yield
