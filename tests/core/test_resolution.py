from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from time import monotonic

import pytest

from thorn_core.errors import SecurityError, TransportError
from thorn_core.recipients import DEFAULT_VALIDATORS, allow_cidr_network, block_cidr_network
from thorn_core.transports.lookups import OWNER_WAITING, Lookups, system_resolver
from thorn_core.transports.resolution import MOST_ADDRESSES, resolve


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
    assert "Errno" not in str(error.value)


AT_EXIT = """
import asyncio, atexit, threading
from thorn_core.transports.lookups import system_resolver

main_is_over = threading.main_thread().join

def resolved(name):
    loop = asyncio.new_event_loop()
    print(len(loop.run_until_complete(system_resolver(name, 80))) > 0, flush=True)
    loop.close()

def late():
    main_is_over()
    resolved("localhost")

threading.Thread(target=late).start()
atexit.register(resolved, "127.0.0.1")
"""


def test_the_system_resolver_works_at_the_interpreters_exit():
    run = subprocess.run(
        [sys.executable, "-c", AT_EXIT], capture_output=True, text=True, timeout=60, check=False
    )
    assert (run.stdout, run.returncode) == ("True\nTrue\n", 0), run.stderr


FORKED = """
import asyncio, os, socket, threading
from thorn_core.transports.lookups import system_resolver

real, started = socket.getaddrinfo, threading.Event()

def getaddrinfo(host, *rest, **hints):
    if host == "silent.test":
        started.set()
        threading.Event().wait()
    return real("127.0.0.1", *rest, **hints)

async def stuck():
    for n in range(7):
        asyncio.ensure_future(system_resolver("silent.test", 80, str(n)))
    await asyncio.to_thread(started.wait)
    if os.fork() == 0:
        return
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
    os._exit(0)

socket.getaddrinfo = getaddrinfo
asyncio.run(stuck())
print(asyncio.run(system_resolver("child.test", 80))[0], end=" ", flush=True)
os._exit(0)
"""


def test_a_forked_child_looks_names_up_with_threads_of_its_own():
    run = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=60, check=False
    )
    assert (run.stdout, run.returncode) == ("127.0.0.1 0\n", 0), run.stderr


@pytest.mark.parametrize(
    ("sockaddr", "address"),
    [
        (("fe80::1", 80, 0, 2), "fe80::1%2"),
        (("fe80::1%eth0", 80, 0, 2), "fe80::1%eth0"),
        (("2606:4700::1", 80, 0, 0), "2606:4700::1"),
        (("8.8.8.8", 80), "8.8.8.8"),
    ],
)
def test_a_zone_that_the_system_answers_with_is_kept_so_that_it_is_refused(
    sockaddr, address, monkeypatch
):
    def getaddrinfo(host, port, **hints):
        assert hints["type"] == socket.SOCK_STREAM
        return [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", sockaddr)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert asyncio.run(Lookups().addresses("e.com", 80)) == (address,)


# --- many names, and silent ones


class Names:
    """Stands in for the system's resolver: names that begin with `silent` wait."""

    def __init__(self, monkeypatch):
        self.asked, self.under_way, self.most = [], 0, 0
        self.free, self._lock, self.answer = threading.Event(), threading.Lock(), "127.0.0.1"
        monkeypatch.setattr(socket, "getaddrinfo", self)

    def __call__(self, host, port, **hints):
        with self._lock:
            self.asked.append(host)
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        try:
            if host.startswith("silent"):
                self.free.wait(10)
            if self.answer is None:
                raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (self.answer, port))]
        finally:
            with self._lock:
                self.under_way -= 1

    async def until(self, condition):
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.001)


@pytest.fixture
def names(monkeypatch):
    names = Names(monkeypatch)
    yield names
    names.free.set()


def begun(lookups, number, owner, name="silent"):
    return [
        asyncio.ensure_future(lookups.addresses(f"{name}{n}.{owner}.test", 80, owner))
        for n in range(number)
    ]


async def ended(names, tasks):
    names.free.set()
    return await asyncio.gather(*tasks, return_exceptions=True)


def test_silent_names_of_one_owner_do_not_delay_another_owners(names):
    async def main():
        lookups = Lookups()
        silent = begun(lookups, 40, "mallory")
        await names.until(lambda: names.under_way >= 7)
        began = monotonic()
        for number in range(20):
            await lookups.addresses(f"good{number}.test", 80, "victim")
        taken = monotonic() - began
        assert not any(task.done() for task in silent)
        await ended(names, silent)
        return taken

    assert asyncio.run(main()) < 1


