"""A client of the REST resource, without a framework between."""

from __future__ import annotations

import json

from thorn_core import Settings
from thorn_core.api import ApiRequest, ApiResponse, Resource

BASE = "https://api.example.com/webhooks"
URL = "https://example.com/hook"
# Secrets that somebody gives.
SHARED, ANOTHER, THIRD = ("whsec_" + 4 * word for word in ("SharedXx", "AnotherX", "ThirdXxx"))
LOCAL = Settings(allowed_networks=["127.0.0.0/8"], allowed_ports=range(1, 65536))


class Client:
    """Asks a resource as somebody: an owner, an operator, nobody."""

    def __init__(self, resource: Resource, owner: str | None = None, *, operator=False):
        self.resource = resource
        self.owner, self.operator = owner, operator

    def __call__(self, method, path, body=None, *, headers=None, **query) -> ApiResponse:
        """Send a request; a body that isn't bytes goes as JSON, a query is of texts or lists."""
        sent = dict(headers or {})
        if body is None:
            body = b""
        elif not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent.setdefault("content-type", "application/json")
        path = path.removeprefix(BASE)
        return self.resource.handle(
            ApiRequest(
                method=method,
                path=path,
                query={k: [v] if isinstance(v, str) else v for k, v in query.items()},
                headers=sent,
                body=body,
                owner=self.owner,
                operator=self.operator,
                base_url=BASE,
            )
        )

    def subscribe(self, url=URL, event="article.*", **more) -> dict:
        """Make a subscription; gives back what was answered."""
        response = self("POST", "/hooks/", {"event": event, "url": url, **more})
        assert response.status == 201, response.json
        return response.json


def problem(response: ApiResponse, status: int, kind: str) -> dict:
    """The problem that a response is, which must be this one."""
    assert (response.status, response.headers["content-type"]) == (
        status,
        "application/problem+json",
    ), response.body
    assert response.json["type"] == f"urn:thorn:problem:{kind}"
    assert response.json["status"] == status
    return response.json


def faults(response: ApiResponse, status: int = 422, kind: str = "invalid") -> dict:
    """The faults of a response, by field."""
    return {fault["field"]: fault for fault in problem(response, status, kind)["errors"]}
