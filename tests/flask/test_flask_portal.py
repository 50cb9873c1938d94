"""The portal on Flask: what is Flask's about it, and all of it in a browser."""

from __future__ import annotations

import re
import threading

import portal_browser
import pytest
from flask import Flask, redirect, session
from flask_wtf import CSRFProtect
from flask_wtf.csrf import generate_csrf
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.routing import BuildError
from werkzeug.serving import make_server
from werkzeug.test import Client

from thorn_core.testing import LocalRecipient
from thorn_flask import portal_blueprint, rest_blueprint


def meta(page, name):
    return re.findall(rf'<meta name="thorn-{name}" content="(.*?)">', page.text)


@pytest.mark.parametrize("prefix", ["/portal", "/a b/portal", None])
def test_it_may_be_mounted_anywhere_and_below_other_sites(make, prefix):
    app = make()
    app.register_blueprint(rest_blueprint(lambda: "ada"), url_prefix="/api/hooks")
    app.register_blueprint(portal_blueprint(), url_prefix=prefix)
    client = Client(DispatcherMiddleware(Flask("site"), {"/shop": app}))
    path = "/shop" + (prefix or "").replace(" ", "%20")
    page = client.get(f"{path}/")
    assert (page.status_code, meta(page, "hooks")) == (200, ["/shop/api/hooks/"])
    (module,) = re.findall(r'<script type="module" src="(.+?)">', page.text)
    assert client.get(f"{path}/{module}").mimetype == "text/javascript"
    assert client.get(f"{path}/x/nothing.js").status_code == 404
    assert client.get("/shop/api/hooks/").json == {"items": [], "next": None}
    if prefix:
        assert client.get(path).headers["Location"].endswith(f"{path}/")


def test_what_the_path_above_it_says_is_the_resources_too(make):
    app = make()
    app.register_blueprint(rest_blueprint(lambda: "ada"), url_prefix="/<tenant>/hooks")
    app.register_blueprint(portal_blueprint(), url_prefix="/<tenant>/<int:page>/portal")
    page = app.test_client().get("/ü/7/portal/")
    assert meta(page, "hooks") == ["/%C3%BC/hooks/"]


def test_a_resource_that_is_not_there_is_said_by_name(make):
    app = make()
    app.register_blueprint(portal_blueprint(rest="api.hooks"), url_prefix="/portal")
    app.testing = True
    with pytest.raises(BuildError, match=r"api\.hooks\.hooks"):
        app.test_client().get("/portal/")


def test_it_carries_every_header(make):
    app = make()
    app.register_blueprint(rest_blueprint(lambda: "ada"), url_prefix="/hooks")
    app.register_blueprint(portal_blueprint(title="Hooks"), url_prefix="/portal")
    client = app.test_client()
    for path in ("/portal/", "/portal/x/portal.js", "/portal/x/nothing.js"):
        answer = client.get(path)
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; script-")
        assert len(answer.headers.getlist("Content-Type")) == 1
        assert client.head(path).headers == answer.headers
    assert client.post("/portal/").status_code == 405


# -- in a browser


@pytest.fixture
def site(make):
    """A site where one signs in, with a protection of its own; and its Thorn."""
    app = make(dispatcher="inline", retry=False)
    app.config["SECRET_KEY"] = "of the tests"
    CSRFProtect(app)

    @app.get("/sign-in")
    def sign_in():
        session["user"] = "ada"
        return redirect("/portal/")

    @app.get("/sign-out")
    def sign_out():
        session.clear()
        return "", 204

    app.register_blueprint(rest_blueprint(lambda: session.get("user")), url_prefix="/api/hooks")
    portal = portal_blueprint(csrf_token=generate_csrf, sign_in_url="/sign-in")
    app.register_blueprint(portal, url_prefix="/portal")
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", app.extensions["thorn"]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def browser(tmp_path):
    portal_browser.need_browser()
    with portal_browser.opened_browser(tmp_path) as browser:
        yield browser


@pytest.fixture
def changing_recipient():
    with LocalRecipient() as recipient:
        yield recipient


def test_from_signing_in_to_a_chart_that_has_what_was_retried(site, browser, changing_recipient):
    url, app = site
    recipient = changing_recipient
    browser.driver.get(f"{url}/portal/")
    browser.see("h1", "Signed out")
    browser.picture("signed-out")
    # The resource's 401, which a browser tells of.
    assert [message for message in browser.told() if "401" not in message] == []
    browser.press("Sign in")
    portal_browser.paint_first(browser)
    subscription = portal_browser.subscribe(browser, app, recipient)
    portal_browser.send_tests(browser, recipient)
    portal_browser.look_and_retry(browser, recipient)
    portal_browser.check_signature(browser, recipient, subscription.secret)
    portal_browser.see_the_chart(browser, recipient.url)
    portal_browser.look_after(browser, app, subscription)
    # Nothing of the page was refused; what was is what the core refused.
    assert [message for message in browser.told() if "422" not in message] == []


def test_a_session_that_has_ended_is_said(site, browser):
    url, _ = site
    browser.driver.get(f"{url}/sign-in")
    browser.see("main p", "You have no subscriptions yet")
    browser.driver.execute_script("return fetch('/sign-out')")
    browser.press("Add subscription")
    browser.see(".notice", "Log in")
    browser.driver.refresh()
    browser.see("h1", "Signed out")


def test_what_is_not_ones_own_is_not_found(site, browser):
    url, app = site
    other = app.subscribe("a.b", "http://127.0.0.1/", owner="bob")
    browser.driver.get(f"{url}/sign-in")
    browser.see("main p", "You have no subscriptions yet")
    titles = {
        other.id: "Not found",
        "nowhere": "Not found",
        f"{other.id}/dlv_1": "Not found",
        "%": "Something went wrong",
        "?": "Subscriptions",
    }
    for path, title in titles.items():
        browser.driver.get("about:blank")
        browser.driver.get(f"{url}/portal/#/{path}")
        browser.see("h1", title)
