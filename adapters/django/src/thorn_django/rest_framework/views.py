"""The REST resource as viewsets: the framework checks access, the resource responds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import attrs
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from rest_framework import exceptions
from rest_framework.authentication import (
    BasicAuthentication,
    SessionAuthentication,
    TokenAuthentication,
)
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer, BrowsableAPIRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.throttling import ScopedRateThrottle
from rest_framework.viewsets import ViewSet

from thorn_core import get_app
from thorn_core.api import ApiRequest, ApiResponse, Problem, Resource
from thorn_django.rest import (
    MULTIPART,
    NOBODY,
    Access,
    access_of,
    api_request,
    below_of,
    body_of,
    http_response,
    resource_of,
    roll_back,
    session_scheme,
)
from thorn_django.rest_framework.parsers import (
    LenientFormParser,
    LenientJSONParser,
    LenientMultiPartParser,
    Unparsed,
)
from thorn_django.rest_framework.permissions import permission
from thorn_django.rest_framework.serializers import (
    FormSerializer,
    NewSubscriptionSerializer,
    RecoverSerializer,
    SecretSerializer,
    SubscriptionSerializer,
    body_of_form,
)
from thorn_django.subscription_model import subscription_model

JSON = "application/json"
FORMS = (MULTIPART, "application/x-www-form-urlencoded")
# The resource's scope in DEFAULT_THROTTLE_RATES.
SCOPE = "thorn"
# Headers of the resource's response that the HTML page around it must not have.
OF_THE_BODY = ("content-type", "content-length", "etag")


class Negotiation(DefaultContentNegotiation):
    """Returns JSON if the client accepts no available type, as the resource does."""

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> Any:
        """Return the renderer and the media type."""
        try:
            return super().select_renderer(request, renderers, format_suffix)
        except exceptions.NotAcceptable:
            return renderers[0], renderers[0].media_type


class ResourceViewSet(ViewSet):
    """A part of the resource.

    The project configures authentication and throttling, and the permission classes in the setting
    THORN_DRF_PERMISSION_CLASSES. A rate for the scope `thorn` in DEFAULT_THROTTLE_RATES applies to
    these calls only.
    """

    # The number of path parts below the resource's prefix.
    depth = 0
    # There is a single version, so ignore the project's versioning.
    versioning_class = None
    content_negotiation_class = Negotiation
    parser_classes = (LenientJSONParser, LenientFormParser, LenientMultiPartParser)
    # The initial values and the errors of the browsable API's forms.
    shown: Mapping[str, Any] | None = None
    faults: Mapping[str, list[str]] | None = None
    body = b""

    # -- policies

    @property
    def renderer_classes(self) -> Sequence[type[BaseRenderer]]:  # type: ignore[override]
        """JSON, and the browsable API if the project has it."""
        projects: Iterable[Any] = api_settings.DEFAULT_RENDERER_CLASSES
        return [
            JSONRenderer,
            *(each for each in projects if issubclass(each, BrowsableAPIRenderer)),
        ]

    @property
    def default_response_headers(self) -> dict[str, str]:
        """The headers in addition to the resource's."""
        return {"Vary": "Accept"} if len(self.renderer_classes) > 1 else {}

    @property
    def throttle_scope(self) -> str | None:
        """The scope of the rate; None if the project sets none."""
        return SCOPE if SCOPE in (ScopedRateThrottle.THROTTLE_RATES or {}) else None

    def get_throttles(self) -> list[Any]:
        """Return the project's throttles, and the rate of these calls."""
        throttles = super().get_throttles()
        scoped = any(isinstance(throttle, ScopedRateThrottle) for throttle in throttles)
        if self.throttle_scope is not None and not scoped:
            throttles.append(ScopedRateThrottle())
        return throttles

    def get_permissions(self) -> list[Any]:
        """Return the permissions of the setting."""
        return [permission(each) for each in get_app().settings.drf_permission_classes]

    def get_queryset(self) -> QuerySet[Any]:
        """Return the subscriptions: permission classes need the queryset's model."""
        return subscription_model()._default_manager.all()

    def get_exception_handler(self) -> Callable[[Exception, Any], HttpResponse | None]:
        """Return a handler that creates problem documents, whatever the project's own does."""
        return self._refusal

    # -- requests

    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Request:
        """Read the body up to the resource's limit before other code can."""
        self.body = body_of(request, self.resource.body_limit)
        return super().initialize_request(request, *args, **kwargs)

    def get_parsers(self) -> list[Any]:
        """Return parsers for code that reads the body first; none for a huge body."""
        if len(self.body) > self.resource.body_limit:
            return [Unparsed()]
        return [*super().get_parsers(), Unparsed()]

    def carry(self, *_: Any, **__: Any) -> Any:
        """Respond to any call."""
        asked = self._asked(access_of(self.request))
        filled_in = self._filled_in(self.request)
        if filled_in is not None:
            body = json.dumps(body_of_form(self.get_serializer(), filled_in)).encode()
            headers = {**asked.headers, "content-type": JSON}
            asked = attrs.evolve(asked, body=body, headers=headers)
        return self._response(self.resource.handle(asked), filled_in)

    # Disallowed methods, too: the resource responds with the allowed ones.
    http_method_not_allowed = carry
    options = carry

    @property
    def resource(self) -> Resource:
        """The resource."""
        return resource_of("rest_framework", self._security_schemes)

    def _asked(self, access: Access) -> ApiRequest:
        request = self.request._request
        below = self.kwargs.get("below")
        return api_request(
            request,
            below_of(request.path, self.depth) if below is None else below,
            access=access,
            body=self.body,
            ignored=api_settings.URL_FORMAT_OVERRIDE,
        )

    def _filled_in(self, request: Request) -> Mapping[str, Any] | None:
        """Return the form sent by a page of the browsable API; None for other requests.

        A form must have the CSRF token, however the user is authenticated, because other sites can
        send forms, too.
        """
        if request._request.content_type not in FORMS or not self._on_a_page():
            return None
        if len(self.body) > self.resource.body_limit:
            return None
        try:
            SessionAuthentication().enforce_csrf(request)
        except exceptions.PermissionDenied:
            return None
        return cast("Mapping[str, Any]", request.data)

    def _security_schemes(self) -> dict[str, Any]:
        return {
            name: scheme
            for authenticator in self.get_authenticators()
            for name, scheme in _scheme(authenticator).items()
        }

    # -- responses

    def _refusal(self, error: Exception, _context: Any) -> HttpResponse | None:
        """Return the resource's refusal for an exception of Django REST framework, or None."""
        if isinstance(error, exceptions.NotAuthenticated):
            answer = self.resource.handle(self._asked(NOBODY))
        elif isinstance(error, exceptions.APIException):
            answer = self._refuse(_status(error), _told(error.detail), _headers(error))
        elif isinstance(error, Http404):
            answer = self._refuse(404, "Not found.")
        elif isinstance(error, PermissionDenied):
            answer = self._refuse(403, str(error) or exceptions.PermissionDenied.default_detail)
        else:
            return None
        challenge = getattr(error, "auth_header", None)
        if challenge:
            headers = {**answer.headers, "www-authenticate": challenge}
            answer = attrs.evolve(answer, headers=headers)
        return self._response(answer)

    def _refuse(self, status: int, detail: Any, headers: Mapping[str, str] | None = None) -> Any:
        problem = Problem(status, str(detail), headers=headers or {})
        return self.resource.refuse(problem, method=self.request.method or "")

    def _response(
        self, answer: ApiResponse, filled_in: Mapping[str, Any] | None = None
    ) -> HttpResponse:
        if not self._on_a_page():
            return http_response(answer)
        document = answer.json if answer.body else None
        if answer.status >= 400:
            roll_back()
            # HEAD has no page for the form.
            if document is not None:
                self.shown, self.faults = filled_in, _by_field(document)
        elif self.request.method in ("GET", "PUT", "PATCH"):
            self.shown = document
        headers = {k: v for k, v in answer.headers.items() if k not in OF_THE_BODY}
        return Response(document, status=answer.status, headers=headers)

    def _on_a_page(self) -> bool:
        renderer = getattr(self.request, "accepted_renderer", None)
        return isinstance(renderer, BrowsableAPIRenderer)

    # -- the browsable API

    def get_serializer(self, *_: Any, **__: Any) -> FormSerializer:
        """Return the form for the current action with its initial values."""
        form = self.form()
        if self.shown is not None and self.faults is not None:
            wrong = form(data=self.shown, faults=self.faults)
            wrong.is_valid()
            return wrong
        changes = self.action in ("update", "partial_update")
        return form(instance=self.shown) if changes and self.shown is not None else form()

    def form(self) -> type[FormSerializer]:
        """Return the form class of the action; it has no fields for an action without input."""
        return FormSerializer


