"""`thorn listen`: a local recipient that verifies and prints webhooks."""

from __future__ import annotations

import asyncio
import json
import signal
from functools import partial
from http.client import responses
from queue import SimpleQueue

import click
from rich.console import Console
from rich.text import Text

from thorn_core.cli.common import console, plain, write_json
from thorn_core.settings import Settings
from thorn_core.signatures import (
    PUBLIC_PREFIX,
    SCHEMES,
    StandardWebhooksEd25519,
    is_private,
    make_keys,
)
from thorn_core.testing.recipient import LocalRecipient, Received

SHOWN = ("webhook-id", "webhook-timestamp", "hook-delivery", "hook-subscription", "content-type")


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option(
    "--port",
    default=8000,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 picks a free one.",
)
@click.option("--secret", help="Secret for verification (default: a new one, which is printed).")
@click.option(
    "--scheme",
    default="standard-webhooks",
    show_default=True,
    type=click.Choice(sorted(SCHEMES)),
)
@click.option(
    "--status",
    default=200,
    show_default=True,
    type=click.IntRange(200, 599),
    help="Status code to respond with.",
)
@click.option("--count", type=click.IntRange(1), help="Exit after this many requests.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line per request.")
def listen(
    host: str,
    port: int,
    secret: str | None,
    scheme: str,
    status: int,
    count: int | None,
    *,
    as_json: bool,
) -> int:
    """Receive webhooks on this machine, verify and print them.

    Exits 1 if any request fails verification.
    """
    verifier, signer = _keys(secret, scheme)
    arrived: SimpleQueue[Received | None] = SimpleQueue()
    # Drops requests once they are printed.
    recipient = LocalRecipient(secret=verifier, scheme=scheme, host=host, port=port, limit=1)
    try:
        recipient.start()
    except OSError as error:
        raise click.ClickException(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --port"
            " or --host"
        ) from error
    recipient.behave(partial(_take, arrived, status))
    ends = {
        number: signal.signal(number, lambda *_: arrived.put(None))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        out = console()
        if not as_json:
            out.print(f"Listening on [bold]{recipient.url}[/] ({scheme}). Press Ctrl-C to stop.")
            if secret is None:
                out.print(f"Secret: {signer}", soft_wrap=True)
                out.print(Text(f"Try: {_example(recipient.url, scheme, signer)}"), soft_wrap=True)
        return _follow(arrived, count, out, as_json=as_json)
    finally:
        for number, handler in ends.items():
            signal.signal(number, handler)
        recipient.stop()


def _keys(secret: str | None, scheme: str) -> tuple[str, str]:
    """Return the keys that verify and sign; they differ for asymmetric schemes.

    Raises:
        ConfigurationError: The secret is invalid for the scheme.
    """
    if secret is not None and scheme.endswith("ed25519") and secret.startswith(PUBLIC_PREFIX):
        return secret, secret
    (signer,) = make_keys([SCHEMES[scheme]], secret)
    if is_private(signer):
        return StandardWebhooksEd25519().public_key(signer), signer
    return signer, signer


def _example(url: str, scheme: str, secret: str) -> str:
    """Return a command line that sends a webhook to this recipient."""
    schemes = "" if scheme in Settings().signatures else f"THORN_SIGNATURES='[\"{scheme}\"]' "
    return (
        f'{schemes}thorn send article.created \'{{"title": "Hello"}}\''
        f" --url {url} --secret {secret} --allow-local"
    )


async def _take(
    arrived: SimpleQueue[Received | None],
    status: int,
    request: Received,
    writer: asyncio.StreamWriter,
) -> bool:
    """Respond, then pass the request on, because `--count` may stop the server afterwards."""
    length = "" if status in (204, 304) else "Content-Length: 0\r\n"
    try:
        writer.write(
            f"HTTP/1.1 {status} {responses.get(status, 'Answer')}\r\n{length}\r\n".encode()
        )
        await writer.drain()
    finally:
        arrived.put(request)
    return True


def _follow(
    arrived: SimpleQueue[Received | None], count: int | None, out: Console, *, as_json: bool
) -> int:
    shown, good = 0, True
    while (count is None or shown < count) and (request := arrived.get()) is not None:
        good = good and bool(request.verified)
        if as_json:
            write_json([_plain(request)])
        else:
            _show(request, out)
        shown += 1
    return 0 if good else 1


def _plain(request: Received) -> dict[str, object]:
    return {
        "at": request.at.isoformat(),
        "method": request.method,
        "path": request.path,
        "event": request.headers.get("hook-event"),
        "verified": request.verified,
        "error": request.error,
        "headers": dict(request.headers),
        "body": request.body.decode("utf-8", "replace"),
    }


def _show(request: Received, out: Console) -> None:
    verdict = "✓ verified" if request.verified else f"✗ {request.error}"
    out.print()
    out.print(
        Text.assemble(
            f"{request.at.astimezone():%H:%M:%S} ",
            plain(f"{request.method} {request.path} "),
            (plain(request.headers.get("hook-event", "(no Hook-Event)")).plain, "bold"),
            " ",
            (plain(verdict).plain, "green" if request.verified else "red"),
        ),
        soft_wrap=True,
    )
    for name in SHOWN:
        if name in request.headers:
            line = Text.assemble((f"  {name}: ", "dim"), plain(request.headers[name]))
            out.print(line, soft_wrap=True)
    try:
        text = json.dumps(request.json, indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        text = request.body.decode("utf-8", "replace")
    out.print(plain("\n".join("  " + line for line in text.splitlines())), soft_wrap=True)
