"""Receiving: views that get verified webhooks, each once.

A genuine webhook is passed to the view as a message, and the view responds. All other requests get
a response here:

======  ============================================================================
status  when
======  ============================================================================
200     it was handled before: a duplicate or a replay; the view isn't called
400     it is genuine, but its body doesn't match its content type
401     no signature matches, or the signed time is outside the tolerance
405     it isn't a POST
409     it is being handled right now; the sender should retry it
413     its body is too large
======  ============================================================================

A webhook is handled when the view responds with 2xx. If the view raises or responds otherwise, or
its process dies, the view gets the sender's next attempt.
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
    """Let a view receive webhooks: it is called as `view(message=…, …)`, once for each.

    It decorates functions, coroutine functions, and methods of a `MethodView`; put it below
    `route`. With Flask-WTF, exempt the view from its CSRF protection. Two requests to the same path
    are the same webhook if they have the same signed id or, without one, the same body.

    Args:
        secrets: The secret, several during a rotation, or a function that returns them during a
            request, or None for an unknown sender.
        setting: The name of the secrets in the app's config, instead of `secrets`.
        scheme: The signature scheme: `standard-webhooks`, `standard-webhooks-ed25519`,
            `hook-hmac`, `github`, `stripe`, or a custom scheme.
        tolerance: Maximum difference of the signed time in seconds, either way.
        remember: Seconds that a handled webhook is remembered. Less than twice the tolerance
            permits replays; with 0, the view gets every genuine request.
        limit: Maximum bytes of the body.
        audience: Your URL, as the sender has it. Refuses webhooks signed for another URL; the
            sender's setting `sign_audience` adds it to the envelope.
        decoders: More decoders, by content type. None uses those of your Thorn's plugins, if you
            have one.
        guard: Remembers handled webhooks. None remembers them in this process only; several
            processes need a shared guard, such as `CacheReplayGuard(cache)` of
            `thorn_core.receiver`.

    Raises:
        ConfigurationError: There are no secrets, one is unusable, the scheme is unknown, or a
            duration is invalid. During a request: the setting is empty.

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
