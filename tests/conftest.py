"""The same tests for everybody: what the environment says changes nothing, nor does chance."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from thorn_core import current_app, events

try:
    from hypothesis import HealthCheck, settings
except ImportError:  # the session `minimal` has no extras
    pass
else:
    # Little and always the same, or in a campaign much and at random.
    common = {
        "deadline": None,  # a loaded machine is no failure
        "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    }
    settings.register_profile("gate", derandomize=True, database=None, **common)
    settings.register_profile("short", max_examples=300, print_blob=True, **common)
    settings.register_profile("long", max_examples=20_000, print_blob=True, **common)
    settings.load_profile(os.environ.get("THORN_CAMPAIGN") or "gate")

# What programs heed: proxies, colours, a terminal's width, somebody's project, how Python runs.
HEEDED = {
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("CLICOLOR", "CLICOLOR_FORCE", "COLORTERM", "COLUMNS", "FORCE_COLOR", "LINES", "NO_COLOR"),
    *("DJANGO_SETTINGS_MODULE", "FLASK_APP", "FLASK_DEBUG", "SSL_CERT_FILE"),
    *("PYTHONOPTIMIZE", "PYTHONUNBUFFERED", "PYTHONWARNINGS"),
}
OURS = ("THORN_TEST_", "THORN_CAMPAIGN", "THORN_REQUIRE_SERVICES")
for name in list(os.environ):
    if name.upper() in HEEDED or (name.startswith("THORN_") and not name.startswith(OURS)):
        del os.environ[name]
# No whole number of hours from UTC, and without the system's table of zones.
os.environ["TZ"] = "THORN-5:45"
if hasattr(time, "tzset"):
    time.tzset()

# Programs that are started in the background ignore Ctrl-C, and so do all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the contract's test that stores run at another size in a campaign."""
    for item in items:
        if "huge_fan_out" in item.name:
            item.add_marker(pytest.mark.scaled)


@pytest.fixture(autouse=True)
def _declarations() -> Iterator[None]:
    """Events that a test declares for any app don't stay declared for the next one."""
    before = dict(events._kept)
    yield
    events._kept.clear()
    events._kept.update(before)


@contextmanager
def _default_app_kept() -> Iterator[None]:
    """Fail if what runs here leaves another default app behind, which later tests would use."""
    before = current_app._default_app
    yield
    left = current_app._default_app
    if left is not before and current_app._make_default is None:
        current_app.set_default_app(before)
        pytest.fail(f"the default app was {before!r}, and {left!r} is left: close the app")


@pytest.fixture(autouse=True, scope="module")
def _default_app_of_a_module() -> Iterator[None]:
    with _default_app_kept():
        yield


@pytest.fixture(autouse=True)
def _default_app_of_a_test() -> Iterator[None]:
    with _default_app_kept():
        yield
