"""The fast transport: httptools' HTTP parser, in C (extra `fast`)."""

from __future__ import annotations

import re

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from thorn_core.transports.answers import AnswerReader, joined_headers
from thorn_core.transports.connections import Http1Transport
from thorn_core.transports.limits import CHUNK_LIMIT, HEAD_LIMIT, LINE_LIMIT
from thorn_core.values import Response

_WITHOUT_BODY = frozenset({204, 304})  # RFC 9112 section 6.3
# No sane length is longer; h11 decides what this one is.
_LENGTH_DIGITS = 18
_CONTROLS = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class _Unusual(Exception):  # noqa: N818 - never leaves this file
    """This answer is for the careful reader."""


class FastReader:
    """Reads plain answers by httptools, and leaves all others to `AnswerReader`."""

    __slots__ = (
        "_body",
        "_careful",
        "_complete",
        "_headers",
        "_keep",
        "_limit",
        "_method",
        "_pairs",
        "_parser",
        "_parts",
        "_received",
        "_status",
        "response",
        "reusable",
    )

    def __init__(self) -> None:
        self._parser = HttpResponseParser(self)
        self._careful: AnswerReader | None = None

    def begin(self, method: str, response_limit: int) -> None:
        """Expect an answer."""
        self.response: Response | None = None
        self.reusable = False
        self._method = method
        self._limit = response_limit
        self._received = b""
        self._pairs: list[tuple[bytes, bytes]] = []
        self._headers: dict[str, str] = {}
        self._body = b""
        self._status = self._parts = 0
        self._complete = self._keep = False
        if self._careful is not None:
            self._careful = None
            self._parser = HttpResponseParser(self)
        if method == "HEAD":  # httptools can't be told that there will be no body
            self._hand_over()

    def feed(self, data: bytes) -> bool:
        """Take what arrived."""
        if self._careful is not None:
            return self._followed(self._careful.feed(data))
        self._received = self._received + data if self._received else data
        if len(self._received) > HEAD_LIMIT:
            return self._hand_over()
        clean = True
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            clean = False
        if self._complete or len(self._body) > self._limit:
            self.reusable = clean and self._keep and self._exact()
            self._received = b""
            self.response = Response(
                status=self._status, headers=self._headers, body=self._body[: self._limit]
            )
            return True
        return False if clean else self._hand_over()

    def end(self) -> bool:
        """Take the end of the connection."""
        if self._careful is None and self._hand_over():
            return True
        assert self._careful is not None
        return self._followed(self._careful.end())

    def _hand_over(self) -> bool:
        self._careful = AnswerReader()
        self._careful.begin(self._method, self._limit)
        return self._followed(self._careful.feed(self._received))

    def _followed(self, complete: bool) -> bool:  # noqa: FBT001
        assert self._careful is not None
        self.response, self.reusable = self._careful.response, self._careful.reusable
        return complete

    def _exact(self) -> bool:
        """Whether the answer ends with the last byte received.

        httptools doesn't tell where a message ended, and takes the beginning of another one
        (which nobody asked for) without a word.
        """
        received, headers = self._received, self._headers
        if "transfer-encoding" in headers and self._status not in _WITHOUT_BODY:
            return received.endswith(b"\r\n0\r\n\r\n")
        length = 0 if self._status in _WITHOUT_BODY else int(headers.get("content-length", -1))
        return received.find(b"\r\n\r\n") + 4 + length == len(received)

    # -- what httptools calls

    def on_status(self, reason: bytes) -> None:
        """Take the reason phrase."""
        if reason != b"OK" and _CONTROLS.search(reason):
            raise _Unusual

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        if self._status:
            raise _Unusual  # a trailer
        if len(self._pairs) == LINE_LIMIT:
            raise _Unusual
        self._pairs.append((name, value))

    def on_headers_complete(self) -> None:
        """Take the end of the head."""
        if self._status:
            raise _Unusual  # that of a second answer
        self._headers = headers = joined_headers(self._pairs)
        status = self._parser.get_status_code()
        if (
            status < 200
            or headers.get("transfer-encoding", "chunked").lower() != "chunked"
            or len(headers.get("content-length", "")) > _LENGTH_DIGITS
            or len(self._pairs) > LINE_LIMIT - 2  # less the status line and the empty one
        ):
            raise _Unusual
        self._status = status

    def on_body(self, data: bytes) -> None:
        """Take some of the body: a chunk, or a part of one."""
        if self._parts == CHUNK_LIMIT:
            raise _Unusual
        self._parts += 1
        self._body = self._body + data if self._body else data

    def on_message_complete(self) -> None:
        """Take the end of the answer."""
        self._complete, self._keep = True, self._parser.should_keep_alive()


class FastTransport(Http1Transport):
    """Performs requests on kept connections and reads their answers by httptools.

    httptools reads the plain answer that nearly every recipient gives. Whatever is unusual about
    one (interim answers, trailers, more than 64 KiB, anything that httptools refuses) is read
    again from its first byte by `AnswerReader`. So both transports agree on every answer.

    Args:
        resolver: Looks names up; None asks the operating system.
        ssl_context: For TLS; None verifies certificates by the system's roots.
        max_connections: Idle connections to keep.
        idle_timeout: Seconds after which an idle connection is closed.
    """

    make_reader = FastReader
