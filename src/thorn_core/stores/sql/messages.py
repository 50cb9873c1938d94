"""Messages: published once, read for each of their deliveries."""

from __future__ import annotations

import threading
from collections.abc import Collection

from thorn_core.keys import message_key
from thorn_core.stores.sql.rows import message_of
from thorn_core.stores.sql.schema import MESSAGES
from thorn_core.stores.sql.statements import Statements
from thorn_core.values import Message

# Limits of the cache: number of messages, and bytes of their payloads.
REMEMBERED = 2000
REMEMBERED_BYTES = 8 * 1024 * 1024

GET = f"SELECT {', '.join(MESSAGES.names)} FROM $messages WHERE id IN (:keys.key*) ORDER BY id"


class Messages:
    """The table of messages, with a cache: messages never change."""

    def __init__(self) -> None:
        self._lately: dict[bytes, Message] = {}
        self._size = 0
        self._lock = threading.Lock()

    def get(self, statements: Statements, message_id: str) -> Message | None:
        """Return the message with this id, or None."""
        key = message_key(message_id)
        row = None if key is None else statements.first(GET, keys=[key])
        return None if row is None else message_of(row)

    def get_many(self, statements: Statements, keys: Collection[bytes]) -> dict[bytes, Message]:
        """Return the existing messages by key, from the cache if possible."""
        found = {key: m for key in keys if (m := self._lately.get(key)) is not None}
        if wanted := sorted(set(keys) - found.keys()):
            for row in statements.rows(GET, keys=wanted):
                found[row[0]] = message_of(row)
                self._remember(row[0], found[row[0]])
        return found

    def _remember(self, key: bytes, message: Message) -> None:
        with self._lock:
            if key in self._lately:
                return
            self._lately[key] = message
            self._size += len(message.data)
            while self._size > REMEMBERED_BYTES or len(self._lately) > REMEMBERED:
                oldest = self._lately.pop(next(iter(self._lately)))
                self._size -= len(oldest.data)
