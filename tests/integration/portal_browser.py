"""The portal as people use it, in a browser; whichever framework carries it."""

from __future__ import annotations

import base64
import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

PATIENCE = 15
WIDTHS = (1200, 400)
STORED = "return JSON.stringify([localStorage, sessionStorage, document.cookie, history.state])"
WIDER = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
# What the browser has got, by name, with how many bytes; and whether it has painted anything.
LOADED = """
return ["navigation", "resource"].flatMap((kind) => performance.getEntriesByType(kind))
  .filter((entry) => entry.responseStatus === 200)
  .map((entry) => [entry.name.split("/").at(-1), entry.encodedBodySize]);
"""
PAINTED = 'return performance.getEntriesByName("first-contentful-paint").length'


def need_browser():
    """Skip where there is no browser, unless there has to be one."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        there = False
    else:
        there = bool(shutil.which("chromium") and shutil.which("chromedriver"))
    if there:
        return
    if os.environ.get("THORN_REQUIRE_SERVICES"):
        pytest.fail("chromium, chromedriver and selenium are needed")
    pytest.skip("chromium, chromedriver or selenium isn't there")


class Browser:
    """A browser, in the words of these tests."""

    def __init__(self, driver, directory):
        self.driver = driver
        self._directory = directory

    def wait(self, condition):
        from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
        from selenium.webdriver.support.ui import WebDriverWait

        waiting = WebDriverWait(
            self.driver, PATIENCE, 0.05, ignored_exceptions=[StaleElementReferenceException]
        )
        try:
            return waiting.until(lambda _: condition())
        except TimeoutException:
            pytest.fail(self.driver.find_element("css selector", "body").text)

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def find(self, selector):
        return self.wait(lambda: next(iter(self.all(selector)), None))

    def see(self, selector, text):
        """Wait until something of this selector says this."""
        return self.wait(lambda: next((e for e in self.all(selector) if text in e.text), None))

    def fill(self, name, text):
        element = self.find(f"[name={name}]")
        element.clear()
        element.send_keys(text)

    def press(self, words, within="body"):
        """Press a button by what is on it."""
        path = f'.//*[self::button or self::a or self::summary][normalize-space()="{words}"]'

        def pressed():
            # It may be drawn anew before it is pressed.
            found = self.find(within).find_elements("xpath", path)
            if found:
                found[0].click()
            return bool(found)

        self.wait(pressed)

    def key(self, *keys):
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def picture(self, name):
        """Keep pictures in light and dark, wide and narrow; nothing is wider than the screen."""
        for width in WIDTHS:
            self._emulate(width)
            assert self.driver.execute_script(WIDER) <= 0, f"{name} is too wide for {width}"
            for scheme in ("light", "dark"):
                features = [{"name": "prefers-color-scheme", "value": scheme}]
                self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
                # A dialog covers what is on the screen, and the rest of the page isn't its own.
                whole = {"format": "png", "captureBeyondViewport": not self.all("dialog")}
                taken = self.driver.execute_cdp_cmd("Page.captureScreenshot", whole)["data"]
                file = self._directory / f"{name}-{width}-{scheme}.png"
                file.write_bytes(base64.b64decode(taken))
        self._emulate(WIDTHS[0])

    def _emulate(self, width):
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
        )

    def told(self):
        """What the browser has complained of since it was asked last, of its own pages aside."""
        messages = [entry["message"] for entry in self.driver.get_log("browser")]
        return [message for message in messages if not message.startswith("chrome://")]


@contextmanager
def opened_browser(directory):
    """A browser that is closed afterwards."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.add_argument("--hide-scrollbars")
    options.add_argument(f"--window-size={WIDTHS[0]},900")
    options.add_argument(f"--user-data-dir={directory / 'profile'}")
    options.binary_location = shutil.which("chromium")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    browser = Browser(driver, Path(os.environ.get("THORN_TEST_PICTURES", directory)))
    try:
        yield browser
    finally:
        driver.quit()


