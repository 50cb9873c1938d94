"""Routing: finds the call for a path and a method."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs

from thorn_core.api.calls import Call
from thorn_core.api.deliveries import (
    cancel_delivery,
    list_deliveries,
    recover,
    retry_delivery,
    show_delivery,
)
from thorn_core.api.event_types import list_event_types
from thorn_core.api.exchange import HOOKS, ApiResponse
from thorn_core.api.hooks import (
    change_hook,
    list_hooks,
    pause_hook,
    remove_hook,
    replace_hook,
    resume_hook,
    rotate_secret,
    send_test,
    show_hook,
    subscribe,
)
from thorn_core.api.openapi import show_openapi
from thorn_core.api.stats import show_stats

ID = "{id}"


@attrs.frozen
class Route:
    """A path and its calls.

    Attributes:
        path: Its parts; `{id}` stands for an id.
        calls: Calls by method; HEAD and OPTIONS are added automatically.
    """

    path: tuple[str, ...]
    calls: Mapping[str, Callable[[Call], ApiResponse]]

    @property
    def allowed(self) -> str:
        """The methods, as `Allow` lists them."""
        head = ["HEAD"] if "GET" in self.calls else []
        return ", ".join(sorted([*self.calls, *head, "OPTIONS"]))

    def key(self, parts: tuple[str, ...]) -> str | None:
        """Return the id in a path (empty if it has none), or None if the path doesn't match."""
        if len(parts) != len(self.path):
            return None
        key = ""
        for mine, part in zip(self.path, parts, strict=True):
            if mine == ID and part:
                key = part
            elif mine != part:
                return None
        return key


ROUTES = (
    Route((HOOKS,), {"GET": list_hooks, "POST": subscribe}),
    Route(
        (HOOKS, ID),
        {"GET": show_hook, "PATCH": change_hook, "PUT": replace_hook, "DELETE": remove_hook},
    ),
    Route((HOOKS, ID, "rotate-secret"), {"POST": rotate_secret}),
    Route((HOOKS, ID, "pause"), {"POST": pause_hook}),
    Route((HOOKS, ID, "resume"), {"POST": resume_hook}),
    Route((HOOKS, ID, "test"), {"POST": send_test}),
    Route((HOOKS, ID, "deliveries"), {"GET": list_deliveries}),
    Route((HOOKS, ID, "stats"), {"GET": show_stats}),
    Route((HOOKS, ID, "recover"), {"POST": recover}),
    Route(("deliveries", ID), {"GET": show_delivery}),
    Route(("deliveries", ID, "retry"), {"POST": retry_delivery}),
    Route(("deliveries", ID, "cancel"), {"POST": cancel_delivery}),
    Route(("event-types",), {"GET": list_event_types}),
    Route(("openapi.json",), {"GET": show_openapi}),
)


# Other paths at the root if subscriptions are at the root; no id equals one of these.
_BESIDE = {route.path[0] for route in ROUTES} - {HOOKS}


def find_route(path: str, *, hooks_at_root: bool = False) -> tuple[Route, str] | None:
    """Return the route of a path and the id in it; None if there is none.

    Args:
        path: Path below the mount point; a trailing slash is optional.
        hooks_at_root: True if the mount point is the list of subscriptions.

    Example:
        >>> route, key = find_route("/hooks/sub_1/test")
        >>> route.allowed, key
        ('OPTIONS, POST', 'sub_1')
        >>> find_route("/sub_1/test", hooks_at_root=True) == (route, key)
        True
    """
    path = path.removeprefix("/")
    if hooks_at_root and path.partition("/")[0] not in _BESIDE:
        path = f"{HOOKS}/{path}"
    parts = tuple(path.removesuffix("/").split("/"))
    for route in ROUTES:
        key = route.key(parts)
        if key is not None:
            return route, key
    return None
