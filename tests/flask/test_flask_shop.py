"""The example shop, over real HTTP: its server, its worker, and a customer's warehouse."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from pathlib import Path

import attrs
import httpx
import pytest
from flask_programs import FLASK, TIMEOUT, Running
from running import run

SHOP = Path(__file__).parents[2] / "examples" / "flask_shop"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@attrs.frozen
class Shop:
    """The shop and the warehouse, at work."""

    url: str
    warehouse: str

    def call(self, who, method, path, json=None, status=200):
        headers = {"Authorization": f"Bearer token-of-{who}"} if who else {}
        url = path if path.startswith("http") else self.url + path
        answer = httpx.request(method, url, json=json, headers=headers, timeout=TIMEOUT)
        assert answer.status_code == status, answer.text
        return (
            answer.json() if answer.content and "json" in answer.headers["content-type"] else None
        )

    def told(self, number):
        deadline = time.monotonic() + TIMEOUT
        while True:
            told = httpx.get(f"{self.warehouse}/received", timeout=TIMEOUT).json()
            if len(told) >= number or time.monotonic() > deadline:
                return told
            time.sleep(0.05)


@pytest.fixture
def shop(tmp_path):
    environment = {
        "FLASK_APP": str(SHOP / "shop"),
        "FLASK_SQLALCHEMY_DATABASE_URI": f"sqlite:///{tmp_path / 'shop.db'}",
        "FLASK_THORN_ALLOWED_NETWORKS": json.dumps(["127.0.0.0/8"]),
        "FLASK_THORN_ALLOWED_PORTS": json.dumps(["1024-65535"]),
        "FLASK_THORN_BASE_URL": "https://shop.example.com",
        "FLASK_ORDERS_SECRET": SECRET,
    }
    run(tmp_path, environment, FLASK, "create-tables")
    run(tmp_path, environment, FLASK, "thorn", "init-db")
    serve = ("run", "--port", "0")
    warehouse = {**environment, "FLASK_APP": str(SHOP / "warehouse")}
    with ExitStack() as stack:
        servers = [
            stack.enter_context(Running(tmp_path, env, FLASK, *serve))
            for env in (environment, warehouse)
        ]
        stack.enter_context(Running(tmp_path, environment, FLASK, "thorn", "worker"))
        yield Shop(*(server.wait_for(r"http://127\.0\.0\.1:[1-9]\d*")[0] for server in servers))


def test_a_customer_is_told_of_orders_of_theirs(shop):
    hook = {"event": "order.*", "url": f"{shop.warehouse}/orders", "hmac_secret": SECRET}
    shop.call(None, "POST", "/hooks/", hook, status=401)
    subscription = shop.call("ada", "POST", "/hooks/", hook, status=201)
    shop.call("bob", "GET", subscription["subscription"], status=404)

    for who in ("bob", "ada"):
        number = shop.call(who, "POST", "/orders", {"item": f"{who}'s bear"}, 201)["number"]
    shop.call("bob", "POST", f"/orders/{number}/pay", status=404)
    shop.call("ada", "POST", f"/orders/{number}/refund", status=409)
    shop.call("ada", "POST", f"/orders/{number}/pay")
    shop.call("ada", "POST", f"/orders/{number}/pay", status=409)
    shop.call("ada", "POST", f"/orders/{number}/refund")

    common = {
        "ref": f"https://shop.example.com/orders/{number}",
        "number": number,
        "item": "ada's bear",
    }
    told = sorted(shop.told(3), key=lambda item: item["event"])
    assert told == [
        {"event": "order.created", "state": "NEW", **common},
        {"event": "order.paid", "state": "PAID", **common},
        {"event": "order.refunded", "state": "REFUNDED", **common},
    ]
    deadline = time.monotonic() + TIMEOUT
    states = []
    while states != ["delivered"] * 3 and time.monotonic() < deadline:
        items = shop.call("ada", "GET", subscription["deliveries"])["items"]
        states = [item["state"] for item in items]
    assert states == ["delivered"] * 3

    shop.call("ada", "DELETE", subscription["subscription"], status=204)
    forged = httpx.post(f"{shop.warehouse}/orders", json={"event": "order.paid"}, timeout=TIMEOUT)
    assert forged.status_code == 401
    assert len(shop.told(3)) == 3