def paint_first(browser):
    """It paints without its modules and without any data; and all that it needs is little."""
    browser.see("h1", "Subscriptions")
    loaded = browser.driver.execute_script(LOADED)
    assert sum(size for _, size in loaded) < 150_000
    withhold(browser, "*.js", "*/hooks/*")
    browser.driver.refresh()
    browser.wait(lambda: browser.driver.execute_script(PAINTED))
    loaded = dict(browser.driver.execute_script(LOADED))
    # It is asked for when the rest is there.
    loaded.pop("icon.svg", None)
    assert loaded.keys() == {"", "portal.css"}, loaded
    browser.see("main", "Loading …")
    withhold(browser)
    # What was withheld, the browser tells of; and of what isn't the portal's.
    told = [message for message in browser.told() if "/portal/" in message]
    assert all("ERR_BLOCKED_BY_CLIENT" in message for message in told), told
    browser.driver.refresh()
    browser.see("h1", "Subscriptions")


def withhold(browser, *urls):
    """Keep some from the browser from now on."""
    browser.driver.execute_cdp_cmd("Network.enable", {})
    browser.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": urls})


def subscribe(browser, app, recipient):
    """Subscribe, after what the core refuses; gives back the subscription."""
    browser.see("main p", "You have no subscriptions yet")
    browser.picture("empty")
    browser.press("Add subscription")
    browser.find("dialog")
    browser.fill("url", "ftp://example.com/")
    browser.fill("event", "article.*\norder paid")
    browser.picture("editor")
    browser.press("Subscribe", "dialog")
    browser.see("#field-url-fault", "ftp")
    browser.see("#field-event-fault", "order paid")
    browser.picture("faults")
    browser.fill("url", recipient.url)
    browser.fill("event", "article.*\norder.paid")
    browser.fill("description", "The warehouse")
    browser.press("More", "dialog")
    browser.fill("headers", "Authorization: Bearer of-a-token\nX-Shop: 7")
    browser.press("Subscribe", "dialog")
    (subscription,) = browser.wait(lambda: list(app.subscriptions()))
    assert subscription.events == ("article.*", "order.paid")
    assert subscription.headers == {"Authorization": "Bearer of-a-token", "X-Shop": "7"}
    keep_secret(browser, subscription.secret)
    browser.see("h1", recipient.url)
    return subscription


def keep_secret(browser, secret):
    """The secret is told once, when asked for; then the page has forgotten it."""
    from selenium.webdriver.common.keys import Keys

    told = browser.find("dialog .secret")
    assert secret not in browser.driver.page_source
    browser.press("Reveal", "dialog")
    browser.wait(lambda: told.text == secret)
    browser.picture("secret")
    browser.key(Keys.ESCAPE)
    assert browser.find("dialog .secret").text == secret
    browser.press("I've saved it", "dialog")
    browser.wait(lambda: not browser.all("dialog"))
    assert secret not in browser.driver.page_source
    assert secret not in browser.driver.current_url
    assert secret not in browser.driver.execute_script(STORED)


def send_tests(browser, recipient):
    """See a test arrive, then fail, in notices, log and chart."""
    recipient.answer(status=200, headers={"x-trace": "7"}, body=b'{"thanks": "<b>you</b>"}')
    browser.press("Send test")
    browser.see(".notice", "Test delivered: 200")
    assert recipient.received[-1].json["event"] == "thorn.test"
    browser.see(".stacks .state", "delivered")
    browser.see(".readout", "1 delivery: 1 delivered")
    recipient.answer(status=500, body=b"\x1b[31m away \xe2\x80\xae")
    browser.press("Send test")
    browser.see(".notice", "Test failed: 500")
    browser.see(".stacks .state", "failed")
    browser.see(".readout", "2 deliveries: 1 delivered, 1 failed")