def test_an_owner_has_a_share_of_the_threads_and_everybody_gets_one(names):
    async def main():
        lookups = Lookups(threads=64)
        silent = begun(lookups, 40, "mallory")
        await names.until(lambda: names.under_way == 3)
        for number in range(20):
            silent += begun(lookups, 3, f"accomplice{number}")
        await asyncio.sleep(0)
        assert await lookups.addresses("good.test", 80, "victim") == ("127.0.0.1",)
        return silent

    async def all_of_it():
        await ended(names, await main())

    asyncio.run(all_of_it())
    assert 20 < names.most < 64


def test_silent_names_without_an_owner_delay_neither_one_another_nor_owners(names):
    async def main():
        lookups = Lookups(threads=64)
        silent = begun(lookups, 40, None)
        await names.until(lambda: names.under_way == 40)
        for owner in (None, "victim"):
            assert await lookups.addresses(f"good.{owner}.test", 80, owner) == ("127.0.0.1",)
        silent += begun(lookups, 40, None, "silent-too")
        await names.until(lambda: names.under_way == 48)
        assert await lookups.addresses("good.test", 80, "another") == ("127.0.0.1",)
        await ended(names, silent)

    asyncio.run(main())
    assert names.most == 49


def test_owners_take_turns_when_threads_are_scarce(names):
    async def main():
        lookups = Lookups(threads=1)
        first = begun(lookups, 1, "first")
        await names.until(lambda: names.asked)
        waiting = begun(lookups, 3, "many", "good") + begun(lookups, 1, "few", "good")
        await asyncio.sleep(0)
        await ended(names, first + waiting)

    asyncio.run(main())
    assert names.asked[1:3] == ["good0.many.test", "good0.few.test"]


def test_look_ups_of_one_name_are_joined_within_an_owner(names):
    async def main():
        lookups = Lookups()
        tasks = [
            asyncio.ensure_future(lookups.addresses("silent.test", 80, owner))
            for owner in ("a", "a", "a", "b")
        ]
        await names.until(lambda: len(names.asked) == 2)
        return await ended(names, tasks)

    assert asyncio.run(main()) == [("127.0.0.1",)] * 4
    assert names.asked == ["silent.test"] * 2


def test_a_good_answer_is_kept_for_a_while_and_a_bad_one_is_not(names):
    async def main():
        lookups = Lookups(kept=60)
        names.answer = None
        for _ in range(2):
            with pytest.raises(TransportError, match="temporary failure in name resolution"):
                await lookups.addresses("good.test", 80)
        names.answer = "127.0.0.1"
        for owner in ("a", "b"):
            await lookups.addresses("good.test", 80, owner)
        hasty = Lookups(kept=0)
        for _ in range(2):
            await hasty.addresses("other.test", 80)

    asyncio.run(main())
    assert names.asked == ["good.test"] * 3 + ["other.test"] * 2


def test_an_answer_that_came_meanwhile_serves_those_that_wait(names):
    async def main():
        lookups = Lookups(threads=1)
        blocking = begun(lookups, 1, "a")
        await names.until(lambda: names.asked)
        waiting = [
            asyncio.ensure_future(lookups.addresses("good.test", 80, owner)) for owner in "abc"
        ]
        await asyncio.sleep(0)
        return await ended(names, blocking + waiting)

    assert asyncio.run(main()) == [("127.0.0.1",)] * 4
    assert names.asked == ["silent0.a.test", "good.test"]


def test_a_look_up_that_nobody_waits_for_any_more_is_not_begun(names):
    async def main():
        lookups = Lookups(threads=1)
        blocking = begun(lookups, 1, "a")
        await names.until(lambda: names.asked)
        for _ in range(OWNER_WAITING + 1):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await lookups.addresses("good.test", 80, "a")
        await ended(names, blocking)
        await lookups.addresses("last.test", 80, "a")

    asyncio.run(main())
    assert names.asked == ["silent0.a.test", "last.test"]


def test_names_that_wait_are_bounded_by_owner(names):
    async def main():
        lookups = Lookups(threads=1)
        blocking = begun(lookups, 1 + OWNER_WAITING, "mallory")
        await asyncio.sleep(0)
        with pytest.raises(TransportError, match="can't be resolved now"):
            await lookups.addresses("more.test", 80, "mallory")
        other = begun(lookups, 1, "victim", "good")
        await ended(names, blocking + other)
        return other[0].result()

    assert asyncio.run(main()) == ("127.0.0.1",)


def test_an_unexpected_failure_costs_no_thread(names, monkeypatch, caplog):
    def broken(*args, **hints):
        raise ZeroDivisionError

    async def main():
        lookups = Lookups(threads=1)
        with monkeypatch.context() as patched:
            patched.setattr(socket, "getaddrinfo", broken)
            with pytest.raises(TransportError, match="an internal error"):
                await lookups.addresses("good.test", 80)
        assert await lookups.addresses("good.test", 80) == ("127.0.0.1",)

    asyncio.run(main())
    assert "ZeroDivisionError" in caplog.text
