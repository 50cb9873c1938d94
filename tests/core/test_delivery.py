"""The pure heart of a delivery: its request, its outcome, its next attempt."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from thorn_core import (
    Attempt,
    ConfigurationError,
    DeliveryState,
    Message,
    PayloadError,
    Request,
    Response,
    RetryPolicy,
    Settings,
    Subscription,
)
from thorn_core.codecs import CODECS
from thorn_core.delivery import (
    HEADER_COUNT,
    PROTECTED_HEADERS,
    build_request,
    check_headers,
    disabled_message,
    encode_body,
    failing_message,
    follow_redirect,
    judge,
    make_delivery,
    make_unstored_delivery,
    merge_headers,
    retry_after,
    sign_request,
)
from thorn_core.recipients import DEFAULT_VALIDATORS
from thorn_core.signatures import SCHEMES
from thorn_core.values import OPERATOR

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MESSAGE = Message(id="msg_" + "a" * 32, event="article.created", data=b'{"n":1}', at=NOW)
SUBSCRIPTION = Subscription(
    id="sub_" + "b" * 32,
    events=("article.*",),
    url="https://example.com/hook",
    secrets=("whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",),
    created_at=NOW,
    updated_at=NOW,
)
DELIVERY = make_delivery(MESSAGE, SUBSCRIPTION, NOW)
SETTINGS = Settings()
POLICY = RetryPolicy((5, 300), jitter=0)


def attempt(status=None, *, error=None, headers=None):
    return Attempt(
        id="att_1",
        delivery_id=DELIVERY.id,
        number=1,
        at=NOW,
        duration=0.1,
        status=status,
        error=error,
        headers=headers or {},
    )


def judged(made, *, delivery=DELIVERY, settings=SETTINGS, policy=POLICY):
    return judge(made, delivery, policy=policy, settings=settings, at=NOW, random=0.5)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_delivered(status):
    assert judged(attempt(status)).state is DeliveryState.DELIVERED


@pytest.mark.parametrize("status", [100, 199, 300, 301, 302, 304, 400, 401, 404, 418, 500, 599])
def test_any_other_status_is_tried_again_by_the_policy(status):
    outcome = judged(attempt(status))
    assert outcome.state is DeliveryState.PENDING
    assert outcome.due_at == NOW + timedelta(seconds=5)
    assert outcome.reason == f"status {status}"
    assert outcome.pause_until is None


def test_no_response_is_tried_again_by_the_policy():
    outcome = judged(attempt(error="connection refused"))
    assert (outcome.state, outcome.reason) == (DeliveryState.PENDING, "connection refused")


def test_each_failure_waits_for_the_next_of_the_schedule():
    second = attrs.evolve(DELIVERY, attempt_count=1)
    assert judged(attempt(500), delivery=second).due_at == NOW + timedelta(seconds=300)


def test_attempts_used_up_is_failed():
    third = attrs.evolve(DELIVERY, attempt_count=2)
    assert judged(attempt(500), delivery=third).state is DeliveryState.FAILED


def test_a_replay_starts_the_schedule_anew():
    replayed = attrs.evolve(DELIVERY, attempt_count=3, attempts_before=3)
    assert judged(attempt(500), delivery=replayed).due_at == NOW + timedelta(seconds=5)


def test_gone_discards_and_disables():
    outcome = judged(attempt(410))
    assert outcome.state is DeliveryState.CANCELLED
    assert "410" in outcome.disable


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_retry_after_is_honoured_and_pauses_the_recipient(status):
    outcome = judged(attempt(status, headers={"retry-after": "90"}))
    assert outcome.due_at == outcome.pause_until == NOW + timedelta(seconds=90)


def test_retry_after_does_not_shorten_the_policy():
    outcome = judged(attempt(503, headers={"retry-after": "1"}))
    assert outcome.due_at == NOW + timedelta(seconds=5)
    assert outcome.pause_until == NOW + timedelta(seconds=1)


def test_retry_after_is_capped():
    outcome = judged(attempt(429, headers={"retry-after": "999999999"}))
    assert outcome.pause_until == NOW + timedelta(seconds=SETTINGS.retry_after_max)


def test_retry_after_of_another_status_means_nothing():
    assert judged(attempt(500, headers={"retry-after": "90"})).pause_until is None


def test_retry_after_pauses_the_recipient_of_an_failed_delivery_too():
    third = attrs.evolve(DELIVERY, attempt_count=2)
    outcome = judged(attempt(503, headers={"retry-after": "90"}), delivery=third)
    assert outcome.state is DeliveryState.FAILED
    assert outcome.pause_until == NOW + timedelta(seconds=90)


def test_a_failure_may_disable_after_the_time_of_the_setting():
    third = attrs.evolve(DELIVERY, attempt_count=2)
    for outcome in (judged(attempt(500)), judged(attempt(500), delivery=third)):
        assert outcome.disable_after == timedelta(days=5)
    never = Settings(disable_after=None)
    assert judged(attempt(500), settings=never).disable_after is None
    assert judged(attempt(200)).disable_after is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("0", 0),
        (" 120 ", 120),
        ("9" * 40, 999_999_999),
        ("Sun, 01 Mar 2026 12:02:00 GMT", 120),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0),
        ("Sun, 01 Mar 2026 12:02:00 -0000", 120),
        ("Sun, 01 Mar 2026 99:02:00 GMT", None),
        ("²", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value, seconds):
    expected = None if seconds is None else timedelta(seconds=seconds)
    assert retry_after(value, NOW) == expected


ANYTHING = st.one_of(
    st.none(),
    st.text(),
    st.integers().map(str),
    st.integers(1, 40).map(lambda digits: "9" * digits),
    st.floats().map(str),
    st.binary(),
    st.builds(
        "{}, {} {} {} {}:00:00 {}".format,
        st.sampled_from(["Thu", "Donnerstag", ""]),
        st.integers(-1, 40),
        st.sampled_from(["Jan", "Dec", "Jam"]),
        st.one_of(st.integers(-10, 10_100), st.just(99999999999999999999)),
        st.integers(-1, 30),
        st.one_of(st.sampled_from(["GMT", "-2359", "+9999", ""]), st.integers().map(str)),
    ),
)


@given(ANYTHING)
@example("1" * 100_000)
@example("0" * 100_000 + "7")
@example("Thu, 01 Jan 99999999999999999999 00:00:00 GMT")
@example("Fri, 31 Dec 9999 23:59:59 -2359")
@example("٣٣")
def test_retry_after_survives_anything(value):
    wait = retry_after(value, NOW)
    assert wait is None or timedelta() <= wait <= timedelta(seconds=999_999_999)


@given(
    status=st.one_of(st.none(), st.integers(), st.sampled_from([200, 302, 410, 429, 503])),
    header=ANYTHING,
    error=st.one_of(st.none(), st.text()),
    attempts=st.integers(0, 5),
    before=st.integers(0, 5),
)
def test_any_answer_is_judged(status, header, error, attempts, before):
    delivery = attrs.evolve(DELIVERY, attempt_count=attempts, attempts_before=before)
    outcome = judged(
        attempt(status, headers={"retry-after": header}, error=error), delivery=delivery
    )
    most = NOW + timedelta(seconds=SETTINGS.retry_after_max)
    assert outcome.pause_until is None or NOW <= outcome.pause_until <= most


def test_leading_zeros_count_for_nothing():
    assert retry_after("00000000000000120", NOW) == timedelta(seconds=120)


@pytest.mark.parametrize("name", sorted(PROTECTED_HEADERS))
def test_headers_that_thorn_or_http_sets_are_refused(name):
    with pytest.raises(ConfigurationError, match="remove it"):
        check_headers({name.title(): "x"})


@pytest.mark.parametrize("value", ["a\r\nHost: b", "a\nb", "a\x00b", "é", 7])
def test_a_header_value_that_is_none_is_refused_without_showing_it(value):
    with pytest.raises(ConfigurationError, match="printable ASCII") as refusal:
        check_headers({"X-Token": value})
    assert repr(value) not in str(refusal.value)


@pytest.mark.parametrize("name", ["", "X Y", "X:Y", "X\n", "É", 7])
def test_a_header_name_that_is_none_is_refused(name):
    with pytest.raises(ConfigurationError, match="use letters"):
        check_headers({name: "x"})


def test_too_many_or_too_long_headers_are_refused():
    with pytest.raises(ConfigurationError, match="at most 50"):
        check_headers({f"X-{n}": "x" for n in range(HEADER_COUNT + 1)})
    with pytest.raises(ConfigurationError, match="at most 4096"):
        check_headers({"X": "x" * 5000})


def test_a_header_twice_in_two_cases_is_refused():
    with pytest.raises(ConfigurationError, match="twice"):
        check_headers({"X-A": "1", "x-a": "2"})


def test_the_later_layer_of_headers_wins_whatever_the_case():
    assert merge_headers({"X-A": "1", "X-B": "2"}, {"x-a": "3"}) == {"x-a": "3", "X-B": "2"}
    assert merge_headers({}, {"X": "1"}) == {"X": "1"}
    assert merge_headers() == {}
    assert merge_headers({"X-A": "1", "x-a": "2"}) == {"x-a": "2"}


def test_names_that_thorn_sets_go_out_once_whoever_else_gave_them():
    given = {"content-type": "text/x", "USER-AGENT": "x", "hook-event": "x", "WEBHOOK-ID": "x"}
    signed = sign_request(built(headers=given), MESSAGE, SUBSCRIPTION, (SCHEMES["hook-hmac"],), NOW)
    names = [name.lower() for name in signed.headers]
    assert sorted(names) == sorted(set(names))
    assert signed.headers["Content-Type"] == "application/json"
    assert signed.headers["webhook-id"] == MESSAGE.id


def test_a_delivery_is_due_since_the_message_was_sent():
    later = NOW + timedelta(seconds=3)
    delivery = make_delivery(MESSAGE, SUBSCRIPTION, later)
    assert (delivery.due_at, delivery.created_at) == (NOW, later)
    assert delivery.subscription_id == SUBSCRIPTION.id
    assert delivery.target is None


def test_a_delivery_to_an_unstored_subscription_carries_it():
    assert make_unstored_delivery(MESSAGE, SUBSCRIPTION, NOW).target == SUBSCRIPTION


def test_a_body_is_encoded_by_content_type():
    assert encode_body(MESSAGE, "application/json", SETTINGS, CODECS) == (
        b'{"event":"article.created","ref":null,"sender":null,"data":{"n":1}}'
    )
    with pytest.raises(PayloadError, match="no codec for content type 'text/csv'"):
        encode_body(MESSAGE, "text/csv", SETTINGS, CODECS)


@pytest.mark.parametrize(
    ("envelope", "given", "sent"),
    [
        ("cloudevents", "application/json", "application/cloudevents+json; charset=utf-8"),
        (
            "cloudevents",
            "application/cloudevents+json",
            "application/cloudevents+json; charset=utf-8",
        ),
        ("cloudevents", "application/x-www-form-urlencoded", "application/x-www-form-urlencoded"),
        ("standard", "application/json", "application/json"),
        ("thorn", "application/cloudevents+json", "application/cloudevents+json"),
    ],
)
def test_cloudevents_in_json_have_a_content_type_of_their_own(envelope, given, sent):
    request = built(Settings(envelope=envelope), content_type=given)
    assert request.headers["Content-Type"] == sent


def built(settings=SETTINGS, **changes):
    subscription = attrs.evolve(SUBSCRIPTION, **changes)
    return build_request(
        attrs.evolve(MESSAGE, headers={"X-Trace": "1", "X-Both": "message"}),
        DELIVERY,
        subscription,
        body=b"{}",
        settings=settings,
        validators=DEFAULT_VALIDATORS,
        keepalive=False,
    )


def test_a_request_has_the_documented_headers():
    request = built(headers={"x-both": "subscription"}, content_type="application/json")
    assert request.headers == {
        "X-Trace": "1",
        "x-both": "subscription",
        "Content-Type": "application/json",
        "User-Agent": SETTINGS.user_agent,
        "Hook-Event": "article.created",
        "Hook-Delivery": DELIVERY.id,
        "Hook-Subscription": SUBSCRIPTION.id,
    }
    assert (request.method, request.url, request.keepalive) == ("POST", SUBSCRIPTION.url, False)
    assert request.validators == DEFAULT_VALIDATORS


def test_a_signed_request_has_id_time_and_every_scheme():
    schemes = (SCHEMES["standard-webhooks"], SCHEMES["hook-hmac"])
    request = sign_request(built(), MESSAGE, SUBSCRIPTION, schemes, NOW + timedelta(seconds=2.9))
    assert request.headers["webhook-id"] == MESSAGE.id
    assert request.headers["webhook-timestamp"] == str(int(NOW.timestamp()) + 2)
    assert request.headers["webhook-signature"].startswith("v1,")
    assert request.headers["Hook-HMAC"]
    unsigned = attrs.evolve(request, headers=built().headers)
    assert unsigned == built()


def test_each_valid_secret_signs_and_an_expired_one_does_not():
    old, expired = "whsec_" + "A" * 32, "whsec_" + "B" * 32
    rotating = attrs.evolve(
        SUBSCRIPTION,
        secrets=(*SUBSCRIPTION.secrets, old, expired),
        secret_expiry={old: NOW + timedelta(hours=1), expired: NOW},
    )
    request = sign_request(built(), MESSAGE, rotating, (SCHEMES["standard-webhooks"],), NOW)
    assert len(request.headers["webhook-signature"].split(" ")) == 2


def test_without_a_secret_a_request_is_not_signed():
    bare = attrs.evolve(SUBSCRIPTION, secrets=())
    request = sign_request(built(), MESSAGE, bare, (SCHEMES["standard-webhooks"],), NOW)
    assert request.headers["webhook-id"] == MESSAGE.id
    assert "webhook-signature" not in request.headers
    assert bare.secret is None


REQUEST = Request(
    url="https://example.com/a", headers={"Authorization": "x", "X-A": "1"}, body=b"{}"
)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_keeps_method_and_body(status):
    hop = follow_redirect(REQUEST, Response(status=status, headers={"location": "/b"}))
    assert (hop.url, hop.method, hop.body) == ("https://example.com/b", "POST", b"{}")
    assert hop.headers == REQUEST.headers


@pytest.mark.parametrize(
    "location", ["https://other.example/", "http://example.com/b", "https://example.com:444/"]
)
def test_only_harmless_headers_go_on_to_another_origin(location):
    signed = sign_request(
        built(), MESSAGE, SUBSCRIPTION, tuple(SCHEMES[name] for name in SETTINGS.signatures), NOW
    )
    secret = {"Authorization": "x", "cookie": "x", "X-Api-Key": "x", "X-Anything": "x"}
    request = attrs.evolve(signed, url=REQUEST.url, headers={**signed.headers, **secret})
    hop = follow_redirect(request, Response(status=307, headers={"location": location}))
    assert {name.lower() for name in hop.headers} == {
        "content-type",
        "hook-delivery",
        "hook-event",
        "hook-subscription",
        "user-agent",
        "webhook-id",
        "webhook-signature",
        "webhook-timestamp",
    }


@pytest.mark.parametrize(
    "location", ["/b", "b", "//EXAMPLE.com/b", "https://example.com:443/b", "?x=1"]
)
def test_within_an_origin_all_headers_go_on(location):
    hop = follow_redirect(REQUEST, Response(status=307, headers={"location": location}))
    assert hop.headers == REQUEST.headers


@given(st.text())
@example("http://[")
@example("https://example.com:99999999999/")
@example("//a@b/")
def test_any_location_is_followed_or_not(location):
    hop = follow_redirect(REQUEST, Response(status=302, headers={"location": location}))
    assert hop is None or hop.method == "POST"


def test_what_is_no_redirect_is_not_followed():
    assert follow_redirect(REQUEST, Response(status=200, headers={"location": "/b"})) is None
    assert follow_redirect(REQUEST, Response(status=303, headers={"location": "/b"})) is None
    assert follow_redirect(REQUEST, Response(status=302)) is None


def test_the_owner_of_a_failing_subscription_learns_when_it_will_be_disabled():
    owned = attrs.evolve(SUBSCRIPTION, owner="42", failing_since=NOW, failures=12)
    message = failing_message(owned, NOW + timedelta(days=5), NOW + timedelta(days=3))
    assert (message.event, message.sender) == ("thorn.subscription.failing", "42")
    assert message.payload == {
        "id": owned.id,
        "url": owned.url,
        "events": list(owned.events),
        "failing_since": "2026-03-01T12:00:00Z",
        "failures": 12,
        "disabled_at": "2026-03-06T12:00:00Z",
    }


def test_the_owner_of_a_disabled_subscription_is_told_and_nobody_else():
    owned = attrs.evolve(SUBSCRIPTION, owner="42", disabled_reason="gone")
    message = disabled_message(owned, NOW)
    assert message.event == "thorn.subscription.disabled"
    assert message.sender == "42"
    assert message.payload["reason"] == "gone"
    assert "secret" not in message.data.decode()
    assert disabled_message(SUBSCRIPTION, NOW).sender == OPERATOR
    secret = attrs.evolve(owned, url="https://e.com/hook?token=pa55")
    assert disabled_message(secret, NOW).payload["url"] == "https://e.com/hook"
