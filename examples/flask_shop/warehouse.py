"""A customer's warehouse: it is told of orders, and believes what is signed."""

from __future__ import annotations

from flask import Flask, jsonify
from flask.typing import ResponseReturnValue

from thorn_core import Message
from thorn_flask import verify_webhook

app = Flask(__name__)
# FLASK_ORDERS_SECRET in the environment.
app.config.from_prefixed_env()
told: list[dict[str, object]] = []


@app.post("/orders")
@verify_webhook(setting="ORDERS_SECRET")
def orders(message: Message) -> ResponseReturnValue:
    told.append({"event": message.event, "ref": message.ref, **message.payload})
    return "", 204


@app.get("/told")
def show() -> ResponseReturnValue:
    return jsonify(told)
