"""`thorn listen`: a local recipient that verifies and shows what arrives."""

from __future__ import annotations

import json
import signal
import threading

import click
from rich.console import Console
from rich.markup import escape

from thorn_core.cli.common import console, write_json
from thorn_core.signatures import SCHEMES, check_secret, new_secret
from thorn_core.testing.recipient import LocalRecipient, Received

SHOWN = ("webhook-id", "webhook-timestamp", "hook-delivery", "hook-subscription", "content-type")


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True, help="0 takes a free one.")
@click.option("--secret", help="Verify with this secret; without it, one is made and shown.")
@click.option(
    "--scheme",
    default="standard-webhooks",
    show_default=True,
    type=click.Choice(sorted(SCHEMES)),
)
@click.option("--status", default=200, show_default=True, help="Answer with this status.")
@click.option("--count", type=click.IntRange(1), help="Exit after so many requests.")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each request.")
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
    """Receive webhooks on this machine, verify them and show them.

    Exits 1 if any request was not verified.
    """
    made = secret is None
    key = new_secret() if secret is None else check_secret(secret)
    out = console()
    stop = threading.Event()
    try:
        recipient = LocalRecipient(secret=key, scheme=scheme, host=host, port=port)
        recipient.start()
    except OSError as error:
        raise click.ClickException(
            f"can't listen on {host}:{port}: {error.strerror or error}; choose another --port"
        ) from error
    recipient.answer(status=status)
    previous = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        if not as_json:
            out.print(f"Listening on [bold]{recipient.url}[/] ({scheme}). Ctrl-C ends it.")
            if made:
                out.print(f"Secret: {key}")
                out.print(
                    'Try: thorn send article.created \'{"title": "Hello"}\''
                    f" --url {recipient.url} --secret {key} --allow-local",
                    soft_wrap=True,
                )
        return _follow(recipient, stop, count, out, as_json=as_json)
    except KeyboardInterrupt:
        return 0 if all(request.verified for request in recipient.received) else 1
    finally:
        signal.signal(signal.SIGTERM, previous)
        recipient.stop()


def _follow(
    recipient: LocalRecipient,
    stop: threading.Event,
    count: int | None,
    out: Console,
    *,
    as_json: bool,
) -> int:
    shown = 0
    good = True
    while not stop.is_set() and (count is None or shown < count):
        try:
            arrived = recipient.wait_for(shown + 1, timeout=0.2)
        except TimeoutError:
            continue
        for request in arrived[shown:]:
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
    mark = "[green]✓ verified[/]" if request.verified else f"[red]✗ {escape(str(request.error))}[/]"
    event = escape(request.headers.get("hook-event", "(no Hook-Event)"))
    out.print(
        f"\n{request.at:%H:%M:%S} {request.method} {escape(request.path)} [bold]{event}[/] {mark}"
    )
    for name in SHOWN:
        if name in request.headers:
            out.print(f"  [dim]{name}:[/] {escape(request.headers[name])}")
    try:
        text = json.dumps(request.json, indent=2, ensure_ascii=False)
    except ValueError:
        text = request.body.decode("utf-8", "replace")
    out.print(escape("\n".join("  " + line for line in text.splitlines())), soft_wrap=True)
