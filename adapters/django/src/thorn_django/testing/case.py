"""Test cases that capture what is sent."""

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
    """Captures what each test sends, as Django does with mail; nothing goes over the network.

    Put it before `TestCase`, `TransactionTestCase` or another of Django's, and call
    `super().setUp()` in a `setUp` of your own.

    Attributes:
        thorn_messages: What has been sent since the test's setup.

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
        """Begin to capture."""
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
        """Fail unless just so many such messages have been sent; give back the last.

        Args:
            pattern: Of the event's name.
            payload: What JSON gives back of it.
            sender: The user or tenant, or its id; None for none.
            ref: The URL of what it is about.
            times: How many, one or more.
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
        """Fail if a message of such an event has been sent.

        Args:
            pattern: Of the event's name; all by default.
        """
        found = self.thorn_messages.of(pattern)
        if found:
            self.fail(f"{pattern}: sent {len(found)} times; of {self.thorn_messages!r}")
