"""The blueprint: what is Flask's about the REST resource; what it answers is in tests/rest."""

from __future__ import annotations

import io

import pytest
from flask import Blueprint, Flask, g, request, session
from flask_wtf import CSRFProtect
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

from thorn_core import ConfigurationError
from thorn_flask import rest_blueprint

HOOK = {"event": "a.b", "url": "https://example.com/"}


def owner():
    return request.headers.get("X-Owner")


@pytest.fixture
def app(make):
    app = make()
    app.register_blueprint(rest_blueprint(owner, challenge="Bearer"), url_prefix="/hooks")
    return app


@pytest.fixture
def client(app):
    client = app.test_client()
    client.environ_base["HTTP_X_OWNER"] = "ada"
    return client


# -- who


def test_nobody_is_answered_401(client, app):
    answer = app.test_client().get("/hooks/")
    assert (answer.status_code, answer.content_type) == (401, "application/problem+json")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json["status"] == 401
    assert client.get("/hooks/").json == {"items": [], "next": None}


@pytest.mark.parametrize("identity", [7, 0, "7"])
def test_an_owner_is_an_id_as_text(make, identity):
    app = make()
    app.register_blueprint(rest_blueprint(lambda: identity), url_prefix="/hooks")
    made = app.test_client().post("/hooks/", json=HOOK)
    assert made.json["owner"] == str(identity)


def test_loaders_may_be_coroutine_functions(make):
    async def who():
        return "ada"

    async def never():
        return False

    app = make()
    app.register_blueprint(rest_blueprint(who, operator_loader=never), url_prefix="/hooks")
    app.extensions["thorn"].subscribe("a.b", "https://example.com/", owner="bob")
    assert app.test_client().get("/hooks/").json["items"] == []


def test_an_operator_needs_no_owner(make):
    app = make()
    app.register_blueprint(
        rest_blueprint(lambda: None, operator_loader=lambda: True), url_prefix="/hooks"
    )
    app.extensions["thorn"].subscribe("a.b", "https://example.com/", owner="bob")
    assert len(app.test_client().get("/hooks/").json["items"]) == 1


def test_the_owner_may_depend_on_the_path(make):
    app = make()
    blueprint = rest_blueprint(lambda: request.view_args["tenant"])
    app.register_blueprint(blueprint, url_prefix="/<tenant>/hooks")
    made = app.test_client().post("/ü b/hooks/", json=HOOK)
    assert made.json["owner"] == "ü b"
    assert made.json["subscription"].startswith("http://localhost/%C3%BC%20b/hooks/sub_")
    assert app.test_client().get(made.json["subscription"]).status_code == 200
    assert app.test_client().get("/bob/hooks/").json["items"] == []


# -- where


@pytest.mark.parametrize("prefix", ["/hooks", "/api/v1/hooks/", "/a b", None])
def test_it_may_be_mounted_anywhere_and_below_other_sites(make, prefix):
    app = make()
    app.register_blueprint(rest_blueprint(owner), url_prefix=prefix)
    client = Client(DispatcherMiddleware(Flask("site"), {"/shop": app}))
    path = (prefix or "").rstrip("/").replace(" ", "%20")
    sent = {"headers": {"X-Owner": "ada", "Host": "example.com"}}
    made = client.post(f"/shop{path}/", json=HOOK, **sent)
    assert made.status_code == 201
    assert made.json["subscription"].startswith(f"http://example.com/shop{path}/sub_")
    assert made.headers["Location"] == made.json["subscription"]
    for found in (made.json["subscription"], made.json["deliveries"]):
        assert client.get(found.removeprefix("http://example.com"), **sent).status_code == 200


def test_the_slash_after_the_prefix_makes_no_difference(client):
    assert client.get("/hooks").json == client.get("/hooks/").json
    assert client.post("/hooks", json=HOOK).status_code == 201
    assert client.get("/hooksmith").status_code == 404


@pytest.mark.parametrize("path", ["/hooks//", "/hooks/a//b/", "/hooks//a", "/hooks/a/b//"])
def test_nobody_is_sent_elsewhere_for_two_slashes(client, path):
    answer = client.post(path, json=HOOK)
    assert (answer.status_code, answer.content_type) == (404, "application/problem+json")


def test_it_may_be_part_of_another_blueprint_and_there_twice(make):
    app = make()
    api = Blueprint("api", __name__, url_prefix="/api")
    api.register_blueprint(rest_blueprint(owner), url_prefix="/hooks")
    api.before_request(lambda: g.setdefault("asked", True) and None)
    app.register_blueprint(api)
    app.register_blueprint(rest_blueprint(lambda: "bob", name="bobs"), url_prefix="/bobs")
    client = app.test_client()
    with client:
        assert client.get("/api/hooks/", headers={"X-Owner": "ada"}).status_code == 200
        assert g.asked
        assert request.endpoint == "api.webhooks.hooks"
        assert client.post("/bobs/", json=HOOK).json["owner"] == "bob"
        assert request.blueprints == ["bobs"]
    with app.test_request_context():
        from flask import url_for

        assert url_for("bobs.resource", below="event-types/") == "/bobs/event-types/"


