"""The Flask guide, followed to the letter; and its ways to authenticate."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time

import portal_browser
import pytest
from guide_reader import DOCS, reader_in, steps_of

pytest.importorskip("flask")

from flask import Flask

from thorn_flask import ThornFlask, rest_blueprint

HOOK = {"event": "a.b", "url": "https://example.com/"}
TESTED = re.compile(r"^<!-- tested: (.+?) -->\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_guide_leads_to_a_verified_webhook_and_a_portal_that_shows_it(tmp_path):
    if shutil.which("curl") is None:
        assert not os.environ.get("THORN_REQUIRE_SERVICES"), "curl is required here"
        pytest.skip("curl isn't installed")
    portal_browser.need_browser()
    *steps, (last, url) = steps_of("flask.md", "8099", "5000")
    place, profile = tmp_path / "place", tmp_path / "profile"
    place.mkdir()
    with reader_in(place, "thorn-core", "thorn-flask") as reader:
        for step, text in steps:
            reader.follow(step, text)
        with portal_browser.opened_browser(profile) as browser:
            see_deliveries(browser, url.strip())
    kinds = [step.split()[0] for step, _ in steps]
    assert (kinds[0], kinds[-1], len(reader.terminals)) == ("install", "the", 2)
    assert last == "in a browser"


def see_deliveries(browser, url):
    """Choose the subscription in the portal; both deliveries are there, and how they went."""
    browser.driver.get(url)
    browser.see(".stacks a", "/orders").click()
    browser.see(".readout", "2 deliveries: 2 delivered")
    for number, event in enumerate(("order.paid", "order.created")):
        browser.see(f".stacks tbody tr:nth-child({number + 1})", event)
        browser.see(f".stacks tbody tr:nth-child({number + 1}) .state", "delivered")
    browser.find(".stacks tbody a").click()
    browser.see(".attempt .state", "204")
    assert browser.told() == []


@pytest.fixture
def app():
    app = Flask("shop")
    app.secret_key = "s" * 32
    ThornFlask(app)
    yield app
    app.extensions["thorn"].close()


def mounted(app, way, **names):
    """Mount the blueprint that the guide makes; gives a client."""
    blocks = dict(TESTED.findall((DOCS / "flask.md").read_text("utf-8")))
    namespace = {"rest_blueprint": rest_blueprint, **names}
    exec(compile(blocks[way], f"{way} of the guide", "exec"), namespace)
    app.register_blueprint(namespace["blueprint"], url_prefix="/hooks")
    return app.test_client()


def test_flask_login_says_who_it_is(app):
    flask_login = pytest.importorskip("flask_login")
    logins = flask_login.LoginManager(app)

    class User(flask_login.UserMixin):
        def __init__(self, name):
            self.id, self.is_staff = name, name == "grace"

    logins.user_loader(User)
    app.add_url_rule("/login/<name>", "login", lambda name: str(flask_login.login_user(User(name))))
    client = mounted(app, "flask-login")
    assert client.get("/hooks/").status_code == 401
    client.get("/login/ada")
    made = client.post("/hooks/", json=HOOK)
    assert made.json["owner"] == "ada"
    for name, seen in (("bob", 0), ("grace", 1)):
        client.get(f"/login/{name}")
        assert len(client.get("/hooks/").json["items"]) == seen


def test_a_json_web_token_says_who_it_is(app):
    jwt = pytest.importorskip("jwt")
    client = mounted(app, "jwt")

    def ask(**claims):
        token = jwt.encode(claims, app.secret_key, "HS256")
        return client.post("/hooks/", json=HOOK, headers={"Authorization": f"Bearer {token}"})

    now = int(time.time())
    assert ask(sub="ada", exp=now + 60).json["owner"] == "ada"
    for claims in ({"sub": "ada", "exp": now - 60}, {"sub": "ada"}, {"exp": now + 60}):
        answer = ask(**claims)
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert client.get("/hooks/").status_code == 401


def test_a_token_says_who_it_is(app):
    hashes = {hashlib.sha256(b"token-of-ada").hexdigest(): "ada"}
    client = mounted(app, "token", owner_by_hash=hashes.get)
    for token, status in (("token-of-ada", 201), ("token-of-bob", 401)):
        headers = {"Authorization": f"Token {token}"}
        assert client.post("/hooks/", json=HOOK, headers=headers).status_code == status
