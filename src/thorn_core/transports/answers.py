"""Reads the answer to one request, within bounds, by h11 (the parser that httpx stands on)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import h11

from thorn_core.transports.limits import (
    CHUNK_LIMIT,
    FRAMING_LIMIT,
    HEAD_LIMIT,
    INTERIM_LIMIT,
    LINE_LIMIT,
    body_limit,
)
from thorn_core.values import Response

_START = b"HTTP/"
# h11 copies what it hasn't read yet with each line, so it gets a little at a time.
_PART = 4096
# h11 takes status 101 only if the request asked for it. We never ask; we want to report it.
_REQUEST = h11.Request(method="POST", target="/", headers=[("Host", "-"), ("Upgrade", "-")])
_HEAD_REQUEST = h11.Request(method="HEAD", target="/", headers=[("Host", "-"), ("Upgrade", "-")])


class BadAnswer(Exception):  # noqa: N818 - connections turn it into a TransportError
    """An answer that can't be used; says in words what is wrong with it."""


class Reader(Protocol):
    """Reads answers on one connection, one after the other.

    Attributes:
        response: The answer, once it is complete or as much of its body is read as is kept.
        reusable: The answer ended where its framing says, nothing follows, and the recipient
            keeps the connection open.
    """

    response: Response | None
    reusable: bool

    def begin(self, method: str, response_limit: int) -> None:
        """Expect the answer to a request with this method; keep so many bytes of its body."""
        ...

    def feed(self, data: bytes) -> bool:
        """Take what arrived; True when `response` is there.

        Raises:
            BadAnswer: The answer can't be used.
        """
        ...

    def end(self) -> bool:
        """Take the end of the connection; True when that completes the answer.

        Raises:
            BadAnswer: The answer is incomplete.
        """
        ...


