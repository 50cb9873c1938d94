"""Which call answers a path and a method."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs

from thorn_core.api.calls import Call
from thorn_core.api.deliveries import list_deliveries, recover, retry_delivery, show_delivery
from thorn_core.api.event_types import list_event_types
from thorn_core.api.exchange import ApiResponse
from thorn_core.api.hooks import (
    change_hook,
    list_hooks,
    remove_hook,
    replace_hook,
    rotate_secret,
    send_test,
    show_hook,
    subscribe,
)
from thorn_core.api.openapi import show_openapi

ID = "{id}"


@attrs.frozen
class Route:
    """A path and what can be done with it.

    Attributes:
        path: Its parts; `{id}` stands for an id.
        calls: By method; HEAD and OPTIONS come by themselves.
    """

    path: tuple[str, ...]
    calls: Mapping[str, Callable[[Call], ApiResponse]]

    @property
    def allowed(self) -> str:
        """The methods, as `Allow` lists them."""
        head = ["HEAD"] if "GET" in self.calls else []
        return ", ".join(sorted([*self.calls, *head, "OPTIONS"]))

    def key(self, parts: tuple[str, ...]) -> str | None:
        """The id in a path (empty where there is none), or None if the path isn't this one."""
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
    Route(("hooks",), {"GET": list_hooks, "POST": subscribe}),
    Route(
        ("hooks", ID),
        {"GET": show_hook, "PATCH": change_hook, "PUT": replace_hook, "DELETE": remove_hook},
    ),
    Route(("hooks", ID, "rotate-secret"), {"POST": rotate_secret}),
    Route(("hooks", ID, "test"), {"POST": send_test}),
    Route(("hooks", ID, "deliveries"), {"GET": list_deliveries}),
    Route(("hooks", ID, "recover"), {"POST": recover}),
    Route(("deliveries", ID), {"GET": show_delivery}),
    Route(("deliveries", ID, "retry"), {"POST": retry_delivery}),
    Route(("event-types",), {"GET": list_event_types}),
    Route(("openapi.json",), {"GET": show_openapi}),
)


def find_route(path: str) -> tuple[Route, str] | None:
    """The route of a path, and the id in it; None if there is none.

    Args:
        path: Below the mount point; a slash at its end makes no difference.

    Example:
        >>> route, key = find_route("/hooks/sub_1/test")
        >>> route.allowed, key
        ('OPTIONS, POST', 'sub_1')
    """
    parts = tuple(path.removeprefix("/").removesuffix("/").split("/"))
    for route in ROUTES:
        key = route.key(parts)
        if key is not None:
            return route, key
    return None
