"""The admin as people use it: in a browser that runs nothing and styles nothing of a page's own."""

from __future__ import annotations

import base64
import os
import re
import shutil
import threading
from pathlib import Path

import backoffice
import pytest
from django.contrib.auth import get_user_model
from django.core.handlers.wsgi import WSGIHandler
from django.core.servers.basehttp import ThreadedWSGIServer
from django.db import connections
from django.test import override_settings
from django.test.testcases import QuietWSGIRequestHandler

from thorn_core import DeliveryState
from thorn_core.testing import LocalRecipient
from thorn_django import get_app

PATIENCE = 15
WIDTH, HEIGHT = 1280, 1000


def has_browser():
    try:
        import selenium  # noqa: F401
    except ImportError:
        return False
    return bool(shutil.which("chromium") and shutil.which("chromedriver"))


@pytest.fixture(scope="module", autouse=True)
def _admin(_databases):
    if not has_browser():
        if os.environ.get("THORN_REQUIRE_SERVICES"):
            pytest.fail("chromium, chromedriver and selenium are needed")
        pytest.skip("chromium, chromedriver or selenium isn't there")
    with backoffice.opened():
        yield


@pytest.fixture(autouse=True)
def _project_that_delivers():
    with override_settings(
        THORN_DISPATCHER="background",
        THORN_RETRY=False,
        THORN_ALLOWED_NETWORKS=["127.0.0.0/8"],
        THORN_ALLOWED_PORTS=range(1, 65536),
    ):
        yield


@pytest.fixture
def recipient():
    with LocalRecipient() as recipient:
        yield recipient


@pytest.fixture
def server(default_alias):
    from django.contrib.staticfiles.handlers import StaticFilesHandler

    backoffice.clear()
    get_user_model().objects.create_superuser("ada", password="lovelace")
    httpd = ThreadedWSGIServer(("127.0.0.1", 0), QuietWSGIRequestHandler)
    httpd.set_app(StaticFilesHandler(WSGIHandler()))
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_address[1]}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()
    connections.close_all()


class Browser:
    """A browser, in the words of this test."""

    def __init__(self, driver, directory):
        self.driver = driver
        self._directory = directory

    def _wait(self, condition):
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, PATIENCE, poll_frequency=0.05).until(condition)

    def find(self, selector):
        return self._wait(lambda driver: driver.find_element("css selector", selector))

    def text(self, selector):
        return self.find(selector).text

    def fill(self, name, text):
        element = self.find(f"[name={name}]")
        element.clear()
        element.send_keys(text)

    def click(self, selector):
        """Click on something that leads to another page, and wait for that."""
        self._follow(self.find(selector))

    def press(self, words):
        """Press a button, or follow a link, of the object tools."""
        path = f"//ul[@class='object-tools']//*[self::a or self::button][text()='{words}']"
        self._follow(self.driver.find_element("xpath", path))

    def _follow(self, element):
        from selenium.webdriver.support.expected_conditions import staleness_of

        page = self.find("html")
        element.click()
        self._wait(staleness_of(page))

    def picture(self, name):
        """Keep pictures of the page, in light and dark, and see that nothing of it was refused."""
        for scheme in ("light", "dark"):
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
            whole = {"format": "png", "captureBeyondViewport": True}
            taken = self.driver.execute_cdp_cmd("Page.captureScreenshot", whole)["data"]
            (self._directory / f"{name}-{scheme}.png").write_bytes(base64.b64decode(taken))
        told = [entry["message"] for entry in self.driver.get_log("browser")]
        assert [message for message in told if "Security Policy" in message] == []


@pytest.fixture
def browser(tmp_path):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.add_argument(f"--window-size={WIDTH},{HEIGHT}")
    options.add_argument(f"--user-data-dir={tmp_path / 'profile'}")
    options.binary_location = shutil.which("chromium")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    directory = Path(os.environ.get("THORN_TEST_PICTURES", tmp_path))
    try:
        yield Browser(driver, directory)
    finally:
        driver.quit()


def test_from_a_subscription_to_its_deliveries_and_back(server, browser, recipient):
    app = get_app()
    browser.driver.get(f"{server}/admin/")
    browser.fill("username", "ada")
    browser.fill("password", "lovelace")
    browser.click("[type=submit]")
    browser.picture("index")

    # What the core refuses is said at the field that it is about.
    browser.click(".model-subscription .addlink")
    browser.fill("url", "ftp://example.com/")
    browser.fill("events", "article.*\norder paid")
    browser.click("[name=_save]")
    assert "order paid" in browser.text(".field-events .errorlist")
    assert "ftp" in browser.text(".field-url .errorlist")
    browser.picture("errors")
    browser.fill("url", recipient.url)
    browser.fill("events", "article.*\norder.paid")
    browser.fill("headers", "Authorization: Bearer of-a-token\nX-Shop: 7")
    browser.click("[name=_save]")
    (subscription,) = app.subscriptions()
    assert subscription.events == ("article.*", "order.paid")
    assert browser.text("#thorn-secret") == subscription.secret
    browser.picture("secret")

    browser.click(".thorn-next")
    source = browser.driver.page_source
    assert subscription.secret not in source
    assert "of-a-token" not in source

    recipient.answer(status=200, headers={"x-trace": "7"}, body=b'{"thanks": "<b>you</b>"}')
    browser.press("Send test")
    assert "was delivered: 200 after" in browser.text(".messagelist")
    assert recipient.received[-1].json["event"] == "thorn.test"
    browser.picture("tested")
    browser.click(".messagelist a")
    assert browser.text(".thorn-ok") == "200"
    assert "<b>you</b>" in browser.text(".thorn-attempt pre")
    browser.picture("delivery")

    recipient.answer(status=503, body=b"\xff\xfe\x00 away")
    failed = app.send("article.created", {"title": "Hello", "tags": ["a", "b"]})
    failed.wait(PATIENCE)
    (delivery,) = failed.deliveries
    assert delivery.state is DeliveryState.FAILED
    browser.driver.get(f"{server}/admin/thorn_django/delivery/")
    browser.picture("deliveries")
    browser.fill("event", "article.*")
    browser.click(".thorn-filter [type=submit]")
    assert "1 delivery" in browser.text(".paginator")
    browser.click("#result_list th a")
    assert browser.text(".thorn-failed") == "503"
    assert "ff fe 00" in browser.text(".thorn-attempt pre")
    browser.picture("failed")
    recipient.answer(status=200)
    browser.press("Retry")
    assert "1 delivery was retried" in browser.text(".messagelist")
    assert failed.wait(PATIENCE)

    browser.click(".field-message a")
    assert '"title": "Hello"' in browser.text(".field-payload pre")
    browser.picture("message")

    browser.driver.get(f"{server}/admin/thorn_django/subscription/")
    browser.picture("subscriptions")
    browser.click("#result_list th a")
    browser.press("Rotate secret")
    rotated = app.subscription(subscription.id)
    assert rotated.secret != subscription.secret
    assert browser.text("#thorn-secret") == rotated.secret
    browser.picture("rotated")
    browser.click(".thorn-next")
    browser.press("Retry failed and cancelled …")
    browser.picture("recover")
    browser.driver.get(
        f"{server}/admin/thorn_django/subscription/{re.sub('_', '_5F', subscription.id)}/change/"
    )
    browser.find("[name=enabled]").click()
    browser.click("[name=_continue]")
    assert app.subscription(subscription.id).disabled_reason == "an operator disabled it"
    browser.press("Send test")
    assert "enable it first" in browser.text(".messagelist")
    browser.picture("disabled")
