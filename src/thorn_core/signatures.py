"""Signature schemes: each signs requests and verifies them; pure."""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import attrs

from thorn_core.errors import ConfigurationError, SignatureError

SECRET_PREFIX = "whsec_"  # noqa: S105 - what secrets begin with, not one
PRIVATE_PREFIX = "whsk_"
PUBLIC_PREFIX = "whpk_"
# Standard Webhooks 1.0: 24 to 64 bytes.
SECRET_BYTES = range(24, 65)
# Of the header Hook-HMAC.
HMAC_DIGESTS = ("sha256", "sha512", "sha1")
# Of a text that both sides chose, as for GitHub's scheme.
SHORTEST_TEXT = 8


@attrs.frozen(kw_only=True)
class Signable:
    """What there is to sign.

    Attributes:
        id: The message's id.
        timestamp: The time of the attempt, in seconds since 1970.
        body: The body.
        digest: For Hook-HMAC: `sha256`, `sha512` or `sha1`.
    """

    id: str
    timestamp: int
    body: bytes
    digest: str = "sha256"


@attrs.frozen(kw_only=True)
class Verified:
    """What a good signature vouches for.

    Attributes:
        id: The message's id, None where the scheme doesn't sign one.
        at: The time of the attempt, None where the scheme doesn't sign one.
    """

    id: str | None = None
    at: datetime | None = None


@runtime_checkable
class SignatureScheme(Protocol):
    """A way to sign and to verify.

    Attributes:
        name: As the setting `signatures` names it.
    """

    @property
    def name(self) -> str:
        """As the setting `signatures` names it."""
        ...

    def sign(self, signable: Signable, secrets: Sequence[str]) -> Mapping[str, str]:
        """The headers that sign it, by every secret of this scheme's; none if there is none."""
        ...

    def verify(
        self,
        headers: Mapping[str, str],
        body: bytes,
        secrets: Sequence[str],
        *,
        now: datetime,
        tolerance: timedelta,
    ) -> Verified:
        """Verify a request, in constant time.

        Args:
            headers: By name in lower case.
            body: As it came.
            secrets: Any of which may have signed.
            now: The time.
            tolerance: How far the signed time may be off, either way.

        Raises:
            SignatureError: No secret signed this, or not lately.
        """
        ...


# -- secrets


def new_secret() -> str:
    """Make a secret: `whsec_` and base64 of 32 random bytes (Standard Webhooks 1.0).

    Example:
        >>> new_secret().startswith("whsec_")
        True
    """
    return SECRET_PREFIX + base64.b64encode(os.urandom(32)).decode()


def new_ed25519_keypair() -> tuple[str, str]:
    """Make a private key (`whsk_…`, signs) and its public one (`whpk_…`, verifies).

    Raises:
        ConfigurationError: The extra `ed25519` isn't installed.
    """
    private = _ed25519().Ed25519PrivateKey.generate()
    return (
        PRIVATE_PREFIX + base64.b64encode(private.private_bytes_raw()).decode(),
        PUBLIC_PREFIX + base64.b64encode(private.public_key().public_bytes_raw()).decode(),
    )


def check_secret(secret: str) -> str:
    """Check a secret that somebody gives.

    Args:
        secret: `whsec_` and base64 of 24 to 64 bytes; `whsk_` and base64 of an Ed25519 private key;
            or any other text of 8 characters or more, for recipients that share one.

    Raises:
        ConfigurationError: It is none of these. The message doesn't show it.
    """
    if not isinstance(secret, str) or not secret.isprintable() or len(secret) < SHORTEST_TEXT:
        raise ConfigurationError(
            f"a secret must be a text of {SHORTEST_TEXT} characters or more; leave it out for one"
        )
    if secret.startswith(SECRET_PREFIX):
        raw = _decoded(secret.removeprefix(SECRET_PREFIX))
        if raw is None or len(raw) not in SECRET_BYTES:
            raise ConfigurationError(
                "a secret that begins with whsec_ must go on with base64 of 24 to 64 bytes;"
                " leave it out to get one"
            )
    elif secret.startswith(PRIVATE_PREFIX):
        raw = _decoded(secret.removeprefix(PRIVATE_PREFIX))
        if raw is None or len(raw) not in (32, 64):
            raise ConfigurationError(
                "a secret that begins with whsk_ must go on with base64 of an Ed25519 private key;"
                " make one with thorn_core.signatures.new_ed25519_keypair()"
            )
    return secret


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


