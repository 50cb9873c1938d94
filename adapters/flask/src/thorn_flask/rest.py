"""The REST resource on Flask, as a blueprint.

With `url_prefix="/hooks"`, subscriptions are at `/hooks/` and `/hooks/{id}/`. Everything else is
below `/hooks/`, too: `deliveries/{id}/`, `event-types/` and `openapi.json`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from flask import Blueprint, Flask, Response, current_app, request
from flask.blueprints import BlueprintSetupState
from werkzeug.routing import BaseConverter

from thorn_core.api import ApiRequest, ApiResponse, Problem, Resource
from thorn_flask.bodies import body_of
from thorn_flask.extension import thorn_of

SAFE = ("GET", "HEAD", "OPTIONS", "TRACE")
FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
# Characters allowed in paths (RFC 3986), besides letters and digits.
IN_PATHS = "/:@!$&'()*+,;=~"


class Below(BaseConverter):
    """Matches every path below the blueprint's prefix; the resource routes it."""

    regex = r"[\s\S]+"
    part_isolating = False


def rest_blueprint(
    owner_loader: Callable[[], Any],
    *,
    operator_loader: Callable[[], Any] | None = None,
    name: str = "webhooks",
    **options: Any,
) -> Blueprint:
    """Create a blueprint with the REST resource, for any prefix.

    Register it after `ThornFlask.init_app`. Cross-site requests with a browser's cookies or Basic
    credentials are refused, except for reading.

    Args:
        owner_loader: Called in each request; returns the id of the authenticated user or tenant, or
            None, which results in a 401. It may be a coroutine function.
        operator_loader: Returns whether the request is from staff, who can access everything.
        name: The blueprint's name; its endpoints are `webhooks.hooks` and `webhooks.resource`.
        **options: Options of `thorn_core.api.Resource`: `challenge`, `security_schemes`,
            `body_limit`, `creations_per_minute`, `sends_per_minute`, `title` …

    Raises:
        ConfigurationError: At registration: the app has no Thorn, or an option is invalid.

    Example:
        >>> from thorn_flask import ThornFlask
        >>> app = Flask("shop")
        >>> webhooks = ThornFlask(app)
        >>> app.register_blueprint(rest_blueprint(lambda: "ada"), url_prefix="/hooks")
        >>> app.test_client().get("/hooks/").text
        '{"items":[],"next":null}'
        >>> app.extensions["thorn"].close()
    """

    def register(state: BlueprintSetupState) -> None:
        resource = Resource(thorn_of(_app(state)), **options)

        def answer(below: str = "", **_: Any) -> Response:
            return _response(_answer(resource, below, owner_loader, operator_loader))

        prefix = (state.url_prefix or "").rstrip("/")
        for path in dict.fromkeys((f"{prefix}/", prefix or "/")):
            _route(state, "hooks", path, answer)
        _route(state, "resource", f"{prefix}/<thorn_below:below>", answer)

    blueprint = Blueprint(name, __name__)
    blueprint.record(register)
    return blueprint


def _app(state: BlueprintSetupState) -> Flask:
    assert isinstance(state.app, Flask)
    return state.app


def _route(state: BlueprintSetupState, endpoint: str, path: str, view: Callable[..., Any]) -> None:
    """Route all methods, even unknown ones, to a view, which `add_url_rule` can't do."""
    app = _app(state)
    app.url_map.converters.setdefault("thorn_below", Below)
    rule = app.url_rule_class(
        path,
        endpoint=f"{state.name_prefix}.{state.name}.{endpoint}".lstrip("."),
        defaults=state.url_defaults,
        subdomain=state.subdomain,
    )
    rule.provide_automatic_options = False  # type: ignore[attr-defined]
    app.url_map.add(rule)
    app.view_functions[rule.endpoint] = view


# -- requests


def _answer(
    resource: Resource,
    below: str,
    owner_loader: Callable[[], Any],
    operator_loader: Callable[[], Any] | None,
) -> ApiResponse:
    if request.method not in SAFE and _is_another_sites():
        problem = Problem(
            "forbidden", "Cross-site request refused: a page of another origin sent it."
        )
        return resource.refuse(problem, method=request.method)
    owner = current_app.ensure_sync(owner_loader)()
    operator = operator_loader is not None and current_app.ensure_sync(operator_loader)()
    body = body_of(resource.body_limit)
    if not body and request.mimetype in FORMS:
        # Flask-WTF, for example, has read the body; the resource refuses its content type.
        body = b"--"
    path = request.root_path + request.path
    prefix = quote(path.removesuffix(below).rstrip("/"), safe=IN_PATHS)
    return resource.handle(
        ApiRequest(
            method=request.method,
            path=f"/{below}",
            query=parse_qs(request.query_string.decode("utf-8", "replace"), keep_blank_values=True),
            headers={name.lower(): value for name, value in request.headers},
            body=body,
            owner=None if owner is None else str(owner),
            operator=bool(operator),
            base_url=f"{request.scheme}://{request.host}{prefix}",
            hooks_at_root=True,
        )
    )


def _is_another_sites() -> bool:
    """Return whether a browser sends this for another site's page, with ambient credentials.

    Browsers show this in headers (Fetch Metadata, and Origin of RFC 6454). They never add other
    credentials, such as bearer tokens, by themselves, so a request with one isn't forged.
    """
    credentials = request.authorization
    if credentials is not None and credentials.type != "basic":
        return False
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = request.headers.get("Origin")
    return origin is not None and urlsplit(origin).netloc != request.host


# -- responses


def _response(answer: ApiResponse) -> Response:
    response = Response(answer.body, answer.status)
    if "content-type" not in answer.headers:
        del response.headers["Content-Type"]
    response.headers.update(answer.headers)
    return response
