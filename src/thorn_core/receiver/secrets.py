"""Secrets for verifying webhooks; if one is invalid, none is used."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from thorn_core.errors import ConfigurationError, SecretError
from thorn_core.signatures import (
    PRIVATE_PREFIX,
    PUBLIC_PREFIX,
    SECRET_PREFIX,
    SHORTEST_TEXT,
    GitHub,
    HookHMAC,
    SignatureScheme,
    StandardWebhooks,
    StandardWebhooksEd25519,
    Stripe,
)
from thorn_core.signatures.keys import decoded, standard_key

# Public keys of small order, for which anyone can sign: the points of order 1, 2, 4 and 8 in all
# encodings, without the sign bit (RFC 8032; libsodium refuses the same list).
_WEAK_PUBLIC_KEYS = frozenset(
    bytes.fromhex(text)
    for text in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)


def usable_secrets(secrets: str | Iterable[str] | None, scheme: SignatureScheme) -> list[str]:
    """Return the secrets as a list, if the scheme can verify with each of them.

    An invalid secret is an error even next to valid ones: an empty setting would be a key that
    everyone knows.

    Args:
        secrets: One, or several.
        scheme: The scheme.

    Raises:
        SecretError: There is none, or one is unusable. The message doesn't show it.
    """
    try:
        given: list[Any] = [secrets] if isinstance(secrets, str | bytes) else list(secrets or ())
    except TypeError:
        given = [secrets]
    if not given or given == [""]:
        raise SecretError("no secret to verify with; pass the secret that the sender gave you")
    for number, secret in enumerate(given, 1):
        fault = _fault(secret, scheme)
        if fault is not None:
            which = "the secret" if len(given) == 1 else f"secret {number} of {len(given)}"
            raise SecretError(f"{which} to verify with {fault}")
    return given


def _fault(secret: Any, scheme: SignatureScheme) -> str | None:
    """Return why a secret is unusable; None if it is usable."""
    if not isinstance(secret, str):
        what = "None" if secret is None else f"of type {type(secret).__name__}"
        return f"is {what}; use a string"
    if not secret.strip():
        return "is blank; remove it"
    if secret != secret.strip() or not secret.isprintable():
        return "has surrounding white space or control characters; remove them"
    if isinstance(scheme, StandardWebhooksEd25519):
        return _ed25519_fault(secret)
    if not isinstance(scheme, StandardWebhooks | HookHMAC | GitHub | Stripe):
        return None  # a custom scheme checks its keys
    if secret.startswith((PRIVATE_PREFIX, PUBLIC_PREFIX)):
        return f"is a key for standard-webhooks-ed25519, not for {scheme.name}"
    if secret.startswith(SECRET_PREFIX) or isinstance(scheme, StandardWebhooks):
        if standard_key(secret) is None:
            return "is not whsec_ followed by base64 of 24 to 64 bytes; copy it completely"
    elif len(secret) < SHORTEST_TEXT:
        return f"is shorter than {SHORTEST_TEXT} characters; agree on a longer one"
    return None


def _ed25519_fault(secret: str) -> str | None:
    if secret.startswith(PRIVATE_PREFIX):
        raw = decoded(secret.removeprefix(PRIVATE_PREFIX))
        return None if raw is not None and len(raw) in (32, 64) else "isn't a private key"
    raw = decoded(secret.removeprefix(PUBLIC_PREFIX))
    if not secret.startswith(PUBLIC_PREFIX) or raw is None or len(raw) != 32:
        return "is not whpk_ followed by base64 of a 32-byte public key; copy it completely"
    if raw[:31] + bytes([raw[31] & 0x7F]) in _WEAK_PUBLIC_KEYS:
        return (
            "is a public key of small order, for which anyone can forge signatures; ask the sender"
            " for another"
        )
    return None


def check_secrets(secrets: Any, setting: str | None, scheme: SignatureScheme) -> None:
    """Check that there are secrets to verify with, given directly or by a setting's name.

    Args:
        secrets: The secrets, or a function that returns them; None for none.
        setting: The setting's name; None for none.
        scheme: The signature scheme.

    Raises:
        ConfigurationError: Both or neither are given, or the secrets are unusable.
    """
    if (secrets is None) == (setting is None):
        raise ConfigurationError(
            f"verify_webhook needs secrets or a setting; secrets is"
            f" {'not given' if secrets is None else 'given'}, and setting is {setting!r}"
        )
    if secrets is not None and not secrets:
        raise SecretError("verify_webhook's secrets are empty; pass the secrets of the sender")
    if secrets is not None and not callable(secrets):
        usable_secrets(secrets, scheme)


def secrets_of(setting: str, value: Any) -> Any:
    """Return the secrets in a setting.

    Raises:
        ConfigurationError: It has none.
    """
    if value:
        return value
    raise ConfigurationError(
        f"the setting {setting} is empty or missing, so no webhook can be verified; set it to the"
        f" secret that the sender gave you"
    )