class HookViewSet(ResourceViewSet):
    """Subscriptions: which events go to which URLs."""

    # The resource performs each action; permission classes see these names.
    list = create = ResourceViewSet.carry
    retrieve = update = partial_update = destroy = ResourceViewSet.carry
    rotate_secret = test = deliveries = stats = recover = ResourceViewSet.carry
    pause = resume = ResourceViewSet.carry

    def form(self) -> type[FormSerializer]:
        """Return the form class of the action."""
        return {
            "create": NewSubscriptionSerializer,
            "update": SubscriptionSerializer,
            "partial_update": SubscriptionSerializer,
            "rotate_secret": SecretSerializer,
            "recover": RecoverSerializer,
        }.get(self.action or "", FormSerializer)

    def get_extra_action_url_map(self) -> dict[str, str]:
        """Return the actions on a subscription, for the browsable API's menu."""
        if self.action != "retrieve":
            return {}
        url = self.request.build_absolute_uri(self.request.path.removesuffix("/"))
        return {
            "Deliveries": f"{url}/deliveries/",
            "Statistics": f"{url}/stats/",
            "Send test": f"{url}/test/",
            "Pause": f"{url}/pause/",
            "Resume": f"{url}/resume/",
            "Retry failed and cancelled deliveries": f"{url}/recover/",
            "Rotate secret": f"{url}/rotate-secret/",
        }


