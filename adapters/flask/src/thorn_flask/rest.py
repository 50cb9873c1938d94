"""The REST resource on Flask: a blueprint that carries it.

Registered with `url_prefix="/hooks"`, subscriptions are at `/hooks/` and `/hooks/{id}/`, and what
else there is beside them: `/hooks/deliveries/{id}/`, `/hooks/event-types/`, `/hooks/openapi.json`.
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
# What a path may hold (RFC 3986), beside letters and digits.
IN_PATHS = "/:@!$&'()*+,;=~"


class Below(BaseConverter):
    """Whatever there is below the blueprint's prefix: the resource says what that is."""

    regex = r"[\s\S]+"
    part_isolating = False


def rest_blueprint(
    owner_loader: Callable[[], Any],
    *,
    operator_loader: Callable[[], Any] | None = None,
    name: str = "webhooks",
    **options: Any,
) -> Blueprint:
    """Make a blueprint that answers every call of the REST resource, at whatever prefix.

    Register it after `ThornFlask.init_app`. A page of another site can't use a browser's cookies
    or Basic credentials here: what it sends is refused, unless it is only to be read.

    Args:
        owner_loader: Called in each request: gives the id of the user or tenant whose it is, and
            None for nobody, who is answered 401. It may be a coroutine function.
        operator_loader: Says whether the request is that of staff, who see and touch everything.
        name: Of the blueprint: `webhooks.hooks` and `webhooks.resource` are its endpoints.
        **options: Those of `thorn_core.api.Resource`: `challenge`, `security_schemes`,
            `body_limit`, `creations_per_minute`, `sends_per_minute`, `title` …

    Raises:
        ConfigurationError: When it is registered: the app has no Thorn, or an option isn't right.

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
    """Route every method to a view, as `add_url_rule` can't: also those that nobody knows."""
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


# -- in


def _answer(
    resource: Resource,
    below: str,
    owner_loader: Callable[[], Any],
    operator_loader: Callable[[], Any] | None,
) -> ApiResponse:
    if request.method not in SAFE and _is_another_sites():
        problem = Problem(
            "forbidden", "Cross-site request refused: the page that sent it is on another origin."
        )
        return resource.refuse(problem, method=request.method)
    owner = current_app.ensure_sync(owner_loader)()
    operator = operator_loader is not None and current_app.ensure_sync(operator_loader)()
    body = body_of(resource.body_limit)
    if not body and request.mimetype in FORMS:
        # Somebody has read it, such as Flask-WTF. The resource refuses it for its type.
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
    """Whether a browser sends this for another site's page, with what it adds by itself.

    Browsers say so (Fetch Metadata, RFC 6454), and nothing but they can be made to. What they
    never add by themselves, such as a bearer token, is their page's own.
    """
    credentials = request.authorization
    if credentials is not None and credentials.type != "basic":
        return False
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = request.headers.get("Origin")
    return origin is not None and urlsplit(origin).netloc != request.host


# -- out


def _response(answer: ApiResponse) -> Response:
    response = Response(answer.body, answer.status)
    if "content-type" not in answer.headers:
        del response.headers["Content-Type"]
    response.headers.update(answer.headers)
    return response
