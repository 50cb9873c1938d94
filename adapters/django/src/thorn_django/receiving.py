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

A webhook has been handled when the view answers 2xx, and its transaction, if one is open around it
(`ATOMIC_REQUESTS`), has committed. When the view raises, or answers otherwise, or its process dies,
the sender's next attempt goes to the view again.

What has been here is remembered in a cache of the project's. Processes know of each other's as far
as they share it: Redis, Memcached and the database cache are shared, `LocMemCache` is each
process's own, `DummyCache` remembers nothing, and the file-based cache may let two at once through.
A cache that drops entries forgets early: `LocMemCache` and the database cache keep 300 unless their
`MAX_ENTRIES` says more. Where doing something twice costs money, keep the message's id in a unique
column too, in the transaction that does it.
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

# Read of a body at once.
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
    """Make a view get webhooks: it is called as `view(request, message, …)`, once for each.

    For views that are functions or coroutines; put it above other decorators. For classes, use
    `@method_decorator(verify_webhook(…), name="dispatch")`: then `post(self, request, message, …)`
    is called. They are exempt from CSRF protection. A webhook is the same if it has the same id
    (without a signed one: the same body) and comes to the same path.

    Args:
        secrets: The secret, several during a rotation, or a function that gives them for a request;
            it gives None for a sender that isn't known.
        setting: In place of `secrets`, the name of the project's setting that holds them.
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
        cache: Alias of the cache that remembers.

    Raises:
        ConfigurationError: There are no secrets, one can't be used, there is no such scheme, or a
            duration isn't one. When a request comes also: the setting is empty.

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
    # `dispatch` of an asynchronous class, as method_decorator hands it over.
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
    """Call a function in the thread that may use the database, as caches and secrets may."""
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
    """The body, or as much of it as shows that it is too large."""
    if hasattr(request, "_body"):  # a middleware has asked for it
        return request.body
    chunks, size = [], 0
    while size <= limit and (chunk := request.read(min(CHUNK, limit + 1 - size))):
        chunks.append(chunk)
        size += len(chunk)
    body = b"".join(chunks)
    request._body = body  # the view may ask for it too
    return body


def _settle(receiving: Receiver, arrival: Arrival, response: Any) -> None:
    if 200 <= getattr(response, "status_code", 500) < 300:
        _after_commits(partial(receiving.settle, arrival, handled=True))
    else:
        receiving.settle(arrival, handled=False)


def _after_commits(callback: Callable[[], None]) -> None:
    """Call back once every transaction that is open around the view has committed."""
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block:
            callback = partial(transaction.on_commit, callback, using=connection.alias)
    callback()


def _respond(answer: Answer) -> HttpResponse:
    return HttpResponse(answer.body, status=answer.status, headers=dict(answer.headers))


# -- what has been here


class CacheReplayGuard(receiver.CacheReplayGuard):
    """Remembers webhooks in one of Django's caches, by `cache.add`, which lets one of several in.

    Args:
        alias: Of the cache.

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
