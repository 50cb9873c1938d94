"""Formats data for pages: safe text of limited length."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from django.utils.html import format_html

from thorn_core import Attempt, Subscription
from thorn_core.api import ApiRequest
from thorn_core.api.representations import subscription_document
from thorn_core.keys import attempt_id
from thorn_django import models

# The maximum number of shown characters of a payload or body.
TEXT_SHOWN = 100_000
# The maximum number of shown bytes of a binary body.
BYTES_SHOWN = 512
MASK = "••••••••"


def readable(data: bytes) -> str:
    """Return bytes as text: indented JSON, plain text, or hexadecimal digits.

    Example:
        >>> print(readable(b'{"a":1}'))
        {
          "a": 1
        }
        >>> readable(bytes([255, 0]))
        'ff 00'
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return _hexadecimal(data)
    try:
        text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        if "\0" in text:
            return _hexadecimal(data)
    return _cut(printable(text), TEXT_SHOWN)


def printable(text: str) -> str:
    """Remove characters that control a terminal or the text direction."""
    kept = (c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
    return "".join(kept)


def _hexadecimal(data: bytes) -> str:
    digits = data[:BYTES_SHOWN].hex(" ")
    lines = [digits[start : start + 48].rstrip() for start in range(0, len(digits), 48)]
    more = len(data) - BYTES_SHOWN
    return "\n".join([*lines, f"… {more:,} more bytes"] if more > 0 else lines)


def _cut(text: str, length: int) -> str:
    if len(text) <= length:
        return text
    return f"{text[:length]}\n… {len(text) - length:,} more characters"


def block(text: str) -> str:
    """Return preformatted text."""
    return format_html('<pre class="thorn-text" tabindex="0">{}</pre>', text)


def header_lines(subscription: Subscription) -> list[str]:
    """Return a subscription's headers; mask possible credentials."""
    document = subscription_document(ApiRequest(method="GET", path="/"), subscription)
    headers: dict[str, str | None] = document["headers"]
    return [f"{name}: {MASK if value is None else value}" for name, value in headers.items()]


def attempt_value(row: models.Attempt) -> Attempt:
    """Return the attempt of a row."""
    return Attempt(
        id=attempt_id(row.delivery_id, row.at),
        delivery_id=row.delivery_id,
        number=row.number,
        at=row.at,
        duration=row.duration / 1_000_000,
        status=row.status,
        headers=row.headers or {},
        body=bytes(row.body or b""),
        error=row.error,
        timed_out=row.timed_out,
    )


def attempt_row(attempt: Attempt) -> dict[str, Any]:
    """Return the page's data of an attempt."""
    return {
        "number": attempt.number,
        "at": attempt.at,
        "took": milliseconds(attempt.duration),
        "ok": attempt.ok,
        "answer": answer(attempt),
        "headers": [(printable(n), printable(v)) for n, v in attempt.headers.items()],
        "body": readable(attempt.body) if attempt.body else "",
    }


def answer(attempt: Attempt) -> str:
    """Return a short description of an attempt's result."""
    return str(attempt.status) if attempt.status is not None else printable(attempt.error or "")


def milliseconds(seconds: float) -> str:
    """Return a duration in milliseconds.

    Example:
        >>> milliseconds(0.0123), milliseconds(12)
        ('12 ms', '12,000 ms')
    """
    return f"{1000 * seconds:,.0f} ms"


def stamp(at: datetime) -> str:
    """Return a time as text for the history."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
