"""Validators of recipients' URLs, and of the addresses behind them.

A validator is a frozen value that refuses a recipient by raising `SecurityError`. `check_url` calls
the validators when a subscription is created and before each request. `check_address` calls them
for every address before a connection is opened. Nothing here resolves names.
"""

from thorn_core.recipients.addresses import Address, Network, address_text, ip_literal
from thorn_core.recipients.checks import METADATA_ADDRESSES, check_address, check_url
from thorn_core.recipients.origins import hides_value, origin_of, same_origin, without_credentials
from thorn_core.recipients.protection import (
    complete_validators,
    is_internal_network,
    open_networks,
    opens_metadata,
)
from thorn_core.recipients.urls import LONGEST_URL, RecipientURL, parse_url
from thorn_core.recipients.validators import (
    DEFAULT_VALIDATORS,
    Ports,
    RecipientValidator,
    allow_cidr_network,
    as_network,
    as_ports,
    as_validator,
    block_cidr_network,
    block_internal_ips,
    ensure_port,
    ensure_protocol,
)

__all__ = [
    "DEFAULT_VALIDATORS",
    "LONGEST_URL",
    "METADATA_ADDRESSES",
    "Address",
    "Network",
    "Ports",
    "RecipientURL",
    "RecipientValidator",
    "address_text",
    "allow_cidr_network",
    "as_network",
    "as_ports",
    "as_validator",
    "block_cidr_network",
    "block_internal_ips",
    "check_address",
    "check_url",
    "complete_validators",
    "ensure_port",
    "ensure_protocol",
    "hides_value",
    "ip_literal",
    "is_internal_network",
    "open_networks",
    "opens_metadata",
    "origin_of",
    "parse_url",
    "same_origin",
    "without_credentials",
]
