"""Methods and attributes of Thorn 1.x that subclasses could override, with replacements.

Nothing calls these any more. A subclass that has one is refused, because ignoring `should_dispatch`
or `prepare_recipient_validators` would send messages that must not be sent.
"""

from __future__ import annotations

from collections.abc import Mapping

from thorn_core.errors import ConfigurationError

_SIGNING = "a signature scheme of a plugin, by the hook thorn_signature_schemes"
EVENT: Mapping[str, str] = {
    "prepare_payload": "request_data=, or pass the whole payload to send()",
    "prepare_recipient_validators": "recipient_validators=, or the setting recipient_validators",
    "prepared_recipient_validators": "recipient_validators=, or the setting recipient_validators",
    "recipient_validators": "recipient_validators=, given to the event",
    "allow_keepalive": "allow_keepalive=, given to the event",
    "subscribers": "subscribers=, which may be a callable, or the hook thorn_subscriptions",
    "dispatcher": "dispatcher=, the name of a dispatcher",
    "app": "app=, given to the event",
    "_send": "the hook thorn_prepare_request",
    "sign": _SIGNING,
    "hmac_sign": _SIGNING,
}
MODEL_EVENT: Mapping[str, str] = {
    **EVENT,
    "should_dispatch": "conditions, ModelEvent(name, state__eq=…), on a property if necessary",
    "_get_name": "fields in the name, 'article.{.state}'",
    "to_message": "a payload method in `class webhooks`, and the setting envelope",
    "instance_data": "a payload method in `class webhooks`",
    "instance_headers": "a headers method in `class webhooks`",
    "instance_sender": "sender_field, which may name a property",
    "get_absolute_url": "reverse=, or get_absolute_url() of the model",
    "_get_absolute_url_from_reverse": "reverse=",
    "_get_absolute_url_from_model": "get_absolute_url() of the model",
    "send": "conditions and a payload method; a change of the model doesn't call it",
    "send_from_instance": "conditions and a payload method; a change of the model doesn't call it",
    "on_signal": "the signals of thorn_core.signals",
    "_on_signal": "the signals of thorn_core.signals",
    "connect_model": "the signals of thorn_core.signals",
    "_connect_model_signal": "the signals of thorn_core.signals",
    "signal_dispatcher": "the signals of thorn_core.signals",
    "_init_attrs": "__init__",
}
SUBSCRIBER: Mapping[str, str] = {
    "sign": _SIGNING,
    "as_dict": "the REST resource, or the columns of the model",
    "from_dict": "app.subscribe()",
    "user_ident": "the column owner",
}
APP: Mapping[str, str] = {
    "event_cls": "Event itself",
    "model_event_cls": "ModelEvent itself",
    "settings_cls": "settings=Settings(…)",
    "request_cls": "the hooks thorn_prepare_request and thorn_attempted",
    "dispatchers": "the hook thorn_dispatchers",
    "environments": "an adapter: thorn-django, thorn-flask, thorn-sqlalchemy",
    "hmac_sign": _SIGNING,
    "subclass_with_self": "nothing: events find their app when they are sent",
}


def refuse_overrides(cls: type, replaced: Mapping[str, str]) -> None:
    """Refuse a subclass that overrides methods or attributes of Thorn 1.x.

    Args:
        cls: The subclass.
        replaced: Replacements by name.

    Raises:
        ConfigurationError: It overrides one.
    """
    for name in vars(cls):
        instead = replaced.get(name) or (_SIGNING if name.startswith("get_hmac") else None)
        if instead is not None:
            raise ConfigurationError(
                f"{cls.__name__}.{name} is from Thorn 1.x and is never called; use {instead}"
            )
