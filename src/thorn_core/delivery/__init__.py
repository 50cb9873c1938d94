"""Pure functions for deliveries: their requests, outcomes and next attempts."""

from thorn_core.delivery.deliveries import (
    in_flight,
    make_cancelled_delivery,
    make_delivery,
    make_unstored_delivery,
)
from thorn_core.delivery.envelopes import envelope_of
from thorn_core.delivery.headers import (
    HEADER_COUNT,
    HEADER_LENGTH,
    PROTECTED_HEADERS,
    check_headers,
    merge_headers,
)
from thorn_core.delivery.operational import disabled_message, failing_message
from thorn_core.delivery.outcomes import judge, retry_after
from thorn_core.delivery.redirects import REDIRECT_LIMIT, follow_redirect, leaves_https
from thorn_core.delivery.requests import build_request, encode_body, sign_request

__all__ = [
    "HEADER_COUNT",
    "HEADER_LENGTH",
    "PROTECTED_HEADERS",
    "REDIRECT_LIMIT",
    "build_request",
    "check_headers",
    "disabled_message",
    "encode_body",
    "envelope_of",
    "failing_message",
    "follow_redirect",
    "in_flight",
    "judge",
    "leaves_https",
    "make_cancelled_delivery",
    "make_delivery",
    "make_unstored_delivery",
    "merge_headers",
    "retry_after",
    "sign_request",
]
