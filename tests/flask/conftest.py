"""Flask apps, each with a Thorn that is closed afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask

from thorn_core.testing import LocalRecipient
from thorn_flask import ThornFlask

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

Make = Callable[..., Flask]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes Flask apps: by name, and `THORN_…` settings without that."""
    apps = []

    def make(name: str = "shop", webhooks: ThornFlask | None = None, **settings: Any) -> Flask:
        app = Flask(name)
        app.config["THORN_ALLOWED_NETWORKS"] = ["127.0.0.0/8"]
        app.config["THORN_ALLOWED_PORTS"] = range(1, 65536)
        app.config.update({f"THORN_{k.upper()}": value for k, value in settings.items()})
        (webhooks or ThornFlask()).init_app(app)
        apps.append(app)
        return app

    yield make
    for app in apps:
        app.extensions["thorn"].close()


@pytest.fixture
def recipient() -> Iterator[LocalRecipient]:
    """A recipient that verifies."""
    with LocalRecipient(secret=SECRET) as recipient:
        yield recipient
