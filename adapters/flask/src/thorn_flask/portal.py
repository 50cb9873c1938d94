"""The portal on Flask: a blueprint with a page over the REST resource.

It may be registered at any prefix, beside the blueprint of the resource.
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
    """Make a blueprint with a page where users look after their subscriptions.

    The page holds no data: what it shows it asks the resource for, with the cookies of whoever is
    signed in. To keep others from the page itself, give the blueprint a `before_request`.

    Args:
        rest: Name of the resource's blueprint, with those that it is nested in: `api.webhooks`.
        title: What the page is called.
        sign_in_url: Where those go whose session has ended.
        csrf_token: Gives the token of a protection of yours, such as Flask-WTF's `generate_csrf`;
            the page sends it as `X-CSRFToken`.
        name: Of the blueprint: `webhooks_portal.page` is its endpoint.

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
    """Where the resource is, below what the page is below."""
    given = request.view_args or {}
    expected = current_app.url_map.is_endpoint_expecting
    return url_for(endpoint, **{k: v for k, v in given.items() if expected(endpoint, k)})


def _response(portal: Portal, path: str, csrf_token: str | None) -> Response:
    answer = portal.handle(path, method=request.method, csrf_token=csrf_token)
    response = Response(answer.body, answer.status)
    response.headers.update(answer.headers)
    return response
