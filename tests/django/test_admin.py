"""The admin, by its forms and buttons: what it changes, shows, hides and refuses."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from datetime import timedelta

import backoffice
import magazine_project
import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connections, transaction
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext

from thorn_core import DeliveryState, Message
from thorn_core.keys import new_id
from thorn_core.testing import LocalRecipient
from thorn_django import get_app
from thorn_django.models import Subscription, SubscriptionPattern

ROOT = "/admin/thorn_django/"
NEW = {
    "url": "https://example.com/hook",
    "events": "article.*\r\norder.paid",
    "content_type": "application/json",
    "hmac_digest": "sha256",
    "headers": "",
    "description": "",
    "rate_limit": "",
    "owner": "",
    "secret": "",
}


@pytest.fixture(scope="module", autouse=True)
def _admin(_databases):
    with backoffice.opened():
        yield


@pytest.fixture(autouse=True)
def _database(default_alias):
    backoffice.clear()
    with override_settings(
        THORN_RETRY=False,
        THORN_ALLOWED_NETWORKS=["127.0.0.0/8"],
        THORN_ALLOWED_PORTS=range(1, 65536),
    ):
        yield


@pytest.fixture
def app():
    return get_app()


@pytest.fixture
def client():
    return logged_in(get_user_model().objects.create_superuser("ada", password="lovelace"))


@pytest.fixture
def recipient():
    with LocalRecipient() as recipient:
        yield recipient


def logged_in(user):
    client = Client(enforce_csrf_checks=False)
    client.force_login(user)
    return client


def somebody(*permissions):
    """A client of staff with these permissions only."""
    user = get_user_model().objects.create_user(f"u{len(permissions)}", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    assert user.user_permissions.count() == len(permissions)
    return logged_in(user)


def page_of(thing, what="change"):
    kind = {"sub": "subscription", "dlv": "delivery", "msg": "message"}[thing.id[:3]]
    return f"{ROOT}{kind}/{thing.id.replace('_', '_5F')}/{what}/"


def text_of(response):
    return response.content.decode()


def said(response):
    return [str(message) for message in response.context["messages"]]


def errors_of(response):
    return dict(response.context["adminform"].form.errors)


def history():
    from django.contrib.admin.models import LogEntry

    entries = LogEntry.objects.order_by("id")
    return [(entry.object_id, entry.get_change_message()) for entry in entries]


def failed(app, recipient, *events, ages=()):
    """Deliveries that have failed, of messages that are so old."""
    recipient.answer(status=500, body=b"away")
    receipts = []
    events = events or ["article.created"]
    for event, age in zip(events, ages or [timedelta()] * len(events), strict=True):
        at = app.clock() - age
        message = Message(id=new_id("msg", at), event=event, data=b'{"n": 0}', at=at)
        receipts.append(app.send_message(message))
    app.worker().drain()
    recipient.answer(status=200)
    return [delivery for receipt in receipts for delivery in receipt.deliveries]


# -- subscriptions


def test_one_is_made_through_the_app_and_its_secret_is_shown_once(client, app):
    page = client.post(f"{ROOT}subscription/add/", {**NEW, "owner": " 42 ", "rate_limit": "2.5"})
    (made,) = app.subscriptions()
    assert (made.events, made.url) == (("article.*", "order.paid"), "https://example.com/hook")
    form = client.get(f"{ROOT}subscription/add/").context["adminform"].form
    assert (form["content_type"].value(), form["hmac_digest"].value()) == (
        "application/json",
        "sha256",
    )
    assert (made.owner, made.rate_limit, made.enabled) == ("42", 2.5, True)
    assert list(app.subscribers("article.created", sender="42")) == [made]
    assert made.secret in text_of(page)
    assert "no-store" in page["Cache-Control"]
    assert history() == [(made.id, "Added.")]
    for url in (page_of(made), page_of(made, "history"), f"{ROOT}subscription/"):
        shown = client.get(url)
        assert shown.status_code == 200
        assert made.secret not in text_of(shown)


def test_a_secret_may_be_given(client, app):
    secret = "whsec_" + "A" * 32
    client.post(f"{ROOT}subscription/add/", {**NEW, "secret": secret})
    assert next(app.subscriptions()).secret == secret
    page = client.post(f"{ROOT}subscription/add/", {**NEW, "secret": "short"})
    assert list(errors_of(page)) == ["secret"]


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("url", "ftp://example.com/", "ftp"),
        ("url", "https://10.0.0.1/", "10.0.0.1"),
        ("url", "", "This field is required."),
        ("events", "order.paid\nwhat ever", "what ever"),
        ("events", " \n ", "This field is required."),
        ("headers", "Host: intranet", "Host"),
        ("headers", "no header", "'no header' is not a header; write X-Name: value"),
        ("headers", "X-A: 1\nX-A: 2", "X-A is given twice; give it once"),
        ("headers", "X-A: 1\nx-a: 2", "given twice"),
        ("headers", "X-Token: ••••••••", "there is none"),
        ("content_type", "text/x", "text/x"),
        ("hmac_digest", "md5", "md5"),
        ("description", "x" * 1001, "at most 1000 characters"),
        ("rate_limit", "-1", "1/3600 to 100000"),
        ("owner", "x" * 256, "at most 255 characters"),
        ("owner", "4\x1b2", r"'4\x1b2' is not the ID of a user or tenant; use 1 to 255 characters"),
        ("owner", "4\x852", "without control characters"),
        ("owner", "4\x002", "Null characters are not allowed"),
    ],
)
def test_what_the_core_refuses_is_said_at_its_field(client, app, field, value, words):
    page = client.post(f"{ROOT}subscription/add/", {**NEW, field: value})
    assert list(errors_of(page)) == [field]
    assert words in html.unescape(errors_of(page)[field].as_text())
    assert list(app.subscriptions()) == []


def test_it_is_changed_through_the_app(client, app):
    made = app.subscribe("a.b", "https://example.com/a", owner="42")
    fields = {k: v for k, v in NEW.items() if k not in ("owner", "secret")}
    page = client.post(page_of(made), {**fields, "description": "of the shop"}, follow=True)
    assert page.status_code == 200
    changed = app.subscription(made.id)
    assert (changed.events, changed.owner) == (("article.*", "order.paid"), "42")
    assert (changed.enabled, changed.disabled_reason) == (False, "an operator disabled it")
    assert (changed.secrets, changed.created_at) == (made.secrets, made.created_at)
    assert changed.updated_at > made.updated_at
    assert not SubscriptionPattern.objects.exists()
    ((_, words),) = history()
    assert words == "Changed URL, Events, Description and Enabled."
    client.post(page_of(made), {**fields, "description": "of the shop", "enabled": "on"})
    assert app.subscription(made.id).disabled_reason is None
    assert SubscriptionPattern.objects.count() == 2


def test_saving_what_is_unchanged_changes_nothing(client, app):
    made = app.subscribe(["a.b", "c.*"], "https://example.com/a", headers={"X-A": "1", "X-B": "2"})
    form = client.get(page_of(made)).context["adminform"].form
    data = {name: form[name].value() or "" for name in form.fields}
    client.post(page_of(made), {**data, "events": "a.b\r\nc.*"})
    assert app.subscription(made.id) == made
    assert history() == [(made.id, "No fields changed.")]


def test_credentials_among_headers_are_masked_and_stay(client, app):
    headers = {"Authorization": "Bearer of-a-token", "X-Shop": "7"}
    made = app.subscribe("a.b", "https://example.com/a", headers=headers)
    form = client.get(page_of(made)).context["adminform"].form
    data = {name: form[name].value() or "" for name in form.fields}
    assert data["headers"] == "Authorization: ••••••••\nX-Shop: 7"
    client.post(page_of(made), {**data, "headers": "Authorization: ••••••••\nX-Shop: 8"})
    assert app.subscription(made.id).headers == {**headers, "X-Shop": "8"}
    client.post(page_of(made), {**data, "headers": "Authorization: Bearer new"})
    assert app.subscription(made.id).headers == {"Authorization": "Bearer new"}


def test_a_masked_credential_does_not_follow_to_another_origin(client, app):
    headers = {"Authorization": "Bearer of-a-token", "X-Shop": "7"}
    made = app.subscribe("a.b", "https://example.com/a", headers=headers)
    form = client.get(page_of(made)).context["adminform"].form
    data = {name: form[name].value() or "" for name in form.fields}
    elsewhere = {**data, "url": "https://other.example/"}
    page = client.post(page_of(made), elsewhere, follow=True)
    assert app.subscription(made.id).headers == {"X-Shop": "7"}
    assert said(page)[0] == (
        "Removed these headers because they belonged to the URL's old origin: Authorization."
    )
    back = {**data, "headers": "Authorization: Bearer new"}
    page = client.post(page_of(made), back, follow=True)
    assert app.subscription(made.id).headers == {"Authorization": "Bearer new"}
    assert len(said(page)) == 1


def test_a_credential_is_masked_also_for_those_who_may_only_look(app):
    made = app.subscribe("a.b", "https://e.com/a", headers={"X-Api-Key": "of-a-key", "X-Shop": "7"})
    page = text_of(somebody("view_subscription").get(page_of(made)))
    assert "X-Shop: 7" in page
    assert "of-a-key" not in page
    assert made.secret not in page


def test_it_is_removed_through_the_app(client, app):
    first, second, third = (app.subscribe("a.b", f"https://example.com/{n}") for n in range(3))
    client.post(page_of(first, "delete"), {"post": "yes"})
    assert list(app.subscriptions()) == [second, third]
    selected = {"action": "delete_selected", "_selected_action": [second.id], "post": "yes"}
    client.post(f"{ROOT}subscription/", selected)
    assert list(app.subscriptions()) == [third]
    assert [pattern.subscription_id for pattern in SubscriptionPattern.objects.all()] == [third.id]
    assert {key for key, _ in history()} == {first.id, second.id}


def test_its_secret_is_rotated_and_shown_once(client, app):
    made = app.subscribe("a.b", "https://example.com/a")
    page = client.post(page_of(made, "rotate"))
    rotated = app.subscription(made.id)
    assert rotated.secrets[1:] == made.secrets
    assert rotated.secret in text_of(page)
    assert made.secret not in text_of(page)
    assert "The old secret keeps signing until" in text_of(page)
    assert rotated.secret not in text_of(client.get(page_of(made)))
    assert history() == [(made.id, "Rotated the secret.")]


def test_its_former_secret_is_revoked_if_one_wants_that(client, app):
    made = app.subscribe("a.b", "https://example.com/a")
    page = client.post(page_of(made, "rotate"), {"overlap": "0"})
    assert app.subscription(made.id).secrets == (app.subscription(made.id).secret,)
    assert "The old secret is revoked" in text_of(page)
    for overlap in ("-1", "nan", "soon"):
        page = client.post(page_of(made, "rotate"), {"overlap": overlap}, follow=True)
        assert len(said(page)) == 1
    assert len(app.subscription(made.id).secrets) == 1


def test_a_private_key_is_not_shown_but_its_public_one(client, app):
    with override_settings(THORN_SIGNATURES=["standard-webhooks-ed25519"]):
        made = get_app().subscribe("a.b", "https://example.com/a")
        page = client.post(page_of(made, "rotate"))
        assert get_app().subscription(made.id).public_key in text_of(page)
        assert "whsk_" not in page.content.decode()


def test_several_are_disabled_and_enabled(client, app):
    made = [app.subscribe("a.b", f"https://example.com/{n}") for n in range(3)]
    selected = {"_selected_action": [s.id for s in made[:2]]}
    page = client.post(f"{ROOT}subscription/", {**selected, "action": "disable"}, follow=True)
    assert said(page) == ["2 subscriptions were disabled."]
    assert [s.enabled for s in app.subscriptions()] == [False, False, True]
    assert app.subscription(made[0].id).disabled_reason == "an operator disabled it"
    assert SubscriptionPattern.objects.count() == 1
    selected = {"_selected_action": [s.id for s in made]}
    page = client.post(f"{ROOT}subscription/", {**selected, "action": "enable"}, follow=True)
    assert said(page) == ["2 subscriptions were enabled."]
    assert [words for _, words in history()] == ["Disabled."] * 2 + ["Enabled."] * 2


def test_a_test_tells_what_came_of_it(client, app, recipient):
    with override_settings(THORN_DISPATCHER="inline"):
        made = get_app().subscribe("a.b", recipient.url)
        page = client.post(page_of(made, "test"), follow=True)
        (words,) = said(page)
        assert re.match(r"The test message was delivered: 200 after \d+ ms. See <a href=", words)
        assert recipient.received[-1].json["event"] == "thorn.test"
        recipient.answer(status=503)
        (words,) = said(client.post(page_of(made, "test"), follow=True))
        assert "failed: 503 after" in words
        link = re.search('href="([^"]+)"', words)[1]
        assert "503" in text_of(client.get(link))
    assert len(history()) == 2


def test_a_test_without_a_worker_is_on_its_way(client, app, recipient, monkeypatch):
    monkeypatch.setattr("thorn_django.admin.subscriptions.PATIENCE", 0.05)
    made = app.subscribe("a.b", recipient.url)
    (words,) = said(client.post(page_of(made, "test"), follow=True))
    assert words.startswith("Test message queued; a worker will deliver it.")
    assert f"?subscription={made.id}" in words


def test_nothing_is_sent_to_what_is_disabled(client, app):
    made = app.subscribe("a.b", "https://example.com/a")
    app.update_subscription(made.id, enabled=False)
    page = client.post(page_of(made, "test"), follow=True)
    assert said(page) == ["The subscription is disabled; enable it first."]
    assert history() == []


@pytest.mark.parametrize("what", ["test", "rotate"])
def test_buttons_want_a_post_a_permission_a_token_and_a_subscription(app, client, what):
    made = app.subscribe("a.b", "https://example.com/a")
    assert client.get(page_of(made, what)).status_code == 405
    assert somebody("view_subscription").post(page_of(made, what)).status_code == 403
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(get_user_model().objects.get(username="ada"))
    assert strict.post(page_of(made, what)).status_code == 403
    app.unsubscribe(made.id)
    page = client.post(page_of(made, what), follow=True)
    assert made.id in said(page)[0]
    assert history() == []


def test_those_who_may_only_look_have_no_buttons(app):
    made = app.subscribe("a.b", "https://example.com/a")
    page = text_of(somebody("view_subscription").get(page_of(made)))
    for words in ("Send test", "Rotate secret", "Retry failed and", "thorn-chart", "Save"):
        assert words not in page
    client = somebody("view_subscription", "change_subscription")
    page = text_of(client.get(page_of(made)))
    assert "Rotate secret" in page
    assert "Retry failed and cancelled" not in page


def test_subscriptions_are_found(client, app):
    first = app.subscribe("a.b", "https://one.example.com/", owner="7")
    second = app.subscribe("a.b", "https://two.example.com/")
    app.update_subscription(second.id, enabled=False)

    def found(query):
        results = client.get(f"{ROOT}subscription/?{query}").context["cl"].result_list
        return [row.pk for row in results]

    assert found("") == [second.id, first.id]
    assert found(f"q={first.id}") == found("q=7") == found("q=one.EXAMPLE") == [first.id]
    assert found("standing=enabled") == [first.id]
    assert found("standing=disabled") == [second.id]
    assert found("standing=failing") == []


# -- messages and deliveries


def test_a_message_shows_its_payload_readably_and_escaped(client, app):
    message = app.send("a.b", {"title": "<b>ü</b>", "control": "\x1b[2J\u202e"}).message
    page = client.get(page_of(message))
    assert page.status_code == 200
    assert "&quot;title&quot;: &quot;&lt;b&gt;ü&lt;/b&gt;&quot;" in text_of(page)
    assert "\u202e" not in text_of(page)
    assert f"?q={message.id}" in text_of(page)
    assert [row.pk for row in client.get(f"{ROOT}message/").context["cl"].result_list] == [
        message.id
    ]
    assert client.get(f"{ROOT}message/?routed=yes").context["cl"].result_count == 0
    assert client.get(f"{ROOT}message/?q={message.id}").context["cl"].result_count == 1


def test_what_thorn_writes_is_only_looked_at(client, app, recipient):
    app.subscribe("article.*", recipient.url)
    (delivery,) = failed(app, recipient)
    message = app.message(delivery.message_id)
    for thing in (delivery, message):
        assert client.post(page_of(thing), {}).status_code == 403
        assert client.post(page_of(thing, "delete"), {"post": "yes"}).status_code == 403
        assert client.get(page_of(thing, "history")).status_code == 200
    for kind in ("delivery", "message"):
        assert client.get(f"{ROOT}{kind}/add/").status_code == 403
        selected = {"action": "delete_selected", "_selected_action": [delivery.id], "post": "yes"}
        client.post(f"{ROOT}{kind}/", selected)
    assert app.delivery(delivery.id) is not None


def test_a_delivery_shows_its_attempts_safely(client, app, recipient):
    app.subscribe("article.*", recipient.url)
    recipient.answer(status=500, body=b"<script>alert(1)</script>", headers={"x-a": "<i>"})
    receipt = app.send("article.created", {"title": "Hello"})
    app.worker().drain()
    (delivery,) = receipt.deliveries
    page = text_of(client.get(page_of(delivery)))
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in page
    assert "&lt;i&gt;" in page
    assert f"POST {recipient.url}" in page
    assert "&quot;title&quot;: &quot;Hello&quot;" in page
    shown = text_of(somebody("view_delivery").get(page_of(delivery)))
    assert "thorn-attempt" not in shown
    assert "Hello" not in shown
    assert "Retry" not in shown


def test_a_body_that_is_no_text_is_shown_as_digits():
    from thorn_django.admin.shown import readable

    assert (
        readable(b'{"a": [1, "\\ud800"]}')
        == '{\n  "a": [\n    1,\n    "\N{REPLACEMENT CHARACTER}"\n  ]\n}'
    )
    assert readable(b"\x00\xff") == "00 ff"
    assert readable(bytes(600)).endswith("… 88 more bytes")
    assert len(readable(b"x" * 300_000)) < 101_000
    assert readable(b"[" * 100_000).startswith("[[[")


def test_deliveries_are_retried(client, app, recipient):
    app.subscribe("article.*", recipient.url)
    first, second = failed(app, recipient, "article.a", "article.b")
    waiting = app.send("article.c")
    app.worker().drain()
    selected = {"action": "retry", "_selected_action": [first.id, second.id]}
    page = client.post(f"{ROOT}delivery/", selected, follow=True)
    assert said(page) == ["2 deliveries were retried."]
    assert app.delivery(first.id).state is DeliveryState.PENDING
    app.worker().drain()
    assert app.delivery(first.id).state is DeliveryState.DELIVERED
    assert sorted(history()) == [(first.id, "Retried."), (second.id, "Retried.")]
    assert waiting.deliveries


def test_what_cannot_be_retried_is_said(client, app, recipient):
    subscription = app.subscribe("article.*", recipient.url)
    (delivery,) = failed(app, recipient)
    app.replay(delivery.id)
    selected = {"action": "retry", "_selected_action": [delivery.id], "_from_page": "1"}
    page = client.post(f"{ROOT}delivery/", selected, follow=True)
    assert said(page) == ["1 delivery was not retried: only finished deliveries can be."]
    assert page.redirect_chain[-1][0] == page_of(delivery)
    app.worker().drain()
    app.update_subscription(subscription.id, enabled=False)
    page = client.post(f"{ROOT}delivery/", selected, follow=True)
    assert said(page) == [
        "1 delivery was not retried: the subscription is disabled or has been removed."
    ]
    assert history() == []


def test_a_static_subscriber_is_retried_and_its_secret_stays_hidden(client, recipient):
    secret = "whsec_" + "A" * 32
    with override_settings(
        THORN_SUBSCRIBERS={"article.*": {"url": recipient.url, "secret": secret}}
    ):
        app = get_app()
        (delivery,) = failed(app, recipient)
        page = text_of(client.get(page_of(delivery)))
        assert secret not in page
        assert "(not in the store)" in page
        assert f"POST {recipient.url}" in page
        selected = {"action": "retry", "_selected_action": [delivery.id]}
        page = client.post(f"{ROOT}delivery/", selected, follow=True)
        assert said(page) == ["1 delivery was retried."]


def test_pending_deliveries_are_cancelled_once_that_is_confirmed(client, app, recipient):
    app.subscribe("article.*", recipient.url)
    (over,) = failed(app, recipient)
    (pending,) = failed(app, recipient)
    app.replay(pending.id)
    selected = {"action": "cancel", "_selected_action": [over.id, pending.id]}
    page = client.post(f"{ROOT}delivery/", selected)
    assert "1 pending delivery will not be attempted again" in text_of(page)
    assert "1 selected delivery is not pending and will not change." in html.unescape(text_of(page))
    assert app.delivery(pending.id).state is DeliveryState.PENDING
    page = client.post(f"{ROOT}delivery/", {**selected, "confirmed": "yes"}, follow=True)
    assert said(page) == ["1 delivery was cancelled."]
    gone = app.delivery(pending.id)
    assert (gone.state, gone.reason) == (DeliveryState.CANCELLED, "cancelled by an operator")
    assert gone.finished_at is not None
    assert app.delivery(over.id).state is DeliveryState.FAILED
    assert history() == [(pending.id, "Cancelled.")]
    received = len(recipient.received)
    app.worker().drain()
    assert len(recipient.received) == received
    page = client.post(f"{ROOT}delivery/", {**selected, "confirmed": "yes"}, follow=True)
    assert said(page) == ["Nothing was cancelled: no selected delivery is pending."]
    # It can be had back.
    assert app.replay(pending.id) == 1


def test_what_failed_since_a_time_is_recovered(client, app, recipient):
    mine = app.subscribe("article.*", recipient.url)
    others = app.subscribe("other.*", recipient.url)
    ages = timedelta(days=3), timedelta(), timedelta()
    first, second, other = failed(app, recipient, "article.a", "article.b", "other.c", ages=ages)
    url = f"{ROOT}delivery/recover/?subscription={mine.id}"
    assert mine.url in text_of(client.get(url))
    since = app.clock() - timedelta(days=2)
    page = client.post(url, {"since": since.strftime("%Y-%m-%dT%H:%M")}, follow=True)
    assert said(page) == ["1 delivery was retried."]
    states = [app.delivery(delivery.id).state for delivery in (first, second, other)]
    assert states == [DeliveryState.FAILED, DeliveryState.PENDING, DeliveryState.FAILED]
    ((key, words),) = history()
    assert key == mine.id
    assert words.startswith("Retried failed and cancelled deliveries since ")
    assert "Enter a valid date/time" in text_of(client.post(url, {"since": "yesterday"}))
    app.update_subscription(others.id, enabled=False)
    page = client.get(f"{ROOT}delivery/recover/?subscription={others.id}&subscription=sub_none")
    assert "No deliveries to retry" in text_of(page)


def test_actions_lead_to_the_page_that_recovers(client, app, recipient):
    made = app.subscribe("article.*", recipient.url)
    (delivery,) = failed(app, recipient)
    for kind, key in (("subscription", made.id), ("delivery", delivery.id)):
        selected = {"action": "recover", "_selected_action": [key]}
        page = client.post(f"{ROOT}{kind}/", selected)
        assert page["Location"] == f"{ROOT}delivery/recover/?subscription={made.id}"
    client = somebody("view_delivery", "view_subscription")
    assert client.get(page["Location"]).status_code == 403


def test_too_many_at_once_are_left_to_the_command(client, app, recipient, monkeypatch):
    made = app.subscribe("article.*", recipient.url)
    found = failed(app, recipient, "article.a", "article.b", "article.c")
    monkeypatch.setattr("thorn_django.admin.lists.AT_ONCE", 2)
    monkeypatch.setattr("thorn_django.admin.deliveries.RECOVERED", 2)
    selected = {"action": "retry", "_selected_action": [delivery.id for delivery in found]}
    (words,) = said(client.post(f"{ROOT}delivery/", selected, follow=True))
    assert words.startswith("More than 2 selected")
    url = f"{ROOT}delivery/recover/?subscription={made.id}"
    page = client.post(url, {"since": "2026-01-01T00:00"})
    assert f"manage.py thorn_replay --subscription {made.id} --since 2026-01-01T00:00" in text_of(
        page
    )
    assert all(app.delivery(d.id).state is DeliveryState.FAILED for d in found)


def test_actions_need_the_permission_to_change_deliveries(app, recipient):
    app.subscribe("article.*", recipient.url)
    (delivery,) = failed(app, recipient)
    selected = {"action": "retry", "_selected_action": [delivery.id]}
    somebody("view_delivery").post(f"{ROOT}delivery/", selected)
    assert app.delivery(delivery.id).state is DeliveryState.FAILED
    somebody("view_delivery", "change_delivery").post(f"{ROOT}delivery/", selected)
    assert app.delivery(delivery.id).state is DeliveryState.PENDING


def test_deliveries_are_found(client, app, recipient):
    made = app.subscribe(["article.*", "order.*"], recipient.url)
    ages = timedelta(days=3), timedelta()
    old, new = failed(app, recipient, "article.a.b", "order.paid", ages=ages)
    app.replay(new.id)

    def found(query):
        return [row.pk for row in client.get(f"{ROOT}delivery/?{query}").context["cl"].result_list]

    assert (
        found("") == found(f"subscription={made.id}") == found(f"q={made.id}") == [new.id, old.id]
    )
    assert found("subscription=sub_other") == found("q=msg_other") == []
    assert found(f"q={old.id}") == found(f"q={old.message_id}") == [old.id]
    assert found("made=24h") == found("state=pending") == found("event=order.paid") == [new.id]
    assert found("state=failed") == found("event=article.*") == [old.id]
    assert found("event=*.paid") == [new.id]
    assert found("event=*.b") == found("state=in_flight") == []
    assert found("state=failed&event=article.*&made=7d") == [old.id]


def test_lists_count_and_look_through_a_bounded_number(client, app, recipient, monkeypatch):
    from thorn_django.admin import lists

    app.subscribe("article.*", recipient.url)
    found = failed(app, recipient, *["article.a"] * 5)
    monkeypatch.setattr(lists, "LISTED", 3)
    assert client.get(f"{ROOT}delivery/").context["cl"].result_count == 3
    monkeypatch.setattr(lists, "LISTED", 10_000)
    monkeypatch.setattr(lists, "REACH", 2)
    rows = client.get(f"{ROOT}delivery/?state=failed").context["cl"].result_list
    assert [row.pk for row in rows] == [delivery.id for delivery in found[:1:-1]]


def test_lists_cost_the_same_however_many_rows_they_have(client, app, recipient):
    app.subscribe("article.*", recipient.url)

    def cost():
        found = []
        for kind in ("subscription", "delivery", "message"):
            with CaptureQueriesContext(connections["default"]) as captured:
                assert client.get(f"{ROOT}{kind}/").status_code == 200
            found.append(len(captured))
        return found

    failed(app, recipient)
    before = cost()
    failed(app, recipient, *["article.a"] * 20)
    assert cost() == before
    with CaptureQueriesContext(connections["default"]) as captured:
        client.get(f"{ROOT}delivery/")
    counts = [q["sql"] for q in captured.captured_queries if "COUNT(" in q["sql"]]
    assert counts
    assert all("LIMIT 10000" in sql for sql in counts)


# -- the chart


def test_the_chart_shows_every_outcome_of_the_last_days(client, app, recipient):
    made = app.subscribe("article.*", recipient.url)
    failed(app, recipient)
    app.send("article.created")
    app.worker().drain()
    page = text_of(client.get(page_of(made)))
    assert 'role="img"' in page
    assert "1 delivered</title>" in page
    assert "1 failed</title>" in page
    assert page.count("<text ") == 14
    assert "style=" not in page.partition("thorn-chart")[2].partition("</section>")[0]


def test_one_failure_among_thousands_can_be_seen():
    from collections import Counter
    from datetime import date

    from thorn_django.admin.chart import HEIGHT, Day, blocks

    counts = Counter(delivered=100_000, failed=1, cancelled=1)
    found = blocks(Day(date(2026, 1, 1), counts), 100_002)
    assert [(block.outcome, block.count) for block in found] == list(counts.items())
    assert sum(block.height for block in found) == HEIGHT
    assert min(block.height for block in found) >= 3
    assert found[-1].y == 0
    assert blocks(Day(date(2026, 1, 1), Counter()), 5) == []


# -- other projects


def test_a_store_elsewhere_has_no_admin(client):
    with override_settings(THORN_STORE="memory://"):
        assert client.get(f"{ROOT}delivery/").status_code == 403
        assert client.get(f"{ROOT}subscription/add/").status_code == 403
        assert "Deliveries" not in text_of(client.get("/admin/"))


def test_rows_are_those_of_the_stores_database(client, other_alias):
    with override_settings(THORN_STORE="django://other"):
        client.post(f"{ROOT}subscription/add/", NEW)
        (made,) = get_app().subscriptions()
        assert client.get(page_of(made)).status_code == 200
        assert not Subscription.objects.using("default").exists()
        assert Subscription.objects.using("other").count() == 1


def test_a_model_of_the_projects_own_has_an_admin_with_its_fields(app):
    from django.contrib import admin
    from magazine.models import Hook

    from thorn_django.admin import SubscriptionAdmin

    site = admin.AdminSite(name="admin")
    with override_settings(THORN_SUBSCRIBER_MODEL="magazine.Hook"):
        from django.test import RequestFactory

        shown = SubscriptionAdmin(Hook, site)
        request = RequestFactory().get("/")
        request.user = get_user_model().objects.create_superuser("eve")
        sets = shown.get_fieldsets(request)
        assert sets[1] == ("Magazine", {"fields": ("plan", "user")})
        form = shown.get_form(request, fields=["url", "events", "plan", "content_type"])(
            {**NEW, "plan": "gold"}
        )
        assert form.is_valid(), form.errors
        hook = form.save(commit=False)
        shown.save_model(request, hook, form, False)
        assert (hook.plan, hook.events) == ("gold", ["article.*", "order.paid"])
        assert Hook.objects.get(pk=hook.pk).plan == "gold"
        shown.delete_model(request, hook)
        assert not Hook.objects.exists()


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_lists_and_actions_work_on_servers(kind, client, recipient):
    magazine_project.make_database(kind)
    magazine_project.clear_database(kind)
    with override_settings(THORN_STORE=f"django://{kind}"):
        app = get_app()
        client.post(f"{ROOT}subscription/add/", {**NEW, "url": recipient.url})
        (made,) = app.subscriptions()
        used_up, pending = failed(app, recipient, "article.a", "article.b")
        app.replay(pending.id)

        def found(query):
            results = client.get(f"{ROOT}delivery/?{query}").context["cl"].result_list
            return [row.pk for row in results]

        assert found("state=failed&event=article.*") == [used_up.id]
        assert found("state=pending") == found(f"q={pending.message_id}") == [pending.id]
        assert found("state=in_flight") == []
        assert len(found(f"subscription={made.id}&made=1h")) == 2
        assert client.get(f"{ROOT}message/?routed=yes").context["cl"].result_count == 2
        for thing in (made, used_up, app.message(pending.message_id)):
            assert client.get(page_of(thing)).status_code == 200
        selected = {"action": "cancel", "_selected_action": [pending.id], "confirmed": "yes"}
        page = client.post(f"{ROOT}delivery/", selected, follow=True)
        assert said(page) == ["1 delivery was cancelled."]
        assert app.delivery(pending.id).state is DeliveryState.CANCELLED


def test_lists_are_read_in_the_order_of_an_index(client, recipient):
    magazine_project.make_database("postgresql")
    magazine_project.clear_database("postgresql")
    with override_settings(THORN_STORE="django://postgresql"):
        app = get_app()
        app.subscribe("article.*", recipient.url)
        failed(app, recipient)
        asked = ("subscription/", "delivery/", "delivery/?subscription=sub_1", "message/")
        for page in asked:
            with CaptureQueriesContext(connections["postgresql"]) as captured:
                client.get(f"{ROOT}{page}")
            lists = [q["sql"] for q in captured.captured_queries if "ORDER BY" in q["sql"]]
            assert lists
            for sql in lists:
                plan = plan_of(sql)
                assert "Seq Scan" not in plan, plan
                assert "Sort" not in plan, plan


def plan_of(sql):
    """The plan of a statement if nothing but the way in can be chosen: the table is small."""
    with transaction.atomic("postgresql"), connections["postgresql"].cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")
        cursor.execute("SET LOCAL enable_bitmapscan = off")
        cursor.execute(f"EXPLAIN {sql}")
        return "\n".join(line for (line,) in cursor.fetchall())


OWN = """
from django.db import models
from thorn_django.models import AbstractSubscription

