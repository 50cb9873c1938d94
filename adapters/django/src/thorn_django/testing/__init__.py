"""Helpers for tests of Django projects: captured messages in all kinds of test cases.

With unittest, put `WebhookTestMixin` before the test case. With pytest, put this into
`conftest.py`, so that the fixture `thorn_messages` handles the transactions of tests:

    pytest_plugins = ["thorn_django.testing.plugin"]
"""

from thorn_django.testing.capture import CapturedMessages, capture
from thorn_django.testing.case import WebhookTestMixin

__all__ = ["CapturedMessages", "WebhookTestMixin", "capture"]
