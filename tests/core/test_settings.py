"""Settings: checked when made, read from a framework's names."""

from __future__ import annotations

import json
from datetime import timedelta

import attrs
import pytest

from thorn_core import ConfigurationError, Event, InvalidNameError, RetryPolicy, Settings
from thorn_core.recipients import ensure_port
from thorn_core.settings import choose_policy

WRONG = [
    ("dispatcher", ""),
    ("dispatcher", 7),
    ("event_timeout", 0),
    ("event_timeout", "soon"),
    ("event_timeout", True),
    ("event_timeout", float("nan")),
    ("connect_timeout", -1),
    ("retry", "no"),
    ("retry", 1),
    ("retry_max", 1.5),
    ("retry_max", -1),
    ("retry_policy", (5, 10)),
    ("recipient_validators", "ensure_port"),
    ("recipient_validators", [("ensure_portal", 80)]),
    ("recipient_validators", [()]),
    ("subscribers", ["https://example.com/"]),
    ("codecs", ["application/xml"]),
    ("sender_required", "yes"),
    ("signatures", "github"),
    ("signatures", [""]),
    ("envelope", "svix"),
    ("event_choices", 5),
    ("payload_limit", 0),
    ("response_limit", -1),
    ("concurrency", 0),
    ("recipient_concurrency", 1_000_000),
    ("chunksize", 0),
    ("poll_interval", 0),
    ("grace_period", -1),
    ("history", -1),
    ("user_agent", "a\nb"),
    ("subscriber_model", ""),
    ("drf_permission_classes", "IsAuthenticated"),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_bad_value_is_refused_by_name_value_and_what_is_allowed(name, value):
    with pytest.raises(ConfigurationError) as refusal:
        Settings(**{name: value})
    assert f"setting {name} is" in str(refusal.value)
    assert "; use " in str(refusal.value)


def test_an_unknown_name_is_refused_with_the_nearest_known():
    with pytest.raises(ConfigurationError, match="did you mean event_timeout"):
        Settings(event_timout=3)
    with pytest.raises(ConfigurationError, match="unknown setting zzz; available: dispatcher, "):
        Settings(zzz=3)


def test_thorns_name_of_the_signer_leads_to_its_new_name():
    with pytest.raises(ConfigurationError, match="did you mean signatures"):
        Settings.from_mapping({"THORN_HMAC_SIGNER": "thorn.utils.hmac:sign"})


def test_durations_may_be_timedeltas():
    assert Settings(event_timeout=timedelta(seconds=2)).event_timeout == 2.0
    assert Settings(disable_after=None).disable_after is None


def test_a_lease_must_outlast_a_request():
    with pytest.raises(ConfigurationError, match="lease is 10 s, and event_timeout 15 s"):
        Settings(lease=10)


def test_retry_max_and_retry_delay_go_together():
    with pytest.raises(ConfigurationError, match="go together"):
        Settings(retry_max=3)
    policy = Settings(retry_max=3, retry_delay=60).effective_retry_policy
    assert policy.schedule == (60.0, 60.0, 60.0)


def test_retry_false_makes_one_attempt():
    assert Settings(retry=False).effective_retry_policy.max_attempts == 1
    assert choose_policy(False, 3, 60, None).max_attempts == 1


def test_the_policy_is_the_given_or_the_default():
    assert Settings(retry_policy=RetryPolicy((1,))).effective_retry_policy == RetryPolicy((1,))
    assert choose_policy(None, None, None, None) == RetryPolicy()


def test_validators_may_be_written_as_in_thorn():
    named = Settings(recipient_validators=[("ensure_port", 80, 443), ["ensure_port", 8443]])
    assert named.recipient_validators == (ensure_port(80, 443), ensure_port(8443))
    assert len(Settings(recipient_validators=["block_internal_ips"]).recipient_validators) == 1


def test_a_callable_is_a_validator():
    seen = []
    (validator,) = Settings(recipient_validators=[seen.append]).recipient_validators
    from thorn_core.recipients import check_url

    check_url("https://example.com/", [validator])
    assert seen == ["https://example.com/"]


def test_subscribers_are_by_pattern():
    settings = Settings(subscribers={"article.*": "https://example.com/"})
    assert settings.subscribers == {"article.*": "https://example.com/"}
    with pytest.raises(InvalidNameError):
        Settings(subscribers={"article..x": "https://example.com/"})


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("", "'' isn't absolute"),
        ("example.com/hook", "write it as https://host/path"),
        ("shop.hooks.recipients", "isn't absolute"),
        ("ftp://example.com/", "uses 'ftp'"),
        ("https://user:hunter2@example.com/", "holds a user name"),
        (["https://example.com/", "exmaple"], "'exmaple' isn't absolute"),
        (None, "a NoneType, which is not a subscriber"),
        (7, "a int, which is not a subscriber"),
        (b"https://example.com/", "which is not a subscriber"),
        ([["https://example.com/"], [None]], "a NoneType, which is not a subscriber"),
        ({}, "a mapping of nothing without a 'url'; add one"),
        ({"urll": "https://example.com/", "secret": "hunter2"}, "did you mean 'urll' to be 'url'"),
        ({"url": None}, "without a 'url'"),
        ({"url": "example.com"}, "isn't absolute"),
        ({"url": "https://e.com/", "secrets": "hunter2"}, "'secrets'; did you mean secret?"),
        (lambda: "https://example.com/", "let it take one argument"),
        (lambda message, event: None, "let it take one argument"),
    ],
)
def test_a_static_subscriber_that_can_be_none_is_refused_where_it_is_declared(target, problem):
    with pytest.raises(ConfigurationError) as refusal:
        Settings(subscribers={"order.*": target})
    assert problem in str(refusal.value)
    assert str(refusal.value).startswith("setting subscribers['order.*'] contains ")
    assert "hunter2" not in str(refusal.value)
    if target is not None:
        with pytest.raises(ConfigurationError, match=r"^event 'order\.paid' contains "):
            Event("order.paid", subscribers=target)


