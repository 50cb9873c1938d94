"""Signature schemes: sign and verify requests, generate and check keys; pure."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Protocol

import attrs

from thorn_core.errors import ConfigurationError, SignatureError
from thorn_core.signatures.keys import (
    PRIVATE_PREFIX,
    PUBLIC_PREFIX,
    check_standard_secret,
    check_text,
    decoded,
    ed25519_module,
    is_shared_secret,
    new_ed25519_keypair,
    new_secret,
    standard_key,
)


@attrs.frozen(kw_only=True)
class Signable:
    """The parts of a request that schemes sign.

    Attributes:
        id: The message's id.
        timestamp: The time of the attempt, in seconds since 1970.
        body: The body.
        digest: For Hook-HMAC: `sha256`, `sha512` or `sha1`.
    """

    id: str
    timestamp: int
    body: bytes = attrs.field(repr=False)
    digest: str = "sha256"


@attrs.frozen(kw_only=True)
class Verified:
    """The values that a valid signature covers.

    Attributes:
        id: The message's id; None if the scheme doesn't sign it.
        at: The time of the attempt; None if the scheme doesn't sign it.
    """

    id: str | None = None
    at: datetime | None = None


class SignatureScheme(Protocol):
    """A way to sign and to verify.

    Its keys are shared secrets, unless it has the methods of `OwnKeys`. If it also has
    `public_key(private) -> str`, they are private keys, which begin with `whsk_` and are never
    shown.
    """

    @property
    def name(self) -> str:
        """The name in the setting `signatures`."""
        ...

    def sign(self, signable: Signable, secrets: Sequence[str]) -> Mapping[str, str]:
        """Create the headers that sign a request.

        Args:
            signable: The parts to sign.
            secrets: The subscription's secrets, newest first; unsuitable ones are skipped.

        Returns:
            Headers with one signature per suitable secret; empty if there is none.
        """
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
            body: The unchanged body.
            secrets: The secrets, of which any may have signed.
            now: The time.
            tolerance: Maximum difference of the signed time, either way.

        Raises:
            SignatureError: No signature matches, or the signed time is outside the tolerance.
        """
        ...


class OwnKeys(Protocol):
    """The methods of a scheme with its own key format."""

    def mint(self) -> str:
        """Generate a key."""
        ...

    def check(self, secret: str) -> None:
        """Check a given key.

        Raises:
            ConfigurationError: The scheme can't sign with it, or recipients can't verify its
                signatures. The message says why and what to do, and doesn't show the key.
        """
        ...


# -- helpers for verification


def _header(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name.lower())
    if not value:
        raise SignatureError(f"the header {name} is missing")
    return value


def _checked_time(text: str, now: datetime, tolerance: timedelta) -> datetime:
    if not (text.isascii() and text.isdigit() and len(text) <= 11):
        raise SignatureError("the timestamp is not a number of seconds")
    at = datetime.fromtimestamp(int(text), UTC)
    allowed = f"the tolerance is {tolerance.total_seconds():g} seconds"
    if at < now - tolerance:
        raise SignatureError(f"the timestamp {at.isoformat()} is too old; {allowed}")
    if at > now + tolerance:
        raise SignatureError(f"the timestamp {at.isoformat()} is in the future; {allowed}")
    return at


def _any_equal(expected: Sequence[str], given: Sequence[str]) -> bool:
    """Check that a given signature is expected; compare all of them in constant time."""
    found = False
    for one in expected:
        for other in given[:MOST_SIGNATURES]:
            found |= hmac.compare_digest(one.encode(), other.encode())
    return found


MOST_SIGNATURES = 20
_NO_MATCH = "no signature of this body matches a secret; check the secret, and verify the raw body"


# -- the schemes


def _standard_keys(secrets: Sequence[str]) -> list[bytes]:
    return [key for secret in secrets if (key := standard_key(secret)) is not None]


def _texts(secrets: Sequence[str]) -> list[bytes]:
    """Return the keys for schemes that use shared secrets unchanged; skip guessable ones."""
    return [secret.encode() for secret in secrets if is_shared_secret(secret)]


