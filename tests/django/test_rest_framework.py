"""The REST resource on Django REST framework: what that adds, and what it mustn't change."""

from __future__ import annotations

import base64
import json
from io import StringIO

import pytest
import yaml
from django.contrib.auth.models import User
from django.core.cache import cache
from django.core.exceptions import PermissionDenied
from django.core.management import call_command
from django.http import Http404
from django.test import Client, override_settings
from django.urls import reverse
from drf_spectacular.settings import spectacular_settings
from openapi_spec_validator import validate
from rest_framework import exceptions, permissions
from rest_framework.authentication import (
    BaseAuthentication,
    BasicAuthentication,
    SessionAuthentication,
    TokenAuthentication,
)
from rest_framework.test import APIClient
from rest_framework.throttling import ScopedRateThrottle
from rest_project import in_a_project

from thorn_core import ConfigurationError
from thorn_core.testing import LocalRecipient
from thorn_django import get_app

HOOK = {"event": "article.*", "url": "https://example.com/"}
PROBLEM = "application/problem+json"
HERE = __name__
TOKEN = "a" * 32


@pytest.fixture
def users(_databases):
    cache.clear()
    with in_a_project("rest_framework_urls") as users:
        yield users
    cache.clear()


@pytest.fixture
def ada(users):
    client = APIClient()
    client.force_login(users["ada"])
    return client


@pytest.fixture
def browser(users):
    """Ada's, with pages for answers."""
    client = Client(enforce_csrf_checks=True, headers={"accept": "text/html"})
    client.force_login(users["ada"])
    client.cookies["csrftoken"] = TOKEN
    return client


def subscribe(client, **more):
    made = client.post("/webhooks/", json.dumps({**HOOK, **more}), content_type="application/json")
    assert made.status_code == 201, made.content
    return made.json()


def problem(response, status, kind):
    """The problem that a response is, which must be this one."""
    assert (response.status_code, response["content-type"]) == (status, PROBLEM), response.content
    expected = kind if kind == "about:blank" else f"urn:thorn:problem:{kind}"
    assert response.json()["type"] == expected
    assert response["cache-control"] == "no-store"
    return response.json()


# -- who may ask


def test_who_is_not_logged_in_is_told_how_to(users, views):
    answer = Client().get("/webhooks/")
    problem(answer, 401, "unauthenticated")
    assert "www-authenticate" not in answer
    views(authentication_classes=[BasicAuthentication])
    told = Client().get("/webhooks/")
    assert (told.content, told["www-authenticate"]) == (answer.content, 'Basic realm="api"')


@pytest.fixture
def views(monkeypatch):
    """Changes the policies of the views, which they take from the settings when they are made."""
    from thorn_django.rest_framework.views import ResourceViewSet

    def change(**policies):
        for name, value in policies.items():
            monkeypatch.setattr(ResourceViewSet, name, value)

    return change


class ByName(BaseAuthentication):
    """Believes everybody."""

    def authenticate(self, request):
        name = request.headers.get("x-user")
        if name == "mallory":
            raise exceptions.AuthenticationFailed("Mallory may not.")
        return None if name is None else (User.objects.get(username=name), None)


class NamedToken(TokenAuthentication):
    keyword = "Bearer"


def test_authentication_is_the_projects(users, views):
    views(authentication_classes=[ByName])
    client = Client(enforce_csrf_checks=True)
    made = subscribe(APIClient(enforce_csrf_checks=True, headers={"x-user": "ada"}))
    assert made["owner"] == str(users["ada"].pk)
    path = f"/webhooks/{made['id']}/"
    assert client.get(path, headers={"x-user": "ada"}).status_code == 200
    assert client.get(path, headers={"x-user": "bob"}).status_code == 404
    assert client.get(path, headers={"x-user": "staff"}).status_code == 200
    problem(client.get(path), 401, "unauthenticated")
    refused = client.get(path, headers={"x-user": "mallory"})
    assert problem(refused, 401, "unauthenticated")["detail"] == "Mallory may not."


