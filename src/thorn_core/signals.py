"""The blinker signals: from ORM adapters to Thorn, and from Thorn to programs.

In, sent by ORM adapters (or by hand) with the model class as sender::

    model_created.send(Article, instance=article)
    model_changed.send(Article, instance=article, previous={"state": "DRAFT"})
    model_deleted.send(Article, instance=article)
    model_m2m_added.send(Article, instance=article, field="tags", related=[tag])
    model_m2m_removed.send(Article, instance=article, field="tags", related=[tag])
    model_m2m_cleared.send(Article, instance=article, field="tags")

All take `within=`, the transaction handle of the change, if there is one. `previous` has the
previous values of the changed fields.

Out, with the app as sender. Receivers must be fast, because they run in the thread that sends the
signal: usually the engine's, for all but `message_sent`. Their errors are only logged::

    message_sent            message=
    attempt_made            attempt=, delivery=
    delivery_delivered      delivery=, attempt=
    delivery_failed         delivery=, attempt=
    delivery_cancelled      delivery=, attempt= (None if no request was made)
    subscription_disabled   subscription=

Example:
    >>> from thorn_core import signals
    >>> def on_failed(app, *, delivery, attempt):
    ...     print("gave up on", delivery.id)
    >>> receiver = signals.delivery_failed.connect(on_failed)
"""

from __future__ import annotations

import logging
from typing import Any

from blinker import Namespace, Signal

logger = logging.getLogger(__name__)

_namespace = Namespace()

model_created = _namespace.signal("model-created")
model_changed = _namespace.signal("model-changed")
model_deleted = _namespace.signal("model-deleted")
model_m2m_added = _namespace.signal("model-m2m-added")
model_m2m_removed = _namespace.signal("model-m2m-removed")
model_m2m_cleared = _namespace.signal("model-m2m-cleared")

message_sent = _namespace.signal("message-sent")
attempt_made = _namespace.signal("attempt-made")
delivery_delivered = _namespace.signal("delivery-delivered")
delivery_failed = _namespace.signal("delivery-failed")
delivery_cancelled = _namespace.signal("delivery-cancelled")
subscription_disabled = _namespace.signal("subscription-disabled")


def tell(signal: Signal, sender: Any, **values: Any) -> None:
    """Send an outgoing signal; log the errors of receivers.

    Args:
        signal: One of the outgoing signals.
        sender: The app.
        **values: Keyword arguments for the receivers.
    """
    if not signal.receivers:
        return
    for receiver in signal.receivers_for(sender):
        try:
            with sender.plugins.calling():
                receiver(sender, **values)
        except Exception:
            logger.exception("a receiver of the signal %s failed", signal)
