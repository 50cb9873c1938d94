"""The signature schemes of an app: their keys and their headers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from thorn_core.errors import ConfigurationError
from thorn_core.signatures.keys import PRIVATE_PREFIX, check_shared_secret, new_secret
from thorn_core.signatures.schemes import Signable, SignatureScheme


def is_private(secret: object) -> bool:
    """Return whether a key is private, and so never shown; shared secrets aren't."""
    return isinstance(secret, str) and secret.startswith(PRIVATE_PREFIX)


def make_keys(
    schemes: Sequence[SignatureScheme], given: Any = None, *, current: Sequence[str] = ()
) -> tuple[str, ...]:
    """Create the keys of a subscription: a shared secret, a private key, or both.

    Args:
        schemes: Those in use.
        given: A given key; None generates one.
        current: The current keys, newest first. With a given key of one kind, the current key of
            the other kind stays.

    Returns:
        A shared secret, a private key, or both, as the schemes need.

    Raises:
        ConfigurationError: A scheme can't sign with the given key, recipients can't verify its
            signatures, or no key fits all schemes. The message doesn't show the key.

    Example:
        >>> from thorn_core.signatures import SCHEMES
        >>> [key[:6] for key in make_keys([SCHEMES["standard-webhooks"], SCHEMES["hook-hmac"]])]
        ['whsec_']
    """
    by_kind = _by_kind(schemes)
    if given is not None:
        check_key(schemes, given)
    keys: list[str] = []
    for kind in by_kind:
        if given is not None and is_private(given) is kind:
            keys.append(given)
        else:
            there = [key for key in current if is_private(key) is kind]
            stays = given is not None and there and fits_schemes(by_kind[kind], there[0])
            keys.append(there[0] if stays else _mint(by_kind[kind]))
    return tuple(keys)


def check_key(schemes: Sequence[SignatureScheme], secret: Any) -> None:
    """Check that every scheme in use for a key's kind can sign with the key.

    Raises:
        ConfigurationError: A scheme can't, or no scheme uses this kind. The message doesn't show
            the key.
    """
    by_kind = _by_kind(schemes)
    if is_private(secret) in by_kind:
        _check(by_kind[is_private(secret)], secret)
        return
    # The schemes of the other kind raise a helpful error.
    for others in by_kind.values():
        _check(others, secret)
    raise ConfigurationError("no scheme in use can sign with this secret; omit it to generate one")


def fits_schemes(schemes: Sequence[SignatureScheme], secret: str) -> bool:
    """Return whether `check_key` accepts a key."""
    try:
        check_key(schemes, secret)
    except ConfigurationError:
        return False
    return True


def _by_kind(schemes: Sequence[SignatureScheme]) -> dict[bool, list[SignatureScheme]]:
    """Return the schemes with shared secrets (False), and those with private keys (True)."""
    kinds = sorted({_has_private_keys(scheme) for scheme in schemes}) or [False]
    return {kind: [s for s in schemes if _has_private_keys(s) is kind] for kind in kinds}


def _has_private_keys(scheme: SignatureScheme) -> bool:
    return hasattr(scheme, "public_key")


def _check(schemes: Sequence[SignatureScheme], secret: Any) -> None:
    for scheme in schemes:
        check: Callable[[Any], None] = getattr(scheme, "check", check_shared_secret)
        check(secret)
    if not schemes:
        check_shared_secret(secret)


def _mint(schemes: Sequence[SignatureScheme]) -> str:
    for scheme in schemes:
        mint: Callable[[], str] = getattr(scheme, "mint", new_secret)
        key = mint()
        if fits_schemes(schemes, key):
            return key
    if not schemes:
        return new_secret()
    names = ", ".join(scheme.name for scheme in schemes)
    raise ConfigurationError(
        f"no key fits all of the schemes {names}; remove one from the setting signatures"
    )


def sign_all(
    schemes: Sequence[SignatureScheme], signable: Signable, secrets: Sequence[str]
) -> dict[str, str]:
    """Sign by several schemes; signatures that share a header are joined by a space.

    Args:
        schemes: The schemes in use.
        signable: The signed parts of the request.
        secrets: The subscription's secrets, newest first.

    Raises:
        ConfigurationError: A scheme has no key to sign with.
    """
    headers: dict[str, str] = {}
    private = [secret for secret in secrets if is_private(secret)]
    shared = [secret for secret in secrets if secret not in private] if private else secrets
    for scheme in schemes:
        own = private if _has_private_keys(scheme) else shared
        made = scheme.sign(signable, own) if own else {}
        if not made:
            raise ConfigurationError(
                f"the scheme {scheme.name} has no key to sign with; rotate the subscription's"
                f" secret (app.rotate_secret), or remove the scheme from the setting signatures"
            )
        for name, value in made.items():
            headers[name] = f"{headers[name]} {value}" if name in headers else value
    return headers
