"""Request bodies: one JSON object (RFC 8259), within limits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from thorn_core.api.exchange import JSON, ApiRequest
from thorn_core.api.problems import Problem, faulty, shortened
from thorn_core.api.validation import unknown
from thorn_core.codecs import load_json

# Several times as many as any valid request has.
MOST_FIELDS = 100
DEEPEST = 20
_UTF8 = re.compile(r"(?:;\s*charset=\"?utf-?8\"?\s*)?", re.IGNORECASE)


def read_object(request: ApiRequest) -> dict[str, Any]:
    """Return the JSON object in a body; an empty one if there is no body.

    Raises:
        Problem: It isn't a JSON object, or has another content type.
    """
    if not request.body:
        return {}
    _check_type(request.headers)
    try:
        value = load_json(request.body)
        _check_depth(value)
    except ValueError as error:
        raise Problem("malformed", f"The body is not valid JSON: {error}.") from error
    if not isinstance(value, dict):
        raise Problem("malformed", 'The body is not a JSON object; send {"name": value, …}.')
    if len(value) > MOST_FIELDS:
        raise Problem(
            "malformed", f"The body has {len(value)} fields; at most {MOST_FIELDS} are allowed."
        )
    return value


def read_options(request: ApiRequest, known: Iterable[str]) -> dict[str, Any]:
    """Return the JSON object in a body; refuse other fields than these.

    Raises:
        Problem: It isn't a JSON object, or has other fields.
    """
    body = read_object(request)
    names = tuple(known)
    faults = [unknown(name, names) for name in body if name not in names]
    if faults:
        raise faulty("invalid", faults)
    return body


def _check_type(headers: Mapping[str, str]) -> None:
    # Required against CSRF: browsers send forms to other sites without a preflight, but not JSON.
    given = headers.get("content-type", "")
    media, semicolon, parameters = given.strip().partition(";")
    if media.strip().lower() != JSON or not _UTF8.fullmatch(semicolon + parameters):
        said = f"is {shortened(given)}" if given else "is missing"
        raise Problem(
            "unsupported-media-type",
            f"The body's content type {said}; send {JSON} in UTF-8.",
            headers={"accept": JSON},
        )
    if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise Problem(
            "unsupported-media-type",
            "The body is compressed; send it uncompressed.",
            headers={"accept-encoding": "identity"},
        )


def _check_depth(value: Any) -> None:
    # Checked here, so that every response can repeat these values.
    level = [value]
    for _ in range(DEEPEST):
        level = [
            child
            for each in level
            if isinstance(each, dict | list)
            for child in (each.values() if isinstance(each, dict) else each)
        ]
    if level:
        raise ValueError("it is nested too deeply")
