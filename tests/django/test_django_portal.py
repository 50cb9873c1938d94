"""The portal on Django: what is Django's about it, and all of it in a browser."""

from __future__ import annotations

import re
import threading

import backoffice
import portal_browser
import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.handlers.wsgi import WSGIHandler
from django.core.servers.basehttp import ThreadedWSGIServer
from django.db import connections
from django.test import Client, override_settings
from django.test.testcases import QuietWSGIRequestHandler

from thorn_core.testing import LocalRecipient
from thorn_django import get_app


@pytest.fixture(scope="module", autouse=True)
def _site(_databases):
    with backoffice.opened():
        yield


@pytest.fixture(autouse=True)
def _project(_project, default_alias):
    backoffice.clear()
    get_user_model().objects.create_superuser("ada", password="lovelace")
    # The portal brings its own policy.
    middleware = [name for name in settings.MIDDLEWARE if name != "backoffice.StrictPolicy"]
    with override_settings(
        MIDDLEWARE=middleware,
        ROOT_URLCONF="portal_urls",
        LOGIN_URL="/admin/login/",
        THORN_DISPATCHER="background",
        THORN_RETRY=False,
        THORN_ALLOWED_NETWORKS=["127.0.0.0/8"],
        THORN_ALLOWED_PORTS=range(1, 65536),
    ):
        yield


@pytest.fixture
def client():
    client = Client()
    assert client.login(username="ada", password="lovelace")
    return client


def meta(page, name):
    return re.findall(rf'<meta name="thorn-{name}" content="(.*?)">', page.content.decode())


def test_who_is_not_signed_in_is_sent_to_do_so():
    answer = Client().get("/portal/")
    assert (answer.status_code, answer["Location"]) == (302, "/admin/login/?next=/portal/")
    # Its files are everybody's.
    assert Client().get("/portal/x/portal.js").status_code == 200


def test_the_page_says_where_the_resource_is_and_has_the_csrf_token(client):
    page = client.get("/portal/")
    assert (page.status_code, meta(page, "hooks")) == (200, ["/api/hooks/"])
    assert meta(page, "sign-in") == ["/portal/"]
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = client.cookies
    (token,) = meta(page, "csrf")
    asked = {"path": "/api/hooks/", "content_type": "application/json"}
    body = '{"event": "a.b", "url": "http://127.0.0.1/"}'
    assert strict.post(**asked, data=body).status_code == 403
    assert strict.post(**asked, data=body, headers={"x-csrftoken": token}).status_code == 201


def test_options_and_a_captured_prefix_are_its_own(client):
    page = client.get("/of/ü/portal/")
    assert "<title>Hooks of tenants</title>" in page.content.decode()
    assert meta(page, "hooks") == ["/of/%C3%BC/hooks/"]


@override_settings(
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.auth.middleware.LoginRequiredMiddleware",
    ]
)
def test_it_carries_every_header_also_where_all_views_need_a_login(client):
    for path in ("/portal/", "/portal/x/portal.js", "/portal/x/nothing.js"):
        answer = client.get(path)
        assert answer["Content-Security-Policy"].startswith("default-src 'none'; script-")
        head = client.head(path)
        assert (head.content, head["Content-Length"]) == (b"", str(len(answer.content)))
        assert client.post(path).status_code == 405
    assert Client().get("/portal/x/portal.js").status_code == 200
    assert Client().get("/portal/").status_code == 302


# -- in a browser


@pytest.fixture
def site():
    from django.contrib.staticfiles.handlers import StaticFilesHandler

    portal_browser.need_browser()
    httpd = ThreadedWSGIServer(("127.0.0.1", 0), QuietWSGIRequestHandler)
    httpd.set_app(StaticFilesHandler(WSGIHandler()))
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_address[1]}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()
    connections.close_all()


def test_from_signing_in_to_a_chart_that_has_what_was_retried(site, tmp_path):
    app = get_app()
    with portal_browser.opened_browser(tmp_path) as browser, LocalRecipient() as recipient:
        browser.driver.get(f"{site}/portal/")
        browser.fill("username", "ada")
        browser.fill("password", "lovelace")
        browser.find("[type=submit]").click()
        portal_browser.paint_first(browser)
        subscription = portal_browser.subscribe(browser, app, recipient)
        portal_browser.send_tests(browser, recipient)
        portal_browser.look_and_retry(browser, recipient)
        portal_browser.see_the_chart(browser, recipient.url)
        portal_browser.look_after(browser, app, subscription)
        told = [message for message in browser.told() if "/portal/" in message]
        assert all("422" in message for message in told)
