"""Schemathesis, over real HTTP, by the document that is served: it tries to prove it wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import rest_carriers
from scale import campaign, scaled, size
from werkzeug.serving import WSGIRequestHandler, make_server

from thorn_core import hookimpl
from thorn_core.api.rates import Rate
from thorn_core.api.routing import ROUTES, find_route
from thorn_core.values import Response

pytest.importorskip("schemathesis")

HOOKS = Path(__file__).with_name("schemathesis_hooks.py")
MOUNT = "/webhooks"
# For each call.
EXAMPLES = size(6, short=20, long=60)
NOTHING = {}
NAMED = """
[[operations]]
include-operation-id = "{call}"
parameters = {{ "path.id" = "{key}" }}
"""
TIMEOUT = 300


class Answering:
    """A transport without a network: recipients answer well, badly, and that they are gone."""

    def __init__(self):
        self._number = 0

    async def send(self, request):
        self._number += 1
        return Response(status=(200, 500, 204, 410)[self._number % 4], body=b"\xff")

    async def close(self):
        pass


class Recipients:
    """A plugin."""

    @hookimpl
    def thorn_transport(self, settings):
        return Answering()


class Quiet(WSGIRequestHandler):
    def log(self, *_):
        pass


class Observed:
    """A site; it keeps which calls of the resource were answered as they are meant to be."""

    def __init__(self, wsgi):
        self._wsgi = wsgi
        self.done = set()

    def __call__(self, environ, start_response):
        def started(status, *rest):
            found = find_route(environ["PATH_INFO"].removeprefix(MOUNT), hooks_at_root=True)
            # A 409 is an answer to somebody who may.
            if found and (status[0] == "2" or status[:3] == "409"):
                self.done.add((environ["REQUEST_METHOD"], found[0].path))
            return start_response(status, *rest)

        return self._wsgi(environ, started)


@contextmanager
def served(wsgi):
    """A site over HTTP; gives its URL."""
    server = make_server("127.0.0.1", 0, wsgi, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{MOUNT}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def _no_rate(monkeypatch):
    # What is asked hundreds of times is to be looked at, not refused.
    monkeypatch.setattr(Rate, "take", lambda *_: 0.0)


def schemathesis(
    folder, base_url, document, users=NOTHING, *, ids=NOTHING, phases="coverage,fuzzing,stateful"
):
    """Run it; what it found is what fails.

    Args:
        folder: Where.
        base_url: Of the resource.
        document: As it was served.
        users: Their headers by name; it is the first of them, and the others are peers, who may
            not see what is that one's.
        ids: Of what is there, by the call that is about it.
        phases: Of its work.
    """
    (folder / "openapi.json").write_bytes(document)
    # Of the links those that the document names: guessed ones lead nowhere more often.
    config = {
        "phases.stateful": {"max-steps": 12, "inference": {"algorithms": []}},
        "phases.stateful.generation": {"max-examples": 3 * EXAMPLES},
    }
    if users:
        entries = [
            {"name": name, "fixedHeaders": [{"name": k, "value": v} for k, v in headers.items()]}
            for name, headers in users.items()
        ]
        (folder / "users.yaml").write_text(json.dumps({"auth": entries}))
        config["auth.wfc"] = {"path": "users.yaml", "user": entries[0]["name"]}
        if len(users) > 1:
            config["auth.wfc"]["peers"] = [*users]
    named = "".join(NAMED.format(call=call, key=key) for call, key in ids.items())
    (folder / "schemathesis.toml").write_text(toml(config) + named)
    command = "schemathesis.cli run openapi.json --checks all --no-color"
    done = subprocess.run(
        [
            *(sys.executable, "-m", *command.split(), "--url", base_url),
            *("--phases", phases, "--max-examples", str(EXAMPLES)),
            # The same each time: who changes something else isn't to hear of a new find.
            "--generation-deterministic",
        ],
        cwd=folder,
        env={**os.environ, "SCHEMATHESIS_HOOKS": str(HOOKS), "COLUMNS": "150"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def toml(tables):
    """Tables of what JSON and TOML write alike, and tables in them."""
    lines = []
    for name, values in tables.items():
        inner = {f"{name}.{k}": v for k, v in values.items() if isinstance(v, dict)}
        own = [f"{k} = {json.dumps(v)}" for k, v in values.items() if not isinstance(v, dict)]
        lines += [f"[{name}]", *own, toml(inner)]
    return "\n".join(lines)


@scaled
@pytest.mark.parametrize(
    ("name", "users", "phases"),
    [
        ("flask", ["ada", "bob"], "coverage,fuzzing,stateful"),
        pytest.param("django", ["ada", "bob"], "coverage,fuzzing,stateful", marks=campaign),
        ("rest_framework", ["staff"], "coverage"),
    ],
)
def test_it_finds_nothing(tmp_path, name, users, phases):
    with rest_carriers.CARRIERS[name]() as carrier:
        site = Observed(carrier.wsgi)
        carrier.app.plugins.manager.register(Recipients())
        headers = {user: carrier.credentials(user) for user in users}
        hook = carrier.subscribe(as_=users[0])
        sent = carrier("POST", hook["subscription"] + "test/", as_=users[0]).json
        ids = dict.fromkeys(("getDelivery", "retryDelivery", "cancelDelivery"), sent["delivery_id"])
        with served(site) as url:
            document = httpx.get(f"{url}/openapi.json", headers=headers[users[0]]).content
            told = schemathesis(tmp_path, url, document, headers, ids=ids, phases=phases)
    asked = {(method, route.path) for route in ROUTES for method in route.calls}
    if "stateful" in phases:
        assert asked - site.done == set(), told


@pytest.mark.parametrize("name", ["flask", pytest.param("django", marks=campaign)])
def test_nobody_gets_anything_out_of_it(tmp_path, name):
    with rest_carriers.CARRIERS[name]() as carrier:
        site = Observed(carrier.wsgi)
        document = carrier("GET", "/openapi.json").body
        with served(site) as url:
            schemathesis(tmp_path, url, document, phases="coverage")
    assert site.done == set()