def test_the_rest_of_the_app_stays_as_it_is(app, client):
    app.add_url_rule("/page/", "page", lambda: "hello")
    assert client.get("/page/").text == "hello"
    assert client.get("/page").status_code == 308
    assert client.get("/nothing").content_type.startswith("text/html")


def test_it_needs_a_thorn_and_options_that_are_right(make):
    with pytest.raises(ConfigurationError, match="has no Thorn; call ThornFlask"):
        Flask("bare").register_blueprint(rest_blueprint(owner), url_prefix="/hooks")
    with pytest.raises(ConfigurationError, match="body_limit is 0"):
        make().register_blueprint(rest_blueprint(owner, body_limit=0), url_prefix="/hooks")


# -- bodies


def chunked(client, body):
    return client.post(
        "/hooks/",
        input_stream=body,
        content_type="application/json",
        environ_overrides={"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"},
    )


def test_a_body_of_unknown_length_is_read_as_far_as_is_allowed(client):
    document = io.BytesIO(b'{"event":"a.b","url":"https://example.com/"}')
    assert chunked(client, document).status_code == 201

    class Long(io.BytesIO):
        given = 0

        def read(self, size=-1):
            self.given += len(data := super().read(size))
            return data

        def readinto(self, buffer):
            self.given += (length := super().readinto(buffer))
            return length

    long = Long(b"x" * 5_000_000)
    answer = chunked(client, long)
    assert (answer.status_code, answer.content_type) == (413, "application/problem+json")
    assert 0 < long.given < 200_000


def test_flasks_own_limit_holds_where_it_is_lower(app, client):
    app.config["MAX_CONTENT_LENGTH"] = 10
    answer = client.post("/hooks/", json=HOOK)
    assert (answer.status_code, answer.content_type) == (413, "application/problem+json")


# -- pages of other sites


CROSS = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "https://evil.example.com"},
    {"Origin": "null"},
    {"Origin": "http://localhost:8000"},
]
OWN = [
    {},
    {"Sec-Fetch-Site": "same-origin", "Origin": "https://proxied.example.com"},
    {"Sec-Fetch-Site": "none"},
    {"Origin": "http://localhost"},
]


@pytest.mark.parametrize("headers", CROSS, ids=str)
def test_what_another_sites_page_sends_is_refused(client, headers):
    for method, path in (("POST", "/hooks/"), ("DELETE", "/hooks/x/"), ("PATCH", "/hooks/x/")):
        answer = client.open(path, method=method, json=HOOK, headers=headers)
        assert (answer.status_code, answer.content_type) == (403, "application/problem+json")
    with_basic = {**headers, "Authorization": "Basic YWRhOmFkYQ=="}
    assert client.post("/hooks/", json=HOOK, headers=with_basic).status_code == 403
    # Without the user's cookies it can't do more than anybody.
    with_token = {**headers, "Authorization": "Bearer abc"}
    assert client.post("/hooks/", json=HOOK, headers=with_token).status_code == 201
    assert client.get("/hooks/", headers=headers).status_code == 200


@pytest.mark.parametrize("headers", OWN, ids=str)
def test_what_ones_own_page_sends_is_not(client, headers):
    assert client.post("/hooks/", json=HOOK, headers=headers).status_code == 201


def test_csrf_tokens_of_flask_wtf_are_asked_for_unless_exempt(make):
    app = make()
    app.secret_key = "x"
    csrf = CSRFProtect(app)
    csrf.exempt(exempt := rest_blueprint(owner, name="exempt"))
    app.register_blueprint(rest_blueprint(lambda: session.get("user")), url_prefix="/hooks")
    app.register_blueprint(exempt, url_prefix="/api")

    @app.get("/login")
    def login():
        from flask_wtf.csrf import generate_csrf

        session["user"] = "ada"
        return generate_csrf()

    client = app.test_client()
    token = client.get("/login").text
    assert client.post("/hooks/", json=HOOK).status_code == 400
    made = client.post("/hooks/", json=HOOK, headers={"X-CSRFToken": token})
    assert (made.status_code, made.json["owner"]) == (201, "ada")
    # Flask-WTF has read the form to find the token.
    form = client.post("/hooks/", data={"event": "a.b", "csrf_token": token})
    assert form.status_code == 415
    assert client.post("/api/", json=HOOK, headers={"X-Owner": "bob"}).status_code == 201