def test_a_password_is_checked_by_the_framework(users, views):
    users["ada"].set_password("secret")
    users["ada"].save()

    def authorization(password):
        return "Basic " + base64.b64encode(f"ada:{password}".encode()).decode()

    client = Client()
    good = client.get("/webhooks/", headers={"authorization": authorization("secret")})
    assert good.json() == {"items": [], "next": None}
    bad = client.get("/webhooks/", headers={"authorization": authorization("wrong")})
    problem(bad, 401, "unauthenticated")


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (["ByName"], {}),
        (["Session"], {"session": {"type": "apiKey", "in": "cookie", "name": "sessionid"}}),
        (["Basic"], {"basic": {"type": "http", "scheme": "basic"}}),
        (["Bearer", "Basic"], {"token": "http", "basic": "http"}),
        (["Token"], {"token": "apiKey"}),
    ],
)
def test_the_document_says_how_to_authenticate(ada, views, classes, expected):
    known = {
        "ByName": ByName,
        "Session": SessionAuthentication,
        "Basic": BasicAuthentication,
        "Bearer": NamedToken,
        "Token": TokenAuthentication,
    }
    views(authentication_classes=[known[name] for name in classes])
    with override_settings(THORN_EVENT_TIMEOUT=3):  # a new app, and so a new document
        ada.force_authenticate(User.objects.get(username="ada"))
        document = ada.get("/webhooks/openapi.json").json()
    validate(document)
    schemes = document["components"].get("securitySchemes", {})
    assert set(schemes) == set(expected)
    for name, scheme in expected.items():
        assert scheme in (schemes[name], schemes[name]["type"])


class OnlyReads(permissions.BasePermission):
    message = "Only looking."

    def has_permission(self, request, view):
        assert view.action
        return request.method in permissions.SAFE_METHODS


class LooksInside(permissions.BasePermission):
    """As many a project's: by what is in the body."""

    def has_permission(self, request, view):
        return request.data.get("event") != "secret.*"


def refusing(error):
    class Refusing(permissions.BasePermission):
        def has_permission(self, request, view):
            raise error

    return Refusing


class Unpaid(exceptions.APIException):
    status_code = 402
    default_detail = "Upgrade your plan."


def test_permission_classes_are_those_of_the_setting(ada):
    with override_settings(THORN_DRF_PERMISSION_CLASSES=[f"{HERE}.OnlyReads"]):
        assert ada.get("/webhooks/").status_code == 200
        refused = problem(ada.post("/webhooks/", HOOK, format="json"), 403, "forbidden")
        assert refused["detail"] == "Only looking."
    with override_settings(THORN_DRF_PERMISSION_CLASSES=[permissions.AllowAny]):
        # Even so there is nothing for nobody.
        problem(Client().get("/webhooks/"), 401, "unauthenticated")
        assert ada.get("/webhooks/").status_code == 200
    either = [permissions.IsAdminUser | OnlyReads]
    with override_settings(THORN_DRF_PERMISSION_CLASSES=either):
        assert ada.get("/webhooks/").status_code == 200
        problem(ada.delete("/webhooks/none/"), 403, "forbidden")
    with (
        override_settings(THORN_DRF_PERMISSION_CLASSES=["nowhere.Nothing"]),
        pytest.raises(ConfigurationError, match="THORN_DRF_PERMISSION_CLASSES names 'nowhere"),
    ):
        ada.get("/webhooks/")


def test_model_permissions_are_those_of_subscriptions(users, ada):
    classes = [permissions.DjangoModelPermissions]
    with override_settings(THORN_DRF_PERMISSION_CLASSES=classes):
        problem(ada.post("/webhooks/", HOOK, format="json"), 403, "forbidden")
        changing = users["staff"].user_permissions.get()
        changing.codename, changing.pk = "add_subscription", None
        changing.save()
        users["ada"].user_permissions.add(changing)
        assert ada.post("/webhooks/", HOOK, format="json").status_code == 201


