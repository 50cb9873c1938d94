"""What a subscription must be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import attrs
import pytest

from thorn_core import ConfigurationError, InvalidNameError, SecurityError, Settings
from thorn_core.recipients import hides_value
from thorn_core.signatures import SCHEMES
from thorn_core.static_subscribers import StaticSubscribers, static_subscriptions
from thorn_core.stores.rules import reaches
from thorn_core.subscriptions import (
    SubscriptionRules,
    change_secret,
    change_subscription,
    identify,
    identify_sender,
    make_subscription,
)
from thorn_core.values import OPERATOR

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LATER = datetime(2026, 3, 2, tzinfo=UTC)
URL = "https://example.com/hook"


def rules(validate=lambda url: None, **settings):
    return SubscriptionRules(
        settings=Settings(**settings),
        content_types=("application/json", "application/x-www-form-urlencoded"),
        schemes=tuple(SCHEMES[name] for name in Settings(**settings).signatures),
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


@pytest.mark.parametrize("events", [None, 7, b"a.b", {"a.b": 1}])
def test_what_is_no_list_of_patterns_is_refused(events):
    with pytest.raises(ConfigurationError, match="use an event pattern or a list"):
        make(events)


def test_an_unhashable_pattern_is_refused():
    with pytest.raises(InvalidNameError, match="is not a string"):
        make([["a.b"]])


@pytest.mark.parametrize("url", [None, 7, b"https://e.com/", ["https://e.com/"]])
def test_a_url_that_is_no_text_is_refused(url):
    with pytest.raises(
        SecurityError, match=rf"is (None|of type {type(url).__name__}); use a string"
    ):
        make(url=url)


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
        ("description", "a\0b"),
        ("description", "\x1b]0;title\x07"),
        ("description", "half \ud800"),
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


class Visitor:
    pk = id = None

    def __str__(self):
        return "AnonymousUser"


@pytest.mark.parametrize(
    "key", ["", " ", "\t", " ada", "ada ", "ada\n", "a\0da", "half \ud800", "x" * 256]
)
def test_an_id_that_databases_take_for_another_is_refused(key):
    class Account:
        pk = key

    for owner in (key, Account()):
        with pytest.raises(ConfigurationError, match="is not the ID of a user or tenant"):
            make(owner=owner)
        if owner != OPERATOR:
            with pytest.raises(ConfigurationError, match="is not the ID of a user or tenant"):
                identify_sender(owner)
    with pytest.raises(ConfigurationError, match="is not the ID of a user or tenant"):
        list(static_subscriptions(rules(), "*", {"url": URL, "owner": key}))


class Lazy:
    """As Django's SimpleLazyObject and Werkzeug's LocalProxy, whose user turned out to be None."""

    def __eq__(self, other):
        return other is None

    def __str__(self):
        return "None"


@pytest.mark.parametrize(
    "slip", [False, True, 42.0, b"ada", {"id": 42}, ["ada"], ("ada",), User, identify, object()]
)
def test_a_slip_of_the_program_is_nobodys_id(slip):
    for refused in (lambda: make(owner=slip), lambda: identify_sender(slip)):
        with pytest.raises(
            ConfigurationError, match="is not the ID of a user or tenant; give its ID"
        ):
            refused()


def test_who_has_no_id_owns_nothing_and_is_nobodys_tenant():
    with pytest.raises(ConfigurationError, match="a Lazy has no ID"):
        make(owner=Lazy())
    assert identify_sender(Lazy()) == (OPERATOR, None)
    with pytest.raises(ConfigurationError, match="a Visitor has no ID"):
        make(owner=Visitor())
    assert identify_sender(Visitor()) == (OPERATOR, None)
    assert identify_sender(OPERATOR) == (OPERATOR, None)
    assert identify_sender(None) == (None, None)
    assert identify_sender(User()) == ("7", "ada")


@pytest.mark.parametrize("key", ["thorn:operator", "operator", "None", "0", "*"])
def test_no_users_id_is_the_operators(key):
    made = make(owner=key)
    assert not reaches(made, OPERATOR)
    assert reaches(made, key)
    assert reaches(make(), OPERATOR)
    # A value that a plugin makes isn't checked.
    assert not reaches(attrs.evolve(made, owner=""), OPERATOR)


HEADERS = {"Authorization": "Bearer abc", "X-To": "Basic abc", "x-api-key": "k", "X-Shop": "1"}


@pytest.mark.parametrize(
    "url", ["http://example.com/hook", "https://example.com:8443/hook", "https://other.example/"]
)
def test_hidden_headers_stay_at_the_origin_that_they_are_for(url):
    made, given = make(headers=HEADERS), rules(recipient_validators=[])
    assert change_subscription(given, made, at=LATER, url=url).headers == {"X-Shop": "1"}
    new = {"Authorization": "Bearer new"}
    assert change_subscription(given, made, at=LATER, url=url, headers=new).headers == new
    same = change_subscription(given, made, at=LATER, url="https://EXAMPLE.com:443/another?x=1")
    assert same.headers == HEADERS


def test_which_headers_may_be_credentials():
    hidden = ("Proxy-Auth", "Cookie", "X-Api-Key", "X-Auth-Token", "X-Pass", "Session-Id", "X-HMAC")
    assert all(hides_value(name) for name in hidden)
    assert hides_value("X-To", "bearer abc")
    assert not any(hides_value(name, "1") for name in ("X-Shop", "Accept", "X-Bearer-Of-News"))


# -- rotating


def rotated(subscription, secret=None, *, at=LATER, overlap=None, **settings):
    return change_secret(rules(**settings), subscription, secret, at=at, overlap=overlap)


def test_a_rotation_takes_its_overlap():
    made = make()
    by_setting = rotated(made, secret_overlap=60)
    assert by_setting.secret_expiry == {made.secret: LATER + timedelta(seconds=60)}
    for overlap in (30, timedelta(seconds=30), 30.0):
        changed = rotated(made, overlap=overlap)
        assert changed.secrets[1:] == made.secrets
        assert changed.secret_expiry == {made.secret: LATER + timedelta(seconds=30)}
        assert changed.signing_secrets(LATER + timedelta(seconds=29)) == changed.secrets
        assert changed.signing_secrets(LATER + timedelta(seconds=30)) == changed.secrets[:1]
    longer = rotated(rotated(made, overlap=30), overlap=3600)
    assert longer.secret_expiry[made.secret] == LATER + timedelta(seconds=30)


def test_an_overlap_of_nothing_revokes_the_former_secrets_at_once():
    changed = rotated(rotated(make(), overlap=3600), overlap=0)
    assert len(changed.secrets) == 1
    assert changed.secret_expiry == {}
    assert changed.signing_secrets(LATER) == changed.secrets


@pytest.mark.parametrize(
    "overlap", [-1, float("nan"), float("inf"), 366 * 86400, True, "60", timedelta(days=-1)]
)
def test_what_is_no_overlap_is_refused(overlap):
    with pytest.raises(ConfigurationError, match="overlap is"):
        rotated(make(), overlap=overlap)


def test_three_secrets_are_kept_and_the_oldest_goes():
    subscription, seen = make(), []
    for _ in range(5):
        seen.insert(0, subscription.secret)
        subscription = rotated(subscription)
    assert subscription.secrets == (subscription.secret, *seen[:2])
    assert subscription.secret_expiry.keys() == set(seen[:2])


def test_a_former_secret_that_is_given_again_is_the_newest():
    made = make()
    back = rotated(rotated(made), made.secret)
    assert back.secret == made.secret
    assert len(back.secrets) == 2
    assert made.secret not in back.secret_expiry


def test_a_rotation_replaces_the_kinds_of_keys_that_it_is_about():
    both = ("standard-webhooks", "standard-webhooks-ed25519")
    made = make_subscription(rules(signatures=both), "*", URL, at=NOW)
    shared, private = made.secrets
    given = "whsec_" + "A" * 32
    assert rotated(made, given, signatures=both).secrets == (given, private, shared)
    everything = rotated(made, signatures=both).secrets
    assert everything[2:] == (shared, private)
    assert not {shared, private} & set(everything[:2])
    # So a scheme is added: the secret that there is stays.
    alone = make()
    kept, added = rotated(alone, alone.secret, signatures=both).secrets
    assert kept == alone.secret
    assert added.startswith("whsk_")


def test_a_public_key_is_that_of_the_newest_private_one():
    made = make_subscription(rules(signatures=["standard-webhooks-ed25519"]), "*", URL, at=NOW)
    changed = rotated(made, signatures=["standard-webhooks-ed25519"])
    scheme = SCHEMES["standard-webhooks-ed25519"]
    assert made.public_key == scheme.public_key(made.secret) != changed.public_key
    assert changed.public_key == scheme.public_key(changed.secret)
    assert make().public_key is None


def urls(target):
    return [s.url for s in static_subscriptions(rules(), "article.*", target)]


def test_static_subscribers_are_urls_lists_mappings_or_callables():
    assert urls(None) == []
    assert urls(URL) == [URL]
    assert urls([URL, {"url": "https://e.com/"}]) == [URL, "https://e.com/"]
    assert urls([lambda message: URL]) == []
    assert urls(make()) == [URL]


def test_a_static_subscriber_has_the_same_id_everywhere_and_its_options():
    target = {"url": URL, "secret": "whsec_" + "A" * 32, "owner": 3, "headers": {"X-A": "1"}}
    (one,), (two,) = (static_subscriptions(rules(), "a.*", target) for _ in range(2))
    assert one == two
    assert (one.owner, one.headers, one.secret) == ("3", {"X-A": "1"}, "whsec_" + "A" * 32)
    (other,) = static_subscriptions(rules(), "b.*", target)
    assert other.id != one.id


@pytest.mark.parametrize(
    "target",
    [
        7,
        b"pa55",
        {"secret": "pa55"},
        {"url": b"pa55"},
        {"url": "https://e.com/?token=pa55", "colour": "blue"},
        {"url": URL, "secret": "pa55pa55"},
        {"url": URL, "headers": [("Authorization", "pa55")]},
        # As of an environment variable that isn't set.
        {"url": "https://me:pa55@e.com/", "secret": None},
    ],
)
def test_what_is_no_static_subscriber_is_refused_and_its_secrets_are_not_shown(target):
    with pytest.raises(ConfigurationError) as refusal:
        urls(target)
    assert "pa55" not in str(refusal.value)


def test_static_subscribers_of_two_owners_are_two():
    targets = [{"url": URL, "owner": owner} for owner in ("ada", "bob")]
    ids = {s.id for s in static_subscriptions(rules(), "*", [URL, *targets])}
    assert len(ids) == 3


def test_the_setting_is_matched_by_pattern():
    given = rules(
        subscribers={
            "article.*": URL,
            "user.*": "https://user.example/",
            "*": lambda message: URL,
        }
    )
    static = StaticSubscribers(given)
    assert [s.url for s in static.reached("article.created")] == [URL]
    assert [pattern for pattern, _ in static.targets("article.created")] == ["article.*", "*"]
