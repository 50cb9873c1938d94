"""A recipient: shows each verified webhook once, and refuses all others.

`RECEIVER_SECRET` is the secret of the subscription, `RECEIVER_ADDRESS` the address to listen on.
"""

import os
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from thorn_core.receiver import Answer, MemoryReplayGuard, Receiver

SECRET = os.environ["RECEIVER_SECRET"]
HOST, PORT = os.environ.get("RECEIVER_ADDRESS", "127.0.0.1:8099").split(":")
receiver = Receiver(guard=MemoryReplayGuard())


class Handler(BaseHTTPRequestHandler):
    """Answers webhooks."""

    def do_POST(self):
        length = min(int(self.headers.get("Content-Length", 0)), receiver.limit + 1)
        taken = receiver.take(self.rfile.read(length), dict(self.headers), SECRET)
        if isinstance(taken, Answer):
            self.answer(taken.status)
            return
        message = taken.message
        print(f"verified: {message.event} {message.payload}", flush=True)
        receiver.settle(taken, handled=True)
        self.answer(204)

    def answer(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_request(self, code="-", size="-"):
        """Log nothing: verified webhooks are printed."""


if __name__ == "__main__":
    with ThreadingHTTPServer((HOST, int(PORT)), Handler) as server, suppress(KeyboardInterrupt):
        print(f"Listening on http://{HOST}:{server.server_port}/", flush=True)
        server.serve_forever()
