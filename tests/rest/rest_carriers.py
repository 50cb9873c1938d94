"""What carries the REST resource, each made to look the same: a request in, an answer out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

import attrs

from thorn_core import Settings, Thorn
from thorn_core.api import ApiRequest, Resource

HOST = "api.example.com"
BASE = f"http://{HOST}/webhooks"
LOCAL = {"allowed_networks": ["127.0.0.0/8"], "allowed_ports": range(1, 65536)}
NOBODY = "nobody"
TOKEN = "a" * 32
SETTINGS = {
    "THORN_DISPATCHER": "inline",
    **{f"THORN_{name.upper()}": value for name, value in LOCAL.items()},
}


@attrs.frozen
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@attrs.frozen
class Carrier:
    """A carrier, mounted at `BASE`.

    Attributes:
        app: The app behind it.
        send: Sends a request: method, path below `BASE`, body, headers, and as whom.
        owners: The owner's id of each user: `ada`, `bob`, `staff` who is an operator, `nobody`.
        options: Of the resource that it carries.
        wsgi: The whole site, as a server calls it.
    """

    app: Thorn
    send: Send
    owners: Mapping[str, str | None]
    options: Mapping[str, Any] = {}
    wsgi: Any = None

    def credentials(self, name: str) -> Mapping[str, str]:
        """The headers by which a user is told from others."""
        return self.send.credentials(name)

    def __call__(
        self, method: str, path: str, body: Any = None, *, as_: str = "ada", **headers: str
    ) -> Answer:
        """Send a request; a body that isn't bytes goes as JSON. Headers are written with `_`."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent.setdefault("content-type", "application/json")
        return self.send(method, path.removeprefix(BASE), body or b"", sent, as_)

    def itself(
        self, method: str, path: str, body: Any = None, *, as_: str = "ada", **headers: str
    ) -> Answer:
        """Ask the resource itself the same."""
        return attrs.evolve(
            self, send=Direct(self.app, self.owners, Resource(self.app, **self.options))
        )(method, path, body, as_=as_, **headers)

    def subscribe(self, url: str = "https://example.com/", *, as_: str = "ada", **more: Any) -> Any:
        """Make a subscription; gives back what was answered."""
        made = self("POST", "/", {"event": "thorn.nothing", "url": url, **more}, as_=as_)
        assert made.status == 201, made.body
        return made.json


class Send(Protocol):
    """Sends a request."""

    def credentials(self, name: str) -> Mapping[str, str]: ...

    def __call__(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], as_: str
    ) -> Answer: ...


# -- the resource itself


@attrs.frozen
class Direct:
    """No carrier at all: what all others are to answer alike."""

    app: Thorn
    owners: Mapping[str, str | None]
    resource: Resource

    def __call__(self, method, path, body, headers, as_):
        parts = urlsplit("http://x" + path)
        answer = self.resource.handle(
            ApiRequest(
                method=method,
                path=unquote(parts.path),
                query=parse_qs(parts.query, keep_blank_values=True),
                headers=headers,
                body=body,
                owner=self.owners[as_],
                operator=as_ == "staff",
                base_url=BASE,
                hooks_at_root=True,
            )
        )
        return Answer(answer.status, answer.headers, answer.body)


@contextmanager
def direct() -> Iterator[Carrier]:
    """The resource itself, on a store in memory."""
    owners = {"ada": "1", "bob": "2", "staff": "3", NOBODY: None}
    with Thorn(settings=Settings(**LOCAL)) as app:
        yield Carrier(app, Direct(app, owners, Resource(app)), owners)


# -- Django


@attrs.frozen
class DjangoClient:
    """Django's test client, for each user one."""

    clients: Mapping[str, Any]

    def credentials(self, name):
        cookies = self.clients[name].cookies.output(attrs=[], header="", sep=";").strip()
        return {"cookie": cookies, "x-csrftoken": TOKEN}

    def __call__(self, method, path, body, headers, as_):
        content_type = headers.get("content-type", "")
        others = {k: v for k, v in headers.items() if k != "content-type"}
        response = self.clients[as_].generic(
            method,
            "/webhooks" + path,
            body,
            content_type=content_type,
            headers={"host": HOST, "x-csrftoken": TOKEN, **others},
        )
        headers = {name.lower(): value for name, value in response.items()}
        return Answer(response.status_code, headers, response.content)


@contextmanager
def django(urls: str) -> Iterator[Carrier]:
    """A carrier of Django's."""
    import rest_project
    from django.core.handlers.wsgi import WSGIHandler
    from django.test import Client

    from thorn_django import get_app

    session = {"type": "apiKey", "in": "cookie", "name": "sessionid"}
    schemes = {"session": session}
    if urls == "rest_framework_urls":
        schemes["basic"] = {"type": "http", "scheme": "basic"}
    with rest_project.in_a_project(urls, **SETTINGS) as made:
        clients = {name: Client(enforce_csrf_checks=True) for name in (*made, NOBODY)}
        for client in clients.values():
            client.cookies["csrftoken"] = TOKEN
        for name, user in made.items():
            clients[name].force_login(user)
        owners = {name: str(user.pk) for name, user in made.items()} | {NOBODY: None}
        options = {"security_schemes": schemes}
        yield Carrier(get_app(), DjangoClient(clients), owners, options, WSGIHandler())


# -- Flask


@attrs.frozen
class FlaskClient:
    """Flask's test client; who it is, is in a header."""

    client: Any

    def credentials(self, name):
        return {"x-user": name}

    def __call__(self, method, path, body, headers, as_):
        path, _, query = path.partition("?")
        response = self.client.open(
            "/webhooks" + path,
            method=method,
            query_string=query,
            data=body,
            base_url=f"http://{HOST}/",
            headers={"x-user": as_, **headers},
        )
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status_code, headers, response.data)


@contextmanager
def flask() -> Iterator[Carrier]:
    """The blueprint of Flask's."""
    from flask import Flask, request

    from thorn_flask import ThornFlask, rest_blueprint

    owners = {"ada": "1", "bob": "2", "staff": "3", NOBODY: None}
    app = Flask("rest")
    app.config.update(SETTINGS)
    ThornFlask(app)
    header = {"type": "apiKey", "in": "header", "name": "x-user"}
    options = {"security_schemes": {"user": header}}
    blueprint = rest_blueprint(
        lambda: owners.get(request.headers.get("x-user")),
        operator_loader=lambda: request.headers.get("x-user") == "staff",
        **options,
    )
    app.register_blueprint(blueprint, url_prefix="/webhooks")
    with app.extensions["thorn"] as thorn:
        yield Carrier(thorn, FlaskClient(app.test_client()), owners, options, app)


CARRIERS = {
    "itself": direct,
    "django": lambda: django("rest_plain_urls"),
    "rest_framework": lambda: django("rest_framework_urls"),
    "flask": flask,
}
