from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import httpx
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from thorn_core.errors import ConfigurationError, SecurityError
from thorn_core.recipients import (
    DEFAULT_VALIDATORS,
    LONGEST_URL,
    address_text,
    allow_cidr_network,
    as_network,
    as_validator,
    block_cidr_network,
    block_internal_ips,
    check_address,
    check_url,
    complete_validators,
    ensure_port,
    ensure_protocol,
    ip_literal,
    parse_url,
)
from thorn_core.recipients.addresses import unmapped

INTERNAL = (block_internal_ips(),)

# --- addresses

INTERNAL_ADDRESSES = {
    "loopback": "127.0.0.1",
    "the end of loopback": "127.255.255.255",
    "private 10/8": "10.0.0.1",
    "private 172.16/12": "172.31.255.255",
    "private 192.168/16": "192.168.1.1",
    "link-local": "169.254.1.1",
    "cloud metadata": "169.254.169.254",
    "container metadata of AWS": "169.254.170.2",
    "metadata of Alibaba": "100.100.100.200",
    "metadata of Oracle": "192.0.0.192",
    "the host of Azure": "168.63.129.16",
    "carrier-grade NAT": "100.64.0.1",
    "the end of carrier-grade NAT": "100.127.255.255",
    "unspecified": "0.0.0.0",
    "this network": "0.1.2.3",
    "multicast": "224.0.0.1",
    "the end of multicast": "239.255.255.255",
    "reserved": "240.0.0.1",
    "broadcast": "255.255.255.255",
    "documentation 1": "192.0.2.1",
    "documentation 2": "198.51.100.1",
    "documentation 3": "203.0.113.1",
    "benchmarks": "198.19.255.255",
    "IETF protocols": "192.0.0.9",
    "6to4 relay": "192.88.99.1",
    "IPv6 unspecified": "::",
    "IPv6 loopback": "::1",
    "unique local": "fd00::1",
    "unique local, other half": "fc00::1",
    "IPv6 metadata of AWS": "fd00:ec2::254",
    "IPv6 link-local": "fe80::1",
    "site-local": "fec0::1",
    "IPv6 multicast": "ff02::1",
    "IPv6 documentation": "2001:db8::1",
    "new IPv6 documentation": "3fff::1",
    "IPv6 benchmarks": "2001:2::1",
    "ORCHID": "2001:20::1",
    "discard": "100::1",
    "segment routing": "5f00::1",
    "not allocated": "4000::1",
    "IPv4-mapped loopback": "::ffff:127.0.0.1",
    "IPv4-mapped private, in hexadecimal": "::ffff:a00:1",
    "IPv4-mapped metadata": "::ffff:169.254.169.254",
    "IPv4-compatible loopback": "::127.0.0.1",
    "IPv4-compatible public": "::8.8.8.8",
    "IPv4-translated": "::ffff:0:10.0.0.1",
    "NAT64 private": "64:ff9b::10.0.0.1",
    "NAT64 metadata": "64:ff9b::a9fe:a9fe",
    "local NAT64": "64:ff9b:1::8.8.8.8",
    "6to4 private": "2002:a00:1::1",
    "6to4 loopback": "2002:7f00:1::",
    "Teredo": "2001:0:808:808::1",
    "ISATAP private": "2606:4700::5efe:10.0.0.1",
    "ISATAP private, globally unique": "2606:4700::200:5efe:192.168.0.1",
}


@pytest.mark.parametrize("address", INTERNAL_ADDRESSES.values(), ids=INTERNAL_ADDRESSES)
def test_an_internal_address_is_refused(address):
    with pytest.raises(SecurityError, match="use a public address"):
        check_address(address, DEFAULT_VALIDATORS)


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "168.63.129.17",
        "169.253.255.255",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "192.167.255.255",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2606:4700:4700::1111",
        "2a00:1450:4001::1",
        "2001:200::1",
        "2001:4860:4860::8888",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
        "2002:808:808::1",
        "2606:4700::5efe:8.8.8.8",
    ],
)
def test_a_public_address_passes(address):
    assert check_address(address, DEFAULT_VALIDATORS) == ip_address(address)


