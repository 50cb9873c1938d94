"""Receiving: views that get webhooks, verified and each once.

What is genuine goes to the view, with its message; the view's answer goes back. Everything else is
answered here:

======  ============================================================================
status  when
======  ============================================================================
200     it has been handled already: a repetition, or a replay. The view isn't called
400     it is genuine, and its body isn't what it says it is
401     no secret signed it, or not lately
405     it isn't a POST
409     it is being handled at this moment: the sender is to try again
413     its body is too large
======  ============================================================================

A webhook has been handled when the view answers 2xx. When the view raises, or answers otherwise, or
its process dies, the sender's next attempt goes to the view again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from flask import Response, current_app, request
from werkzeug.exceptions import ClientDisconnected

from thorn_core import receiver
from thorn_core.receiver import (
    Answer,
    Arrival,
    Decoder,
    MemoryReplayGuard,
    Receiver,
    ReplayGuard,
)
from thorn_core.signatures import SignatureScheme
from thorn_flask.bodies import body_of
from thorn_flask.extension import KEY, current

View = Callable[..., Any]
Secrets = str | Sequence[str]
SecretsOf = Callable[[], Any]


def verify_webhook(
    secrets: Secrets | SecretsOf | None = None,
    *,
    setting: str | None = None,
    scheme: str | SignatureScheme = "standard-webhooks",
    tolerance: float | timedelta = 300.0,
    remember: float | timedelta = 86400.0,
    limit: int = receiver.BODY_LIMIT,
    audience: str | None = None,
    decoders: Mapping[str, Decoder] | None = None,
    guard: ReplayGuard | None = None,
) -> Callable[[View], View]:
    """Make a view get webhooks: it is called as `view(message=…, …)`, once for each.

    For functions, coroutine functions, and methods of a `MethodView`; put it below `route`. With
    Flask-WTF, exempt the view from its CSRF protection. A webhook is the same if it has the same
    id (without a signed one: the same body) and comes to the same path.

    Args:
        secrets: The secret, several during a rotation, or a function that gives them in a request;
            it gives None for a sender that isn't known.
        setting: In place of `secrets`, the name that they have in the app's config.
        scheme: By which it is signed: `standard-webhooks`, `standard-webhooks-ed25519`,
            `hook-hmac`, `github`, `stripe`, or a scheme of one's own.
        tolerance: Seconds that the signed time may be off, either way.
        remember: Seconds that what was handled is remembered. Less than twice the tolerance lets
            replays in; 0 hands every genuine request to the view.
        limit: Bytes of the body at most.
        audience: Your URL, as the sender has it. Refuses what was signed for another one; the
            sender's setting `sign_audience` puts it into the envelope.
        decoders: More decoders, by content type. None takes those of the plugins of your Thorn, if
            you have one.
        guard: Remembers what has been here. None does so in this process only; several processes
            need one that they share, such as `CacheReplayGuard(cache)` of `thorn_core.receiver`.

    Raises:
        ConfigurationError: There are no secrets, one can't be used, there is no such scheme, or a
            duration isn't one. When a request comes also: the setting is empty.

    Example:
        >>> from flask import Flask
        >>> app = Flask("shop")
        >>> @app.post("/webhooks/")
        ... @verify_webhook("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
        ... def paid(message):
        ...     print(message.event, message.payload)
        ...     return "", 204
        >>> app.test_client().post("/webhooks/", json={}).status_code
        401
    """
    receiving = Receiver(
        guard=MemoryReplayGuard() if guard is None else guard,
        scheme=scheme,
        tolerance=tolerance,
        remember=remember,
        limit=limit,
        audience=audience,
    )
    receiver.check_secrets(secrets, setting, receiving.scheme)

    def secrets_now() -> Any:
        if setting is not None:
            return receiver.secrets_of(setting, current_app.config.get(setting))
        return current_app.ensure_sync(secrets)() if callable(secrets) else secrets

    def decorate(view: View) -> View:
        @functools.wraps(view)
        def wrapped(*args: Any, **kwargs: Any) -> Response:
            taken = _take(receiving, secrets_now, decoders)
            if isinstance(taken, Answer):
                return Response(taken.body, taken.status, dict(taken.headers))
            try:
                result = current_app.ensure_sync(view)(*args, message=taken.message, **kwargs)
                response = current_app.make_response(result)
            except BaseException:
                receiving.settle(taken, handled=False)
                raise
            receiving.settle(taken, handled=200 <= response.status_code < 300)
            return response

        return wrapped

    return decorate


def _take(
    receiving: Receiver,
    secrets_now: Callable[[], Any],
    decoders: Mapping[str, Decoder] | None,
) -> Arrival | Answer:
    endpoint = request.root_path + request.path
    if request.method != "POST":
        return receiver.refusal(405, endpoint, f"it is a {request.method}")
    secrets = secrets_now()
    try:
        body = body_of(receiving.limit)
    except ClientDisconnected as error:
        return receiver.refusal(400, endpoint, f"its body can't be read: {error}")
    if not secrets:
        return receiver.refusal(401, endpoint, "no secret was found for this request")
    if decoders is None and KEY in current_app.extensions:
        decoders = current().decoders
    return receiving.take(body, request.headers, secrets, endpoint=endpoint, decoders=decoders)