@lru_cache(maxsize=4096)
def _shared_key(secret: str) -> bytes:
    """The key of Standard Webhooks: what is behind `whsec_`, decoded; other texts as they are."""
    if not secret.startswith(SECRET_PREFIX):
        return secret.encode()
    raw = _decoded(secret.removeprefix(SECRET_PREFIX))
    if raw is None:
        raise ConfigurationError("a secret that begins with whsec_ must go on with base64")
    return raw


def _is_shared(secret: str) -> bool:
    return not secret.startswith((PRIVATE_PREFIX, PUBLIC_PREFIX))


def _base64_hmac(key: bytes, signed: bytes, digest: str) -> str:
    return binascii.b2a_base64(hmac.digest(key, signed, digest), newline=False).decode()


# -- what verifying needs


def _header(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name.lower())
    if not value:
        raise SignatureError(f"the header {name} is missing")
    return value


def _checked_time(text: str, now: datetime, tolerance: timedelta) -> datetime:
    if not (text.isascii() and text.isdigit() and len(text) <= 11):
        raise SignatureError("the timestamp is no number of seconds")
    at = datetime.fromtimestamp(int(text), UTC)
    if at < now - tolerance:
        raise SignatureError(f"the timestamp {at.isoformat()} is too old")
    if at > now + tolerance:
        raise SignatureError(f"the timestamp {at.isoformat()} lies in the future")
    return at


def _any_equal(expected: Sequence[str], given: Sequence[str]) -> bool:
    """Whether any expected signature was given; compares all of them, each in constant time."""
    found = False
    for one in expected:
        for other in given[:MOST_SIGNATURES]:
            found |= hmac.compare_digest(one.encode(), other.encode())
    return found


MOST_SIGNATURES = 20
_NO_MATCH = "no signature of this body matches a secret"


# -- the schemes


def _standard_parts(
    headers: Mapping[str, str], body: bytes, now: datetime, tolerance: timedelta
) -> tuple[str, datetime, bytes, list[str]]:
    """Of a Standard Webhooks request: its id, its time, what is signed, and the signatures."""
    identity = _header(headers, "webhook-id")
    timestamp = _header(headers, "webhook-timestamp")
    given = _header(headers, "webhook-signature").split(" ")
    at = _checked_time(timestamp, now, tolerance)
    return identity, at, b"%b.%b.%b" % (identity.encode(), timestamp.encode(), body), given


@attrs.frozen
class StandardWebhooks:
    """Standard Webhooks 1.0, `v1`: HMAC-SHA256 over `id.timestamp.body`."""

    name: str = "standard-webhooks"

    def sign(self, signable: Signable, secrets: Sequence[str]) -> Mapping[str, str]:
        """The header `webhook-signature`, one signature for each secret."""
        signed = b"%b.%d.%b" % (signable.id.encode(), signable.timestamp, signable.body)
        signatures = [
            "v1," + _base64_hmac(_shared_key(secret), signed, "sha256")
            for secret in secrets
            if _is_shared(secret)
        ]
        return {"webhook-signature": " ".join(signatures)} if signatures else {}

    def verify(
        self,
        headers: Mapping[str, str],
        body: bytes,
        secrets: Sequence[str],
        *,
        now: datetime,
        tolerance: timedelta,
    ) -> Verified:
        """Verify `webhook-id`, `webhook-timestamp` and `webhook-signature`."""
        identity, at, signed, given = _standard_parts(headers, body, now, tolerance)
        expected = [
            "v1," + _base64_hmac(_shared_key(secret), signed, "sha256")
            for secret in secrets
            if _is_shared(secret)
        ]
        if not _any_equal(expected, given):
            raise SignatureError(_NO_MATCH)
        return Verified(id=identity, at=at)