def test_an_address_may_be_given_parsed():
    assert check_address(IPv4Address("8.8.8.8"), DEFAULT_VALIDATORS) == IPv4Address("8.8.8.8")


@pytest.mark.parametrize("address", ["fe80::1%eth0", "fe80::1%1", "2606:4700::1%eth0"])
def test_an_address_with_a_zone_is_refused_whatever_is_allowed(address):
    with pytest.raises(SecurityError, match="zone id"):
        check_address(address, [allow_cidr_network("::/0")])


@pytest.mark.parametrize("text", ["", "example.com", "0177.0.0.1", "127.1", "[::1]", "1.2.3.4/8"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(SecurityError, match="not an IP address"):
        check_address(text, ())


def test_without_validators_every_address_passes():
    assert str(check_address("10.0.0.1", ())) == "10.0.0.1"


def test_a_refusal_names_address_network_reason_and_way_out():
    with pytest.raises(SecurityError) as refusal:
        check_address("64:ff9b::10.1.2.3", INTERNAL)
    message = str(refusal.value)
    assert "64:ff9b::a01:203" in message
    assert "10.0.0.0/8 (private, RFC 1918)" in message
    assert str(refusal.value).endswith('set allowed_networks=["64:ff9b::a01:203/128"].')
    assert "allowed_networks" not in refusal.value.reason


@pytest.mark.parametrize("address", INTERNAL_ADDRESSES.values(), ids=INTERNAL_ADDRESSES)
def test_the_advice_of_a_refusal_permits_the_address(address):
    with pytest.raises(SecurityError) as refusal:
        check_address(address, INTERNAL)
    (network,) = re.findall(r'allowed_networks=\["(.*)"\]', str(refusal.value))
    validators = complete_validators(DEFAULT_VALIDATORS, allowed_networks=(as_network(network),))
    assert check_address(address, validators) == ip_address(address)


# --- hypothesis: any address, any embedding

BLOCKED_4 = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
]
BLOCKED_6 = [
    "::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/23",
    "2001:db8::/32",
    "3fff::/20",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
]


def inside(networks):
    return st.sampled_from(networks).flatmap(lambda n: st.ip_addresses(network=n))


EMBEDDINGS = {
    "plain": lambda inner, rest: IPv4Address(inner),
    "mapped": lambda inner, rest: IPv6Address(0xFFFF << 32 | inner),
    "compatible": lambda inner, rest: IPv6Address(inner),
    "translated": lambda inner, rest: IPv6Address(0xFFFF << 48 | inner),
    "nat64": lambda inner, rest: IPv6Address(0x64FF9B << 96 | inner),
    "local nat64": lambda inner, rest: IPv6Address(
        0x64FF9B0001 << 80 | (inner >> 16) << 64 | (inner & 0xFFFF) << 40
    ),
    "local nat64, last": lambda inner, rest: IPv6Address(0x64FF9B0001 << 80 | inner),
    "6to4": lambda inner, rest: IPv6Address(0x2002 << 112 | inner << 80 | rest),
    "teredo server": lambda inner, rest: IPv6Address(0x20010000 << 96 | inner << 64 | rest),
    "teredo client": lambda inner, rest: IPv6Address(
        0x20010000 << 96 | 0x09090909 << 64 | (inner ^ 0xFFFFFFFF)
    ),
    "isatap": lambda inner, rest: IPv6Address(
        0x2A001450 << 96 | (rest & 0xFFFF) << 64 | 0x5EFE << 32 | inner
    ),
    "isatap, unique": lambda inner, rest: IPv6Address(
        0x2A001450 << 96 | (rest & 0xFFFF) << 64 | 0x2005EFE << 32 | inner
    ),
}
embeddings = st.sampled_from(sorted(EMBEDDINGS))
rests = st.integers(0, 2**64 - 1)


@given(inside(BLOCKED_4), embeddings, rests)
def test_any_internal_ipv4_address_is_refused_whatever_its_embedding(inner, embedding, rest):
    address = EMBEDDINGS[embedding](int(inner), rest)
    with pytest.raises(SecurityError):
        check_address(address, INTERNAL)
    with pytest.raises(SecurityError):
        check_address(str(address), INTERNAL)


@given(inside(BLOCKED_6))
def test_any_internal_ipv6_address_is_refused(address):
    with pytest.raises(SecurityError):
        check_address(address, INTERNAL)


@given(st.ip_addresses(v=6))
def test_outside_of_global_unicast_only_mapped_and_nat64_addresses_pass(address):
    assume(address not in IPv6Network("2000::/3"))
    assume(address not in IPv6Network("::ffff:0:0/96"))
    assume(address not in IPv6Network("64:ff9b::/96"))
    with pytest.raises(SecurityError):
        check_address(address, INTERNAL)


@given(st.ip_addresses(network="8.8.8.0/24"), embeddings, rests)
def test_a_blocked_network_is_blocked_whatever_the_embedding(inner, embedding, rest):
    validators = [block_cidr_network("8.8.8.0/24")]
    with pytest.raises(SecurityError, match="block_cidr_network"):
        check_address(EMBEDDINGS[embedding](int(inner), rest), validators)


@given(st.ip_addresses(), st.integers(0, 128))
def test_an_allowed_address_passes_whatever_blocks_it(address, prefix):
    network = ip_network((address, min(prefix, address.max_prefixlen)), strict=False)
    # An IPv4-mapped address is reached over IPv4, so no network of IPv6 holds it.
    assume(as_network(network).version == unmapped(address).version)
    block = block_cidr_network("0.0.0.0/0", "::/0")
    validators = [block, *DEFAULT_VALIDATORS, allow_cidr_network(network)]
    assert check_address(address, validators) == address
    assert check_address(address, validators[::-1]) == address


def test_allowing_a_network_allows_its_mapped_addresses_and_no_other_embedding():
    validators = [*DEFAULT_VALIDATORS, allow_cidr_network("10.0.0.0/8")]
    assert check_address("::ffff:10.0.0.1", validators)
    for other in ("64:ff9b::10.0.0.1", "2002:a00:1::", "::10.0.0.1", "::ffff:127.0.0.1"):
        with pytest.raises(SecurityError):
            check_address(other, validators)


def test_allowing_one_network_leaves_the_others_refused():
    validators = [*DEFAULT_VALIDATORS, allow_cidr_network("10.1.0.0/16", "fd00::/8")]
    assert check_address("10.1.0.1", validators)
    assert check_address("fd12::1", validators)
    for other in ("10.2.0.1", "127.0.0.1", "fc00::1"):
        with pytest.raises(SecurityError):
            check_address(other, validators)


def test_a_network_of_mapped_addresses_means_the_ipv4_network():
    assert block_cidr_network("::ffff:10.0.0.0/104") == block_cidr_network("10.0.0.0/8")
    assert allow_cidr_network("::ffff:10.0.0.1") == allow_cidr_network("10.0.0.1")


# --- making validators


def test_validators_are_values():
    assert ensure_port(80, 443) == ensure_port(80, 443)
    assert ensure_port(80) != ensure_port(443)
    assert len({block_internal_ips(), block_internal_ips()}) == 1
    assert (
        block_internal_ips(),
        ensure_protocol("http", "https"),
        ensure_port(80, 443),
    ) == DEFAULT_VALIDATORS


def test_a_protocol_may_be_written_as_in_a_url():
    assert ensure_protocol("HTTPS://") == ensure_protocol("https")


def test_networks_may_be_given_parsed():
    networks = (IPv4Network("10.0.0.0/8"), IPv6Network("fd00::/8"))
    assert allow_cidr_network(*networks) == allow_cidr_network("10.0.0.0/8", "fd00::/8")


@pytest.mark.parametrize(
    ("make", "value", "allowed"),
    [
        (ensure_protocol, "ftp", "http, https"),
        (ensure_protocol, 80, "http, https"),
        (ensure_port, 0, "from 1 to 65535"),
        (ensure_port, 65536, "from 1 to 65535"),
        (ensure_port, -1, "from 1 to 65535"),
        (ensure_port, "https", "from 1 to 65535"),
        (ensure_port, range(8000, 65537), "within 1 to 65535"),
        (ensure_port, "9000-8000", "contains no port"),
        (ensure_port, True, "from 1 to 65535"),
        (block_cidr_network, "10.0.0.1/8", "without host bits"),
        (block_cidr_network, "intranet", "CIDR"),
        (block_cidr_network, "10.0.0.0/33", "CIDR"),
        (allow_cidr_network, 10, "CIDR"),
        (allow_cidr_network, None, "CIDR"),
        (allow_cidr_network, b"\x0a\x00\x00\x00", "CIDR"),
    ],
)
def test_a_bad_argument_is_named_with_what_is_allowed(make, value, allowed):
    with pytest.raises(ConfigurationError) as error:
        make(value)
    assert repr(value) in str(error.value)
    assert allowed in str(error.value)


@pytest.mark.parametrize(
    "make", [ensure_protocol, ensure_port, block_cidr_network, allow_cidr_network]
)
def test_a_validator_of_nothing_is_refused(make):
    with pytest.raises(ConfigurationError, match="at least one"):
        make()


def test_a_plain_function_of_the_url_is_a_validator():
    asked = []

    def only_example(url):
        asked.append(url)
        if not url.startswith("https://example.com/"):
            raise SecurityError("not ours")

    validator = as_validator(only_example)
    assert check_url("HTTPS://EXAMPLE.com/a", [validator]).host == "example.com"
    assert asked == ["https://example.com/a"]
    with pytest.raises(SecurityError, match="not ours"):
        check_url("https://example.org/", (ensure_port(443), only_example))
    assert check_address("10.0.0.1", [only_example]) == IPv4Address("10.0.0.1")


def test_what_is_a_validator_stays_what_it_is():
    validator = ensure_port(443)
    assert as_validator(validator) is validator


def test_anyones_validator_is_asked():
    class Picky:
        def check_url(self, url):
            if url.path != "/hook":
                raise SecurityError("not the hook")

        def check_address(self, address):
            if address.version != 4:
                raise SecurityError("only IPv4")

        def allows(self, address):
            return str(address) == "::1"

    validators = [Picky()]
    assert check_url("http://8.8.8.8/hook", validators)
    assert check_url("http://[::1]/hook", validators)
    for url in ("http://8.8.8.8/", "http://[2606:4700::1]/hook"):
        with pytest.raises(SecurityError):
            check_url(url, validators)


def test_a_function_that_says_false_refuses():
    with pytest.raises(SecurityError, match="use another recipient"):
        check_url("https://example.org/", [lambda url: url.startswith("https://example.com/")])
    for answer in (None, True, 0):
        assert check_url("https://example.com/", [lambda url, answer=answer: answer])


async def refuse_later(url):
    raise SecurityError(url)


class RefuseLater:
    async def __call__(self, url):
        raise SecurityError(url)


@pytest.mark.parametrize(
    ("value", "way_out"),
    [
        (block_internal_ips, r"call it: block_internal_ips\("),
        (ensure_port, r"call it: ensure_port\("),
        (refuse_later, "make it a plain function"),
        (RefuseLater(), "make it a plain function"),
    ],
)
def test_a_validator_that_would_not_refuse_is_refused(value, way_out):
    with pytest.raises(ConfigurationError, match=way_out):
        as_validator(value)


@pytest.mark.parametrize("value", ["block_internal_ips", None, 443, SecurityError, []])
def test_what_is_no_validator_is_refused(value):
    with pytest.raises(ConfigurationError, match="is not a recipient validator"):
        as_validator(value)


# --- URLs


@pytest.mark.parametrize(
    ("url", "text", "recipient"),
    [
        ("https://example.com", "https://example.com/", "example.com:443"),
        ("HTTP://Example.COM:80/A?b=C", "http://example.com/A?b=C", "example.com:80"),
        ("https://example.com:8443/", "https://example.com:8443/", "example.com:8443"),
        ("https://example.com:/", "https://example.com/", "example.com:443"),
        ("https://example.com:00443/", "https://example.com/", "example.com:443"),
        ("https://example.com:00000008443/", "https://example.com:8443/", "example.com:8443"),
        ("https://example.com./", "https://example.com/", "example.com:443"),
        ("https://my_host-1.example.com/", "https://my_host-1.example.com/", None),
        ("https://example.com/#top", "https://example.com/", "example.com:443"),
        ("https://example.com#@10.0.0.1/", "https://example.com/", "example.com:443"),
        ("https://example.com?x#y", "https://example.com/?x", "example.com:443"),
        ("https://example.com?", "https://example.com/", "example.com:443"),
        ("https://example.com/a@b", "https://example.com/a@b", "example.com:443"),
        ("https://example.com/a/./b/../c", "https://example.com/a/c", None),
        ("https://example.com/../..", "https://example.com/", None),
        ("https://example.com/a/%2E%2e/b/.", "https://example.com/b/", None),
        ("https://example.com/a/%2fb", "https://example.com/a/%2fb", None),
        ("https://example.com/é?é", "https://example.com/%C3%A9?%C3%A9", None),
        ("https://example.com/%7e%zz%", "https://example.com/%7e%25zz%25", None),
        ('https://example.com/"<{?"<{[]', "https://example.com/%22%3C%7B?%22%3C%7B[]", None),
        ("https://straße.de/", "https://xn--strae-oqa.de/", "xn--strae-oqa.de:443"),
        ("https://BÜCHER.example/", "https://xn--bcher-kva.example/", None),
        ("https://example.ΟΔΟΣ/", "https://example.xn--pxavbq/", None),
        ("https://日本語.jp/", "https://xn--wgv71a119e.jp/", None),
        ("https://xn--bcher-kva.example/", "https://xn--bcher-kva.example/", None),
        ("http://8.8.8.8/", "http://8.8.8.8/", "8.8.8.8:80"),
        ("http://134744072/", "http://8.8.8.8/", "8.8.8.8:80"),
        ("http://0x8.010.0x808/", "http://8.8.8.8/", "8.8.8.8:80"),
        ("http://[2606:4700::0:1111]:8080/", "http://[2606:4700::1111]:8080/", None),
        ("http://[2606:4700::1111]/", "http://[2606:4700::1111]/", "[2606:4700::1111]:80"),
        ("http://[::FFFF:808:808]/", "http://[::ffff:8.8.8.8]/", "[::ffff:8.8.8.8]:80"),
    ],
)
def test_a_url_is_normalised(url, text, recipient):
    parsed = parse_url(url)
    assert parsed.text == text
    assert text.endswith(parsed.path)
    if recipient is not None:
        assert parsed.recipient == recipient
    assert parse_url(text) == parsed
    assert str(httpx.URL(text)) == text


def test_a_url_is_taken_apart():
    url = parse_url("HTTPS://[2606:4700:0::1111]:8443/a?b")
    assert (url.scheme, url.host, url.port, url.path) == ("https", "2606:4700::1111", 8443, "/a?b")
    assert url.address == IPv6Address("2606:4700::1111")
    assert parse_url("https://example.com").address is None


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "absolute"),
        ("example.com/hook", "absolute"),
        ("//example.com/hook", "absolute"),
        ("https:example.com", "absolute"),
        ("https:/example.com", "absolute"),
        ("/hook", "absolute"),
        ("javascript:alert(1)", "absolute"),
        ("1http://example.com", "absolute"),
        ("\u017fttp://example.com", "absolute"),
        ("https://", "no host"),
        ("https:///hook", "no host"),
        ("https://:443/", "no host"),
        ("file:///etc/passwd", "uses 'file'"),
        ("file://10.0.0.1/etc/passwd", "uses 'file'"),
        ("https://?x", "no host"),
        ("https://user@example.com/", "user name"),
        ("https://user:pass@example.com/", "user name"),
        ("https://@example.com/", "user name"),
        ("https://example.com@10.0.0.1/", "user name"),
        ("https://example.com:443@10.0.0.1/", "user name"),
        ("https://a@b@example.com/", "user name"),
        ("https://example.com%40@10.0.0.1/", "user name"),
        ("https://example.com\\@10.0.0.1/", "backslash"),
        ("https:\\\\example.com/", "backslash"),
        ("https://example.com\\.evil.com/", "backslash"),
        ("https://example.com/a\\b", "backslash"),
        (" https://example.com/", "white space"),
        ("https://example.com/ ", "white space"),
        ("https://exam ple.com/", "white space"),
        ("https://example.com/a b", "white space"),
        ("https://exam\tple.com/", "can't be printed"),
        ("https://example.com/\r\nX-Evil: 1", "can't be printed"),
        ("https://example.com/\x00", "can't be printed"),
        ("https://example.com/\x7f", "can't be printed"),
        ("https://example.com/\u00a0", "can't be printed"),
        ("https://example.com/\u2028", "can't be printed"),
        ("https://exam\u200bple.com/", "can't be printed"),
        ("https://exam\u00adple.com/", "can't be printed"),
        ("https://example.com/\u202egpj", "can't be printed"),
        ("https://example.com/\ud800", "can't be printed"),
        ("https://example.com:0/", "the port 0"),
        ("https://example.com:65536/", "the port 65536"),
        ("https://example.com:" + "9" * 500 + "/", "the port 9"),
        ("https://example.com:abc/", "invalid host or port"),
        ("https://example.com:-1/", "invalid host or port"),
        ("https://example.com:80:80/", "invalid host or port"),
        ("https://example.com:\u0661/", "invalid host or port"),
        ("https://::1/", "invalid host or port"),
        ("https://[::1/", "invalid host or port"),
        ("https://[::1]x/", "invalid host or port"),
        ("https://a[::1]/", "invalid host or port"),
        ("https://[fe80::1%eth0]/", "zone id"),
        ("https://[fe80::1%25eth0]/", "zone id"),
        ("https://example%2ecom/", "encoded character"),
        ("https://127.0.0.1%2f.example.com/", "encoded character"),
        ("https://[]/", "not an IP address"),
        ("https://[example.com]/", "not an IP address"),
        ("https://[127.0.0.1]/", "not an IP address"),
        ("https://[v1.x]/", "not an IP address"),
        ("https://1.2.3.4.5/", "not an IP address"),
        ("https://256.1.1.1/", "not an IP address"),
        ("https://1.2.3.256/", "not an IP address"),
        ("https://1.2.65536/", "not an IP address"),
        ("https://4294967296/", "not an IP address"),
        ("https://0x100000000/", "not an IP address"),
        ("https://08.8.8.8/", "not an IP address"),
        ("https://1..2/", "not an IP address"),
        ("https://1_0.0.0.1/", "not an IP address"),
        ("https://example.0x7f/", "not an IP address"),
        ("https://example.123/", "not an IP address"),
        ("https://\uff11.2.3.4/", "not an IP address"),
        ("https://exam$ple.com/", "an invalid host name"),
        ("https://example..com/", "an invalid host name"),
        ("https://.example.com/", "an invalid host name"),
        ("https://example.com../", "an invalid host name"),
        ("https://./", "an invalid host name"),
        ("https://" + "a" * 64 + ".com/", "an invalid host name"),
        ("https://" + "a." * 127 + "com/", "an invalid host name"),
        ("https://" + "é" * 63 + ".com/", "an invalid host name"),
        ("https://\uff11\uff12\uff17.\uff10.\uff10.\uff11/", "map to others"),
        ("https://①②⑦.⓪.⓪.①/", "map to others"),
        ("https://127。0。0。1/", "map to others"),
        ("https://example\uff0ecom/", "map to others"),
        ("https://ⓔxample.com/", "map to others"),
        ("https://loca\u212ahost/", "map to others"),
        ("https://example.com\u2044.evil.com/", "map to others"),
        ("https://\U0001f4a9.la/", "map to others"),
        ("gopher://example.com/", "uses 'gopher'; use one of: http, https"),
        ("ftp://example.com:443/", "uses 'ftp'"),
        ("wss://example.com/", "uses 'wss'"),
        ("https://example.com/" + "a" * LONGEST_URL, "longer than 2048"),
        ("https://example.com/" + "é" * 1000, "longer than 2048 characters when encoded"),
    ],
)
def test_a_url_that_could_be_read_in_two_ways_is_refused(url, problem):
    with pytest.raises(SecurityError, match=problem):
        parse_url(url)


