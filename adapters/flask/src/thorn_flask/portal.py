"""The portal on Flask: a blueprint with a page over the REST resource.

Register it at any prefix, in addition to the resource's blueprint.
"""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, Response, current_app, request, url_for

from thorn_core.portal import Portal

HOOKS = "hooks"


def portal_blueprint(
    *,
    rest: str = "webhooks",
    title: str = "Webhooks",
    sign_in_url: str | None = None,
    csrf_token: Callable[[], str] | None = None,
    name: str = "webhooks_portal",
) -> Blueprint:
    """Create a blueprint with a page where users manage their subscriptions.

    The page contains no data: the browser requests everything from the resource, with the user's
    cookies. To restrict access to the page itself, add a `before_request` to the blueprint.

    Args:
        rest: Name of the resource's blueprint, including enclosing blueprints: `api.webhooks`.
        title: The page's title.
        sign_in_url: Where users sign in after their session ends.
        csrf_token: Returns the token of your CSRF protection, such as Flask-WTF's `generate_csrf`;
            the page sends it as `X-CSRFToken`.
        name: The blueprint's name; the page's endpoint is `webhooks_portal.page`.

    Example:
        >>> from flask import Flask
        >>> from thorn_flask import ThornFlask, rest_blueprint
        >>> app = Flask("shop")
        >>> webhooks = ThornFlask(app)
        >>> app.register_blueprint(rest_blueprint(lambda: "ada"), url_prefix="/hooks")
        >>> page = portal_blueprint(title="Webhooks of a shop")
        >>> app.register_blueprint(page, url_prefix="/portal")
        >>> "<title>Webhooks of a shop</title>" in app.test_client().get("/portal/").text
        True
        >>> app.extensions["thorn"].close()
    """
    blueprint = Blueprint(name, __name__)

    def page(**_: object) -> Response:
        token = None if csrf_token is None else csrf_token()
        portal = Portal(
            api_path=_resource_path(f"{rest}.{HOOKS}"),
            hooks_at_root=True,
            title=title,
            sign_in_url=sign_in_url,
        )
        return _response(portal, "/", token)

    files = Portal(api_path="/")

    def file(path: str, **_: object) -> Response:
        return _response(files, f"/{path}", None)

    blueprint.add_url_rule("/", "page", page)
    blueprint.add_url_rule("/<path:path>", "file", file)
    return blueprint


def _resource_path(endpoint: str) -> str:
    """Return the resource's path, with its variables from the current request's path."""
    given = request.view_args or {}
    expected = current_app.url_map.is_endpoint_expecting
    return url_for(endpoint, **{k: v for k, v in given.items() if expected(endpoint, k)})


def _response(portal: Portal, path: str, csrf_token: str | None) -> Response:
    answer = portal.handle(path, method=request.method, csrf_token=csrf_token)
    response = Response(answer.body, answer.status)
    response.headers.update(answer.headers)
    return response
