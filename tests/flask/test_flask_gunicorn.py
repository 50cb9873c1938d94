"""Under gunicorn: processes that fork, and threads; messages arrive, and processes end in time."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import httpx
import pytest
from flask_programs import FLASK, TIMEOUT, Running
from running import run

from thorn_core import Settings, Thorn

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
REQUESTS = 40

SHOP = """
import os

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import Mapped, mapped_column
from thorn_core import Event, ModelEvent, webhook_model
from thorn_flask import ThornFlask
from thorn_sqlalchemy import SqlStore

db = SQLAlchemy()
webhooks = ThornFlask(store=lambda: SqlStore(db.engine))
order_paid = Event("order.paid")

@webhook_model
class Order(db.Model):
    class webhooks:
        fields = ("number",)
        on_create = ModelEvent("order.created")

    number: Mapped[int] = mapped_column(primary_key=True)

def create_app():
    app = Flask("shop")
    app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE"]
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"connect_args": {"timeout": 30}}
    app.config["THORN_DISPATCHER"] = os.environ["DISPATCHER"]
    app.config["THORN_ALLOWED_NETWORKS"] = ["127.0.0.0/8"]
    app.config["THORN_ALLOWED_PORTS"] = range(1, 65536)
    db.init_app(app)
    webhooks.init_app(app)
    app.add_url_rule("/orders/<int:number>", view_func=create, methods=["POST"])
    if os.environ.get("WARM"):
        # Before the fork: the engine's thread, its loop and its connections are there.
        with app.app_context():
            order_paid.send({"number": 0}).wait(30)
    return app

def create(number):
    db.session.add(Order(number=number))
    order_paid.send({"number": number}, within=db.session)
    db.session.commit()
    return {"pid": os.getpid()}
"""


@contextmanager
def gunicorn(where, environment, *options):
    command = ("-m", "gunicorn", "-b", "127.0.0.1:0", "--graceful-timeout", "20", *options)
    # There it has a socket of its own, which other servers of the user's may not share.
    environment = {**environment, "HOME": str(where)}
    with Running(where, environment, *command, "shop:create_app()") as server:
        server.url = server.wait_for(r"Listening at: (http://\S+)")[1]
        try:
            yield server
        except BaseException as error:
            # What the programs raised is in their log alone.
            error.add_note(server.text)
            raise
    assert server.code == 0, server.text
    assert server.seconds < 30
    assert "Traceback" not in server.text, server.text


@pytest.fixture
def place(tmp_path, recipient):
    (tmp_path / "shop.py").write_text(SHOP, "utf-8")
    database = f"sqlite:///{tmp_path / 'shop.db'}"
    program = "from shop import *; app = create_app()\nwith app.app_context(): db.create_all()"
    environment = {"DATABASE": database, "DISPATCHER": "outbox"}
    run(tmp_path, environment, "-c", program)
    settings = Settings(allowed_networks=["127.0.0.0/8"], allowed_ports=range(1, 65536))
    with Thorn(store=database, dispatcher="outbox", settings=settings, default=False) as app:
        app.subscribe("order.*", recipient.url, secret=SECRET)
    return tmp_path, environment


def order(server, numbers):
    """Make orders, several at once; gives the processes that answered."""
    pids = set()
    failures = []

    def make(some):
        for number in some:
            answer = httpx.post(f"{server.url}/orders/{number}", timeout=TIMEOUT)
            if answer.status_code == 200:
                pids.add(answer.json()["pid"])
            else:
                failures.append(answer.text)

    threads = [threading.Thread(target=make, args=[numbers[n::4]]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert failures == []
    return pids


def told(recipient, number):
    """What arrived: events and numbers, each verified and each once."""
    requests = recipient.wait_for(number, TIMEOUT)
    assert all(request.verified for request in requests)
    return sorted((r.json["event"], r.json["data"]["number"]) for r in requests)


def expected(numbers):
    return sorted((event, n) for event in ("order.created", "order.paid") for n in numbers)


NUMBERS = range(1, REQUESTS + 1)


@pytest.mark.parametrize(
    "options",
    [("-w", "2"), ("-w", "2", "--threads", "2", "--preload")],
    ids=" ".join,
)
def test_with_an_outbox_a_worker_delivers(place, recipient, options):
    where, environment = place
    with (
        Running(where, environment, FLASK, "--app", "shop", "thorn", "worker") as worker,
        gunicorn(where, environment, *options) as server,
    ):
        pids = order(server, NUMBERS)
        assert told(recipient, 2 * REQUESTS) == expected(NUMBERS)
    assert worker.code == 0
    assert len(pids) <= int(options[1])


@pytest.mark.parametrize(
    "options",
    [("-w", "2"), ("-w", "2", "--threads", "2", "--preload")],
    ids=" ".join,
)
def test_in_the_background_the_processes_deliver_themselves(place, recipient, options):
    where, environment = place
    environment = {**environment, "DISPATCHER": "background"}
    with gunicorn(where, environment, *options) as server:
        order(server, NUMBERS)
        assert told(recipient, 2 * REQUESTS) == expected(NUMBERS)


def test_children_of_a_process_that_has_delivered_begin_anew(place, recipient):
    where, environment = place
    environment = {**environment, "DISPATCHER": "background", "WARM": "1"}
    with gunicorn(where, environment, "-w", "2", "--preload") as server:
        assert told(recipient, 1) == [("order.paid", 0)]
        order(server, NUMBERS)
        arrived = told(recipient, 2 * REQUESTS + 1)
        assert arrived == sorted([("order.paid", 0), *expected(NUMBERS)])


def test_what_is_under_way_when_the_server_is_stopped_ends(place, recipient):
    where, environment = place
    environment = {**environment, "DISPATCHER": "background"}
    recipient.answer(delay=1.0)
    with gunicorn(where, environment, "-w", "1", "--threads", "4") as server:
        order(server, [1])
        recipient.wait_for(2, TIMEOUT)
    with Thorn(store=environment["DATABASE"], dispatcher="outbox", default=False) as app:
        states = {delivery.event: delivery.state for delivery in app.deliveries()}
    assert states == {"order.created": "delivered", "order.paid": "delivered"}
