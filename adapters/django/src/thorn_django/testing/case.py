"""Test cases that capture messages."""

from __future__ import annotations

import unittest
from typing import TYPE_CHECKING, Any

from thorn_core import Message
from thorn_django.testing.capture import ANYTHING, CapturedMessages, capture

if TYPE_CHECKING:
    Case = unittest.TestCase
else:
    Case = object


class WebhookTestMixin(Case):
    """Captures the messages of each test, as Django captures mail; the network stays unused.

    Put it before `TestCase`, `TransactionTestCase` or another Django test case, and call
    `super().setUp()` in your own `setUp`.

    Attributes:
        thorn_messages: The messages since the test's setup.

    Example:
        >>> from django.test import SimpleTestCase
        >>> from thorn_core import Event
        >>> class PayingTests(WebhookTestMixin, SimpleTestCase):
        ...     def test_paying_tells_the_customer(self):
        ...         Event("invoice.paid").send({"number": 7}, sender="ada")
        ...         self.assertEventSent("invoice.paid", payload={"number": 7}, sender="ada")
        ...         self.assertEventNotSent("invoice.overdue")
        ...         self.assertEqual(self.thorn_messages[0].event, "invoice.paid")
    """

    thorn_messages: CapturedMessages

    def setUp(self) -> None:
        """Start the capture."""
        super().setUp()
        self.thorn_messages = self.enterContext(capture())

    def assertEventSent(  # noqa: N802 - as unittest names them
        self,
        pattern: str,
        *,
        payload: Any = ANYTHING,
        sender: Any = ANYTHING,
        ref: Any = ANYTHING,
        times: int = 1,
    ) -> Message:
        """Fail unless the given number of matching messages was sent; return the last one.

        Args:
            pattern: A pattern of the event's name.
            payload: The decoded JSON.
            sender: The user or tenant, or its id; None for none.
            ref: The URL of the message's object.
            times: The number of messages, one or more.
        """
        found = self.thorn_messages.of(pattern, payload=payload, sender=sender, ref=ref)
        if len(found) != times:
            asked = {"payload": payload, "sender": sender, "ref": ref}
            told = "".join(f", {k} {v!r}" for k, v in asked.items() if v is not ANYTHING)
            self.fail(
                f"{pattern}{told}: sent {len(found)} times instead of {times}; of"
                f" {self.thorn_messages!r}"
            )
        return found[-1]

    def assertEventNotSent(self, pattern: str = "*") -> None:  # noqa: N802
        """Fail if a message of a matching event was sent.

        Args:
            pattern: A pattern of the event's name; the default matches all.
        """
        found = self.thorn_messages.of(pattern)
        if found:
            self.fail(f"{pattern}: sent {len(found)} times; of {self.thorn_messages!r}")