def _ed25519() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise ConfigurationError(
            "Ed25519 signatures need cryptography; run: pip install 'thorn-core[ed25519]'"
        ) from error
    return ed25519


@lru_cache(maxsize=1024)
def _private_key(secret: str) -> Any:
    raw = _decoded(secret.removeprefix(PRIVATE_PREFIX)) or b""
    # Some tools write the seed and the public key in one; the seed comes first.
    return _ed25519().Ed25519PrivateKey.from_private_bytes(raw[:32])


def _public_key(secret: str) -> Any:
    if secret.startswith(PRIVATE_PREFIX):
        return _private_key(secret).public_key()
    raw = _decoded(secret.removeprefix(PUBLIC_PREFIX)) or b""
    return _ed25519().Ed25519PublicKey.from_public_bytes(raw)


@attrs.frozen
class StandardWebhooksEd25519:
    """Standard Webhooks 1.0, `v1a`: Ed25519 over `id.timestamp.body`; extra `ed25519`.

    Signs with `whsk_…`; verifies with `whpk_…` (or the private key).
    """

    name: str = "standard-webhooks-ed25519"

    def sign(self, signable: Signable, secrets: Sequence[str]) -> Mapping[str, str]:
        """The header `webhook-signature`, one signature for each private key."""
        signed = b"%b.%d.%b" % (signable.id.encode(), signable.timestamp, signable.body)
        signatures = [
            "v1a," + base64.b64encode(_private_key(secret).sign(signed)).decode()
            for secret in secrets
            if secret.startswith(PRIVATE_PREFIX)
        ]
        return {"webhook-signature": " ".join(signatures)} if signatures else {}

    def verify(
        self,
        headers: Mapping[str, str],
        body: bytes,
        secrets: Sequence[str],
        *,
        now: datetime,
        tolerance: timedelta,
    ) -> Verified:
        """Verify `webhook-id`, `webhook-timestamp` and `webhook-signature`."""
        identity, at, signed, given = _standard_parts(headers, body, now, tolerance)
        keys = [_public_key(s) for s in secrets if s.startswith((PUBLIC_PREFIX, PRIVATE_PREFIX))]
        for text in given[:MOST_SIGNATURES]:
            version, _, value = text.partition(",")
            signature = _decoded(value) if version == "v1a" else None
            if signature is not None and any(_ed25519_good(k, signature, signed) for k in keys):
                return Verified(id=identity, at=at)
        raise SignatureError(_NO_MATCH)


def _ed25519_good(key: Any, signature: bytes, signed: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, signed)
    except InvalidSignature:
        return False
    return True


@attrs.frozen
class HookHMAC:
    """Thorn's own: base64 of an HMAC over the body, in `Hook-HMAC`.

    It signs neither id nor time, so it can't tell a replay by itself.

    Attributes:
        digest: What `verify` expects: `sha256`, `sha512`, or `sha1` of old senders. `sign` uses
            the signable's.
    """

    name: str = "hook-hmac"
    digest: str = "sha256"

    def sign(self, signable: Signable, secrets: Sequence[str]) -> Mapping[str, str]:
        """The header `Hook-HMAC`; during a rotation one value for each secret."""
        values = [
            _base64_hmac(secret.encode(), signable.body, signable.digest)
            for secret in secrets
            if _is_shared(secret)
        ]
        return {"Hook-HMAC": " ".join(values)} if values else {}

    def verify(
        self,
        headers: Mapping[str, str],
        body: bytes,
        secrets: Sequence[str],
        *,
        now: datetime,
        tolerance: timedelta,
    ) -> Verified:
        """Verify `Hook-HMAC`."""
        given = _header(headers, "Hook-HMAC").split(" ")
        expected = [_base64_hmac(s.encode(), body, self.digest) for s in secrets if _is_shared(s)]
        if not _any_equal(expected, given):
            raise SignatureError(_NO_MATCH)
        return Verified()