def test_a_subscriber_that_must_be_awaited_is_refused():
    async def region(message):
        raise AssertionError(message)

    with pytest.raises(ConfigurationError, match="subscribers aren't awaited"):
        Settings(subscribers={"order.paid": region})
    with pytest.raises(ConfigurationError, match="subscribers aren't awaited"):
        Event("order.paid", subscribers=["https://e.com/", region])


def test_static_subscribers_may_take_every_form():
    class Region:
        def __call__(self, message):
            return None

    targets = ["https://e.com/", {"url": "https://e.com/", "owner": 7}, Region(), print, iter(())]
    settings = Settings(subscribers={"a.*": targets, "b.*": "http://10.0.0.1/", "c.*": []})
    assert settings.evolve(retry=False).subscribers == settings.subscribers


def test_settings_can_be_evolved_and_are_checked_again():
    assert attrs.evolve(Settings(), retry=False).retry is False
    with pytest.raises(ConfigurationError):
        attrs.evolve(Settings(), retry=3)


def test_a_frameworks_names_are_read_and_texts_of_other_kinds_parsed():
    settings = Settings.from_mapping(
        {
            "THORN_EVENT_TIMEOUT": "3.5",
            "THORN_RETRY": "true",
            "THORN_RETRY_POLICY": "[1, 2]",
            "THORN_SIGNATURES": '["github"]',
            "THORN_DISPATCHER": "background",
            "THORN_RECIPIENT_VALIDATORS": '[["ensure_port", 80]]',
            "THORN_HISTORY": 5,
            "THORN_APP": "ignored:app",
            "THORN_TEST_POSTGRESQL": "ignored",
            "DEBUG": True,
        }
    )
    assert settings.event_timeout == 3.5
    assert settings.retry_policy == RetryPolicy((1, 2))
    assert settings.signatures == ("github",)
    assert settings.dispatcher == "background"
    assert settings.recipient_validators == (ensure_port(80),)
    assert settings.history == 5


def test_a_text_that_is_no_json_is_refused_by_the_settings_own_rule():
    with pytest.raises(ConfigurationError, match="setting retry is 'maybe'"):
        Settings.from_mapping({"THORN_RETRY": "maybe"})
    with pytest.raises(ConfigurationError):
        Settings.from_mapping({"THORN_RETRY_POLICY": "[1"})


def test_an_unknown_name_of_a_framework_is_refused():
    with pytest.raises(ConfigurationError, match="unknown setting retries; did you mean"):
        Settings.from_mapping({"THORN_RETRIES": "3"})


@pytest.mark.parametrize("codec", [json.dumps, str, lambda: b"", lambda envelope: {"a": 1}])
def test_a_codec_made_for_something_else_is_refused(codec):
    with pytest.raises(ConfigurationError, match=r"'text/x' .*a codec takes an Envelope"):
        Settings(codecs={"text/x": codec})


def test_a_codec_may_want_more_of_a_payload_than_an_empty_one_has():
    def encode(envelope):
        return str(envelope.document()["data"]["number"]).encode()

    assert Settings(codecs={"text/x": encode}).codecs == {"text/x": encode}