def test_permission_classes_may_look_into_the_body(ada):
    with override_settings(THORN_DRF_PERMISSION_CLASSES=[LooksInside]):
        subscribe(ada)
        secret = {**HOOK, "event": "secret.*"}
        problem(ada.post("/webhooks/", secret, format="json"), 403, "forbidden")
        for body, kind, status in (
            (b"{", "malformed", 400),
            (b"[" * 20_000, "malformed", 400),
            (b"x" * 100_000, "too-large", 413),
        ):
            answer = ada.generic("POST", "/webhooks/", body, content_type="application/json")
            problem(answer, status, kind)
        answer = ada.generic("POST", "/webhooks/", b"event=a", content_type="text/plain")
        problem(answer, 415, "unsupported-media-type")


@pytest.mark.parametrize(
    ("error", "status", "kind", "detail"),
    [
        (exceptions.ParseError("Nonsense."), 400, "malformed", "Nonsense."),
        (exceptions.NotFound(), 404, "not-found", "Not found."),
        (Http404(), 404, "not-found", "Not found."),
        (PermissionDenied("Not you."), 403, "forbidden", "Not you."),
        (PermissionDenied(), 403, "forbidden", None),
        (Unpaid(), 402, "about:blank", "Upgrade your plan."),
        (exceptions.ValidationError({"a": ["b"]}), 400, "malformed", '{"a": ["b"]}'),
        (exceptions.Throttled(wait=7.2), 429, "too-many-requests", None),
    ],
)
def test_what_the_framework_refuses_is_a_problem(ada, error, status, kind, detail):
    with override_settings(THORN_DRF_PERMISSION_CLASSES=[refusing(error)]):
        told = problem(ada.get("/webhooks/"), status, kind)
        assert told["detail"] == detail or (detail is None and told["detail"])
        assert (told["status"], bool(told["title"])) == (status, True)
        head = ada.head("/webhooks/")
        assert (head.status_code, head.content) == (status, b"")
        if status == 429:
            assert head["retry-after"] == "8"


def test_what_is_no_refusal_is_raised(ada):
    class Broken(Exception):
        """A defect."""

    with (
        override_settings(THORN_DRF_PERMISSION_CLASSES=[refusing(Broken())]),
        pytest.raises(Broken),
    ):
        ada.get("/webhooks/")


def test_a_rate_for_the_scope_counts(ada, users, monkeypatch):
    monkeypatch.setattr(ScopedRateThrottle, "THROTTLE_RATES", {"thorn": "3/min"})
    for path in ("/webhooks/", "/webhooks/event-types/", "/webhooks/none/"):
        assert ada.get(path).status_code in (200, 404)
    throttled = ada.get("/webhooks/")
    problem(throttled, 429, "too-many-requests")
    assert 0 < int(throttled["retry-after"]) <= 60
    bob = APIClient()
    bob.force_login(users["bob"])
    assert bob.get("/webhooks/").status_code == 200


def test_the_projects_throttles_count_too_and_once(ada, views, monkeypatch):
    views(throttle_classes=[ScopedRateThrottle])
    monkeypatch.setattr(ScopedRateThrottle, "THROTTLE_RATES", {"others": "1/min"})
    assert {ada.get("/webhooks/").status_code for _ in range(3)} == {200}
    monkeypatch.setattr(ScopedRateThrottle, "THROTTLE_RATES", {"thorn": "2/min"})
    assert [ada.get("/webhooks/").status_code for _ in range(3)] == [200, 200, 429]


# -- what is asked for