def test_the_longest_url_passes():
    url = "https://example.com/".ljust(LONGEST_URL, "a")
    assert parse_url(url).text == url


def test_a_refusal_keeps_passwords_and_queries_to_itself():
    with pytest.raises(SecurityError) as refusal:
        parse_url("https://me:hunter2@example.com:0/hook?token=s3cret#s3cret")
    assert "hunter2" not in str(refusal.value)
    assert "s3cret" not in str(refusal.value)
    assert "example.com:0/hook" in str(refusal.value)


def test_a_refusal_of_a_long_url_is_short_and_can_be_printed():
    with pytest.raises(SecurityError) as refusal:
        parse_url("https://example.com/\x1b\u202e" + "x" * 100_000)
    assert len(str(refusal.value)) < 300
    assert str(refusal.value).isprintable()


url_texts = st.one_of(
    st.text(),
    st.text().map("http://{}".format),
    st.text().map("http://example.com/{}".format),
    st.text(st.sampled_from("htps:/\\@[]%.#?0x7f1é。%25 \t")).map("http://{}".format),
    st.text(st.sampled_from("./%2eEfF?#é^`{}|\"'[]")).map("https://e.com/{}".format),
)


@given(url_texts)
@example("http://[::1%]/")
@example("http://1" + "0" * 2000)
def test_parsing_raises_nothing_but_security_errors_and_normalises_once(url):
    try:
        parsed = parse_url(url)
    except SecurityError:
        return
    assert parsed.text.isascii()
    assert parsed.text.isprintable()
    assert parse_url(parsed.text) == parsed


