"""The REST resource, independent of frameworks: it turns a request value into a response value.

Web adapters authenticate users, translate requests and responses, and mount it.

Example:
    >>> from thorn_core import Thorn
    >>> with Thorn() as app:
    ...     resource = Resource(app, security_schemes={"key": {"type": "http", "scheme": "bearer"}})
    ...     response = resource.handle(
    ...         ApiRequest(
    ...             method="POST",
    ...             path="/hooks/",
    ...             headers={"content-type": "application/json"},
    ...             body=b'{"event": "article.*", "url": "https://example.com/hook"}',
    ...             owner="42",
    ...             base_url="https://api.example.com/webhooks",
    ...         )
    ...     )
    >>> response.status, response.json["event"]
    (201, ['article.*'])
"""

from thorn_core.api.exchange import ApiRequest, ApiResponse
from thorn_core.api.openapi import openapi_document
from thorn_core.api.problems import Problem
from thorn_core.api.resource import Resource
from thorn_core.api.stats import OUTCOMES

__all__ = [
    "OUTCOMES",
    "ApiRequest",
    "ApiResponse",
    "Problem",
    "Resource",
    "openapi_document",
]