@attrs.frozen
class GitHub:
    """GitHub's: hexadecimal HMAC-SHA256 over the body, in `X-Hub-Signature-256`.

    It holds one signature, so that during a rotation the newest secret signs.
    """

    name: str = "github"

    def sign(self, signable: Signable, secrets: Sequence[str]) -> Mapping[str, str]:
        """The header `X-Hub-Signature-256`."""
        for secret in secrets:
            if _is_shared(secret):
                return {"X-Hub-Signature-256": _github(secret, signable.body)}
        return {}

    def verify(
        self,
        headers: Mapping[str, str],
        body: bytes,
        secrets: Sequence[str],
        *,
        now: datetime,
        tolerance: timedelta,
    ) -> Verified:
        """Verify `X-Hub-Signature-256`."""
        given = _header(headers, "X-Hub-Signature-256")
        if not _any_equal([_github(s, body) for s in secrets if _is_shared(s)], [given]):
            raise SignatureError(_NO_MATCH)
        return Verified()


def _github(secret: str, body: bytes) -> str:
    return "sha256=" + hmac.digest(secret.encode(), body, "sha256").hex()


@attrs.frozen
class Stripe:
    """Stripe's: hexadecimal HMAC-SHA256 over `timestamp.body`, in `Stripe-Signature`."""

    name: str = "stripe"

    def sign(self, signable: Signable, secrets: Sequence[str]) -> Mapping[str, str]:
        """The header `Stripe-Signature`, a `v1` for each secret."""
        values = [
            "v1=" + _stripe(secret, str(signable.timestamp), signable.body)
            for secret in secrets
            if _is_shared(secret)
        ]
        return {"Stripe-Signature": f"t={signable.timestamp},{','.join(values)}"} if values else {}

    def verify(
        self,
        headers: Mapping[str, str],
        body: bytes,
        secrets: Sequence[str],
        *,
        now: datetime,
        tolerance: timedelta,
    ) -> Verified:
        """Verify `Stripe-Signature`."""
        parts = [p.partition("=") for p in _header(headers, "Stripe-Signature").split(",")]
        times = [value for key, _, value in parts if key.strip() == "t"]
        if len(times) != 1:
            raise SignatureError("the header Stripe-Signature has no timestamp")
        at = _checked_time(times[0], now, tolerance)
        given = [value for key, _, value in parts if key.strip() == "v1"]
        if not _any_equal([_stripe(s, times[0], body) for s in secrets if _is_shared(s)], given):
            raise SignatureError(_NO_MATCH)
        return Verified(at=at)


def _stripe(secret: str, timestamp: str, body: bytes) -> str:
    return hmac.digest(secret.encode(), timestamp.encode() + b"." + body, "sha256").hex()


SCHEMES: Mapping[str, SignatureScheme] = {
    scheme.name: scheme
    for scheme in (
        StandardWebhooks(),
        StandardWebhooksEd25519(),
        HookHMAC(),
        GitHub(),
        Stripe(),
    )
}


def sign_all(
    schemes: Sequence[SignatureScheme], signable: Signable, secrets: Sequence[str]
) -> dict[str, str]:
    """The headers of several schemes; signatures that share a header stand side by side in it.

    Args:
        schemes: Which.
        signable: What there is to sign.
        secrets: The subscription's, the newest first.
    """
    headers: dict[str, str] = {}
    for scheme in schemes:
        for name, value in scheme.sign(signable, secrets).items():
            headers[name] = f"{headers[name]} {value}" if name in headers else value
    return headers