@lru_cache(maxsize=4096)
def _keyed(key: bytes, digest: str) -> hmac.HMAC:
    return hmac.new(key, digestmod=digest)


def _base64_hmac(key: bytes, signed: bytes, digest: str) -> str:
    # A copy is faster than a look-up of the algorithm for each signature.
    made = _keyed(key, digest).copy()
    made.update(signed)
    return binascii.b2a_base64(made.digest(), newline=False).decode()


# The signed text is id, time and body, joined by full stops. If the body contains a full stop and a
# time, an attacker could shift the boundary: the old id, the time and the start of the body become
# the id, and the rest becomes the body.
_ID_AND_TIME = re.compile(r"\.[0-9]+(?:\.|$)")


def _standard_parts(
    headers: Mapping[str, str], body: bytes, now: datetime, tolerance: timedelta
) -> tuple[str, datetime, bytes, list[str]]:
    """Return a Standard Webhooks request's id, time, signed text and signatures."""
    identity = _header(headers, "webhook-id")
    if _ID_AND_TIME.search(identity):
        raise SignatureError(
            "the webhook-id contains a full stop and digits, which may be the signed time"
        )
    timestamp = _header(headers, "webhook-timestamp")
    given = _header(headers, "webhook-signature").split(" ")
    at = _checked_time(timestamp, now, tolerance)
    return identity, at, b"%b.%b.%b" % (identity.encode(), timestamp.encode(), body), given


@attrs.frozen
class StandardWebhooks:
    """Standard Webhooks 1.0, `v1`: HMAC-SHA256 over `id.timestamp.body`."""

    name: str = "standard-webhooks"

    def mint(self) -> str:
        """Generate a secret: `whsec_…`."""
        return new_secret()

    def check(self, secret: str) -> None:
        """Check that a secret is valid for Standard Webhooks."""
        check_standard_secret(secret)

    def sign(self, signable: Signable, secrets: Sequence[str]) -> Mapping[str, str]:
        """Return the header `webhook-signature`, with one signature per secret."""
        signed = b"%b.%d.%b" % (signable.id.encode(), signable.timestamp, signable.body)
        keys = _standard_keys(secrets)
        signatures = ["v1," + _base64_hmac(key, signed, "sha256") for key in keys]
        return {"webhook-signature": " ".join(signatures)} if keys else {}

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
        keys = _standard_keys(secrets)
        expected = ["v1," + _base64_hmac(key, signed, "sha256") for key in keys]
        if not _any_equal(expected, given):
            raise SignatureError(_NO_MATCH)
        return Verified(id=identity, at=at)


@lru_cache(maxsize=1024)
def _private_key(secret: str) -> Any:
    raw = decoded(secret.removeprefix(PRIVATE_PREFIX)) or b""
    # Some tools append the public key to the seed.
    return ed25519_module().Ed25519PrivateKey.from_private_bytes(raw[:32])


def _public_key(secret: str) -> Any:
    if secret.startswith(PRIVATE_PREFIX):
        return _private_key(secret).public_key()
    raw = decoded(secret.removeprefix(PUBLIC_PREFIX)) or b""
    return ed25519_module().Ed25519PublicKey.from_public_bytes(raw)


