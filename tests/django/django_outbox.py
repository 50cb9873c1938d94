"""What the tests of the outbox share: an app, and what became of what was sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import attrs
from django.db import connections

from thorn_core import Event, Message, Thorn, hookimpl


class Abandoned(Exception):
    """Rolls a transaction or a savepoint back."""


@contextmanager
def abandoned() -> Iterator[None]:
    """What is raised to abandon something ends here."""
    with suppress(Abandoned):
        yield


class Recorder:
    """A dispatcher, and its plugin, that remembers what it was told of, and whether it was there.

    Attributes:
        told: Numbers of the messages.
        missing: Numbers of those that were not in the store when it was told.
    """

    publishes = True

    def __init__(self) -> None:
        self.told: list[int] = []
        self.missing: list[int] = []

    @hookimpl
    def thorn_dispatchers(self) -> dict[str, Any]:
        def make(app: Thorn) -> Recorder:
            self._app = app
            return self

        return {"recorder": make}

    def dispatch(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self.told.append(number_of(message))
            if self._app.message(message.id) is None:
                self.missing.append(number_of(message))

    def close(self) -> None:
        pass


def number_of(message: Message) -> int:
    return message.payload["number"]


@attrs.define
class World:
    """A project with an app.

    Attributes:
        alias: Of the store's database.
        app: The app.
        recorder: Its dispatcher.
        event: What is sent.
    """

    alias: str
    app: Thorn
    recorder: Recorder
    event: Event

    @property
    def vendor(self) -> str:
        return connections[self.alias].vendor

    def send(self, number: int, within: Any = None, **options: Any) -> Any:
        return self.event.send({"number": number}, within=within, **options)

    async def asend(self, number: int, within: Any = None, **options: Any) -> Any:
        return await self.event.asend({"number": number}, within=within, **options)

    def kept(self, alias: str | None = None) -> list[int]:
        """The numbers of the messages in a database, by age, as others see them."""
        other = connections.create_connection(alias or self.alias)
        try:
            with other.cursor() as cursor:
                cursor.execute("SELECT data FROM thorn_messages ORDER BY at, id")
                return [_number(bytes(data)) for (data,) in cursor.fetchall()]
        finally:
            other.close()

    @property
    def told(self) -> list[int]:
        assert self.recorder.missing == []
        return self.recorder.told


def _number(data: bytes) -> int:
    return number_of(Message(id="msg_", event="a", data=data, at=None))


@contextmanager
def world_at(alias: str, **options: Any) -> Iterator[World]:
    from thorn_django.store import DjangoStore

    recorder = Recorder()
    store = DjangoStore(alias, **options)
    with Thorn(store=store, dispatcher="recorder", plugins=[recorder]) as app:
        yield World(alias, app, recorder, Event("article.written", app=app))
