"""The settings `allowed_networks` and `allowed_ports`: exceptions that keep the protection."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thorn_core import ConfigurationError, Event, SecurityError, Settings, Thorn
from thorn_core.recipients import (
    DEFAULT_VALIDATORS,
    allow_cidr_network,
    block_cidr_network,
    block_internal_ips,
    check_address,
    check_url,
    complete_validators,
    ensure_port,
    ensure_protocol,
    open_networks,
    opens_metadata,
)
from thorn_core.testing import LocalRecipient

# What a hostile owner would like to reach.
TARGETS = {
    "cloud metadata": "http://169.254.169.254/latest/meta-data/",
    "cloud metadata by name": "http://metadata.google.internal/",
    "the machine": "http://127.0.0.1/",
    "the machine by name": "http://localhost/",
    "the machine, IPv6": "http://[::1]/",
    "the machine, IPv4-mapped": "http://[::ffff:127.0.0.1]/",
    "the machine through NAT64": "http://[64:ff9b::7f00:1]/",
    "another private network": "http://192.168.1.1/",
    "the same network, but outside of the exception": "http://10.21.0.1/",
    "the exception through NAT64": "http://[64:ff9b::a14:1]/",
    "the exception through 6to4": "http://[2002:a14:1::]/",
    "unique local": "http://[fd00::1]/",
}
EXCEPTION = "10.20.0.0/16"
# Ways to say that 10.20.0.0/16 is permitted.
WAYS = {
    "the setting": Settings(allowed_networks=[EXCEPTION]),
    "the setting beside validators": Settings(
        allowed_networks=[EXCEPTION], recipient_validators=[ensure_port(80, 443)]
    ),
    "the setting beside no validators": Settings(
        allowed_networks=[EXCEPTION], recipient_validators=[]
    ),
    "a validator alone": Settings(recipient_validators=[allow_cidr_network(EXCEPTION)]),
    "a validator by name": Settings(recipient_validators=[("allow_cidr_network", EXCEPTION)]),
    "a validator with others": Settings(
        recipient_validators=[
            ensure_protocol("http", "https"),
            allow_cidr_network(EXCEPTION),
            block_cidr_network("8.8.8.0/24"),
        ]
    ),
}


@pytest.mark.parametrize("url", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("settings", WAYS.values(), ids=WAYS)
def test_an_exception_opens_nothing_else(settings, url):
    with pytest.raises(SecurityError):
        check_url(url, settings.validators)


@pytest.mark.parametrize("host", ["10.20.0.1", "[::ffff:10.20.0.1]", "169090600", "example.com"])
@pytest.mark.parametrize("settings", WAYS.values(), ids=WAYS)
def test_an_exception_permits_its_network_in_every_spelling(settings, host):
    host = {"169090600": str(int(ip_address("10.20.0.1")))}.get(host, host)
    assert check_url(f"http://{host}/", settings.validators)


@pytest.mark.parametrize("settings", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("scheme", ["ftp", "file", "gopher", "ws", "HTTPX"])
def test_no_list_of_validators_permits_another_scheme(settings, scheme):
    with pytest.raises(SecurityError, match="use one of: http, https"):
        check_url(f"{scheme}://example.com:443/", settings.validators)


def test_an_empty_list_permits_no_other_scheme():
    with pytest.raises(SecurityError, match="use one of: http, https"):
        check_url("ftp://example.com/", Settings(recipient_validators=[]).validators)


@given(st.ip_addresses(v=4, network="10.0.0.0/8"), st.integers(8, 32), st.ip_addresses(v=4))
def test_any_exception_permits_itself_and_nothing_more(address, prefix, other):
    network = ip_network((address, prefix), strict=False)
    validators = Settings(allowed_networks=[network]).validators
    assert check_address(address, validators) == address
    if other not in network:
        expected = _refused(other, DEFAULT_VALIDATORS)
        assert _refused(other, validators) is expected


def _refused(address, validators):
    try:
        check_address(address, validators)
    except SecurityError:
        return True
    return False


def test_all_of_ipv6_holds_no_ipv4_address():
    validators = Settings(allowed_networks=["::/0"]).validators
    assert check_address("fd00::1", validators)
    for address in ("10.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254"):
        with pytest.raises(SecurityError):
            check_address(address, validators)


def test_an_exception_never_overrides_a_block_that_was_asked_for():
    settings = Settings(
        allowed_networks=["10.0.0.0/8"],
        recipient_validators=[block_internal_ips(), block_cidr_network("10.1.0.0/16")],
    )
    assert check_address("10.2.0.1", settings.validators)
    with pytest.raises(SecurityError, match="which is blocked"):
        check_address("10.1.0.1", settings.validators)


def test_without_exceptions_validators_are_those_given():
    assert Settings().validators == DEFAULT_VALIDATORS
    assert Settings(recipient_validators=[ensure_port(80)]).validators == (ensure_port(80),)


def test_the_validators_in_force_are_one_value():
    settings = Settings(allowed_networks=["10.0.0.0/8"])
    assert settings.validators is settings.validators


# --- ports


def test_allowed_ports_are_added_to_the_default_ones():
    validators = Settings(allowed_ports=[8080, range(9000, 9010), "9100-9199", "7000"]).validators
    for port in (80, 443, 8080, 9000, 9009, 9100, 9199, 7000):
        assert check_url(f"http://example.com:{port}/", validators)
    for port in (22, 8081, 8999, 9010, 9099, 9200, 6379):
        with pytest.raises(SecurityError, match="use one of: 80, 443, 8080, 9000-9009, 9100-9199"):
            check_url(f"http://example.com:{port}/", validators)


def test_a_range_may_be_given_by_itself():
    assert Settings(allowed_ports=range(1024, 65536)).allowed_ports == (range(1024, 65536),)


def test_ports_with_steps_are_named():
    with pytest.raises(SecurityError, match=r"use one of: 80, 443, 8000, 8002\."):
        check_url("http://e.com:8001/", Settings(allowed_ports=range(8000, 8004, 2)).validators)


def test_allowed_ports_beside_other_validators_are_refused():
    with pytest.raises(ConfigurationError, match=r"name all ports in its ensure_port\(…\)"):
        Settings(allowed_ports=[8080], recipient_validators=[block_internal_ips()])
    assert Settings(allowed_ports=[8080], recipient_validators=DEFAULT_VALIDATORS)


def test_a_refused_port_says_how_to_permit_it_to_the_operator_only():
    with pytest.raises(SecurityError) as refusal:
        check_url("http://example.com:8080/", Settings().validators)
    assert "set allowed_ports=[8080]" in str(refusal.value)
    assert refusal.value.reason.endswith("uses port 8080; use one of: 80, 443.")


# --- values of the settings


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("allowed_networks", "10.0.0.0/8", "a list of networks"),
        ("allowed_networks", b"10.0.0.0/8", "a list of networks"),
        ("allowed_networks", None, "a list of networks"),
        ("allowed_networks", {"10.0.0.0/8": True}, "a list of networks"),
        ("allowed_networks", ["10.0.0.1/8"], r"write '10\.0\.0\.0/8' .* or '10\.0\.0\.1/32'"),
        ("allowed_networks", ["fd00::1/8"], r"write 'fd00::/8' .* or 'fd00::1/128'"),
        ("allowed_networks", ["10.0.0.0/33"], "not a network"),
        ("allowed_networks", ["10.0.0.0-10.0.0.9"], "not a network"),
        ("allowed_networks", ["intranet"], "not a network"),
        ("allowed_networks", [""], "not a network"),
        ("allowed_networks", [" 10.0.0.0/8"], "not a network"),
        ("allowed_networks", [10], "not a string"),
        ("allowed_networks", [None], "not a string"),
        ("allowed_networks", [["10.0.0.0/8"]], "not a string"),
        ("allowed_ports", 8080, "a list of ports"),
        ("allowed_ports", "8080", "a list of ports"),
        ("allowed_ports", "8000-8999", "a list of ports"),
        ("allowed_ports", None, "a list of ports"),
        ("allowed_ports", [0], "not a port"),
        ("allowed_ports", [65536], "not a port"),
        ("allowed_ports", [True], "not a port"),
        ("allowed_ports", [80.0], "not a port"),
        ("allowed_ports", ["http"], "not a port"),
        ("allowed_ports", ["\uff18\uff10"], "not a port"),
        ("allowed_ports", ["8000-"], "not a port"),
        ("allowed_ports", ["8999-8000"], "contains no port"),
        ("allowed_ports", range(8000, 8000), "contains no port"),
        ("allowed_ports", range(65537), "isn't within 1 to 65535"),
        ("allowed_ports", ["60000-70000"], "isn't within 1 to 65535"),
    ],
)
def test_a_bad_exception_is_refused_with_what_was_meant(name, value, problem):
    with pytest.raises(ConfigurationError, match=problem) as refusal:
        Settings(**{name: value})
    assert f"setting {name} is" in str(refusal.value)


def test_exceptions_can_be_said_by_environment_variables():
    settings = Settings.from_mapping(
        {
            "THORN_ALLOWED_NETWORKS": '["10.0.0.0/8", "fd00::1", "::ffff:192.168.0.0/112"]',
            "THORN_ALLOWED_PORTS": '[8080, "9000-9999"]',
        }
    )
    networks = ("10.0.0.0/8", "fd00::1/128", "192.168.0.0/16")
    assert settings.allowed_networks == tuple(map(ip_network, networks))
    assert settings.allowed_ports == (8080, range(9000, 10000))
    assert settings.evolve(retry=False).validators == settings.validators


# --- what a list leaves open


@pytest.mark.parametrize(
    ("validators", "networks"),
    [
        ([], "127.0.0.0/8"),
        ([ensure_port(80, 443)], "169.254.0.0/16"),
        ([ensure_protocol("https")], "fc00::/7"),
        ([print], "10.0.0.0/8"),
        ([block_cidr_network("10.0.0.0/8", "127.0.0.0/8")], "192.168.0.0/16"),
    ],
)
def test_networks_that_a_list_leaves_open_are_named(validators, networks):
    assert networks in open_networks(complete_validators(validators))


@pytest.mark.parametrize("settings", [Settings(), *WAYS.values()], ids=["default", *WAYS])
def test_a_protected_list_leaves_nothing_open(settings):
    assert open_networks(settings.validators) == ()


def test_a_validator_of_ones_own_that_blocks_addresses_leaves_nothing_open():
    class OnlyPartners:
        def check_url(self, url):
            pass

        def check_address(self, address):
            raise SecurityError("No partner's address.")

        def allows(self, address):
            return str(address) == "192.0.2.1"

    assert open_networks(complete_validators([OnlyPartners()])) == ()


@pytest.mark.parametrize(
    "network",
    ["0.0.0.0/0", "::/0", "169.254.0.0/16", "169.254.169.254", "fd00::/8", "64:ff9b::/96"],
)
def test_an_exception_that_opens_the_clouds_metadata_is_known(network):
    assert opens_metadata(ip_network(network))


# --- in use


@pytest.fixture
def recipient():
    with LocalRecipient() as recipient:
        yield recipient


def port_of(recipient):
    return int(recipient.url.rpartition(":")[2].partition("/")[0])


def test_a_recipient_within_the_exceptions_is_delivered_to(recipient):
    settings = Settings(allowed_networks=["127.0.0.0/8"], allowed_ports=[port_of(recipient)])
    with Thorn(settings=settings, default=False) as app:
        app.subscribe("a.b", recipient.url)
        assert app.send("a.b")
        with pytest.raises(SecurityError, match="uses port"):
            app.subscribe("a.b", "http://127.0.0.1:22/")


def test_exceptions_hold_for_the_validators_of_an_event(recipient):
    settings = Settings(allowed_networks=["127.0.0.0/8"], allowed_ports=[port_of(recipient)])
    with Thorn(settings=settings, default=False) as app:
        app.subscribe("*", recipient.url)
        own = Event("a.own", app=app, recipient_validators=[block_internal_ips()])
        other = Event("a.other", app=app, recipient_validators=[allow_cidr_network("10.0.0.0/8")])
        blocked = Event(
            "a.block", app=app, recipient_validators=[block_cidr_network("127.0.0.0/8")]
        )
        assert own.send()
        assert other.send()
        receipt = blocked.send()
        assert not receipt
        (delivery,) = receipt.deliveries
        assert "which is blocked" in delivery.reason
        assert "recipient_validators" not in delivery.reason


def test_an_events_exception_keeps_its_protection(recipient):
    settings = Settings(subscribers={"a.b": recipient.url})
    with Thorn(settings=settings, default=False) as app:
        event = Event("a.b", app=app, recipient_validators=[allow_cidr_network("10.0.0.0/8")])
        (delivery,) = event.send().deliveries
        assert "127.0.0.0/8 (loopback, RFC 1122); use a public address." in delivery.reason
        assert "allowed_networks" not in delivery.reason
    assert not recipient.received