@given(url_texts)
def test_the_http_library_reads_a_normalised_url_as_we_do(url):
    try:
        parsed = parse_url(url)
    except SecurityError:
        return
    theirs = httpx.URL(parsed.text)
    assert theirs.raw_path.decode() == parsed.path
    assert theirs.raw_host.decode() == parsed.host
    assert str(theirs) == parsed.text


@given(st.ip_addresses(v=4), st.integers(1, 4), st.data())
def test_every_spelling_of_an_ipv4_address_is_read(address, parts, data):
    value = int(address)
    numbers = [value >> 24, value >> 16 & 255, value >> 8 & 255][: parts - 1]
    numbers.append(value & (256 ** (5 - parts) - 1))
    spell = st.sampled_from(["{}", "0{:o}", "0x{:x}", "0X{:X}", "000{:o}"])
    host = ".".join(data.draw(spell).format(number) for number in numbers)
    dot = data.draw(st.sampled_from(["", "."]))
    assert ip_literal(host + dot) == address
    assert parse_url(f"http://{host}{dot}/").text == f"http://{address}/"


def test_an_ipv6_literal_is_read_with_and_without_brackets():
    assert ip_literal("[::1]") == ip_literal("::1") == IPv6Address("::1")


@pytest.mark.parametrize("host", ["example.com", "1.example.com", "0x7f.com", "a1", "localhost"])
def test_a_name_is_no_literal(host):
    assert ip_literal(host) is None


