"""A shop: customers order, pay and get refunds, and receive webhooks about their orders.

To run it, see the README. Environment variables FLASK_… set config values.
"""

from __future__ import annotations

from flask import Flask, abort, current_app, g, jsonify, request, url_for
from flask.typing import ResponseReturnValue
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from thorn_core import ModelEvent, model_reverser, webhook_model
from thorn_flask import ThornFlask, rest_blueprint
from thorn_sqlalchemy import SqlStore


class Base(DeclarativeBase):
    pass


db = SQLAlchemy(model_class=Base)
webhooks = ThornFlask(store=lambda: SqlStore(db.engine))


@webhook_model
class Order(db.Model):  # type: ignore[name-defined,misc]
    __tablename__ = "orders"

    class webhooks:  # noqa: N801 - the name Thorn looks for
        sender_field = "customer"
        reverse = model_reverser("order", number="number")
        on_create = ModelEvent("order.created")
        on_paid = ModelEvent("order.paid", state__now_eq="PAID").dispatches_on_change()
        on_refund = ModelEvent("order.refunded", state__now_eq="REFUNDED").dispatches_on_change()

        def payload(self, order: Order) -> dict[str, object]:
            return order.as_dict()

    number: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str]
    item: Mapped[str]
    state: Mapped[str] = mapped_column(default="NEW")

    def as_dict(self) -> dict[str, object]:
        return {"number": self.number, "item": self.item, "state": self.state}


def create_app() -> Flask:
    app = Flask(__name__)
    app.config.from_mapping(
        SQLALCHEMY_DATABASE_URI="sqlite:///shop.db",
        THORN_DISPATCHER="outbox",
        # Tokens of customers; a real shop stores hashes in a table.
        TOKENS={"token-of-ada": "ada", "token-of-bob": "bob"},
    )
    app.config.from_prefixed_env()
    db.init_app(app)
    webhooks.init_app(app)

    app.before_request(authenticate)
    app.register_blueprint(
        rest_blueprint(lambda: g.customer, challenge="Bearer"), url_prefix="/hooks"
    )
    app.add_url_rule("/orders", view_func=create, methods=["POST"])
    app.add_url_rule("/orders/<int:number>", "order", show)
    app.add_url_rule("/orders/<int:number>/pay", view_func=pay, methods=["POST"])
    app.add_url_rule("/orders/<int:number>/refund", view_func=refund, methods=["POST"])
    app.cli.command("create-tables")(create_tables)
    return app


def create_tables() -> None:
    """Create the shop's own tables."""
    db.create_all()
    if db.engine.dialect.name == "sqlite":
        with db.engine.connect() as connection:
            # The file keeps this mode: readers don't wait for the writer.
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")


def authenticate() -> None:
    credentials = request.authorization
    token = credentials.token if credentials and credentials.type == "bearer" else None
    g.customer = current_app.config["TOKENS"].get(token)


# -- orders


def create() -> ResponseReturnValue:
    if g.customer is None:
        abort(401)
    order = Order(customer=g.customer, item=str((request.json or {})["item"]))
    db.session.add(order)
    db.session.commit()
    return order.as_dict(), 201, {"Location": url_for("order", number=order.number)}


def show(number: int) -> ResponseReturnValue:
    return jsonify(own_order(number).as_dict())


def pay(number: int) -> ResponseReturnValue:
    return move(number, "NEW", "PAID")


def refund(number: int) -> ResponseReturnValue:
    return move(number, "PAID", "REFUNDED")


def move(number: int, before: str, after: str) -> ResponseReturnValue:
    order = own_order(number)
    order.state, former = after, order.state
    db.session.flush()
    if former != before:
        # The change is rolled back, and its event is never sent.
        db.session.rollback()
        return {"error": f"order {number} is {former}"}, 409
    db.session.commit()
    return order.as_dict()


def own_order(number: int) -> Order:
    order = db.session.get(Order, number)
    if order is None or order.customer != g.customer:
        abort(404)
    assert isinstance(order, Order)
    return order
