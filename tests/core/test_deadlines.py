"""Deadlines."""

from __future__ import annotations

import asyncio

import pytest

from thorn_core.worker.deadlines import Deadlines


def test_what_takes_too_long_is_ended_and_nothing_else():
    async def main():
        deadlines = Deadlines()
        never = asyncio.get_running_loop().create_future()

        async def quick():
            await asyncio.sleep(0)
            return 5

        slow = asyncio.create_task(deadlines.within(0.01, never))
        assert await deadlines.within(10, quick()) == 5
        with pytest.raises(TimeoutError):
            await slow
        assert never.cancelled()
        assert not slow.cancelled()
        assert deadlines._by_task == {}
        with pytest.raises(ZeroDivisionError):
            await deadlines.within(1, _fail())

    asyncio.run(main())


async def _fail():
    raise ZeroDivisionError


def test_a_cancellation_from_outside_stays_one():
    async def main():
        deadlines = Deadlines()
        started = asyncio.Event()

        async def wait():
            started.set()
            await asyncio.get_running_loop().create_future()

        task = asyncio.create_task(deadlines.within(60, wait()))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    asyncio.run(main())
