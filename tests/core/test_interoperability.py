"""What Thorn signs, other libraries verify; what they sign, `receiver` verifies."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import shutil
import subprocess
import time
from datetime import UTC, datetime

import pytest

from thorn_core import Settings, SignatureError, Thorn, receiver
from thorn_core.signatures import SCHEMES, Signable, new_secret
from thorn_core.testing import LocalRecipient

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def request_():
    """A request as it arrives, signed by every scheme, and its secret."""
    settings = Settings(
        allowed_networks=["127.0.0.0/8"],
        allowed_ports=range(1, 65536),
        signatures=("standard-webhooks", "hook-hmac", "github", "stripe"),
    )
    with LocalRecipient() as recipient, Thorn(settings=settings) as app:
        secret = app.subscribe("*", recipient.url).secret
        app.send("article.created", {"title": "Hé"})
        (arrived,) = recipient.received
        return arrived, secret


def test_standardwebhooks_verifies_ours(request_):
    from standardwebhooks import Webhook, WebhookVerificationError

    arrived, secret = request_
    assert Webhook(secret).verify(arrived.body, dict(arrived.headers))["data"] == {"title": "Hé"}
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(arrived.body, dict(arrived.headers))


def test_svix_verifies_ours(request_):
    from svix.webhooks import Webhook, WebhookVerificationError

    arrived, secret = request_
    Webhook(secret).verify(arrived.body, dict(arrived.headers))
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(arrived.body + b" ", dict(arrived.headers))


def test_stripe_verifies_ours(request_):
    import stripe

    arrived, secret = request_
    body = arrived.body.decode()
    signature = arrived.headers["stripe-signature"]
    stripe.WebhookSignature.verify_header(body, signature, secret, tolerance=300)
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.WebhookSignature.verify_header(body + " ", signature, secret)
    event = json.dumps({"id": "evt_1", "object": "event", "type": "charge.paid", "data": {}})
    signable = Signable(id="evt_1", timestamp=int(time.time()), body=event.encode())
    header = SCHEMES["stripe"].sign(signable, [secret])["Stripe-Signature"]
    assert stripe.Webhook.construct_event(event, header, secret)["id"] == "evt_1"


def test_githubs_scheme_verifies_ours(request_):
    arrived, secret = request_
    digest = hmac.new(secret.encode(), arrived.body, hashlib.sha256).hexdigest()
    assert arrived.headers["x-hub-signature-256"] == "sha256=" + digest


def test_githubs_documented_example():
    secret, body = "It's a Secret to Everybody", b"Hello, World!"
    made = SCHEMES["github"].sign(Signable(id="a", timestamp=0, body=body), [secret])
    assert made["X-Hub-Signature-256"] == (
        "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    )


@pytest.mark.parametrize("library", ["standardwebhooks", "svix.webhooks"])
def test_we_verify_what_the_standards_libraries_sign(library):
    module = __import__(library, fromlist=["Webhook"])
    secret, body = new_secret(), '{"type":"a.b","timestamp":"2026","data":{"n":1}}'
    now = datetime.now(UTC)
    signature = module.Webhook(secret).sign("msg_x", now, body)
    headers = {
        "webhook-id": "msg_x",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature,
    }
    message = receiver.verify(body.encode(), headers, secret)
    assert (message.id, message.payload) == ("msg_x", {"n": 1})
    with pytest.raises(SignatureError):
        receiver.verify(body.encode(), headers, new_secret())


def test_we_verify_what_stripe_signs():
    import stripe

    secret, body, at = "whsec_" + "x" * 32, '{"id":"evt_1","type":"charge.paid"}', int(time.time())
    signature = stripe.WebhookSignature._compute_signature(f"{at}.{body}", secret)
    headers = {"Stripe-Signature": f"t={at},v1={signature},v0=old"}
    message = receiver.verify(body.encode(), headers, secret, scheme="stripe")
    assert (message.id, message.event) == ("evt_1", "charge.paid")


SCRIPT = """
import { Webhook } from "standardwebhooks";
import { readFileSync } from "node:fs";
const { secret, body, headers } = JSON.parse(readFileSync(0, "utf8"));
const payload = new Webhook(secret).verify(body, headers);
const at = new Date();
const signature = new Webhook(secret).sign("msg_js", at, body);
console.log(JSON.stringify({ payload, timestamp: Math.floor(at / 1000), signature }));
"""


def test_the_javascript_library_verifies_ours_and_we_its(request_, tmp_path):
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        assert not os.environ.get("THORN_REQUIRE_SERVICES"), "node and npm are required here"
        pytest.skip("node or npm isn't installed")
    install = [npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(tmp_path)]
    done = subprocess.run(
        [*install, "standardwebhooks@1"], capture_output=True, text=True, timeout=120
    )
    if done.returncode:
        assert not os.environ.get("THORN_REQUIRE_SERVICES"), done.stderr
        pytest.skip("the npm registry can't be reached")
    arrived, secret = request_
    given = {"secret": secret, "body": arrived.body.decode(), "headers": dict(arrived.headers)}
    script = tmp_path / "verify.mjs"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [node, str(script)], input=json.dumps(given), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["payload"]["data"] == {"title": "Hé"}
    headers = {
        "webhook-id": "msg_js",
        "webhook-timestamp": str(told["timestamp"]),
        "webhook-signature": told["signature"],
    }
    assert receiver.verify(arrived.body, headers, secret).id == "msg_js"
