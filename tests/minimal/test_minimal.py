"""The core by itself: nothing but its four dependencies is needed, and what is missing is named."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

EXTRAS = ("click", "cryptography", "httptools", "jsonschema", "rich", "uvloop")

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) for name in EXTRAS),
    reason="extras are installed here; the session `minimal` runs this without them",
)


def test_everything_is_imported_and_a_message_delivered():
    from thorn_core import Settings, Thorn
    from thorn_core.testing import LocalRecipient
    from thorn_core.transports import HttpxTransport, best_transport

    assert isinstance(best_transport(), HttpxTransport)
    settings = Settings(allowed_networks=["127.0.0.0/8"], allowed_ports=range(1, 65536))
    with LocalRecipient() as recipient, Thorn(settings=settings) as app:
        app.subscribe("*", recipient.url)
        assert app.send("article.created")


def test_what_needs_an_extra_names_it():
    from thorn_core import ConfigurationError, Event
    from thorn_core.signatures import new_ed25519_keypair

    with pytest.raises(ConfigurationError, match=r"thorn-core\[schema\]"):
        Event("a.b", schema={})
    with pytest.raises(ConfigurationError, match=r"thorn-core\[ed25519\]"):
        new_ed25519_keypair()


def test_the_command_names_its_extra():
    done = subprocess.run([sys.executable, "-m", "thorn_core.cli"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install 'thorn-core[cli]'" in done.stderr