def test_what_is_accepted_makes_json_or_a_page(ada):
    for accept in ("*/*", "application/json", "text/csv", "x" * 9000, "", "application/xml;q=.."):
        answer = ada.get("/webhooks/", headers={"accept": accept})
        assert answer["content-type"] == "application/json"
        assert answer.content == b'{"items":[],"next":null}'
    page = ada.get("/webhooks/", headers={"accept": "text/html"})
    assert page["content-type"] == "text/html; charset=utf-8"
    assert "Accept" in page["vary"]
    assert "etag" not in page
    assert ada.get("/webhooks/?format=json", headers={"accept": "text/html"}).json()["items"] == []
    problem(ada.get("/webhooks/?format=nothing"), 404, "not-found")


def test_a_project_without_the_browsable_api_has_no_pages(ada):
    only = {"DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"]}
    with override_settings(REST_FRAMEWORK=only):
        answer = ada.get("/webhooks/", headers={"accept": "text/html"})
        assert answer["content-type"] == "application/json"
        form = ada.post("/webhooks/", HOOK, headers={"accept": "text/html"}, format="multipart")
        problem(form, 415, "unsupported-media-type")


def test_versions_of_the_project_are_not_looked_for(ada):
    versions = {
        "DEFAULT_VERSIONING_CLASS": "rest_framework.versioning.NamespaceVersioning",
        "ALLOWED_VERSIONS": ["v1"],
    }
    with override_settings(REST_FRAMEWORK=versions):
        assert ada.get("/webhooks/").status_code == 200


def test_each_call_has_a_name_by_which_it_is_found():
    hook = {"id": "sub_1"}
    with override_settings(ROOT_URLCONF="rest_framework_urls"):
        for name, kwargs, path in (
            ("hook-list", {}, ""),
            ("hook-detail", hook, "sub_1"),
            ("hook-test", hook, "sub_1/test"),
            ("hook-pause", hook, "sub_1/pause"),
            ("hook-resume", hook, "sub_1/resume"),
            ("hook-rotate-secret", hook, "sub_1/rotate-secret"),
            ("hook-deliveries", hook, "sub_1/deliveries"),
            ("hook-recover", hook, "sub_1/recover"),
            ("delivery-detail", hook, "deliveries/sub_1"),
            ("delivery-retry", hook, "deliveries/sub_1/retry"),
            ("delivery-cancel", hook, "deliveries/sub_1/cancel"),
            ("event-type-list", {}, "event-types"),
            ("openapi", {}, "openapi.json"),
        ):
            assert reverse(f"thorn:{name}", kwargs=kwargs) == f"/webhooks/{path}"


# -- the browsable API


def test_every_page_is_shown(browser, users):
    local = {"THORN_ALLOWED_NETWORKS": ["127.0.0.0/8"], "THORN_ALLOWED_PORTS": range(1, 65536)}
    with LocalRecipient() as recipient, override_settings(THORN_DISPATCHER="inline", **local):
        api = APIClient()
        api.force_login(users["ada"])
        made = subscribe(api, url=recipient.url, description="<script>alert(1)</script>")
        path = f"/webhooks/{made['id']}/"
        sent = api.post(path + "test/").json()
        delivery = f"/webhooks/deliveries/{sent['delivery_id']}/"
        for address, status, words in (
            ("/webhooks/", 200, ["Subscriptions", made["id"], "HTML form", "hmac_secret"]),
            (path, 200, ["DELETE", "Send test", "PUT", "hmac_digest"]),
            (path, 200, ["Retry failed and cancelled deliveries"]),
            (path + "deliveries/", 200, [sent["delivery_id"]]),
            (path + "test/", 405, ["method-not-allowed", "POST"]),
            (path + "rotate-secret/", 405, ["hmac_secret"]),
            (path + "recover/", 405, ["since", "cursor"]),
            (delivery, 200, [sent["message_id"], "delivered"]),
            (delivery + "retry/", 405, ["POST"]),
            ("/webhooks/event-types/", 200, ["thorn.subscription.disabled"]),
            ("/webhooks/openapi.json", 200, ["openapi"]),
            ("/webhooks/none/", 404, ["not-found"]),
            ("/webhooks/nothing/at/all/", 404, ["not-found"]),
        ):
            page = browser.get(address)
            text = page.content.decode()
            assert (page.status_code, page["content-type"]) == (status, "text/html; charset=utf-8")
            assert [word for word in words if word not in text] == []
            assert "<script>alert(1)" not in text
            assert made["secret"] not in text
            assert browser.head(address).status_code == status


