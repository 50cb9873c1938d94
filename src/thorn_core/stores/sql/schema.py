"""The tables and indexes of the SQL store, as data.

Times are microseconds since 1970 in UTC. A message's key is the 16 bytes of its id. A delivery's
key is its message's key followed by the 8 bytes of its recipient's key. Both sort by time. A
recipient is the queue's view of a subscription, stored or static; its key derives from the
subscription's id. One column holds a delivery's key, so that an ORM and an admin can address a row.
"""

from __future__ import annotations

from thorn_core.ports.tables import Column, Index, Kind, Table

# The version of the schema that this code works with.
VERSION = "0001"
PREFIX = "thorn_"

# Characters; longer values are refused earlier.
EVENT_LENGTH = 200
OWNER_LENGTH = 255
SUBSCRIPTION_LENGTH = 120
ORIGIN_LENGTH = 270
TOKEN_LENGTH = 64
# Bytes.
MESSAGE_KEY = 16
DELIVERY_KEY = 24
DIGEST = 32

KEY, BYTES, BIG, INT, SMALL = Kind.KEY, Kind.BYTES, Kind.BIG, Kind.INT, Kind.SMALL
REAL, NAME, TEXT = Kind.REAL, Kind.NAME, Kind.TEXT

SUBSCRIPTIONS = Table(
    "subscriptions",
    (
        Column("id", NAME, SUBSCRIPTION_LENGTH),
        # Counts changes for the version check, so that no change overwrites another.
        Column("version", INT),
        Column("owner", NAME, OWNER_LENGTH, null=True),
        Column("url", TEXT),
        Column("events", TEXT),
        Column("secrets", TEXT),
        Column("secret_expiry", TEXT, null=True),
        Column("content_type", NAME, 255),
        Column("hmac_digest", NAME, 16),
        Column("headers", TEXT, null=True),
        Column("description", TEXT),
        Column("rate_limit", REAL, null=True),
        Column("enabled", SMALL),
        # The recipient's row has a copy, for the queue.
        Column("paused", SMALL),
        Column("disabled_reason", TEXT, null=True),
        Column("failing_since", BIG, null=True),
        Column("failures", INT),
        Column("last_failure_at", BIG, null=True),
        Column("created_at", BIG),
        Column("updated_at", BIG),
        # JSON of the rare attributes of a subscription.
        Column("extra", TEXT, null=True),
    ),
    key=("id",),
    indexes=(Index(("owner", "id")),),
)

PATTERNS = Table(
    "patterns",
    (
        Column("pattern", NAME, EVENT_LENGTH),
        # Empty for operators' subscriptions: an owner's id is never empty.
        Column("owner", NAME, OWNER_LENGTH),
        Column("subscription_id", NAME, SUBSCRIPTION_LENGTH),
    ),
    key=("pattern", "owner", "subscription_id"),
    indexes=(Index(("pattern", "subscription_id")), Index(("subscription_id",))),
    narrow=True,
)

OWNERS = Table(
    "owners",
    (
        Column("id", BIG),
        Column("owner", NAME, OWNER_LENGTH),
        Column("ready_at", BIG, null=True),
        Column("tat", BIG, null=True),
    ),
    key=("id",),
    indexes=(Index(("owner",), unique=True), Index(("ready_at",))),
    narrow=True,
    churning=True,
)

RECIPIENTS = Table(
    "recipients",
    (
        Column("id", BIG),
        Column("subscription_id", NAME, SUBSCRIPTION_LENGTH),
        Column("owner", NAME, OWNER_LENGTH, null=True),
        Column("origin", NAME, ORIGIN_LENGTH),
        # The time of the next claimable delivery, or an earlier time. NULL: nothing waits, or the
        # recipient is paused.
        Column("ready_at", BIG, null=True),
        Column("paused", SMALL),
        # No requests before this time: the recipient asked for a pause.
        Column("blocked_until", BIG),
        Column("circuit", SMALL),
        Column("probe_until", BIG, null=True),
        Column("tat", BIG, null=True),
    ),
    key=("id",),
    indexes=(Index(("subscription_id",), unique=True), Index(("ready_at", "id"))),
    narrow=True,
    churning=True,
)

