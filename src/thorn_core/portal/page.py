"""What the portal answers: the page, and the files that it needs."""

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
# Nothing but its own files and the resource beside it; nothing that stands in the page runs.
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
    # Ids of subscriptions are no secrets, but nobody else's business.
    "referrer-policy": "same-origin",
}
FOREVER = "public, max-age=31536000, immutable"


@attrs.frozen(kw_only=True)
class PortalResponse:
    """What to answer.

    Attributes:
        status: The status code.
        headers: By name in lower case.
        body: What to send; empty for HEAD.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = attrs.field(default=b"", repr=False)


@attrs.frozen(kw_only=True)
class Portal:
    """The portal, free of any framework: a path in, an answer out.

    The page is the same for everybody and holds no data; the resource says who sees what. It must
    be on the same site as the resource, which must take what a browser sends by itself, such as the
    cookie of a session.

    Args:
        api_path: Where the REST resource is mounted: `/webhooks/`.
        hooks_at_root: True if that is the place of the subscriptions themselves, as where Django's
            and Flask's adapters mount it.
        title: What the page is called.
        sign_in_url: Where those go whose session has ended; None tells them only that it has.

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
            path: Below the mount point, percent-decoded: `/` is the page. The mount point itself
                ends with a slash, for links in the page are relative to it.
            method: In upper case.
            csrf_token: Sent along as `X-CSRFToken` by whatever the page changes.
        """
        if method not in ("GET", "HEAD"):
            return _answer(method, 405, {"allow": "GET, HEAD"}, b"Allowed are GET, HEAD.\n")
        if path in ("", "/"):
            headers = {"content-type": MEDIA_TYPES[".html"], "cache-control": "no-store"}
            return _answer(method, 200, headers, self._page(csrf_token))
        version, _, name = path.removeprefix("/").rpartition("/")
        body = _files().get(name)
        if body is None or name == PAGE or not version or "/" in version:
            return _answer(method, 404, {}, b"There is nothing here.\n")
        # A page that an older release gave out still finds its files, but doesn't keep these.
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
    """What the files' addresses have in them: another one when a file is another."""
    digest = hashlib.sha256()
    for name, body in sorted(_files().items()):
        digest.update(f"{name} {len(body)} ".encode() + body)
    return digest.hexdigest()[:16]
