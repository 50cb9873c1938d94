from __future__ import annotations

import asyncio
import socket
import subprocess
import sys

import pytest

from thorn_core.errors import SecurityError, TransportError
from thorn_core.recipients import DEFAULT_VALIDATORS, allow_cidr_network, block_cidr_network
from thorn_core.transports.resolution import MOST_ADDRESSES, resolve, system_resolver


def answering(*addresses):
    """A resolver that always answers with these, and remembers what it was asked."""

    async def resolver(host, port):
        resolver.asked.append((host, port))
        return addresses

    resolver.asked = []
    return resolver


def resolved(host, *, validators=DEFAULT_VALIDATORS, resolver, port=443):
    return asyncio.run(resolve(host, port, validators, resolver=resolver))


def test_a_name_is_resolved_once_to_all_its_addresses_in_order():
    resolver = answering("93.184.215.14", "2606:2800:21f::1", "8.8.8.8")
    addresses = resolved("example.com", resolver=resolver)
    assert addresses == ("93.184.215.14", "2606:2800:21f::1", "8.8.8.8")
    assert resolver.asked == [("example.com", 443)]


def test_an_address_answered_twice_is_there_once():
    resolver = answering("8.8.8.8", "1.1.1.1", "8.8.8.8", "2606:4700:0::1", "2606:4700::1")
    assert resolved("e.com", resolver=resolver) == ("8.8.8.8", "1.1.1.1", "2606:4700::1")


@pytest.mark.parametrize(
    "bad",
    [
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "::1",
        "fd00::1",
        "fe80::1%eth0",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "2002:a00:1::",
        "not an address",
    ],
)
@pytest.mark.parametrize("position", [0, 1, 2])
def test_one_bad_address_refuses_all(bad, position):
    answers = ["8.8.8.8", "2606:4700::1"]
    answers.insert(position, bad)
    with pytest.raises(SecurityError, match=r"'evil\.example' resolves to an address"):
        resolved("evil.example", resolver=answering(*answers))


def test_a_refusal_tells_the_address_to_operators_but_not_to_recipients():
    with pytest.raises(SecurityError) as refusal:
        resolved("intranet", resolver=answering("10.20.30.40"))
    assert "10.20.30.40" not in str(refusal.value)
    assert "10.20.30.40" in str(refusal.value.__cause__)


def test_an_allowed_address_passes():
    validators = [*DEFAULT_VALIDATORS, allow_cidr_network("10.1.0.0/16")]
    resolver = answering("10.1.2.3", "8.8.8.8")
    assert resolved("intranet", validators=validators, resolver=resolver) == (
        "10.1.2.3",
        "8.8.8.8",
    )


def test_the_events_own_validators_decide():
    with pytest.raises(SecurityError):
        resolved(
            "e.com", validators=[block_cidr_network("8.8.8.0/24")], resolver=answering("8.8.8.8")
        )
    assert resolved("e.com", validators=(), resolver=answering("10.0.0.1")) == ("10.0.0.1",)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("8.8.8.8", "8.8.8.8"),
        ("134744072", "8.8.8.8"),
        ("2606:4700::1", "2606:4700::1"),
        ("[2606:4700::1]", "2606:4700::1"),
        ("::ffff:808:808", "::ffff:8.8.8.8"),
    ],
)
def test_a_literal_is_checked_without_a_look_up(host, address):
    resolver = answering("1.1.1.1")
    assert resolved(host, resolver=resolver) == (address,)
    assert resolver.asked == []


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "0x7f000001", "2130706433", "0", "::1", "::ffff:10.0.0.1"],
)
def test_a_literal_that_is_internal_is_refused_without_a_look_up(host):
    resolver = answering("8.8.8.8")
    with pytest.raises(SecurityError, match="use a public address"):
        resolved(host, resolver=resolver)
    assert resolver.asked == []


@pytest.mark.parametrize("host", ["fe80::1%eth0", "[fe80::1%25eth0]", "2606:4700::1%1"])
def test_a_literal_with_a_zone_is_refused_whatever_is_allowed(host):
    with pytest.raises(SecurityError, match="zone id"):
        resolved(host, validators=[allow_cidr_network("::/0")], resolver=answering("8.8.8.8"))


def test_a_name_without_addresses_is_no_connection():
    with pytest.raises(TransportError, match=r"'e\.com' has no address"):
        resolved("e.com", resolver=answering())


def test_as_many_addresses_as_there_may_be_pass_and_one_more_is_refused():
    most = [f"8.8.{n // 256}.{n % 256}" for n in range(MOST_ADDRESSES)]
    assert resolved("e.com", resolver=answering(*most)) == tuple(most)
    assert resolved("e.com", resolver=answering(*most, *most)) == tuple(most)
    with pytest.raises(SecurityError, match="65 addresses"):
        resolved("e.com", resolver=answering(*most, "1.1.1.1"))


# --- the system's resolver


def test_the_system_resolves_localhost_to_loopback():
    addresses = asyncio.run(system_resolver("localhost", 80))
    assert set(addresses) <= {"127.0.0.1", "::1"}
    assert addresses
    with pytest.raises(SecurityError):
        asyncio.run(resolve("localhost", 80, DEFAULT_VALIDATORS))


@pytest.mark.parametrize("host", ["nothing.invalid", "a" * 64, "a..b", "nul\0l"])
def test_a_name_that_cannot_be_resolved_is_named(host):
    with pytest.raises(TransportError, match="can't be resolved") as error:
        asyncio.run(system_resolver(host, 80))
    assert repr(host) in str(error.value)


def test_the_system_resolver_works_when_the_threads_are_gone():
    async def without_threads():
        loop = asyncio.get_running_loop()
        await loop.shutdown_default_executor()
        return await system_resolver("localhost", 80), await failing()

    async def failing():
        with pytest.raises(TransportError, match="can't be resolved"):
            await system_resolver("nothing.invalid", 80)

    addresses, _ = asyncio.run(without_threads())
    assert set(addresses) <= {"127.0.0.1", "::1"}
    assert addresses


AT_EXIT = """
import asyncio, threading
from thorn_core.transports.resolution import system_resolver

main_is_over = threading.main_thread().join

def late():
    main_is_over()
    loop = asyncio.new_event_loop()
    print(len(loop.run_until_complete(system_resolver("localhost", 80))) > 0)
    loop.close()

threading.Thread(target=late).start()
"""


def test_the_system_resolver_works_at_the_interpreters_exit():
    run = subprocess.run(
        [sys.executable, "-c", AT_EXIT], capture_output=True, text=True, timeout=60, check=False
    )
    assert (run.stdout, run.returncode) == ("True\n", 0), run.stderr


@pytest.mark.parametrize(
    ("sockaddr", "address"),
    [
        (("fe80::1", 80, 0, 2), "fe80::1%2"),
        (("fe80::1%eth0", 80, 0, 2), "fe80::1%eth0"),
        (("2606:4700::1", 80, 0, 0), "2606:4700::1"),
        (("8.8.8.8", 80), "8.8.8.8"),
    ],
)
def test_a_zone_that_the_system_answers_with_is_kept_so_that_it_is_refused(sockaddr, address):
    class Loop(asyncio.SelectorEventLoop):
        async def getaddrinfo(self, host, port, **hints):
            assert hints["type"] == socket.SOCK_STREAM
            return [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", sockaddr)]

    with asyncio.Runner(loop_factory=Loop) as runner:
        assert runner.run(system_resolver("e.com", 80)) == [address]
