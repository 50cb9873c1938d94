"""Envelopes, which wrap a message's payload."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs

from thorn_core.codecs import Envelope, format_datetime
from thorn_core.values import Message


def _thorn(message: Message, source: str) -> Envelope:
    return Envelope(
        fields={
            "event": message.event,
            "ref": message.ref,
            "sender": message.sender_name or message.sender or None,
        },
        data=message.data,
    )


def _standard(message: Message, source: str) -> Envelope:
    return Envelope(
        fields={"type": message.event, "timestamp": format_datetime(message.at)}, data=message.data
    )


def _cloudevents(message: Message, source: str) -> Envelope:
    fields = {
        "specversion": "1.0",
        "id": message.id,
        "source": source,
        "type": message.event,
        "time": format_datetime(message.at),
        "datacontenttype": "application/json",
    }
    if message.ref:
        fields["subject"] = message.ref
    return Envelope(fields=fields, data=message.data)


def _bare(message: Message, source: str) -> Envelope:
    return Envelope(fields={}, data=message.data, key=None)


ENVELOPES: Mapping[str, Callable[[Message, str], Envelope]] = {
    "thorn": _thorn,
    "standard": _standard,
    "cloudevents": _cloudevents,
    "bare": _bare,
}


def envelope_of(
    message: Message, kind: str, *, source: str = "thorn", audience: str | None = None
) -> Envelope:
    """Wrap a message's payload.

    Args:
        message: The message.
        kind: `thorn` (event, ref, sender, data), `standard` (type, timestamp, data: Standard
            Webhooks 1.0), `cloudevents` (CloudEvents 1.0, structured JSON) or `bare` (the payload
            alone, as Thorn 1.x sent plain events).
        source: The `source` of CloudEvents.
        audience: The recipient's URL, included in the envelope; None omits it.
    """
    envelope = ENVELOPES[kind](message, source)
    if audience is None or not envelope.fields:
        return envelope
    return attrs.evolve(envelope, fields={**envelope.fields, "audience": audience})
