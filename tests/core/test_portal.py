"""The portal: what it answers, and what its files may and may not hold."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

import thorn_core.portal
from thorn_core import DeliveryState
from thorn_core.api.problems import KINDS
from thorn_core.api.stats import OUTCOMES, STEPS
from thorn_core.portal import Portal
from thorn_core.signatures import Signable, StandardWebhooks
from thorn_core.stores import PERCENTILES

STATIC = Path(thorn_core.portal.__file__).parent / "static"
MODULES = sorted(STATIC.glob("*.js"))
PORTAL = Portal(api_path="/hooks", hooks_at_root=True)


class Page(HTMLParser):
    """The elements of a page, each with its attributes; and what stands in scripts and styles."""

    def __init__(self, html):
        super().__init__()
        self.elements = []
        self.inline = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.elements and self.elements[-1][0] in ("script", "style"):
            self.inline += data.strip()

    def meta(self):
        return {
            a["name"]: a["content"] for tag, a in self.elements if tag == "meta" and "name" in a
        }

    def files(self):
        """What a browser loads with it, but for the icon, which it loads when all is done."""
        linked = [a["href"] for t, a in self.elements if t == "link" and a["rel"] != "icon"]
        return [*linked, *(a["src"] for tag, a in self.elements if "src" in a)]


def page_of(portal, **options):
    answer = portal.handle("/", **options)
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    return Page(answer.body.decode())


# -- the page


@pytest.mark.parametrize(
    ("options", "hooks", "beside"),
    [
        ({"api_path": "/hooks", "hooks_at_root": True}, "/hooks/", "/hooks/"),
        ({"api_path": "/webhooks/"}, "/webhooks/hooks/", "/webhooks/"),
        ({"api_path": "/", "hooks_at_root": True}, "/", "/"),
    ],
)
def test_the_page_says_where_the_resource_is(options, hooks, beside):
    meta = page_of(Portal(**options)).meta()
    assert (meta["thorn-hooks"], meta["thorn-beside"]) == (hooks, beside)


def test_what_the_page_is_given_is_text():
    portal = Portal(api_path='/"><script>', title="Ünits & <b>", sign_in_url='/?a="&b')
    page = page_of(portal, csrf_token='"><img src=x>')
    assert page.meta()["thorn-csrf"] == '"><img src=x>'
    assert page.meta()["thorn-sign-in"] == '/?a="&b'
    assert page.meta()["thorn-beside"] == '/"><script>/'
    assert {tag for tag, _ in page.elements} == {tag for tag, _ in page_of(PORTAL).elements}
    assert b"<title>\xc3\x9cnits &amp; &lt;b&gt;</title>" in portal.handle("/").body


def test_the_page_is_never_kept_and_its_files_are():
    page = page_of(PORTAL)
    assert PORTAL.handle("/").headers["cache-control"] == "no-store"
    for name in page.files():
        answer = PORTAL.handle(f"/{name}")
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    name = page.files()[0].partition("/")[2]
    of_another_release = PORTAL.handle(f"/0123456789abcdef/{name}")
    assert of_another_release.body == PORTAL.handle(f"/{page.files()[0]}").body
    assert of_another_release.headers["cache-control"] == "no-cache"


def test_what_it_weighs():
    page = page_of(PORTAL)
    # Modules don't keep a browser from painting; the rest does.
    assert [a["src"] for _, a in page.elements if "src" in a and a["type"] != "module"] == []
    first = [PORTAL.handle(path).body for path in ("/", *(f"/{name}" for name in page.files()))]
    assert len(first) == 3
    assert sum(map(len, first)) < 20_000
    assert sum(path.stat().st_size for path in STATIC.iterdir()) < 150_000


@pytest.mark.parametrize("path", sorted(STATIC.iterdir()), ids=lambda path: path.name)
def test_every_file_is_answered_as_what_it_is(path):
    if path.name == "index.html":
        return
    kinds = {
        ".js": "text/javascript; charset=utf-8",
        ".css": "text/css; charset=utf-8",
        ".svg": "image/svg+xml",
    }
    answer = PORTAL.handle(f"/x/{path.name}")
    assert (answer.status, answer.body) == (200, path.read_bytes())
    assert answer.headers["content-type"] == kinds[path.suffix]
    assert len(path.read_text("utf-8").splitlines()) <= 500


@pytest.mark.parametrize(
    "path",
    [
        *("/portal.js", "/x/index.html", "/x/", "/x/y/portal.js", "/x/../page.py", "//portal.js"),
        *("/x/../../api/hooks.py", "/x/..", "/x/page.py", "/nothing", "/x/portal.js/", "/x/\0.js"),
    ],
)
def test_there_is_nothing_else(path):
    assert PORTAL.handle(path).status == 404


def test_only_reading_is_answered():
    for path in ("/", "/x/portal.js"):
        whole = PORTAL.handle(path)
        head = PORTAL.handle(path, method="HEAD")
        assert (head.status, head.body, head.headers) == (200, b"", whole.headers)
        assert head.headers["content-length"] == str(len(whole.body))
    refused = PORTAL.handle("/", method="POST")
    assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")


# -- its policy


@pytest.mark.parametrize("path", ["/", "/x/portal.js", "/nothing"])
def test_every_answer_has_a_strict_policy(path):
    headers = PORTAL.handle(path).headers
    policy = headers["content-security-policy"].split("; ")
    own = {f"{kind}-src 'self'" for kind in ("script", "style", "connect", "img")}
    assert set(policy) == {
        "default-src 'none'", *own, "base-uri 'none'", "form-action 'none'",
        "frame-ancestors 'none'",
    }  # fmt: skip
    assert headers["x-content-type-options"] == "nosniff"


def test_nothing_stands_in_the_page_that_the_policy_forbids():
    page = page_of(PORTAL)
    assert page.inline == ""
    for _, attributes in page.elements:
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
    for name in page.files():
        assert PORTAL.handle(f"/{name}").status == 200


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_a_module_reads_no_markup_keeps_nothing_and_asks_nobody_else(path):
    text = path.read_text("utf-8")
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function"
        r"|localStorage|sessionStorage|indexedDB|document\.cookie|[\"']style[\"']|https?://(?!www\.w3\.org/2000/svg|example\.com)"
    )
    assert re.findall(forbidden, text) == []
    for name in re.findall(r"(?:from|import\() ?\"(.+?)\"", text):
        assert (STATIC / name).resolve().parent == STATIC
        assert (STATIC / name).exists(), name


def test_every_module_is_used():
    text = "".join(path.read_text("utf-8") for path in (*MODULES, STATIC / "index.html"))
    assert [path.name for path in MODULES if path.name not in text] == []


# -- what it has in common with the resource


def listed(module, name):
    """A constant of a module: the words in it."""
    (found,) = re.findall(rf"const {name} = [\[{{](.+?)[\]}}];", (STATIC / module).read_text())
    return re.findall(r"(\w+):", found) or re.findall(r"\"(\w+)\"", found)


def test_it_knows_what_the_resource_answers():
    assert listed("dom.js", "STATES") == [str(state) for state in DeliveryState]
    assert listed("charts.js", "OUTCOMES") == list(OUTCOMES)
    assert listed("charts.js", "PERIODS") == list(STEPS)
    assert listed("charts.js", "PERCENTILES") == [f"p{percentile}" for percentile in PERCENTILES]
    for name in (*OUTCOMES, *listed("charts.js", "PERCENTILES")):
        assert f".fill.{name} " in (STATIC / "portal.css").read_text()
    assert {401, 404} <= {status for status, _ in KINDS.values()}


@pytest.mark.parametrize(
    "secret", ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]
)
def test_a_signature_is_computed_as_requests_are_signed(tmp_path, secret):
    node = shutil.which("node")
    if node is None:
        assert not os.environ.get("THORN_REQUIRE_SERVICES"), "node is required here"
        pytest.skip("node isn't installed")
    shutil.copytree(STATIC, tmp_path / "static")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    said = json.dumps({"secret": secret, "text": "msg_1.1700000000." + '{"ö":1}'})
    (tmp_path / "sign.js").write_text(
        'import { sign } from "./static/signatures.js";\n'
        f"const said = {said};\nconsole.log(await sign(said.secret, said.text));\n"
    )
    done = subprocess.run(
        [node, "sign.js"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    signable = Signable(id="msg_1", timestamp=1_700_000_000, body='{"ö":1}'.encode())
    (signature,) = StandardWebhooks().sign(signable, [secret]).values()
    assert (done.stdout.strip(), done.stderr) == (signature.removeprefix("v1,"), "")