class AnswerReader:
    """Reads answers by h11.

    It accepts what RFC 9112 lets a client accept (bare LF, folded headers, a repeated equal
    Content-Length), and refuses what is ambiguous.
    """

    def begin(self, method: str, response_limit: int) -> None:
        """Expect an answer."""
        self.response: Response | None = None
        self.reusable = False
        self._limit = response_limit
        self._left = HEAD_LIMIT
        self._lines = self._interim = self._chunks = self._behind = 0
        self._status: int | None = None
        self._headers: dict[str, str] = {}
        self._body = b""
        self._start = b""
        # h11's own bound is never reached before ours, which says what was too long.
        most = HEAD_LIMIT + body_limit(response_limit)
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=most)
        self._h11.send(_HEAD_REQUEST if method == "HEAD" else _REQUEST)
        self._h11.send(h11.EndOfMessage())

    def feed(self, data: bytes) -> bool:
        """Take what arrived."""
        if len(self._start) < len(_START):
            data = self._checked_start(data)
        # Bounds hold however an answer was cut into pieces on its way.
        while data:
            if not self._left:
                raise BadAnswer(_TOO_LONG_HEAD if self._status is None else _TOO_LONG_BODY)
            size = min(self._left, _PART)
            part, data = data[:size], data[size:]
            self._left -= len(part)
            self._take(part)
            if self.response is not None:
                self.reusable = self.reusable and not data
                return True
        return False

    def _take(self, part: bytes) -> None:
        in_head, self._behind = self._status is None, 0
        self._h11.receive_data(part)
        self._read()
        if in_head:
            self._lines += part[: len(part) - self._behind].count(b"\n")
            if self._lines > LINE_LIMIT:
                raise BadAnswer(f"the answer has more than {LINE_LIMIT} lines of headers")

    def end(self) -> bool:
        """Take the end of the connection."""
        if self._status is not None:
            self._h11.receive_data(b"")
            self._read()
        if self.response is None:
            raise BadAnswer("the connection closed before the answer was complete")
        self.reusable = False
        return True

    def _read(self) -> None:
        while self.response is None:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                raise BadAnswer(self._explained(error)) from None
            if isinstance(event, h11.InformationalResponse):
                self._pass_over(event)
            elif isinstance(event, h11.Response):
                self._begin_body(event)
            elif isinstance(event, h11.Data):
                self._add(event)
            elif isinstance(event, h11.EndOfMessage):
                kept = self._h11.their_state is h11.DONE
                self._finish(reusable=kept and not self._h11.trailing_data[0])
            else:
                return

    def _checked_start(self, data: bytes) -> bytes:
        if not self._start:
            size = len(data)
            data = data.lstrip(b"\r\n")  # as llhttp does
            self._left -= size - len(data)
            if self._left < 0:
                raise BadAnswer(_TOO_LONG_HEAD)
        self._start += data[: len(_START) - len(self._start)]
        if not _START.startswith(self._start):
            raise BadAnswer(_NO_HTTP)
        return data

    def _pass_over(self, event: h11.InformationalResponse) -> None:
        if event.status_code == 101:
            self._status = 101
            self._headers = joined_headers(event.headers)
            self._finish(reusable=False)
            return
        self._interim += 1
        if self._interim > INTERIM_LIMIT:
            raise BadAnswer(f"more than {INTERIM_LIMIT} interim answers came before the answer")

    def _begin_body(self, event: h11.Response) -> None:
        headers = joined_headers(event.headers)
        if "transfer-encoding" in headers and "content-length" in headers:
            raise BadAnswer("the answer has both a Content-Length and a Transfer-Encoding")
        self._status, self._headers = event.status_code, headers
        self._behind = len(self._h11.trailing_data[0])
        self._left = body_limit(self._limit) - self._behind

    def _add(self, event: h11.Data) -> None:
        enough = self._chunks == CHUNK_LIMIT
        if not enough:
            self._body += event.data
            self._chunks += event.chunk_end
        if enough or len(self._body) > self._limit:
            self._finish(reusable=False)

    def _finish(self, *, reusable: bool) -> None:
        assert self._status is not None
        self.reusable = reusable
        self.response = Response(
            status=self._status, headers=self._headers, body=self._body[: self._limit]
        )

    def _explained(self, error: h11.RemoteProtocolError) -> str:
        if self._status is not None:
            if self._h11.trailing_data[1]:
                return "the connection closed before the answer was complete"
            return "the answer's body is not in valid chunks"
        text = str(error)
        return next((words for start, words in _WORDS if text.startswith(start)), _NO_HTTP)


_NO_HTTP = "the answer is not HTTP/1.1"
_LENGTH = "the answer's Content-Length is not a number, or there are several"
_CODING = "the answer has a Transfer-Encoding other than chunked"
_HEADER = "the answer has an invalid header"
# How h11's messages about a head begin; what follows may be the recipient's own text.
_WORDS = (
    ("bad Content-Length", _LENGTH),
    ("conflicting Content-Length", _LENGTH),
    ("multiple Transfer-Encoding", _CODING),
    ("Only Transfer-Encoding", _CODING),
    ("illegal header line", _HEADER),
    ("continuation line", _HEADER),
)
_TOO_LONG_HEAD = f"the answer's headers are larger than {HEAD_LIMIT // 1024} KiB"
_TOO_LONG_BODY = (
    f"the answer's chunk extensions and trailers are larger than {FRAMING_LIMIT // 1024} KiB"
)


def joined_headers(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers by name in lower case, repeated ones joined by `, ` (RFC 9110 section 5.3).

    Example:
        >>> joined_headers([(b"A", b"1"), (b"a", b"2 ")])
        {'a': '1, 2'}
    """
    headers: dict[str, str] = {}
    repeated: dict[str, list[str]] = {}
    for raw_name, raw_value in pairs:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1").strip(" \t")
        if name in headers:
            repeated.setdefault(name, [headers[name]]).append(value)
        else:
            headers[name] = value
    for name, values in repeated.items():
        headers[name] = ", ".join(values)
    return headers