def test_who_is_not_logged_in_sees_a_page_that_says_so(users):
    page = Client(headers={"accept": "text/html"}).get("/webhooks/")
    assert page.status_code == 401
    assert "urn:thorn:problem:unauthenticated" in page.content.decode()
    assert "hmac_secret" not in page.content.decode()


def test_a_form_subscribes_and_shows_the_secret_once(browser):
    form = {
        "event": "article.*, user.created",
        "url": "https://example.com/",
        "content_type": "application/json",
        "hmac_digest": "sha512",
        "headers": '{"X-Shop": "1"}',
        "description": "Für den Laden",
        "rate_limit": "0.5",
        "enabled": "true",
        "hmac_secret": "",
        "csrfmiddlewaretoken": TOKEN,
    }
    page = browser.post("/webhooks/", form)
    assert page.status_code == 201
    (kept,) = get_app().subscriptions()
    assert kept.secret in page.content.decode()
    assert kept.events == ("article.*", "user.created")
    assert (kept.hmac_digest, kept.headers) == ("sha512", {"X-Shop": "1"})
    assert (kept.description, kept.rate_limit, kept.enabled) == ("Für den Laden", 0.5, True)
    assert page["location"].endswith(f"/webhooks/{kept.id}/")
    assert kept.secret not in browser.get("/webhooks/").content.decode()


def test_a_form_with_faults_comes_back_with_them_at_its_fields(browser):
    form = {
        "event": '["a..b", "c.d"]',
        "url": "ftp://example.com/",
        "headers": "none",
        "rate_limit": "often",
        "description": "Keep this",
        "hmac_secret": "short",
        "csrfmiddlewaretoken": TOKEN,
    }
    page = browser.post("/webhooks/", form)
    text = page.content.decode()
    assert page.status_code == 422
    assert text.count('<span class="help-block">') >= 5
    for word in ("Keep this", "ftp://example.com/", "often", "use one of: http, https", "a..b"):
        assert word in text
    assert "0: " in text
    assert list(get_app().subscriptions()) == []


def test_a_form_for_what_is_gone_comes_back_as_it_was(browser):
    body, kind = "event=b.c&url=https://kept.example.com/", "application/x-www-form-urlencoded"
    headers = {"x-csrftoken": TOKEN}
    page = browser.generic("PUT", "/webhooks/none/", body, content_type=kind, headers=headers)
    assert page.status_code == 404
    assert 'value="https://kept.example.com/"' in page.content.decode()


def test_a_form_changes_a_subscription(browser, ada):
    made = subscribe(ada, headers={"Authorization": "Bearer abc"}, rate_limit=2)
    path = f"/webhooks/{made['id']}/"
    page = browser.get(path).content.decode()
    assert "Bearer abc" not in page
    assert "checked" in page
    changed = browser.generic(
        "PUT",
        path,
        'event=b.c&url=https://example.com/b&headers={"Authorization":null}&enabled=true',
        content_type="application/x-www-form-urlencoded",
        headers={"x-csrftoken": TOKEN},
    )
    assert changed.status_code == 200
    kept = get_app().subscription(made["id"])
    assert (kept.events, kept.url) == (("b.c",), "https://example.com/b")
    assert (kept.headers, kept.rate_limit) == ({"Authorization": "Bearer abc"}, None)


