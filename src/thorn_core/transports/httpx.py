"""The transport that is always there: h11, the HTTP parser that httpx stands on."""

from __future__ import annotations

from thorn_core.transports.answers import AnswerReader
from thorn_core.transports.connections import Http1Transport


class HttpxTransport(Http1Transport):
    """Performs requests on kept connections and reads their answers by h11.

    httpx installs h11. Its client isn't used: it reads interim answers without a bound, doesn't
    tell whether anything follows an answer, and adds cookies, proxies and redirects.

    Args:
        resolver: Looks names up; None asks the operating system.
        ssl_context: For TLS; None verifies certificates by the system's roots.
        max_connections: Idle connections to keep.
        idle_timeout: Seconds after which an idle connection is closed.
    """

    make_reader = AnswerReader