def look_and_retry(browser, recipient):
    """Look at what failed; retry it when the recipient is mended."""
    browser.find("input[value=failed]").click()
    browser.press("Filter")
    browser.wait(lambda: len(browser.all(".stacks tbody tr")) == 1)
    assert "state=failed" in browser.driver.current_url
    browser.picture("subscription")
    browser.find(".stacks tbody a").click()
    browser.see("h1", "thorn.test")
    browser.see(".attempt .state", "500")
    attempt = browser.find(".attempt").text
    assert "POST http://" in attempt
    assert "Authorization: ••••••••" in attempt
    assert "\ufffd[31m away \ufffd" in attempt
    browser.picture("failed")
    recipient.answer(status=200)
    browser.press("Retry")
    browser.see(".notice", "Delivered.")
    browser.wait(lambda: len(browser.all(".attempt")) == 2)
    browser.see(".title .state", "delivered")
    browser.picture("delivered")


def check_signature(browser, recipient, secret):
    """The page computes what the recipient got."""
    request = recipient.received[-1]
    browser.press("Check a signature", ".attempt")
    number = len(browser.all(".attempt"))
    for name, text in (
        ("secret", secret),
        ("body", request.body.decode()),
        ("received", request.headers["webhook-signature"]),
    ):
        browser.find(f"#signature-{name}-{number}").send_keys(text)
    browser.press("Compute", ".attempt")
    browser.see(".signature", "The signatures match.")
    assert browser.find(".signature code").text in request.headers["webhook-signature"]


def see_the_chart(browser, url):
    """The chart has what was retried; pointer and keys read it."""
    from selenium.webdriver.common.keys import Keys

    browser.driver.find_element("link text", url).click()
    browser.see(".readout", "2 deliveries: 2 delivered")
    assert browser.find(".charts > figure > svg rect.fill.delivered")
    assert not browser.all(".charts > figure > svg .fill.failed")
    drawing = browser.find(".charts > figure > svg")
    browser.driver.execute_script("arguments[0].focus()", drawing)

    def read_another():
        browser.key(Keys.ARROW_LEFT)
        return re.search(r"delivered [12]\b", browser.find(".readout").text)

    # At the end of a period, the two deliveries may be in two periods.
    browser.wait(read_another)
    browser.find("input[value=hour] + span").click()
    browser.wait(lambda: "period=hour" in browser.driver.current_url)
    browser.see(".readout", "2 deliveries: 2 delivered")
    assert browser.find(".charts > figure > svg circle.fill.p50")
    browser.picture("charts")


def look_after(browser, app, subscription):
    """Pause, resume, edit, rotate, recover, delete."""

    def now():
        return app.subscription(subscription.id)

    browser.press("Pause")
    browser.see(".box.warn", "Paused. Deliveries are held until you resume this subscription.")
    assert now().paused
    browser.picture("paused")
    browser.press("Send test")
    browser.see(".notice", "The test is held until the subscription is resumed")
    browser.see("td .state", "held")
    browser.press("Resume")
    browser.see(".title .state", "active")
    app.update_subscription(subscription.id, enabled=False, disabled_reason="an operator did it")
    browser.driver.refresh()
    browser.see(".box.warn", "Disabled: an operator did it")
    browser.press("Enable")
    browser.see(".title .state", "active")
    assert now().enabled
    browser.press("Edit")
    browser.fill("description", "Another warehouse")
    browser.press("Save", "dialog")
    browser.see(".title", "Another warehouse")
    assert now().headers["Authorization"] == "Bearer of-a-token"
    browser.press("Rotate secret")
    browser.press("Rotate", "dialog")
    browser.find("dialog .secret")
    assert now().secret != subscription.secret
    keep_secret(browser, now().secret)
    browser.press("Recover …")
    browser.find("dialog [name=since]")
    browser.picture("recover")
    browser.press("Recover", "dialog")
    browser.see(".notice", "There is nothing to recover since then")
    browser.driver.find_element("link text", "Subscriptions").click()
    browser.see(".stacks", "Another warehouse")
    browser.picture("subscriptions")
    browser.find(".stacks a").click()
    browser.see("h1", subscription.url)
    browser.press("Delete")
    browser.see("dialog", "This can't be undone")
    browser.picture("delete")
    browser.press("Delete", "dialog")
    browser.see("main p", "You have no subscriptions yet")
    assert now() is None
