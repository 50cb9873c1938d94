"""What tests of Django projects need: captured messages, in test cases of every kind.

With unittest, put `WebhookTestMixin` before the test case. With pytest, put this into
`conftest.py`, so that the fixture `thorn_messages` knows of the transactions of tests:

    pytest_plugins = ["thorn_django.testing.plugin"]
"""

from thorn_django.testing.capture import CapturedMessages, capture
from thorn_django.testing.case import WebhookTestMixin

__all__ = ["CapturedMessages", "WebhookTestMixin", "capture"]
