"""Flask-SQLAlchemy: messages in the session's transaction, and models that send events."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from places import make_place
from sqlalchemy import create_engine, event
from sqlalchemy.orm import Mapped, Session, mapped_column

from thorn_core import Event, ModelEvent, webhook_model
from thorn_flask import ThornFlask, current_thorn
from thorn_sqlalchemy import SqlStore, define_tables

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
paid = Event("flask_shop.paid")
db = SQLAlchemy()
webhooks = ThornFlask(store=lambda: SqlStore(db.engine))


@webhook_model
class Order(db.Model):
    __tablename__ = "flask_orders"

    class webhooks:
        on_create = ModelEvent("flask_order.created")
        on_paid = ModelEvent("flask_order.paid", state__now_eq="PAID").dispatches_on_change()

        def payload(self, order):
            return {"number": order.number, "state": order.state}

    number: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(default="NEW")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    for place in make_place(request.param, tmp_path):
        yield place.url


@contextmanager
def shop_on(url, **settings):
    app = Flask("shop")
    app.config.update(
        SQLALCHEMY_DATABASE_URI=url,
        THORN_DISPATCHER="outbox",
        THORN_ALLOWED_NETWORKS=["127.0.0.0/8"],
        THORN_ALLOWED_PORTS=range(1, 65536),
        **settings,
    )
    db.init_app(app)
    webhooks.init_app(app)
    app.add_url_rule("/orders/<int:number>", "create", create, methods=["POST"])
    app.add_url_rule("/orders/<int:number>", "pay", pay, methods=["PUT"])
    app.add_url_rule("/sent/<how>", "send", send, methods=["POST"])
    with app.app_context():
        db.create_all()
        app.extensions["thorn"].store.create()
    try:
        yield app
    finally:
        app.extensions["thorn"].close()
        with app.app_context():
            for engine in db.engines.values():
                engine.dispose()


@pytest.fixture
def shop(url):
    with shop_on(url) as app:
        yield app


def create(number):
    db.session.add(Order(number=number))
    db.session.commit()
    return ""


def pay(number):
    db.session.get_one(Order, number).state = "PAID"
    db.session.commit()
    return ""


def send(how):
    paid.send({"how": how}, within=db.session)
    match how:
        case "committed":
            db.session.commit()
        case "rolled-back":
            db.session.rollback()
        case "savepoint":
            with db.session.begin_nested():
                paid.send({"how": "inside"}, within=db.session)
            savepoint = db.session.begin_nested()
            paid.send({"how": "taken back"}, within=db.session)
            savepoint.rollback()
            db.session.commit()
        case "raised":
            raise RuntimeError("no stock")
    return ""


def messages(app):
    sent = app.extensions["thorn"].messages_to_route()
    return sorted(((message.event, message.payload) for message in sent), key=str)


def test_a_message_shares_the_sessions_transaction(shop):
    client = shop.test_client()
    for how in ("committed", "rolled-back", "forgotten", "raised", "savepoint"):
        client.post(f"/sent/{how}")
    assert [payload["how"] for _, payload in messages(shop)] == [
        "committed",
        "inside",
        "savepoint",
    ]


def test_models_send_their_events_by_themselves(shop):
    client = shop.test_client()
    client.post("/orders/7")
    client.put("/orders/7")
    client.put("/orders/7")
    assert client.post("/orders/7").status_code == 500  # it is there already
    assert messages(shop) == [
        ("flask_order.created", {"number": 7, "state": "NEW"}),
        ("flask_order.paid", {"number": 7, "state": "PAID"}),
    ]


def test_apps_on_databases_of_their_own_dont_meet(shop, tmp_path):
    with shop_on(f"sqlite:///{tmp_path / 'other.db'}") as other:
        other.test_client().post("/orders/1")
        shop.test_client().post("/orders/2")
        assert messages(other) == [("flask_order.created", {"number": 1, "state": "NEW"})]
        assert messages(shop) == [("flask_order.created", {"number": 2, "state": "NEW"})]


def test_a_session_without_flask_sends_within_an_apps_context(shop, url):
    engine = create_engine(url)
    with shop.app_context(), Session(engine) as session, session.begin():
        session.add(Order(number=7))
        paid.send({"how": "plain"}, within=session)
    engine.dispose()
    assert messages(shop) == [
        ("flask_order.created", {"number": 7, "state": "NEW"}),
        ("flask_shop.paid", {"how": "plain"}),
    ]


@contextmanager
def statements(app):
    """What this thread executes meanwhile, by whichever connection."""
    executed, here = [], threading.get_ident()

    def note(connection, cursor, statement, *rest):
        # Another thread wakes workers on PostgreSQL, once for many messages.
        if threading.get_ident() == here:
            executed.append(statement.split("(")[0].strip())

    with app.app_context():
        engine = db.engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield executed
    finally:
        event.remove(engine, "before_cursor_execute", note)


def test_sending_adds_the_inserts_of_a_message_and_nothing_else(shop, url):
    client = shop.test_client()
    client.post("/sent/committed")  # what is done once has been done
    inserts = (
        ["WITH made AS"]  # one statement inserts both rows
        if url.startswith("postgresql")
        else ['INSERT INTO "main"."thorn_messages"', 'INSERT INTO "main"."thorn_outbox"']
    )
    with statements(shop) as executed:
        client.post("/sent/committed")
    assert executed == inserts
    with statements(shop) as executed:
        client.post("/orders/8")
    assert executed == ["INSERT INTO flask_orders", *inserts]


def test_no_connection_is_held_after_a_request(shop):
    client = shop.test_client()
    for how in ("committed", "forgotten", "raised", "savepoint"):
        client.post(f"/sent/{how}")
        with shop.app_context():
            pool = db.engine.pool
        # But for that of the thread that wakes workers, for a moment.
        deadline = time.monotonic() + 10
        while pool.checkedout() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert pool.checkedout() == 0, how


def test_a_callback_has_a_session_of_its_own(tmp_path, recipient):
    counted = []

    def count(attempt):
        counted.append((db.session.query(Order).count(), current_thorn.store.shared))

    with shop_on(f"sqlite:///{tmp_path / 'shop.db'}") as shop:
        shop.extensions["thorn"].subscribe("flask_shop.*", recipient.url, secret=SECRET)

        @shop.post("/")
        def pay_now():
            db.session.add(Order(number=7))
            paid.send({}, within=db.session, on_success=count)
            db.session.commit()
            return ""

        shop.test_client().post("/")
        assert shop.extensions["thorn"].worker().drain() == 1
        with shop.app_context():
            assert db.engine.pool.checkedout() == 0
    assert counted == [(1, True)]


def test_the_tables_may_be_in_the_metadata_of_the_models(tmp_path):
    own = SQLAlchemy()
    tables = define_tables(own.metadata)
    app = Flask("shop")
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{tmp_path / 'own.db'}"
    own.init_app(app)
    ThornFlask(app, store=lambda: SqlStore(own.engine, tables=tables))
    with app.app_context():
        own.create_all()
        app.extensions["thorn"].store.check()
        app.extensions["thorn"].close()
        own.engine.dispose()


def test_the_extension_comes_after_the_database():
    app = Flask("shop")
    with pytest.raises(RuntimeError, match="init_app"):
        webhooks.init_app(app)
    assert "thorn" not in app.extensions
