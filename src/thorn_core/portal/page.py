"""The portal's responses: the page and its files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from html import escape
from importlib.resources import files
from string import Template

import attrs

PAGE = "index.html"
MEDIA_TYPES: Mapping[str, str] = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Allows only the portal's files and the resource on the same origin; no inline scripts.
POLICY = "; ".join(
    (
        "default-src 'none'",
        *(f"{kind} 'self'" for kind in ("script-src", "style-src", "connect-src", "img-src")),
        *(f"{kind} 'none'" for kind in ("base-uri", "form-action", "frame-ancestors")),
    )
)
COMMON: Mapping[str, str] = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    # Ids of subscriptions aren't secret, but other sites needn't know them.
    "referrer-policy": "same-origin",
}
FOREVER = "public, max-age=31536000, immutable"


@attrs.frozen(kw_only=True)
class PortalResponse:
    """A response to send.

    Attributes:
        status: The status code.
        headers: By name in lower case.
        body: The body; empty for HEAD.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = attrs.field(default=b"", repr=False)


@attrs.frozen(kw_only=True)
class Portal:
    """The portal, independent of frameworks: it turns a path into a response.

    The page is the same for all users and contains no data; the resource controls access. Both must
    be on the same site, and the resource must accept credentials that browsers send themselves,
    such as a session cookie.

    Args:
        api_path: The mount point of the REST resource: `/webhooks/`.
        hooks_at_root: True if the mount point is the list of subscriptions, as in the adapters
            for Django and Flask.
        title: The page's title.
        sign_in_url: Where users sign in after their session ends; None shows only a message.

    Example:
        >>> Portal(api_path="/webhooks/").handle("/nowhere").status
        404
    """

    api_path: str
    hooks_at_root: bool = False
    title: str = "Webhooks"
    sign_in_url: str | None = None

    def handle(
        self, path: str, *, method: str = "GET", csrf_token: str | None = None
    ) -> PortalResponse:
        """Answer a request.

        Args:
            path: Below the mount point, percent-decoded: `/` is the page. The mount point must end
                with a slash, because links in the page are relative to it.
            method: In upper case.
            csrf_token: The page sends it as `X-CSRFToken` with all changes.
        """
        if method not in ("GET", "HEAD"):
            return _answer(method, 405, {"allow": "GET, HEAD"}, b"Allowed methods: GET, HEAD.\n")
        if path in ("", "/"):
            headers = {"content-type": MEDIA_TYPES[".html"], "cache-control": "no-store"}
            return _answer(method, 200, headers, self._page(csrf_token))
        version, _, name = path.removeprefix("/").rpartition("/")
        body = _files().get(name)
        if body is None or name == PAGE or not version or "/" in version:
            return _answer(method, 404, {}, b"Not found.\n")
        # A page of an older release still finds its files, but mustn't cache these.
        kept = FOREVER if version == _version() else "no-cache"
        suffix = name[name.rindex(".") :]
        headers = {"content-type": MEDIA_TYPES[suffix], "cache-control": kept}
        return _answer(method, 200, headers, body)

    def _page(self, csrf_token: str | None) -> bytes:
        beside = self.api_path.rstrip("/") + "/"
        said = {
            "title": self.title,
            "files": _version(),
            "hooks": beside if self.hooks_at_root else f"{beside}hooks/",
            "beside": beside,
            "csrf": csrf_token or "",
            "sign_in": self.sign_in_url or "",
        }
        page = Template(_files()[PAGE].decode())
        return page.substitute({name: escape(text) for name, text in said.items()}).encode()


def _answer(method: str, status: int, headers: Mapping[str, str], body: bytes) -> PortalResponse:
    sent = {**COMMON, "content-type": "text/plain; charset=utf-8", **headers}
    sent["content-length"] = str(len(body))
    return PortalResponse(status=status, headers=sent, body=b"" if method == "HEAD" else body)


@cache
def _files() -> Mapping[str, bytes]:
    folder = files("thorn_core.portal") / "static"
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@cache
def _version() -> str:
    """Return the version in the files' URLs, which changes with the files."""
    digest = hashlib.sha256()
    for name, body in sorted(_files().items()):
        digest.update(f"{name} {len(body)} ".encode() + body)
    return digest.hexdigest()[:16]