def test_an_address_is_written_alike_on_every_python():
    assert address_text(IPv6Address("::ffff:808:808")) == "::ffff:8.8.8.8"
    assert address_text(IPv6Address("2606:4700:0::1")) == "2606:4700::1"
    assert address_text(IPv4Address("8.8.8.8")) == "8.8.8.8"


# --- URLs and validators

INTERNAL_HOSTS = {
    "loopback": "127.0.0.1",
    "decimal": "2130706433",
    "octal": "0177.0.0.1",
    "octal in one": "017700000001",
    "hexadecimal": "0x7f.0.0.1",
    "hexadecimal in one": "0x7f000001",
    "mixed": "0x7f.1",
    "short": "127.1",
    "zero": "0",
    "empty hexadecimal": "0x",
    "many zeros": "127.0.0.0000000000001",
    "trailing dot": "127.0.0.1.",
    "decimal metadata": "2852039166",
    "hexadecimal metadata": "0xA9FEA9FE",
    "IPv6 loopback": "[::1]",
    "IPv6 loopback in full": "[0:0:0:0:0:0:0:1]",
    "IPv6 unspecified": "[::]",
    "IPv4-mapped": "[::ffff:127.0.0.1]",
    "IPv4-mapped in hexadecimal": "[::ffff:7f00:1]",
    "IPv4-compatible": "[::127.0.0.1]",
    "NAT64": "[64:ff9b::169.254.169.254]",
    "6to4": "[2002:7f00:1::]",
    "unique local": "[fd00:ec2::254]",
    "localhost": "localhost",
    "localhost with a dot": "localhost.",
    "localhost in capitals": "LOCALHOST",
    "below localhost": "anything.localhost",
    "below localhost with a dot": "a.b.localhost.",
    "localhost.localdomain": "localhost.localdomain",
    "localhost6": "localhost6",
    "ip6-localhost": "ip6-localhost",
    "ip6-loopback": "ip6-loopback",
    "metadata of Google": "metadata.google.internal",
    "metadata of Google with a dot": "Metadata.Google.Internal.",
    "metadata of EC2": "instance-data",
    "metadata": "metadata",
    "metadata of Azure": "metadata.azure.internal",
}


