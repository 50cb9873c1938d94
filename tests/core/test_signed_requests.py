"""What is signed when it is sent, and whom it reaches: from the app to the recipient."""

from __future__ import annotations

from datetime import timedelta

import attrs
import pytest
from api_client import LOCAL

from thorn_core import ConfigurationError, Subscription, Thorn, hookimpl
from thorn_core.receiver import verify
from thorn_core.testing import LocalRecipient

BOTH = LOCAL.evolve(signatures=["standard-webhooks", "standard-webhooks-ed25519"])


@pytest.fixture
def recipient():
    with LocalRecipient() as recipient:
        yield recipient


def sent(app, recipient):
    """What arrives of a message."""
    app.send("a.b", {"n": 1})
    app.worker().drain()
    return list(recipient.received)


@pytest.mark.parametrize("secret", ["whsk_" + 43 * "A" + "=", "a shared text", "whpk_abcd"])
def test_a_request_that_a_scheme_can_not_sign_is_not_sent(recipient, secret):
    with Thorn(dispatcher="outbox", settings=LOCAL) as app:
        made = app.subscribe("*", recipient.url)
        app.store.change_subscription(made.id, lambda s: attrs.evolve(s, secrets=(secret,)))
        assert sent(app, recipient) == []
        assert [d.state for d in app.deliveries()] == ["pending"]


@pytest.mark.parametrize(
    "signatures", [["standard-webhooks"], ["github"], ["stripe"], ["hook-hmac"]]
)
@pytest.mark.parametrize("secrets", [(), ("",), ("whsec_",), ("w",), "whsec_" + 32 * "A"])
def test_a_stored_subscription_without_a_good_secret_gets_nothing(recipient, signatures, secrets):
    settings = LOCAL.evolve(signatures=signatures)
    with Thorn(dispatcher="outbox", settings=settings) as app:
        made = app.subscribe("*", recipient.url)
        app.store.change_subscription(made.id, lambda s: attrs.evolve(s, secrets=secrets))
        assert sent(app, recipient) == []
        assert [d.reason for d in app.deliveries()] == ["an internal error"]


def test_a_static_subscriber_may_do_without_a_secret(recipient):
    settings = LOCAL.evolve(subscribers={"*": recipient.url})
    with Thorn(dispatcher="outbox", settings=settings) as app:
        (request,) = sent(app, recipient)
        assert "webhook-signature" not in request.headers


def test_a_request_whose_secrets_are_over_is_not_sent(recipient):
    with Thorn(dispatcher="outbox", settings=LOCAL) as app:
        made = app.subscribe("*", recipient.url)
        over = {made.secret: made.created_at - timedelta(seconds=1)}
        app.store.change_subscription(made.id, lambda s: attrs.evolve(s, secret_expiry=over))
        assert sent(app, recipient) == []


def test_with_schemes_of_two_kinds_each_signs_by_a_key_of_its_own(recipient):
    with Thorn(dispatcher="outbox", settings=BOTH) as app:
        made = app.subscribe("*", recipient.url)
        (request,) = sent(app, recipient)
        assert verify(request.body, request.headers, made.secret).event == "a.b"
        scheme = "standard-webhooks-ed25519"
        assert verify(request.body, request.headers, made.public_key, scheme=scheme).event == "a.b"


def test_a_scheme_is_added_without_changing_secrets(recipient):
    with Thorn(dispatcher="outbox", settings=LOCAL) as app:
        made = app.subscribe("*", recipient.url)
        store = app.store
        with Thorn(store=store, dispatcher="outbox", settings=BOTH, default=False) as later:
            added = later.rotate_secret(made.id, made.secret)
            (request,) = sent(later, recipient)
            assert verify(request.body, request.headers, made.secret)
            assert added.public_key


@pytest.mark.parametrize("secret", ["whsec_" + 32 * "A", 32 * "A"])
def test_the_public_libraries_verify_whatever_secret_is_taken(recipient, secret):
    standardwebhooks = pytest.importorskip("standardwebhooks")
    with Thorn(dispatcher="outbox", settings=LOCAL) as app:
        app.subscribe("*", recipient.url, secret=secret)
        (request,) = sent(app, recipient)
        assert standardwebhooks.Webhook(secret).verify(request.body, dict(request.headers))


def test_schemes_that_can_not_mint_are_refused_when_the_app_is_made():
    class Choosy:
        name = "choosy"

        def sign(self, signable, secrets):
            raise AssertionError

        def check(self, secret):
            raise ConfigurationError("never")

        @hookimpl
        def thorn_signature_schemes(self):
            return {self.name: self}

    with pytest.raises(ConfigurationError, match="no key fits all of the schemes choosy"):
        Thorn(plugins=[Choosy()], settings=LOCAL.evolve(signatures=["choosy"]), default=False)


# -- whom it reaches


class Plugin:
    """Adds a recipient of each owner."""

    def __init__(self, url):
        self.url = url

    @hookimpl
    def thorn_subscriptions(self, message):
        made = {"events": ("*",), "created_at": message.at, "updated_at": message.at}
        return [
            Subscription(id=f"sub_{owner}", url=f"{self.url}{owner}", owner=owner, **made)
            for owner in ("ada", "bob")
        ]


def settings_of(kind, url):
    """Static subscribers of nobody, of ada, and of bob; and the plugins that they need."""
    targets = [f"{url}all", *({"url": url + owner, "owner": owner} for owner in ("ada", "bob"))]
    if kind == "plugin":
        return LOCAL.evolve(subscribers={"a.*": targets[0]}), [Plugin(url)]
    return LOCAL.evolve(subscribers={"a.*": targets if kind == "list" else lambda _: targets}), []


@pytest.mark.parametrize("kind", ["list", "callable", "plugin"])
@pytest.mark.parametrize(
    ("sender", "reached"),
    [("ada", {"ada", "all"}), ("thorn:operator", {"all"}), (None, {"ada", "bob", "all"})],
)
def test_the_owner_of_a_subscriber_is_heeded_wherever_it_comes_from(
    recipient, kind, sender, reached
):
    settings, plugins = settings_of(kind, recipient.url)
    with Thorn(dispatcher="outbox", settings=settings, plugins=plugins) as app:
        app.send("a.b", {}, sender=sender)
        app.worker().drain()
        assert {request.path.strip("/") for request in recipient.received} == reached
        if kind == "list":
            urls = [s.url for s in app.subscribers("a.b", sender=sender)]
            assert {url.removeprefix(recipient.url) for url in urls} == reached