def test_forms_without_fields_do_what_they_say(browser, ada):
    made = subscribe(ada)
    path = f"/webhooks/{made['id']}/"
    token = {"csrfmiddlewaretoken": TOKEN}
    assert browser.post(path + "test/", token).status_code == 202
    assert browser.post(path + "rotate-secret/", token).status_code == 200
    recovered = browser.post(path + "recover/", {"since": "2026-01-01T00:00:00Z", **token})
    assert recovered.status_code == 202
    assert browser.post(path + "recover/", {"since": "x", **token}).status_code == 422
    removed = browser.delete(path, headers={"x-csrftoken": TOKEN})
    # As the framework shows it: a page.
    assert removed.status_code == 200
    assert get_app().subscription(made["id"]) is None


def test_a_form_without_the_token_does_nothing(users, views):
    views(authentication_classes=[ByName])
    client = Client(enforce_csrf_checks=True, headers={"accept": "text/html", "x-user": "ada"})
    form = {**HOOK, "enabled": "true"}
    refused = client.post("/webhooks/", form)
    assert refused.status_code == 415
    assert "unsupported-media-type" in refused.content.decode()
    assert list(get_app().subscriptions()) == []
    client.cookies["csrftoken"] = TOKEN
    made = client.post("/webhooks/", {**form, "csrfmiddlewaretoken": TOKEN})
    assert made.status_code == 201


def test_a_form_that_is_too_large_is_not_read(browser):
    form = {**HOOK, "description": "x" * 70_000}
    refused = browser.post("/webhooks/", form, headers={"x-csrftoken": TOKEN})
    assert refused.status_code == 413


# -- drf-spectacular


@pytest.mark.parametrize("version", ["3.0.3", "3.1.1"])
def test_the_schema_holds_every_call_and_no_warnings(users, version, monkeypatch):
    monkeypatch.setattr(spectacular_settings, "OAS_VERSION", version)
    drf = {"DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema"}
    written = StringIO()
    with override_settings(REST_FRAMEWORK=drf):
        call_command(
            "spectacular", "--validate", "--fail-on-warn", urlconf="rest_schema_urls",
            stdout=written,
        )  # fmt: skip
    document = yaml.safe_load(written.getvalue())
    assert document["openapi"] == version
    validate(document)
    assert {path: sorted(item) for path, item in document["paths"].items()} == {
        "/hooks/": ["get", "post"],
        "/hooks/{id}/": ["delete", "get", "patch", "put"],
        "/hooks/{id}/deliveries/": ["get"],
        "/hooks/{id}/pause/": ["post"],
        "/hooks/{id}/recover/": ["post"],
        "/hooks/{id}/resume/": ["post"],
        "/hooks/{id}/rotate-secret/": ["post"],
        "/hooks/{id}/stats/": ["get"],
        "/hooks/{id}/test/": ["post"],
        "/hooks/deliveries/{id}/": ["get"],
        "/hooks/deliveries/{id}/cancel/": ["post"],
        "/hooks/deliveries/{id}/retry/": ["post"],
        "/hooks/event-types/": ["get"],
        "/articles/": ["post"],
    }
    subscribing = document["paths"]["/hooks/"]["post"]
    assert subscribing["operationId"] == "webhooksSubscribe"
    assert {"basicAuth": []} in subscribing["security"]
    assert {"201", "401", "403", "422", "429"} <= set(subscribing["responses"])
    changing = document["paths"]["/hooks/{id}/"]["patch"]
    assert [(p["in"], p["name"]) for p in changing["parameters"]] == [
        ("path", "id"),
        ("header", "If-Match"),
    ]
    schemas = document["components"]["schemas"]
    limit = schemas["WebhookSubscriptionChange"]["properties"]["rate_limit"]
    either = {"type": "number", "nullable": True}, {"type": ["number", "null"]}
    assert {k: limit[k] for k in ("type", "nullable") if k in limit} in either
    others = [name for name in schemas if not name.startswith("Webhook")]
    assert others == ["Article", "StateEnum"]
    assert schemas["StateEnum"]["enum"] == ["draft", "published"]
    assert "in_flight" in schemas["WebhookState"]["enum"]
