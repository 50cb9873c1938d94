"""What a worker tells of itself: its log, and the line in a terminal."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

import pytest
from rich.console import Console

from thorn_core import RetryPolicy, Settings, Thorn
from thorn_core.cli.logs import JsonFormatter, TextFormatter, logging_by
from thorn_core.cli.status import Backlog, Figures, Rate, Tally, Trouble, status_line
from thorn_core.testing import LocalRecipient


def make_record(message="hello", *args, level=logging.INFO, **extra):
    logger = logging.getLogger("thorn_core.somewhere")
    return logger.makeRecord(logger.name, level, __file__, 1, message, args, None, extra=extra)


def as_json(record):
    line = JsonFormatter().format(record)
    assert "\n" not in line
    return json.loads(line)


def test_a_record_is_an_object_on_a_line():
    told = as_json(make_record("%d of\n%s", 3, "these", level=logging.WARNING, seconds=1.5))
    assert datetime.fromisoformat(told.pop("time")).tzinfo == UTC
    assert told == {
        "level": "warning",
        "logger": "thorn_core.somewhere",
        "message": "3 of\nthese",
        "seconds": 1.5,
    }


def test_an_exception_is_told_with_its_traceback():
    try:
        raise ValueError("no \ud800 text")
    except ValueError:
        record = make_record()
        record.exc_info = sys.exc_info()
    told = as_json(record)
    assert told["exception"].startswith("Traceback")
    assert "ValueError" in told["exception"]


def test_what_json_can_not_hold_becomes_text_and_what_is_ours_stays():
    told = as_json(make_record(what=object, level_name="x", time="never", logger="another"))
    assert told["what"] == "<class 'object'>"
    assert told["logger"] == "thorn_core.somewhere"
    assert told["time"] != "never"


def test_text_is_a_line_with_a_time_that_has_a_zone():
    record = make_record(level=logging.ERROR)
    stamp, level, message = TextFormatter().format(record).split(maxsplit=2)
    assert datetime.fromisoformat(stamp).tzinfo
    assert (level, message) == ("ERROR", "hello")


class Listening(logging.Handler):
    """Keeps what it gets."""

    def __init__(self):
        super().__init__()
        self.heard = []

    def emit(self, record):
        self.heard.append(record.getMessage())


def test_only_the_named_loggers_are_written_and_afterwards_all_is_as_before():
    ours, theirs = Listening(), Listening()
    root = logging.getLogger()
    root.addHandler(theirs)
    child, other = logging.getLogger("thorn_x.child"), logging.getLogger("shop")
    try:
        with logging_by(ours, ["thorn_x"], "info"):
            child.info("one")
            child.debug("too low")
            other.warning("two")
        child.warning("three")
        child.info("too low")
    finally:
        root.removeHandler(theirs)
    assert ours.heard == ["one"]
    assert theirs.heard == ["two", "three"]
    assert logging.getLogger("thorn_x").handlers == []


def test_what_a_worker_does_is_counted():
    settings = Settings(
        allowed_networks=["127.0.0.0/8"],
        allowed_ports=range(1, 65536),
        retry_policy=RetryPolicy((0.01, 60)),
    )
    with LocalRecipient() as recipient, Thorn(settings=settings) as app, Tally(app) as tally:
        for event in ("a.*", "b.*"):
            app.subscribe(event, recipient.url)
        other = Thorn(settings=settings)
        other.subscribe("*", recipient.url)
        other.send("a.b")
        other.close()
        app.send("a.b")
        recipient.answer(status=410, times=1)
        app.send("b.c")
        recipient.answer(status=500)
        app.send("a.b")
        before = tally.figures
    assert before == Figures(attempts=3, failed_attempts=2, delivered=1, cancelled=1, retrying=1)
    assert str(before) == "1 delivered, 2 attempts failed (1 to retry), 1 cancelled"
    assert Figures(attempts=5, delivered=3).since(Figures(attempts=1, delivered=2)) == Figures(
        attempts=4, delivered=1
    )


def test_a_delivery_that_is_given_up_is_not_to_be_retried():
    settings = Settings(
        allowed_networks=["127.0.0.0/8"],
        allowed_ports=range(1, 65536),
        retry=False,
        disable_after=None,
    )
    with LocalRecipient() as recipient, Thorn(settings=settings) as app, Tally(app) as tally:
        recipient.answer(status=500)
        subscription = app.subscribe("*", recipient.url)
        app.send("a.b")
        app.update_subscription(subscription.id, url="http://127.0.0.1:1/")
        app.send("a.b")
    assert tally.figures == Figures(attempts=2, failed_attempts=2, failed=2)
    assert str(tally.figures) == "0 delivered, 2 attempts failed (0 to retry), 2 failed"


def test_the_rate_speaks_of_the_last_seconds():
    rate = Rate()
    assert rate.of(0, at=100.0) == 0
    for second in range(1, 21):
        found = rate.of(10 * second, at=100.0 + second)
    assert found == 10
    assert rate.of(200, at=130.0) == 0


def lines_of(text, width=80):
    """As a live display shows it."""
    rendered = Console(width=width).render_lines(text, pad=False)
    return ["".join(segment.text for segment in line) for line in rendered]


def test_the_status_fits_80_columns_whatever_the_figures():
    figures = Figures(
        attempts=10**9,
        delivered=123_456_789,
        failed_attempts=1_234_567,
        retrying=1_234_567,
        failed=9,
    )
    first, second = lines_of(
        status_line(figures, rate=12_345.6, in_flight=12_288, backlog="1,000,000 waiting")
    )
    assert first.startswith("123,456,789 delivered  12,346/s  1,234,567 failed")
    assert len(first) <= 80
    assert second == "1,000,000 waiting"


def test_the_status_tells_of_trouble_and_of_the_stop():
    quiet = Figures(delivered=3)
    told = lines_of(status_line(quiet, rate=0, in_flight=2))
    assert told == ["3 delivered  0/s  2 in flight", ""]
    (_, second) = lines_of(status_line(quiet, rate=0, in_flight=2, trouble=3.7, backlog="x"))
    assert second == "the store is failing, retrying in 4 s"
    (_, second) = lines_of(status_line(quiet, rate=0, in_flight=2, trouble=0.0))
    assert second == "the store is failing, retrying now"
    (_, second) = lines_of(status_line(quiet, rate=0, in_flight=2, trouble=1.0, stopping=True))
    assert second.startswith("stopping")


def test_trouble_is_shown_once_until_the_store_works_again():
    shown = []
    trouble = Trouble(shown.append)
    assert trouble.seconds is None
    for seconds in (0.2, 0.4, 30.0):
        trouble.emit(make_record("can't work", retry_in=seconds))
    trouble.emit(make_record("something else"))
    assert 29 < trouble.seconds <= 30
    trouble.emit(make_record("works again", retry_in=None))
    assert trouble.seconds is None
    trouble.emit(make_record("can't work", retry_in=1.0))
    trouble.over()
    assert trouble.seconds is None
    trouble.emit(make_record("can't record", retry_in=1.0))
    assert shown == ["can't work", "something else", "works again", "can't work", "can't record"]


def test_the_backlog_says_how_much_waits_and_how_long():
    with Thorn(dispatcher="outbox") as app:
        backlog = Backlog(app)
        assert str(backlog) == ""
        app.send("a.b")
        backlog.look()
        assert str(backlog) == "1 waiting, oldest for 0 s"
        app.worker().drain()
        backlog.look()
        assert str(backlog) == "nothing waiting"


def test_a_backlog_that_can_not_be_seen_says_so(monkeypatch):
    from thorn_core import StoreError

    with Thorn(dispatcher="outbox") as app:
        backlog = Backlog(app)

        def fails(**arguments):
            raise StoreError("gone")

        monkeypatch.setattr(app.store, "stats", fails)
        backlog.look()
        assert str(backlog) == "the store is unavailable"


@pytest.mark.parametrize("concurrency", [1, 7])
def test_a_worker_may_have_a_concurrency_of_its_own(concurrency):
    with Thorn() as app:
        assert app.worker().concurrency == 256
        assert app.worker(concurrency=concurrency).concurrency == concurrency


def test_the_transport_of_a_worker_has_its_concurrency(monkeypatch):
    made = []

    class Plugin:
        from thorn_core import hookimpl

        @hookimpl
        def thorn_transport(self, settings):
            made.append(settings.concurrency)

    with Thorn(plugins=[Plugin()]) as app:
        app.worker(concurrency=3).drain()
        app.worker().drain()
    assert made == [3, 256]
