"""JSON Schemas of requests and responses, for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thorn_core.api.deliveries import ATTEMPTS_SHOWN
from thorn_core.api.problems import KINDS, SHOWN, TYPE_PREFIX
from thorn_core.api.stats import COUNTED, OUTCOMES
from thorn_core.api.validation import MOST_PATTERNS
from thorn_core.delivery import HEADER_COUNT, HEADER_LENGTH
from thorn_core.patterns import MAX_LENGTH, MAX_WORDS
from thorn_core.recipients import LONGEST_URL
from thorn_core.signatures import HMAC_DIGESTS, LONGEST_TEXT, SHORTEST_TEXT, fits_schemes
from thorn_core.stores import PERCENTILES
from thorn_core.subscriptions import (
    DESCRIPTION_LENGTH,
    LONGEST_OVERLAP,
    PRINTABLE,
    SubscriptionRules,
)
from thorn_core.values import DeliveryState

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
OPTIONAL_TEXT: Schema = {"type": ["string", "null"]}
WHOLE: Schema = {"type": "integer"}
SWITCH: Schema = {"type": "boolean"}
URL: Schema = {"type": "string", "format": "uri-reference"}
TIME: Schema = {"type": "string", "format": "date-time"}
OPTIONAL_TIME: Schema = {"type": ["string", "null"], "format": "date-time"}
# Regular expressions with the same meaning in ECMA-262, Python and Rust.
_WORD = r"([A-Za-z0-9_-]+|\*)"
PATTERN: Schema = {
    "type": "string",
    "maxLength": MAX_LENGTH,
    "pattern": rf"^{_WORD}(\.{_WORD}){{0,{MAX_WORDS - 1}}}$",
}
_HEADER_NAME = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"
_HEADER_VALUE = r"^[\t -~]*$"
_ABSOLUTE_URL = r"^[Hh][Tt][Tt][Pp][Ss]?://[^/?#@\\\s]{1,253}([/?#][^\\\s]*)?$"
_B64 = "[A-Za-z0-9+/]"
# The characters that encoders write before one or two = signs.
_ONE, _TWO = "[AEIMQUYcgkosw048]=", "[AQgw]=="
# 24 to 64 bytes.
_BYTES = rf"({_B64}{{4}}){{8,20}}({_B64}{{4}}|{_B64}{{2}}{_ONE}|{_B64}{_TWO}|{_B64}{{5}}{_TWO})?$"
# Formats of keys, each with an example that shows whether the schemes in use accept it.
_KEY_FORMS: tuple[tuple[str, Schema], ...] = (
    ("whsec_" + 32 * "A", {"pattern": rf"^whsec_{_BYTES}"}),
    (32 * "A", {"pattern": f"^{_BYTES}"}),
    ("whsk_" + 43 * "A" + "=", {"pattern": rf"^whsk_{_B64}{{42}}{_ONE}$"}),
    (
        SHORTEST_TEXT * "?",
        {
            "minLength": SHORTEST_TEXT,
            "maxLength": LONGEST_TEXT,
            "pattern": "^[!-~]([ -~]*[!-~])?$",
            "not": {"pattern": "^(whsec_|whsk_|whpk_|v1,)"},
        },
    ),
)


def ref(name: str) -> Schema:
    """Return a reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def described(schema: Mapping[str, Any], description: str) -> Schema:
    """Return a schema with a description."""
    return {**schema, "description": description}


