"""Formats and generation of keys."""

from __future__ import annotations

import base64
import binascii
import os
from functools import lru_cache
from typing import Any

from thorn_core.errors import ConfigurationError

SECRET_PREFIX = "whsec_"  # noqa: S105 - a prefix, not a secret
PRIVATE_PREFIX = "whsk_"
PUBLIC_PREFIX = "whpk_"
# Standard Webhooks 1.0: 24 to 64 bytes.
SECRET_BYTES = range(24, 65)
# Digests of the header Hook-HMAC.
HMAC_DIGESTS = ("sha256", "sha512", "sha1")
# Characters of a chosen secret, as for GitHub's scheme. Thorn 1.x accepted at most 128.
SHORTEST_TEXT = 8
LONGEST_TEXT = 255


def new_secret() -> str:
    """Generate a secret: `whsec_` and base64 of 32 random bytes (Standard Webhooks 1.0).

    Example:
        >>> new_secret().startswith("whsec_")
        True
    """
    return SECRET_PREFIX + base64.b64encode(os.urandom(32)).decode()


def new_ed25519_keypair() -> tuple[str, str]:
    """Generate a private key (`whsk_…`, signs) and its public key (`whpk_…`, verifies).

    Raises:
        ConfigurationError: The extra `ed25519` isn't installed.
    """
    private = ed25519_module().Ed25519PrivateKey.generate()
    return (
        PRIVATE_PREFIX + base64.b64encode(private.private_bytes_raw()).decode(),
        PUBLIC_PREFIX + base64.b64encode(private.public_key().public_bytes_raw()).decode(),
    )


def check_shared_secret(secret: Any) -> None:
    """Check a shared secret for HMAC schemes.

    Args:
        secret: `whsec_` and base64 of 24 to 64 bytes, or another string of 8 to 255 characters.

    Raises:
        ConfigurationError: It is invalid, or recipients would decode it differently. The message
            doesn't show it.

    Example:
        >>> check_shared_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
        >>> check_shared_secret("v1,whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
        Traceback (most recent call last):
        ...
        thorn_core.errors.ConfigurationError: the secret begins with 'v1,'; remove that prefix
    """
    check_text(secret)
    if secret.startswith("v1,"):
        raise ConfigurationError("the secret begins with 'v1,'; remove that prefix")
    if secret.startswith(PUBLIC_PREFIX):
        raise ConfigurationError(
            "the secret is a public key (whpk_…), which can't sign; pass a secret, or omit it to"
            " generate one"
        )
    if secret.startswith(PRIVATE_PREFIX):
        raise ConfigurationError(
            "the secret is a private Ed25519 key (whsk_…), and no scheme in use signs with one;"
            " add standard-webhooks-ed25519 to the setting signatures, or use another secret"
        )
    if secret.startswith(SECRET_PREFIX):
        _check_standard(secret)


def is_shared_secret(secret: str) -> bool:
    """Return whether a key is a shared secret that is hard to guess, not an empty or cut-off one.

    Secrets from other senders may be longer than `check_shared_secret` accepts.
    """
    if secret.startswith(SECRET_PREFIX):
        return standard_key(secret) is not None
    return len(secret) >= SHORTEST_TEXT and not secret.startswith((PRIVATE_PREFIX, PUBLIC_PREFIX))


def check_standard_secret(secret: Any) -> None:
    """Check a Standard Webhooks secret: base64 of 24 to 64 bytes, optionally after `whsec_`.

    Raises:
        ConfigurationError: It is invalid. The message doesn't show it.
    """
    check_shared_secret(secret)
    _check_standard(secret)


def check_text(secret: Any) -> None:
    """Check that a key is a printable string of a valid length, without surrounding white space.

    Raises:
        ConfigurationError: It isn't. The message doesn't show it.
    """
    if not isinstance(secret, str) or not SHORTEST_TEXT <= len(secret) <= LONGEST_TEXT:
        raise ConfigurationError(
            f"a secret must be a string of {SHORTEST_TEXT} to {LONGEST_TEXT} characters; omit it"
            f" to generate one"
        )
    if secret != secret.strip():
        raise ConfigurationError("the secret begins or ends with white space; remove it")
    if not secret.isprintable():
        raise ConfigurationError(
            "the secret contains a line break or another unprintable character; remove it"
        )


def _check_standard(secret: str) -> None:
    if standard_key(secret) is None:
        start = "whsec_ followed by " if secret.startswith(SECRET_PREFIX) else ""
        raise ConfigurationError(
            f"a secret of Standard Webhooks must be {start}base64 of {SECRET_BYTES[0]} to"
            f" {SECRET_BYTES[-1]} bytes, with padding; omit it to generate one"
        )


def decoded(text: str) -> bytes | None:
    """Decode base64; return None if any common decoder would refuse it."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if base64.b64encode(raw) == text.encode() else None


@lru_cache(maxsize=4096)
def standard_key(secret: str) -> bytes | None:
    """Return the key in a Standard Webhooks secret; None if the secret is invalid."""
    raw = decoded(secret.removeprefix(SECRET_PREFIX))
    return raw if raw is not None and len(raw) in SECRET_BYTES else None


def ed25519_module() -> Any:
    """Import Ed25519.

    Raises:
        ConfigurationError: The extra `ed25519` isn't installed.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise ConfigurationError(
            "Ed25519 signatures need cryptography; run: pip install 'thorn-core[ed25519]'"
        ) from error
    return ed25519
