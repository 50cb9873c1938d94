"""Who may be sent to: validators of recipients' URLs and of the addresses behind them.

A validator is a frozen value that says no by raising `SecurityError`. The same ones are asked
twice: by `check_url` when a subscription is made and before each request, and by `check_address`
for every address that a connection may be opened to. Nothing here looks a name up.
"""

from thorn_core.recipients.addresses import Address, Network, address_text, ip_literal
from thorn_core.recipients.checks import check_address, check_url
from thorn_core.recipients.urls import LONGEST_URL, RecipientURL, parse_url, recipient_of
from thorn_core.recipients.validators import (
    DEFAULT_VALIDATORS,
    RecipientValidator,
    allow_cidr_network,
    as_validator,
    block_cidr_network,
    block_internal_ips,
    ensure_port,
    ensure_protocol,
)

__all__ = [
    "DEFAULT_VALIDATORS",
    "LONGEST_URL",
    "Address",
    "Network",
    "RecipientURL",
    "RecipientValidator",
    "address_text",
    "allow_cidr_network",
    "as_validator",
    "block_cidr_network",
    "block_internal_ips",
    "check_address",
    "check_url",
    "ensure_port",
    "ensure_protocol",
    "ip_literal",
    "parse_url",
    "recipient_of",
]