def obj(properties: Mapping[str, Schema], *, optional: tuple[str, ...] = ()) -> Schema:
    """Return the schema of an object; its properties are required, except the optional ones."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "required": required, "properties": dict(properties)}


def listed(item: Schema) -> Schema:
    """Return the schema of a page of a list."""
    following = described(OPTIONAL_TEXT, "URL of the next page; null on the last one.")
    return obj({"items": {"type": "array", "items": item}, "next": following})


def schemas(rules: SubscriptionRules) -> dict[str, Schema]:
    """Return all schemas of the document, by name.

    Args:
        rules: The app's rules, which define the allowed values.
    """
    fields = _fields(rules)
    secret = _secret(rules)
    new = {**fields, "headers": _headers(kept=False), "hmac_secret": secret}
    change = _taken({**_READ_ONLY, **fields})
    return {
        "Subscription": _subscription(fields),
        "SubscriptionWithSecret": _with(
            "Subscription",
            {
                "secret": described(
                    OPTIONAL_TEXT,
                    "The new secret, which verifies requests. Shown only once: store it. Null if"
                    " recipients verify with public_key alone.",
                )
            },
        ),
        "RotatedSubscription": _with(
            "SubscriptionWithSecret",
            {
                "former_secrets_until": described(
                    OPTIONAL_TIME, "The old secrets keep signing until then."
                )
            },
        ),
        "NewSubscription": {
            **_taken(new),
            "required": ["event", "url"],
        },
        "SubscriptionChange": described(
            change, "Omitted fields keep their values. Read-only fields may be sent back unchanged."
        ),
        "SubscriptionReplacement": described(
            {**change, "required": ["event", "url"]},
            "Omitted fields get their default values.",
        ),
        "NewSecret": _taken({"hmac_secret": secret, "overlap": _OVERLAP}),
        "Subscriptions": listed(ref("Subscription")),
        "Delivery": obj(_DELIVERY),
        "DeliveryDetail": _with("Delivery", _DETAIL),
        "Deliveries": listed(ref("Delivery")),
        "Message": obj(_MESSAGE),
        "Attempt": obj(_ATTEMPT),
        "SentTest": obj({"message_id": TEXT, "event": TEXT, "delivery_id": TEXT, "delivery": URL}),
        "Recover": {**_taken(_RECOVER), "required": ["since"]},
        "Recovered": obj(
            {
                "recovered": described(WHOLE, "Number of deliveries that will be made."),
                "cursor": described(OPTIONAL_TEXT, "Send it back to continue. Null at the end."),
            }
        ),
        "Stats": obj(_STATS),
        "EventType": obj(_EVENT_TYPE),
        "EventTypes": listed(ref("EventType")),
        "Problem": _problem(),
    }


def _with(base: str, properties: Mapping[str, Schema]) -> Schema:
    return {"allOf": [ref(base), obj(properties)]}


def _taken(properties: Mapping[str, Schema]) -> Schema:
    """Return the schema of an object in a request, without unknown fields."""
    return {"type": "object", "properties": dict(properties), "additionalProperties": False}


def _secret(rules: SubscriptionRules) -> Schema:
    """Return the schema of a secret in a request, as the schemes in use accept it."""
    forms = [form for sample, form in _KEY_FORMS if fits_schemes(rules.schemes, sample)]
    described_by = {"anyOf": [*forms, {"type": "null"}]} if forms else {}
    return {
        **OPTIONAL_TEXT,
        **described_by,
        "description": "The secret that signs requests. If omitted, one is generated.",
    }


def _fields(rules: SubscriptionRules) -> dict[str, Schema]:
    """Return the writable fields of a subscription."""
    pattern = described(
        PATTERN, "Words joined by dots. * matches one word; at the end, one or more words."
    )
    return {
        "event": {
            "description": "Event pattern, or several.",
            "oneOf": [
                pattern,
                {"type": "array", "minItems": 1, "maxItems": MOST_PATTERNS, "items": pattern},
            ],
        },
        "url": {
            "type": "string",
            "format": "uri",
            "maxLength": LONGEST_URL,
            "pattern": _ABSOLUTE_URL,
            "description": "URL that receives the requests: a public host, over HTTP or HTTPS.",
        },
        "content_type": {
            "type": "string",
            "enum": sorted(rules.content_types),
            "default": "application/json",
            "description": "Encoding of request bodies.",
        },
        "hmac_digest": {
            "type": "string",
            "enum": list(HMAC_DIGESTS),
            "default": "sha256",
            "description": "Digest for the Hook-HMAC header.",
        },
        "headers": _headers(kept=True),
        "description": {
            "type": "string",
            "maxLength": DESCRIPTION_LENGTH,
            "pattern": PRINTABLE,
            "default": "",
            "description": "Optional note.",
        },
        "rate_limit": {
            "type": ["number", "null"],
            "minimum": 1 / 3600,
            "maximum": 100_000,
            "description": "Maximum requests per second; null for no limit.",
        },
        "enabled": {
            "type": "boolean",
            "default": True,
            "description": "False stops deliveries.",
        },
    }


def _headers(*, kept: bool) -> Schema:
    """Return the schema of headers; for an existing subscription, null keeps a hidden value."""
    value: Schema = {"type": "string", "maxLength": HEADER_LENGTH, "pattern": _HEADER_VALUE}
    if kept:
        hidden = "Null in a response hides the value; sending null back keeps it."
        value = described({**value, "type": ["string", "null"]}, hidden)
    return {
        "type": "object",
        "maxProperties": HEADER_COUNT,
        "propertyNames": {"pattern": _HEADER_NAME, "maxLength": SHOWN},
        "additionalProperties": value,
        "description": "Extra request headers.",
    }


def _subscription(fields: Mapping[str, Schema]) -> Schema:
    patterns = {"type": "array", "items": TEXT, "description": "Event patterns."}
    # Subscriptions created by an operator's program may differ.
    url = {name: value for name, value in fields["url"].items() if name != "pattern"}
    return obj({**_READ_ONLY, **fields, "event": patterns, "url": url})


_OVERLAP: Schema = {
    "type": ["number", "null"],
    "minimum": 0,
    "maximum": LONGEST_OVERLAP,
    "description": "Seconds that the old secrets keep signing; 0 revokes them immediately. Null"
    " for the server's default.",
}
_READ_ONLY: Mapping[str, Schema] = {
    name: {**schema, "readOnly": True}
    for name, schema in {
        "id": TEXT,
        "subscription": described(URL, "URL of this subscription."),
        "deliveries": described(URL, "URL of its deliveries."),
        "owner": described(OPTIONAL_TEXT, "ID of the owner; null for an operator subscription."),
        "public_key": described(
            OPTIONAL_TEXT,
            "Key that verifies Ed25519 signatures (whpk_…); null if the subscription has none.",
        ),
        "paused": described(
            SWITCH, "True holds deliveries; changed by the pause and resume operations."
        ),
        "disabled_reason": described(OPTIONAL_TEXT, "Reason why the subscription is disabled."),
        "failing_since": described(OPTIONAL_TIME, "Time since which all attempts have failed."),
        "created_at": TIME,
        "updated_at": TIME,
    }.items()
}
_DELIVERY: Mapping[str, Schema] = {
    "id": TEXT,
    "delivery": described(URL, "URL of this delivery."),
    "subscription_id": TEXT,
    "subscription": described(
        {**OPTIONAL_TEXT, "format": "uri-reference"}, "Null if it isn't accessible here."
    ),
    "message_id": described(TEXT, "Value of the webhook-id header."),
    "event": TEXT,
    "origin": described(
        OPTIONAL_TEXT, "Origin of the subscription's URL; null if the subscription is gone."
    ),
    "state": described(
        {"type": "string", "enum": [*(str(state) for state in DeliveryState), "held"]},
        "Pending deliveries are held while their subscription is paused.",
    ),
    "reason": described(OPTIONAL_TEXT, "Reason for the current state."),
    "attempt_count": WHOLE,
    "created_at": TIME,
    "due_at": described(OPTIONAL_TIME, "Time of the next attempt, while pending."),
    "finished_at": OPTIONAL_TIME,
}
_DETAIL: Mapping[str, Schema] = {
    "message": {"oneOf": [ref("Message"), {"type": "null"}]},
    "attempts": {
        "type": "array",
        "items": ref("Attempt"),
        "maxItems": ATTEMPTS_SHOWN,
        "description": f"Oldest first; only the latest {ATTEMPTS_SHOWN}.",
    },
}
_MESSAGE: Mapping[str, Schema] = {
    "id": TEXT,
    "event": TEXT,
    "at": described(TIME, "Time when the event was sent."),
    "sender": described(OPTIONAL_TEXT, "ID of the user or tenant that the event is about."),
    "ref": described(OPTIONAL_TEXT, "URL of the object that the event is about."),
    "data": {"description": "The payload."},
}
_ATTEMPT: Mapping[str, Schema] = {
    "id": TEXT,
    "number": WHOLE,
    "at": TIME,
    "duration": described({"type": "number"}, "Seconds."),
    "ok": described(SWITCH, "Whether the recipient responded with 2xx."),
    "status": {"type": ["integer", "null"]},
    "headers": {"type": "object", "additionalProperties": TEXT},
    "body": described(TEXT, "Beginning of the response body."),
    "error": described(OPTIONAL_TEXT, "Error, if there was no response."),
    "timed_out": SWITCH,
}
_LATENCY: Schema = {
    "type": ["object", "null"],
    "required": [f"p{percentile}" for percentile in PERCENTILES],
    "properties": {f"p{percentile}": {"type": "number"} for percentile in PERCENTILES},
}
_PERIOD: Mapping[str, Schema] = {
    "at": described(TIME, "Start of the period."),
    **{
        name: described(
            WHOLE,
            f"Number of deliveries of events of the period that are {' or '.join(states)}.",
        )
        for name, states in OUTCOMES.items()
    },
    "latency": described(
        _LATENCY, "Response times in seconds, by percentile; null if there were none."
    ),
}
_STATS: Mapping[str, Schema] = {
    "since": TIME,
    "until": TIME,
    "step": described(WHOLE, "Length of each period in seconds."),
    "complete": described(SWITCH, f"False if only the newest {COUNTED:,} deliveries were counted."),
    "periods": described(
        {"type": "array", "items": obj(_PERIOD)}, "Consecutive periods, oldest first."
    ),
}
_RECOVER: Mapping[str, Schema] = {
    "since": described(TIME, "Only events sent at or after this time."),
    "until": described(OPTIONAL_TIME, "Only events sent before this time."),
    "event": described(
        {**PATTERN, "type": ["string", "null"]}, "Only events that match this pattern."
    ),
    "missing": described(
        {**SWITCH, "default": False},
        "Also deliver matching events that the subscription never got, for example because it was"
        " created later.",
    ),
    "cursor": described(OPTIONAL_TEXT, "Cursor from the previous response, to continue."),
}
_EVENT_TYPE: Mapping[str, Schema] = {
    "name": TEXT,
    "event": described(TEXT, "Event pattern to subscribe to."),
    "description": TEXT,
    "schema": described({"type": ["object", "null"]}, "JSON Schema of the payload."),
    "example": {"description": "Example payload."},
}


def _problem() -> Schema:
    fault = obj(
        {
            "field": described(TEXT, "Field name; nested fields are dotted: headers.X-Name."),
            "value": {"description": "The value given, shortened; never a secret."},
            "message": TEXT,
            "allowed": {"type": "array", "items": TEXT},
        },
        optional=("value", "allowed"),
    )
    kinds = [TYPE_PREFIX + kind for kind in KINDS]
    problem = obj(
        {
            "type": {"type": "string", "format": "uri", "enum": kinds},
            "title": TEXT,
            "status": WHOLE,
            "detail": TEXT,
            "errors": {"type": "array", "items": fault, "description": "All errors found."},
        },
        optional=("errors",),
    )
    return described(problem, "RFC 9457")
