"""Parse recipients' URLs."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import NoReturn

import attrs

from thorn_core.errors import SecurityError
from thorn_core.recipients.addresses import Address, address_text, ip_literal

# Every browser, proxy and server accepts this length.
LONGEST_URL = 2048

# The schemes that transports support, with their default ports.
DEFAULT_PORTS = {"http": 80, "https": 443}
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^?#]*)(\?[^#]*)?(?:#.*)?")
_AUTHORITY = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]*))?")
_HOST = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}")
_NOT_IN_PATH = re.compile(r"%(?![0-9A-Fa-f]{2})|[^A-Za-z0-9._~!$&'()*+,;=:@/\[\]|%-]")
_NOT_IN_QUERY = re.compile(r"%(?![0-9A-Fa-f]{2})|[^A-Za-z0-9._~!$&'()*+,;=:@/\[\]|?%-]")
# Letters, marks and digits: approximately the characters of labels in IDNA 2008 (RFC 5892).
_LABEL_CATEGORIES = frozenset({"Ll", "Lu", "Lo", "Lm", "Mn", "Mc", "Nd"})


@attrs.frozen(kw_only=True)
class RecipientURL:
    """A recipient's URL, parsed and normalised (RFC 3986 6.2; IPv4 as in WHATWG's URL standard).

    Attributes:
        text: The whole URL in ASCII: scheme and host in lower case, no default port, no
            fragment, no dot segments.
        scheme: In lower case.
        host: In ASCII, without brackets and without a trailing dot; an IP address in its
            canonical form.
        port: The given port, or the scheme's default.
        path: Path and query, as in the request line.
        address: The host as an IP address; None if it is a name.
        recipient: `host:port`, IPv6 in brackets.
    """

    text: str = attrs.field(repr=lambda text: shown(text))
    scheme: str
    host: str
    port: int
    path: str = attrs.field(repr=False)
    address: Address | None
    recipient: str


def parse_url(url: str) -> RecipientURL:
    r"""Parse a recipient's URL; refuse URLs that parsers may interpret differently.

    Args:
        url: An absolute URL, at most 2048 characters.

    Raises:
        SecurityError: It isn't a string, isn't absolute, is neither http nor https, or is too long.
            It has no host, an invalid host name, an invalid port, a user name or a zone id. Or it
            contains white space, control characters or backslashes.

    Example:
        >>> parse_url("HTTPS://Example.COM:443/hook/../in?x=1#top").text
        'https://example.com/in?x=1'
        >>> parse_url("http://0x7f.1/").host
        '127.0.0.1'
    """
    if not isinstance(url, str):
        what = "None" if url is None else f"of type {type(url).__name__}"
        raise SecurityError(f"The recipient URL is {what}; use a string.")
    return _parsed(url)


@lru_cache(maxsize=4096)
def _parsed(url: str) -> RecipientURL:
    if len(url) > LONGEST_URL:
        _refuse(url, f"is longer than {LONGEST_URL} characters", "shorten it")
    if " " in url or "\\" in url or not url.isprintable():
        _refuse(
            url,
            "holds white space, a backslash or a character that can't be printed",
            "percent-encode it",
        )
    match = _URL.fullmatch(url)
    if match is None:
        _refuse(url, "isn't absolute", "write it as https://host/path")
    scheme, authority, path, query = match.groups(default="")
    scheme = scheme.lower()
    default_port = DEFAULT_PORTS.get(scheme)
    if default_port is None:
        # Independent of the validators: a recipient is an HTTP server.
        _refuse(url, f"uses {scheme[:40]!r}", f"use one of: {', '.join(DEFAULT_PORTS)}")
    if "@" in authority:
        _refuse(url, "holds a user name", "put credentials into the subscription's headers")
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        _refuse(url, "has an invalid host or port", "write it as https://host:port/path")
    given_host, given_port = parts.groups(default="")
    if not given_host:
        _refuse(url, "has no host", "write it as https://host/path")
    host, address = _host(url, given_host)
    port = int(given_port) if given_port else default_port
    if not 0 < port < 65536:
        _refuse(url, f"has the port {given_port}", "use a port from 1 to 65535")
    path = _NOT_IN_PATH.sub(_percent, _without_dots(path))
    if query != "?":  # an empty query, which some HTTP libraries send and others don't
        path += _NOT_IN_QUERY.sub(_percent, query)
    shown_host = f"[{host}]" if ":" in host else host
    text = f"{scheme}://{shown_host}{'' if port == default_port else f':{port}'}{path}"
    if len(text) > LONGEST_URL:
        _refuse(url, f"is longer than {LONGEST_URL} characters when encoded", "shorten it")
    return RecipientURL(
        text=text,
        scheme=scheme,
        host=host,
        port=port,
        path=path,
        address=address,
        recipient=f"{shown_host}:{port}",
    )


def _host(url: str, given: str) -> tuple[str, Address | None]:
    try:
        address = ip_literal(given)
    except SecurityError as error:
        raise SecurityError(f"The recipient URL {shown(url)} is refused: {error}") from None
    if address is not None:
        return address_text(address), address
    host = (given if given.isascii() else _to_ascii(url, given)).lower().removesuffix(".")
    if len(host) > 253 or not _HOST.fullmatch(host):
        _refuse(url, "has an invalid host name (RFC 1123)", "check its spelling")
    return host, None


def _to_ascii(url: str, host: str) -> str:
    # Parsers map compatibility characters (full-width, circled, ligatures) differently, so these
    # are refused. The others need only lower-casing, so the result is that of IDNA 2008
    # (RFC 5891) without its tables; ß and final sigma stay unchanged.
    if unicodedata.normalize("NFKC", host) != host or any(
        not char.isascii() and unicodedata.category(char) not in _LABEL_CATEGORIES for char in host
    ):
        _refuse(
            url,
            "has a host with characters that map to others",
            "write the host in ASCII (xn--…)",
        )
    lower = "".join(char.lower() for char in host)
    return ".".join(
        label if label.isascii() else "xn--" + label.encode("punycode").decode("ascii")
        for label in lower.split(".")
    )


def _without_dots(path: str) -> str:
    if "/." not in path and "/%2" not in path:
        return path or "/"
    kept: list[str] = []
    plain = ""
    for segment in path[1:].split("/"):
        plain = segment.replace("%2e", ".").replace("%2E", ".")
        if plain == "..":
            del kept[-1:]
        elif plain != ".":
            kept.append(segment)
    if plain in {".", ".."}:
        kept.append("")
    return "/" + "/".join(kept)


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode())


def _refuse(url: str, problem: str, remedy: str) -> NoReturn:
    raise SecurityError(f"The recipient URL {shown(url)} {problem}; {remedy}.")


def shown(url: str) -> str:
    """Quote a URL for a message: shortened, without user name and query, which may be secret.

    Example:
        >>> shown("https://me:secret@example.com/hook?token=secret")
        "'https://***@example.com/hook'"
    """
    text = without_secrets(url)
    return ascii(text if len(text) <= 120 else f"{text[:120]}…")


def without_secrets(url: str) -> str:
    """Return a URL without user name, query and fragment, which may be secret.

    Example:
        >>> without_secrets("https://me:secret@example.com/hook?token=secret")
        'https://***@example.com/hook'
    """
    return re.sub(r"//[^/?#]*@", "//***@", re.split("[?#]", url, maxsplit=1)[0])
