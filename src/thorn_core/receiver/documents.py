"""Documents: the event, id, audience and data in the body of a webhook, by its envelope."""

from __future__ import annotations

import logging
from base64 import b64decode
from collections.abc import Mapping
from typing import Any

import attrs

from thorn_core.codecs import Decoder, load_json
from thorn_core.errors import PayloadError

logger = logging.getLogger(__name__)

JSON = "application/json"


@attrs.frozen
class Document:
    """The content of a body; None for missing parts.

    Attributes:
        data: The payload.
        event: The event's name.
        id: The message's id.
        sender: The user or tenant that the message is about.
        ref: The URL of the object.
        audience: The recipient's URL, according to the sender.
    """

    data: Any = attrs.field(repr=False)
    event: str | None = None
    id: str | None = None
    sender: str | None = None
    ref: str | None = None
    audience: str | None = None


def document_of(body: bytes, content_type: str, decoders: Mapping[str, Decoder]) -> Document:
    """Decode a body, and recognise Thorn's envelopes, CloudEvents, Standard Webhooks and Stripe's.

    No signature covers the content type, so a decoder must refuse bodies of other types.

    Args:
        body: The body.
        content_type: The header's value; a type without a decoder is read as JSON.
        decoders: By content type.

    Raises:
        PayloadError: The body doesn't match its content type.
    """
    kind = _kind(content_type)
    return _recognised(_decoded(body, kind, decoders.get(kind), "the body"), decoders)


def _kind(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower() or JSON


def _decoded(body: bytes, kind: str, decoder: Decoder | None, where: str) -> Any:
    try:
        return (load_json if decoder is None else decoder)(body)
    except (ValueError, RecursionError) as error:
        known = "" if decoder else f", and there is no decoder for {kind}; pass decoders={{…}}"
        raise PayloadError(f"{where} is not valid {kind}: {error}{known}") from error
    except Exception as error:
        logger.exception("the decoder of %r failed", kind)
        raise PayloadError(f"the decoder of {kind} failed; see the log") from error


def _recognised(value: Any, decoders: Mapping[str, Decoder]) -> Document:
    if not isinstance(value, dict):
        return Document(value)
    text = {k: v for k, v in value.items() if isinstance(v, str)}
    audience = text.get("audience")
    if "specversion" in value:
        return Document(
            _cloudevents_data(value, text, decoders),
            text.get("type"),
            text.get("id"),
            ref=text.get("subject"),
            audience=audience,
        )
    if "event" in text and (found := _thorn_data(value)) is not None:
        sender, ref = text.get("sender"), text.get("ref")
        return Document(found[0], text["event"], None, sender, ref, audience)
    if "type" in text and "timestamp" in value and "data" in value:
        return Document(value["data"], text["type"], audience=audience)
    if "type" in text:  # of Stripe and many others
        return Document(value, text["type"], text.get("id"))
    return Document(value)


def _cloudevents_data(
    value: dict[Any, Any], text: Mapping[Any, str], decoders: Mapping[str, Decoder]
) -> Any:
    """Return the payload of a CloudEvent: `data` or `data_base64` (JSON format 1.0, 3.1).

    The decoder for its `datacontenttype` decodes `data_base64`. Without a decoder, the payload is
    the base64 text, because messages contain only JSON values.
    """
    if "data_base64" not in value:
        return value.get("data")
    if "data" in value:
        raise PayloadError("the CloudEvent has both data and data_base64; send one of them")
    encoded = value["data_base64"]
    if not isinstance(encoded, str):
        raise PayloadError("data_base64 of the CloudEvent is not a string; send base64 (RFC 4648)")
    try:
        body = b64decode(encoded, validate=True)
    except ValueError as error:
        raise PayloadError(
            "data_base64 of the CloudEvent is not valid base64 (RFC 4648, section 4)"
        ) from error
    kind = _kind(text.get("datacontenttype", JSON))
    decoder = decoders.get(kind) or (load_json if kind.endswith("+json") else None)
    return encoded if decoder is None else _decoded(body, kind, decoder, "data_base64")


def _thorn_data(value: dict[Any, Any]) -> tuple[Any] | None:
    """Return the payload of Thorn's envelope in JSON or a form; None if it isn't an envelope."""
    if "data" in value:
        return (value["data"],)
    flat = {k: v for k, v in value.items() if isinstance(k, str) and k.startswith("data[")}
    return (flat,) if flat else None