@pytest.mark.parametrize("host", INTERNAL_HOSTS.values(), ids=INTERNAL_HOSTS)
def test_a_url_with_an_internal_host_is_refused(host):
    with pytest.raises(SecurityError):
        check_url(f"http://{host}/hook", DEFAULT_VALIDATORS)
    with pytest.raises(SecurityError):
        check_url(f"http://{host}/hook", INTERNAL)


@pytest.mark.parametrize("host", INTERNAL_HOSTS.values(), ids=INTERNAL_HOSTS)
def test_without_block_internal_ips_an_internal_host_passes(host):
    assert check_url(f"http://{host}/hook", [ensure_port(80)])


@pytest.mark.parametrize(
    "host",
    [
        "example.com",
        "8.8.8.8",
        "[2606:4700:4700::1111]",
        "localhost.example.com",
        "notlocalhost",
        "metadata.example.com",
        "127.0.0.1.nip.io",
    ],
)
def test_a_url_with_a_public_host_or_a_name_to_be_resolved_passes(host):
    assert check_url(f"https://{host}/hook", DEFAULT_VALIDATORS).text == f"https://{host}/hook"


@pytest.mark.parametrize("network", ["127.0.0.0/8", "127.0.0.1", "::1", "::1/128"])
@pytest.mark.parametrize("host", ["localhost", "localhost.", "a.localhost", "ip6-localhost"])
def test_allowing_loopback_allows_the_names_of_the_machine(network, host):
    assert check_url(f"http://{host}/", [*DEFAULT_VALIDATORS, allow_cidr_network(network)])


