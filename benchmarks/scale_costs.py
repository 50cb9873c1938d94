"""What a delivery costs, step by step: the figures that scale_measure.py has written."""

from __future__ import annotations

import json
from pathlib import Path

import attrs

FILE = Path(__file__).with_name("scale_costs.json")


@attrs.frozen
class Cost:
    """Milliseconds of a call of the store, for itself and for each row.

    Attributes:
        wall: Until it is back, with nothing else at work.
        client: Processor time of who calls.
        server: Processor time of the database server.
        wall_each: As `wall`, for each row.
        client_each: As `client`, for each row.
        server_each: As `server`, for each row.
    """

    wall: float
    client: float
    server: float
    wall_each: float
    client_each: float
    server_each: float


@attrs.frozen(kw_only=True)
class Costs:
    """What a delivery costs.

    Attributes:
        send: Writing messages in a transaction.
        route: Leasing messages, and writing a delivery for each.
        claim: Leasing deliveries.
        settle: Writing how deliveries ended.
        purge: Removing settled deliveries and their messages.
        request: Milliseconds of a worker's processor for a request: sign, send, read, judge.
        recipient: Milliseconds of the benchmark's own recipient for a request.
        kept: Bytes that a delivery, its message and its attempt take in the database.
        logged: Bytes that a delivery adds to the write-ahead log, from send to settlement.
    """

    send: Cost
    route: Cost
    claim: Cost
    settle: Cost
    purge: Cost
    request: float
    recipient: float
    kept: float
    logged: float

    @classmethod
    def read(cls) -> Costs:
        """Those that were written."""
        told = json.loads(FILE.read_text("utf-8"))
        steps = {name: Cost(**value) for name, value in told.items() if isinstance(value, dict)}
        return cls(**{**told, **steps})