class Hook(AbstractSubscription):
    plan = models.CharField(max_length=20, default="free")
"""
OWN_ADMIN = """
from django.contrib import admin
from thorn_django.admin import SubscriptionAdmin
from .models import Hook

@admin.register(Hook)
class HookAdmin(SubscriptionAdmin):
    pass
"""
REGISTERED = """
import django
from django.conf import settings

settings.configure(
    SECRET_KEY="of the shop",
    INSTALLED_APPS=[
        *("django.contrib.contenttypes", "django.contrib.auth", "django.contrib.admin"),
        *("thorn_django", "shop"),
    ],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    THORN_SUBSCRIBER_MODEL="shop.Hook",
)
django.setup()
from django.contrib import admin
from shop.models import Hook
from thorn_django.models import Subscription

assert not admin.site.is_registered(Subscription)
print(type(admin.site.get_model_admin(Hook)).__name__)
"""


@pytest.mark.parametrize("name", ["SubscriptionAdmin", "HookAdmin"])
def test_a_projects_own_model_is_registered_unless_it_is_already(tmp_path, name):
    (tmp_path / "shop").mkdir()
    files = {"__init__": "", "models": OWN}
    if name == "HookAdmin":
        files["admin"] = OWN_ADMIN
    for file, text in files.items():
        (tmp_path / "shop" / f"{file}.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", REGISTERED],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout.strip(), done.stderr) == (name, "")
