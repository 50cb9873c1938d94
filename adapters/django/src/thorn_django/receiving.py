"""Receiving: views that get verified webhooks, each once.

The view gets each genuine webhook with its message, and its response goes to the sender. Other
requests get these responses:

======  ============================================================================
status  when
======  ============================================================================
200     a repetition or replay that was already handled; the view isn't called
400     a genuine request with an undecodable body
401     an invalid or outdated signature
405     a method other than POST
409     a webhook that is being handled right now; the sender should retry
413     a body that is too large
======  ============================================================================

A webhook counts as handled when the view returns 2xx and any surrounding transaction
(`ATOMIC_REQUESTS`) has committed. If the view raises, returns another status, or its process dies,
the view also gets the sender's next attempt.

One of the project's caches stores the handled webhooks. Processes recognise each other's webhooks
only in a shared cache: Redis, Memcached and the database cache are shared, `LocMemCache` belongs to
one process, `DummyCache` stores nothing, and the file-based cache may accept two simultaneous
requests. A cache may evict entries early: `LocMemCache` and the database cache hold 300 unless
`MAX_ENTRIES` is higher. If handling a webhook twice costs money, also store the message's id in a
unique column, in the same transaction.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from inspect import isawaitable
from typing import Any

from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django.apps import apps
from django.conf import settings as project
from django.core.cache import caches
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.utils.connection import ConnectionProxy
from django.views.decorators.csrf import csrf_exempt

from thorn_core import get_app, receiver
from thorn_core.receiver import Answer, Arrival, Decoder, Receiver
from thorn_core.signatures import SignatureScheme

View = Callable[..., Any]
Secrets = str | Sequence[str]
SecretsOf = Callable[[HttpRequest], Secrets | Awaitable[Secrets | None] | None]

# The number of bytes to read from a body at once.
CHUNK = 64 * 1024


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
    cache: str = "default",
) -> Callable[[View], View]:
    """Decorate a view to get webhooks as `view(request, message, …)`, once for each.

    It decorates functions and coroutines; put it above other decorators. For classes, use
    `@method_decorator(verify_webhook(…), name="dispatch")`: it calls `post(self, request, message,
    …)`. The views are exempt from CSRF protection. Two requests are the same webhook if they have
    the same path and the same id, or the same body without a signed id.

    Args:
        secrets: The secret, several during a rotation, or a function that returns them for a
            request, or None for an unknown sender.
        setting: The name of a project's setting with the secrets, in place of `secrets`.
        scheme: The signature scheme: `standard-webhooks`, `standard-webhooks-ed25519`, `hook-hmac`,
            `github`, `stripe`, or your own scheme.
        tolerance: The maximum deviation of the signed time in seconds, either way.
        remember: The time in seconds to store handled webhooks. Less than twice the tolerance
            permits replays; with 0, the view gets every genuine request.
        limit: The maximum size of the body in bytes.
        audience: Your URL in the sender's subscription. Requests signed for another URL are
            refused; the sender's setting `sign_audience` adds the URL to the envelope.
        decoders: Further decoders by content type. None uses the decoders of your app's plugins, if
            there is an app.
        cache: Alias of the cache for handled webhooks.

    Raises:
        ConfigurationError: Secrets are missing or invalid, the scheme is unknown, or a duration is
            invalid. At a request: the setting is empty.

    Example:
        >>> @verify_webhook("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
        ... def paid(request, message):
        ...     print(message.event, message.payload)
        ...     return HttpResponse(status=204)
        >>> from django.test import RequestFactory
        >>> paid(RequestFactory().post("/webhooks/", {}, "application/json")).status_code
        401
    """
    receiving = Receiver(
        guard=CacheReplayGuard(cache),
        scheme=scheme,
        tolerance=tolerance,
        remember=remember,
        limit=limit,
        audience=audience,
    )
    receiver.check_secrets(secrets, setting, receiving.scheme)

    def secrets_of(request: HttpRequest) -> Any:
        if setting is not None:
            return receiver.secrets_of(setting, getattr(project, setting, None))
        return secrets(request) if callable(secrets) else secrets

    def take(request: HttpRequest, secrets: Any) -> Arrival | Answer:
        return _take(receiving, request, secrets, decoders)

    def decorate(view: View) -> View:
        around = _asynchronous if _is_async(view) else _synchronous
        return csrf_exempt(around(view, receiving, secrets_of, take))

    return decorate


def _is_async(view: View) -> bool:
    if iscoroutinefunction(view):
        return True
    # The `dispatch` of an asynchronous class, from `method_decorator`.
    method = getattr(view, "func", view)
    return bool(getattr(getattr(method, "__self__", None), "view_is_async", False))


# -- around a view


def _synchronous(view: View, receiving: Receiver, secrets_of: View, take: View) -> View:
    @functools.wraps(view)
    def wrapped(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        secrets = secrets_of(request)
        if isawaitable(secrets):
            secrets = async_to_sync(_awaited)(secrets)
        taken = take(request, secrets)
        if isinstance(taken, Answer):
            return _respond(taken)
        try:
            response = view(request, taken.message, *args, **kwargs)
        except BaseException:
            receiving.settle(taken, handled=False)
            raise
        _settle(receiving, taken, response)
        return response

    return wrapped


def _asynchronous(view: View, receiving: Receiver, secrets_of: View, take: View) -> View:
    @functools.wraps(view)
    async def wrapped(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        secrets = await _in_thread(secrets_of, request)
        if isawaitable(secrets):
            secrets = await secrets
        taken = await _in_thread(take, request, secrets)
        if isinstance(taken, Answer):
            return _respond(taken)
        try:
            response = await view(request, taken.message, *args, **kwargs)
        except BaseException:
            await _in_thread(receiving.settle, taken, handled=False)
            raise
        await _in_thread(_settle, receiving, taken, response)
        return response

    return wrapped


async def _in_thread(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function in the thread that may use the database: caches and secrets may need it."""
    return await sync_to_async(function, thread_sensitive=True)(*args, **kwargs)


async def _awaited(secrets: Awaitable[Any]) -> Any:
    return await secrets


def _take(
    receiving: Receiver,
    request: HttpRequest,
    secrets: Any,
    decoders: Mapping[str, Decoder] | None,
) -> Arrival | Answer:
    endpoint = request.path
    if request.method != "POST":
        return receiver.refusal(405, endpoint, f"it is a {request.method}")
    try:
        body = _body(request, receiving.limit)
    except UnreadablePostError as error:
        return receiver.refusal(400, endpoint, f"its body can't be read: {error}")
    if not secrets:
        return receiver.refusal(401, endpoint, "no secret was found for this request")
    if decoders is None and apps.is_installed("thorn_django"):
        decoders = get_app().decoders
    return receiving.take(body, request.headers, secrets, endpoint=endpoint, decoders=decoders)


def _body(request: HttpRequest, limit: int) -> bytes:
    """Return the body, or enough of it to show that it is too large."""
    if hasattr(request, "_body"):  # A middleware has read it.
        return request.body
    chunks, size = [], 0
    while size <= limit and (chunk := request.read(min(CHUNK, limit + 1 - size))):
        chunks.append(chunk)
        size += len(chunk)
    body = b"".join(chunks)
    request._body = body  # The view may read it, too.
    return body


def _settle(receiving: Receiver, arrival: Arrival, response: Any) -> None:
    if 200 <= getattr(response, "status_code", 500) < 300:
        _after_commits(partial(receiving.settle, arrival, handled=True))
    else:
        receiving.settle(arrival, handled=False)


def _after_commits(callback: Callable[[], None]) -> None:
    """Call a function once all transactions around the view have committed."""
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block:
            callback = partial(transaction.on_commit, callback, using=connection.alias)
    callback()


def _respond(answer: Answer) -> HttpResponse:
    return HttpResponse(answer.body, status=answer.status, headers=dict(answer.headers))


# -- handled webhooks


class CacheReplayGuard(receiver.CacheReplayGuard):
    """Stores handled webhooks in a Django cache; `cache.add` accepts one of several requests.

    Args:
        alias: The alias of the cache.

    Example:
        >>> from datetime import UTC, datetime
        >>> guard, now = CacheReplayGuard(), datetime(2026, 3, 1, tzinfo=UTC)
        >>> guard.begin("a", now=now, until=now + timedelta(seconds=60))
        <Seen.NEW: 'new'>
        >>> guard.begin("a", now=now, until=now + timedelta(seconds=60))
        <Seen.UNDER_WAY: 'under way'>
    """

    def __init__(self, alias: str = "default") -> None:
        super().__init__(ConnectionProxy(caches, alias))