@attrs.frozen
class StandardWebhooksEd25519:
    """Standard Webhooks 1.0, `v1a`: Ed25519 over `id.timestamp.body`; extra `ed25519`.

    Signs with `whsk_…`; verifies with `whpk_…` (or the private key).
    """

    name: str = "standard-webhooks-ed25519"

    def mint(self) -> str:
        """Generate a private key: `whsk_…`."""
        return new_ed25519_keypair()[0]

    def check(self, secret: str) -> None:
        """Check that a secret is an Ed25519 private key: base64 of its seed, after `whsk_`."""
        check_text(secret)
        raw = decoded(secret.removeprefix(PRIVATE_PREFIX))
        good = secret.startswith(PRIVATE_PREFIX) and raw is not None and len(raw) in (32, 64)
        # Some tools append the public key to the seed.
        if good and raw is not None and len(raw) == 64:
            good = _private_key(secret).public_key().public_bytes_raw() == raw[32:]
        if not good:
            raise ConfigurationError(
                "a key for Ed25519 must be whsk_ followed by base64 of a private key; omit it to"
                " generate one, or create one with thorn_core.signatures.new_ed25519_keypair()"
            )

    def public_key(self, secret: str) -> str:
        """Return the public key of a private key, for recipients: `whpk_…`."""
        raw = _private_key(secret).public_key().public_bytes_raw()
        return PUBLIC_PREFIX + base64.b64encode(raw).decode()

    def sign(self, signable: Signable, secrets: Sequence[str]) -> Mapping[str, str]:
        """Return the header `webhook-signature`, with one signature per private key."""
        signed = b"%b.%d.%b" % (signable.id.encode(), signable.timestamp, signable.body)
        own = [secret for secret in secrets if secret.startswith(PRIVATE_PREFIX)]
        signatures = [
            "v1a," + base64.b64encode(_private_key(secret).sign(signed)).decode() for secret in own
        ]
        return {"webhook-signature": " ".join(signatures)} if own else {}

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
            signature = decoded(value) if version == "v1a" else None
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
    """Thorn's own scheme: base64 of an HMAC over the body, in `Hook-HMAC`.

    It signs neither id nor time, so it doesn't protect against replays.

    Attributes:
        digest: The digest for `verify`: `sha256`, `sha512`, or `sha1` for old senders. `sign` uses
            the signable's digest.
    """

    name: str = "hook-hmac"
    digest: str = "sha256"

    def sign(self, signable: Signable, secrets: Sequence[str]) -> Mapping[str, str]:
        """Return the header `Hook-HMAC`, with one value per secret during a rotation."""
        keys = _texts(secrets)
        values = [_base64_hmac(key, signable.body, signable.digest) for key in keys]
        return {"Hook-HMAC": " ".join(values)} if keys else {}

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
        expected = [_base64_hmac(key, body, self.digest) for key in _texts(secrets)]
        if not _any_equal(expected, given):
            raise SignatureError(_NO_MATCH)
        return Verified()


@attrs.frozen
class GitHub:
    """GitHub's scheme: hexadecimal HMAC-SHA256 over the body, in `X-Hub-Signature-256`.

    The header has only one signature, so the newest secret signs during a rotation.
    """

    name: str = "github"

    def sign(self, signable: Signable, secrets: Sequence[str]) -> Mapping[str, str]:
        """Return the header `X-Hub-Signature-256`."""
        keys = _texts(secrets)
        return {"X-Hub-Signature-256": _github(keys[0], signable.body)} if keys else {}

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
        if not _any_equal([_github(key, body) for key in _texts(secrets)], [given]):
            raise SignatureError(_NO_MATCH)
        return Verified()


def _github(key: bytes, body: bytes) -> str:
    return "sha256=" + hmac.digest(key, body, "sha256").hex()


@attrs.frozen
class Stripe:
    """Stripe's scheme: hexadecimal HMAC-SHA256 over `timestamp.body`, in `Stripe-Signature`."""

    name: str = "stripe"

    def sign(self, signable: Signable, secrets: Sequence[str]) -> Mapping[str, str]:
        """Return the header `Stripe-Signature`, with one `v1` per secret."""
        keys = _texts(secrets)
        values = ["v1=" + _stripe(key, str(signable.timestamp), signable.body) for key in keys]
        return {"Stripe-Signature": f"t={signable.timestamp},{','.join(values)}"} if keys else {}

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
        if not _any_equal([_stripe(key, times[0], body) for key in _texts(secrets)], given):
            raise SignatureError(_NO_MATCH)
        return Verified(at=at)


def _stripe(key: bytes, timestamp: str, body: bytes) -> str:
    return hmac.digest(key, timestamp.encode() + b"." + body, "sha256").hex()


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
