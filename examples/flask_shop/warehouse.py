"""A customer's warehouse: it receives orders, and accepts only signed ones."""

from __future__ import annotations

from flask import Flask, jsonify
from flask.typing import ResponseReturnValue

from thorn_core import Message
from thorn_flask import verify_webhook

app = Flask(__name__)
# Reads FLASK_ORDERS_SECRET from the environment.
app.config.from_prefixed_env()
received: list[dict[str, object]] = []


@app.post("/orders")
@verify_webhook(setting="ORDERS_SECRET")
def orders(message: Message) -> ResponseReturnValue:
    received.append({"event": message.event, "ref": message.ref, **message.payload})
    return "", 204


@app.get("/received")
def show() -> ResponseReturnValue:
    return jsonify(received)