MESSAGES = Table(
    "messages",
    (
        Column("id", KEY, MESSAGE_KEY),
        Column("event", NAME, EVENT_LENGTH),
        Column("data", BYTES),
        Column("at", BIG),
        Column("sender", NAME, OWNER_LENGTH, null=True),
        Column("ordering_key", NAME, OWNER_LENGTH, null=True),
        Column("expires_at", BIG, null=True),
        # JSON of the rare attributes of a message.
        Column("extra", TEXT, null=True),
    ),
    key=("id",),
    indexes=(Index(("sender", "id")),),
)

IDEMPOTENCY = Table(
    "idempotency",
    (
        # SHA-256 of sender, event and key.
        Column("digest", KEY, DIGEST),
        Column("message_id", KEY, MESSAGE_KEY),
        Column("at", BIG),
    ),
    key=("digest",),
    indexes=(Index(("message_id",)),),
    narrow=True,
)

OUTBOX = Table(
    "outbox",
    (
        # A message has a row until it is routed.
        Column("message_id", KEY, MESSAGE_KEY),
        Column("route_at", BIG),
        Column("tries", SMALL),
        Column("leased_until", BIG, null=True),
        Column("token", NAME, TOKEN_LENGTH, null=True),
        # The position of an unfinished fan-out.
        Column("after_recipient", NAME, SUBSCRIPTION_LENGTH, null=True),
        Column("cancelled", SMALL),
    ),
    key=("message_id",),
    indexes=(Index(("route_at", "message_id")),),
    narrow=True,
    churning=True,
)

QUEUE = Table(
    "queue",
    (
        # A delivery has a row while it is pending or in flight.
        Column("id", KEY, DELIVERY_KEY),
        Column("recipient", BIG),
        Column("due_at", BIG),
        # Attempts since the delivery's creation or replay.
        Column("tries", INT),
        Column("leased_until", BIG, null=True),
        Column("token", NAME, TOKEN_LENGTH, null=True),
        Column("key_hash", BIG, null=True),
        Column("seq", BIG, null=True),
    ),
    key=("id",),
    indexes=(
        # Leases have no index, so that a claim on PostgreSQL changes no index.
        Index(("recipient", "due_at", "id")),
        Index(("recipient", "key_hash", "seq")),
    ),
    narrow=True,
    churning=True,
)

DELIVERIES = Table(
    "deliveries",
    (
        Column("id", KEY, DELIVERY_KEY),
        Column("recipient", BIG),
        Column("state", SMALL),
        Column("attempts", INT),
        Column("created_at", BIG),
        Column("finished_at", BIG, null=True),
        Column("reason", TEXT, null=True),
        # JSON of a subscription that the store doesn't have.
        Column("target", TEXT, null=True),
    ),
    key=("id",),
    indexes=(Index(("recipient", "id")),),
)

ATTEMPTS = Table(
    "attempts",
    (
        Column("delivery_id", KEY, DELIVERY_KEY),
        Column("at", BIG),
        Column("number", INT),
        # Microseconds.
        Column("duration", BIG),
        Column("status", SMALL, null=True),
        Column("timed_out", SMALL),
        Column("error", TEXT, null=True),
        Column("headers", TEXT, null=True),
        Column("body", BYTES, null=True),
    ),
    key=("delivery_id", "at"),
    indexes=(Index(("at",), brin=True),),
)

ORDER = Table(
    "ordering",
    (
        Column("recipient", BIG),
        Column("key_hash", BIG),
        Column("last", BIG),
    ),
    key=("recipient", "key_hash"),
    narrow=True,
)

SCHEMA_VERSION = Table("schema_version", (Column("version_num", NAME, 32),), key=("version_num",))

TABLES = (
    SUBSCRIPTIONS,
    PATTERNS,
    OWNERS,
    RECIPIENTS,
    MESSAGES,
    IDEMPOTENCY,
    OUTBOX,
    QUEUE,
    DELIVERIES,
    ATTEMPTS,
    ORDER,
)
