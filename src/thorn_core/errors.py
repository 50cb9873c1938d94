"""Every exception that Thorn raises, in one tree.

::

    ThornError
    ├── ConfigurationError (ValueError)      a setting, plugin or declaration is wrong
    ├── InvalidNameError (ValueError)        an event name or pattern
    ├── PayloadError (ValueError)            a payload can't be encoded, or violates its schema
    ├── SecurityError (ValueError)           a recipient's URL or address is refused
    │   └── UncheckedError                   … because a plugin failed to check it
    ├── SignatureError (ValueError)          an incoming webhook can't be verified
    │   ├── ReplayError                      it is genuine, but was received before
    │   └── SecretError (ConfigurationError) a secret to verify it with is invalid
    ├── NotFoundError (LookupError)          no subscription, message or delivery with that id
    ├── BufferNotEmpty                       a buffer was closed by hand with messages in it
    ├── StoreError                           a store is unavailable
    │   ├── StoreSetupError                  it must be set up or migrated first
    │   └── StoreDataError                   it can't hold a value
    └── TransportError                       a request got no usable response
        └── TransportTimeout                 … in time
"""

from __future__ import annotations


class ThornError(Exception):
    """The base class of Thorn's exceptions."""


class ConfigurationError(ThornError, ValueError):
    """A setting, a plugin or a declaration is wrong; the message says which and what is allowed."""


class InvalidNameError(ThornError, ValueError):
    """An event name or pattern is invalid."""


class PayloadError(ThornError, ValueError):
    """A payload can't be encoded, is too large, or violates its event's schema."""


class SecurityError(ThornError, ValueError):
    """A recipient's URL or address is refused by a recipient validator.

    Args:
        reason: What is wrong, and what the subscription's owner can do.
        advice: What the operator of the app can do instead. `str()` shows both; an owner is shown
            `reason` only.

    Example:
        >>> error = SecurityError("10.0.0.1 is private.", "Set allowed_networks to permit it.")
        >>> error.reason
        '10.0.0.1 is private.'
        >>> str(error)
        '10.0.0.1 is private. Set allowed_networks to permit it.'
    """

    def __init__(self, reason: str = "", advice: str = "") -> None:
        # Both are arguments of the exception, so that pickling keeps them.
        super().__init__(*([reason, advice] if advice else [reason]))
        self.reason = reason

    def __str__(self) -> str:
        return " ".join(self.args)


class UncheckedError(SecurityError):
    """A recipient is refused for now, because a plugin failed to check it."""


class SignatureError(ThornError, ValueError):
    """An incoming webhook has no valid signature, or a timestamp outside the tolerance."""


class ReplayError(SignatureError):
    """An incoming webhook is genuine, but its id was received before."""


class SecretError(SignatureError, ConfigurationError):
    """A secret for verifying webhooks is empty, malformed, or for another scheme.

    This is an error in the receiver's configuration; no webhook can be verified until it is fixed.
    """


class NotFoundError(ThornError, LookupError):
    """There is no subscription, message or delivery with that id."""


class BufferNotEmpty(ThornError):  # noqa: N818 - Thorn 1.x's name
    """A buffer was closed by hand while it still held messages; flush or discard them first."""


class StoreError(ThornError):
    """A store is unavailable: not initialised, unreachable or full."""


class StoreSetupError(StoreError):
    """A store must be set up first: it has no tables, or tables of an older schema."""


class StoreDataError(StoreError):
    """A store can't hold a value: it is too large, or the database refuses it."""


class TransportError(ThornError):
    """A request got no usable response: no connection, a TLS failure, a reset, or not HTTP."""


class TransportTimeout(TransportError):  # noqa: N818 - the name says enough
    """A request got no response in time."""