def test_allowing_another_network_leaves_localhost_refused():
    validators = [*DEFAULT_VALIDATORS, allow_cidr_network("10.0.0.0/8")]
    with pytest.raises(SecurityError, match=r"'localhost'.*127\.0\.0\.1 is in 127\.0\.0\.0/8"):
        check_url("http://localhost/", validators)


def test_allowing_an_address_allows_no_other_port_or_protocol():
    validators = [*DEFAULT_VALIDATORS, allow_cidr_network("127.0.0.0/8")]
    assert check_url("http://127.0.0.1/", validators)
    with pytest.raises(SecurityError, match="uses port 8000; use one of: 80, 443"):
        check_url("http://127.0.0.1:8000/", validators)


def test_a_refused_protocol_is_named_with_those_allowed():
    with pytest.raises(SecurityError, match="uses 'ftp'; use one of: http, https"):
        check_url("ftp://example.com/", DEFAULT_VALIDATORS)
    with pytest.raises(SecurityError, match="uses 'http'; use one of: https"):
        check_url("http://example.com/", [ensure_protocol("https")])


def test_a_blocked_network_is_refused_in_a_url():
    validators = [block_cidr_network("8.8.8.0/24")]
    with pytest.raises(SecurityError, match=r"8\.8\.8\.0/24"):
        check_url("http://0x08080808/", validators)
    assert check_url("http://8.8.4.4/", validators)


def test_a_url_that_cannot_be_parsed_is_refused_without_any_validator():
    with pytest.raises(SecurityError):
        check_url("http://a@example.com/", ())
