"""The engine's own thread, with an event loop for sync callers."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, wait
from contextvars import Context
from typing import Any, TypeVar

from thorn_core.errors import ThornError

T = TypeVar("T")

# The main thread handles a signal for another thread once it is awake: maximum delay in seconds.
SIGNAL_SECONDS = 0.5


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Create a uvloop loop if uvloop is installed (extra `fast`), else asyncio's own.

    If threads are greenlets, use asyncio's: uvloop waits in C and would block all greenlets.
    """
    if _threads_are_greenlets():
        return asyncio.new_event_loop()
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _threads_are_greenlets() -> bool:
    gevent = sys.modules.get("gevent.monkey")
    eventlet = sys.modules.get("eventlet.patcher")
    return bool(
        (gevent is not None and gevent.is_module_patched("threading"))
        or (eventlet is not None and eventlet.is_monkey_patched("thread"))
    )


def in_event_loop() -> bool:
    """Return True if an event loop runs the caller, which then must not block."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return False
    # All greenlets of a thread see the loop that any of them runs.
    return (
        not _threads_are_greenlets() or getattr(loop, "_thread_id", None) == threading.get_ident()
    )


class LoopThread:
    """A thread with an event loop, started on first use.

    It is a daemon thread; its owner stops it, at interpreter exit at the latest. A forked child has
    no such thread and creates a new LoopThread.

    Args:
        name: The thread's name.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._release = threading.Event()

    @property
    def running(self) -> bool:
        """True between the first use and the stop."""
        return self._thread is not None and not self._stopped

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the loop.

        Raises:
            ThornError: The thread has been stopped.
        """
        try:
            loop = self._start()
        except ThornError:
            coroutine.close()
            raise
        # Use a separate context: the caller's, such as a request's, ends before the engine.
        return Context().run(asyncio.run_coroutine_threadsafe, coroutine, loop)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for its result.

        Raises:
            ThornError: Called on the loop itself, which would deadlock; or the thread was stopped.
        """
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise ThornError(
                "a blocking call was made on the engine's own thread (in a callback, a signal"
                " receiver or a hook?), where it would deadlock; use the async version"
            )
        return result_of(self.submit(coroutine))

    def call_soon(self, function: Callable[[], object]) -> None:
        """Call a function on the loop soon, unless the loop stops first."""
        with contextlib.suppress(RuntimeError, ThornError):
            self._start().call_soon_threadsafe(function)

    def hold(self, timeout: float) -> bool:
        """Pause the loop between two callbacks until `release`.

        Args:
            timeout: Maximum seconds to wait for the running callback.

        Returns:
            False after a time-out, or on the loop's own thread.
        """
        loop = self._loop
        if loop is None or self._stopped:
            return True
        if threading.current_thread() is self._thread:
            return False
        held, self._release = threading.Event(), threading.Event()
        release = self._release

        def wait() -> None:
            held.set()
            release.wait()

        try:
            loop.call_soon_threadsafe(wait)
        except RuntimeError:  # The loop is closed.
            return True
        return held.wait(timeout)

    def release(self) -> None:
        """Resume the loop after `hold`."""
        self._release.set()

    def stop(self) -> None:
        """Stop the loop, cancel its tasks, and wait for the thread to end."""
        with self._lock:
            stopped, self._stopped = self._stopped, True
            loop, thread = self._loop, self._thread
        if stopped or loop is None or thread is None:
            return
        loop.call_soon_threadsafe(loop.stop)
        if thread is not threading.current_thread():
            thread.join()

    def _start(self) -> asyncio.AbstractEventLoop:
        loop = self._loop
        if loop is not None and not self._stopped:
            return loop
        with self._lock:
            if self._stopped:
                raise ThornError("this app is closed; create a new one")
            if self._loop is None:
                loop = new_event_loop()
                thread = threading.Thread(
                    target=self._serve, args=(loop,), name=self._name, daemon=True
                )
                thread.start()
                self._loop, self._thread = loop, thread
            return self._loop

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            loop.run_forever()
        finally:
            loop.run_until_complete(_cancel_all())
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def result_of(future: Future[T]) -> T:
    """Wait for a result without a time limit; handle signals meanwhile."""
    while not wait((future,), SIGNAL_SECONDS).done:
        continue
    return future.result()


@contextlib.contextmanager
def stopping_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Stop on SIGTERM and the first Ctrl-C if this is the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stop()

    previous = {n: signal.signal(n, handle) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
