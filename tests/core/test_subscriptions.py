"""What a subscription must be."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import attrs
import pytest

from thorn_core import ConfigurationError, InvalidNameError, Message, SecurityError, Settings
from thorn_core.subscriptions import (
    StaticSubscribers,
    SubscriptionRules,
    change_subscription,
    identify,
    make_subscription,
    static_subscriptions,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LATER = datetime(2026, 3, 2, tzinfo=UTC)
URL = "https://example.com/hook"


def rules(validate=lambda url: None, **settings):
    return SubscriptionRules(
        settings=Settings(**settings),
        content_types=("application/json", "application/x-www-form-urlencoded"),
        validate=validate,
    )


def make(events="article.*", url=URL, **options):
    return make_subscription(rules(), events, url, at=NOW, **options)


def test_a_subscription_is_made_of_pattern_and_url_with_a_secret_of_its_own():
    one, two = make(), make()
    assert one.events == ("article.*",)
    assert one.secret.startswith("whsec_")
    assert one.secret != two.secret
    assert one.id != two.id
    assert (one.created_at, one.updated_at, one.enabled) == (NOW, NOW, True)
    assert one.secret not in repr(one)


def test_patterns_are_checked_and_duplicates_go():
    assert make(["a.b", "a.*", "a.b"]).events == ("a.b", "a.*")
    with pytest.raises(InvalidNameError):
        make("a..b")
    with pytest.raises(ConfigurationError, match="needs an event pattern"):
        make([])


def test_event_choices_limit_what_can_be_subscribed_to():
    limited = rules(event_choices=["article.*", "user.created"])
    for pattern in ("article.*", "article.created", "user.created"):
        assert make_subscription(limited, pattern, URL, at=NOW).events == (pattern,)
    for pattern in ("*", "user.*", "user.removed"):
        with pytest.raises(ConfigurationError, match=r"allows article\.\*, user\.created"):
            make_subscription(limited, pattern, URL, at=NOW)


@pytest.mark.parametrize("url", ["http://127.0.0.1/", "ftp://example.com/", "https://e.com:22/"])
def test_the_recipient_validators_have_their_say(url):
    with pytest.raises(SecurityError):
        make(url=url)


def test_plugins_have_their_say():
    def refuse(url):
        raise SecurityError(f"not {url}")

    with pytest.raises(SecurityError, match=r"not https://example\.com/hook"):
        make_subscription(rules(validate=refuse), "*", URL, at=NOW)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("content_type", "text/csv"),
        ("hmac_digest", "md5"),
        ("headers", ["X-A"]),
        ("headers", {"Host": "intranet"}),
        ("description", 7),
        ("description", "x" * 1001),
        ("rate_limit", 0),
        ("rate_limit", True),
        ("rate_limit", "fast"),
        ("rate_limit", float("inf")),
        ("rate_limit", 10**400),
        ("secret", ""),
        ("colour", "blue"),
        ("contenttype", "application/json"),
    ],
)
def test_an_option_that_is_not_allowed_is_refused(option, value):
    with pytest.raises(ConfigurationError):
        make(**{option: value})


def test_every_option_is_kept():
    made = make(
        owner=42,
        secret="whsec_" + "A" * 32,
        content_type="application/x-www-form-urlencoded",
        hmac_digest="sha512",
        headers={"X-A": "1"},
        description="For the shop",
        rate_limit=2,
    )
    assert made.owner == "42"
    assert made.secrets == ("whsec_" + "A" * 32,)
    assert made.content_type == "application/x-www-form-urlencoded"
    assert made.hmac_digest == "sha512"
    assert made.headers == {"X-A": "1"}
    assert made.description == "For the shop"
    assert made.rate_limit == 2.0
    assert make(rate_limit=None).rate_limit is None


def test_a_change_is_checked_and_dated():
    changed = change_subscription(rules(), make(), at=LATER, url="https://e.com/", events=["b.c"])
    assert (changed.url, changed.events) == ("https://e.com/", ("b.c",))
    assert (changed.created_at, changed.updated_at) == (NOW, LATER)
    with pytest.raises(ConfigurationError, match="did you mean events"):
        change_subscription(rules(), changed, at=LATER, event="x")
    with pytest.raises(ConfigurationError, match="enabled is 1"):
        change_subscription(rules(), changed, at=LATER, enabled=1)


def test_enabling_forgets_why_it_was_disabled():
    disabled = change_subscription(
        rules(), make(), at=NOW, enabled=False, disabled_reason="too slow"
    )
    assert (disabled.enabled, disabled.disabled_reason) == (False, "too slow")
    enabled = change_subscription(rules(), disabled, at=LATER, enabled=True)
    assert (enabled.enabled, enabled.disabled_reason, enabled.failing_since) == (True, None, None)


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({"url": "https://new.example/"}, False),
        ({"enabled": True}, False),
        ({"url": "https://example.com/hook"}, True),
        ({"description": "ours"}, True),
    ],
)
def test_a_new_url_forgets_the_failures_of_the_old_one(change, kept):
    failing = attrs.evolve(
        make(url="https://example.com/hook"), failing_since=NOW, failures=9, last_failure_at=LATER
    )
    changed = change_subscription(rules(), failing, at=LATER, **change)
    expected = (NOW, 9, LATER) if kept else (None, 0, None)
    assert (changed.failing_since, changed.failures, changed.last_failure_at) == expected


class User:
    pk = 7

    def get_username(self):
        return "ada"


class Tenant:
    id = UUID(int=1)

    def __str__(self):
        return "Acme"


@pytest.mark.parametrize(
    ("sender", "expected"),
    [
        ("42", ("42", None)),
        (42, ("42", None)),
        (UUID(int=1), (str(UUID(int=1)), None)),
        (User(), ("7", "ada")),
        (Tenant(), (str(UUID(int=1)), "Acme")),
    ],
)
def test_a_sender_is_an_id_or_an_object_with_one(sender, expected):
    assert identify(sender) == expected


MESSAGE = Message(id="msg_1", event="article.created", data=b"{}", at=NOW)


def urls(target, message=MESSAGE):
    return [s.url for s in static_subscriptions(rules(), "article.*", target, message)]


def test_static_subscribers_are_urls_lists_mappings_or_callables():
    assert urls(None) == []
    assert urls(URL) == [URL]
    assert urls([URL, {"url": "https://e.com/"}]) == [URL, "https://e.com/"]
    assert urls(lambda message: f"https://e.com/{message.event}") == [
        "https://e.com/article.created"
    ]
    assert urls(lambda message: None) == []
    assert urls(lambda message: URL, None) == []
    assert urls(make()) == [URL]


def test_a_static_subscriber_has_the_same_id_everywhere_and_its_options():
    target = {"url": URL, "secret": "whsec_" + "A" * 32, "owner": 3, "headers": {"X-A": "1"}}
    (one,), (two,) = (static_subscriptions(rules(), "a.*", target) for _ in range(2))
    assert one == two
    assert (one.owner, one.headers, one.secret) == ("3", {"X-A": "1"}, "whsec_" + "A" * 32)
    (other,) = static_subscriptions(rules(), "b.*", target)
    assert other.id != one.id


@pytest.mark.parametrize("target", [7, {"secret": "x"}, {"url": URL, "colour": "blue"}])
def test_what_is_no_static_subscriber_is_refused(target):
    with pytest.raises(ConfigurationError):
        urls(target)


def test_the_setting_is_matched_by_pattern():
    given = rules(
        subscribers={
            "article.*": URL,
            "user.*": "https://user.example/",
            "*": lambda message: f"https://{message.id.replace('_', '-')}.example/",
        }
    )
    static = StaticSubscribers(given)
    assert [s.url for s in static.reached("article.created")] == [URL]
    assert [s.url for s in static.reached("article.created", MESSAGE)] == [
        URL,
        "https://msg-1.example/",
    ]