class DeliveryViewSet(ResourceViewSet):
    """Deliveries: the state of each message at each recipient."""

    retrieve = retry = cancel = ResourceViewSet.carry


class EventTypeViewSet(ResourceViewSet):
    """Event types that you can subscribe to."""

    list = ResourceViewSet.carry


class DocumentViewSet(ResourceViewSet):
    """The OpenAPI document."""

    schema = None
    retrieve = ResourceViewSet.carry


def _scheme(authenticator: Any) -> dict[str, Any]:
    """Return the OpenAPI scheme of a known authentication class."""
    if isinstance(authenticator, SessionAuthentication):
        return {"session": session_scheme()}
    if isinstance(authenticator, BasicAuthentication):
        return {"basic": {"type": "http", "scheme": "basic"}}
    if isinstance(authenticator, TokenAuthentication):
        if authenticator.keyword == "Bearer":
            return {"token": {"type": "http", "scheme": "bearer"}}
        written = f'"{authenticator.keyword}" followed by the token.'
        header = {"type": "apiKey", "in": "header", "name": "Authorization"}
        return {"token": {**header, "description": written}}
    return {}


def _status(error: exceptions.APIException) -> int:
    # If no authenticator has a challenge, Django REST framework changes it to 403.
    return 401 if isinstance(error, exceptions.AuthenticationFailed) else error.status_code


def _told(detail: Any) -> str:
    return str(detail) if isinstance(detail, str) else json.dumps(detail)


def _headers(error: exceptions.APIException) -> dict[str, str]:
    wait = getattr(error, "wait", None)
    return {} if wait is None else {"retry-after": str(int(wait))}


def _by_field(problem: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the errors of a problem document by form field, or its general message."""
    if "errors" not in problem:
        return {api_settings.NON_FIELD_ERRORS_KEY: [problem["detail"]]}
    found: dict[str, list[str]] = {}
    for fault in problem["errors"]:
        inner, message = fault["field"], fault["message"]
        field, _, rest = inner.partition(".")
        found.setdefault(field, []).append(f"{rest}: {message}" if rest else message)
    return found


# -- drf-spectacular, if installed

try:
    from thorn_django.rest_framework.schema import ResourceSchema
except ModuleNotFoundError as missing:
    if missing.name is None or not missing.name.startswith("drf_spectacular"):
        raise
else:
    ResourceViewSet.schema = ResourceSchema()
