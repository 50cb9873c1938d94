"""The OpenAPI document is valid, and the resource answers as it says."""

from __future__ import annotations

import copy
import json

import jsonschema
import pytest
from api_client import BASE, LOCAL, URL, Client
from openapi_spec_validator import validate
from referencing import Registry
from referencing import Resource as Document
from referencing.jsonschema import DRAFT202012

from thorn_core import Event, Thorn
from thorn_core.api import Resource, openapi_document
from thorn_core.api.problems import KINDS
from thorn_core.api.routing import ROUTES
from thorn_core.codecs import dump_json, encode_json, media_type
from thorn_core.delivery import envelope_of
from thorn_core.testing import LocalRecipient
from thorn_core.values import Message

SECURITY = {
    "token": {"type": "http", "scheme": "bearer"},
    "session": {"type": "apiKey", "in": "cookie", "name": "sessionid"},
}


class Contract:
    """Looks whether answers are what a document promises: neither less nor more."""

    def __init__(self, document):
        self.document = document
        strict = _strict(copy.deepcopy(document))
        resource = Document.from_contents(strict, default_specification=DRAFT202012)
        self._registry = Registry().with_resource("urn:document", resource)
        self.seen = set()

    def check(self, schema, value):
        """A value follows a schema of the document."""
        text = json.dumps(schema).replace('"#/components', '"urn:document#/components')
        pointed = json.loads(text)
        jsonschema.Draft202012Validator(
            pointed,
            registry=self._registry,
            format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER,
        ).validate(value)

    def answered(self, method, template, response):
        """A response is one of those of its operation."""
        operation = self.document["paths"][template][method.lower()]
        answer = operation["responses"][str(response.status)]
        if "$ref" in answer:
            answer = self.document["components"]["responses"][answer["$ref"].split("/")[-1]]
        self.seen.add((method, template, response.status))
        if "content" not in answer:
            assert response.body == b""
            return
        schema = answer["content"][response.headers["content-type"]]["schema"]
        self.check(schema, response.json)


def _strict(node):
    """The same schemas, but that nothing may be there that isn't described."""
    if isinstance(node, dict):
        for value in node.values():
            _strict(value)
        if "allOf" in node:
            node["unevaluatedProperties"] = False
    schemas = node.get("schemas", {}) if isinstance(node, dict) else {}
    parents = {
        part["$ref"].split("/")[-1]
        for schema in schemas.values()
        for part in schema.get("allOf", ())
        if "$ref" in part
    }
    for name, schema in schemas.items():
        if schema.get("type") == "object" and name not in parents:
            schema["additionalProperties"] = False
        elif name in parents and "allOf" in schema:
            del schema["unevaluatedProperties"]
    return node


def document_of(app, **options):
    response = Client(Resource(app, **options), "ada")("GET", "/openapi.json")
    assert response.status == 200
    validate(response.json)
    return response.json


@pytest.fixture
def app():
    with Thorn(settings=LOCAL) as app:
        yield app


def test_the_document_is_valid_and_describes_every_call(app):
    document = document_of(app, title="Hooks of a shop", version="7", security_schemes=SECURITY)
    assert document["openapi"].startswith("3.1")
    assert document["info"] == {"title": "Hooks of a shop", "version": "7"}
    assert document["servers"] == [{"url": BASE}]
    assert document["components"]["securitySchemes"] == SECURITY
    assert document["security"] == [{"token": []}, {"session": []}]
    described = {
        (method.upper(), path.strip("/"))
        for path, item in document["paths"].items()
        for method in item
        if method != "parameters"
    }
    assert described == {(m, "/".join(route.path)) for route in ROUTES for m in route.calls}
    assert set(document["components"]["responses"]) == set(KINDS)


def test_the_document_can_be_had_without_a_request(app):
    document = openapi_document(app)
    validate(document)
    assert (document["servers"], "security" in document) == ([{"url": "/"}], False)


def test_what_only_operators_may_say_is_described_to_them(app):
    resource = Resource(app)
    for client, described in (
        (Client(resource, operator=True), True),
        (Client(resource, "ada"), False),
    ):
        listing = client("GET", "/openapi.json").json["paths"]["/hooks/"]["get"]
        names = {parameter["$ref"].split("/")[-1] for parameter in listing["parameters"]}
        assert ("owner" in names) == described
        assert names >= {"cursor", "limit"}


def test_links_lead_to_calls_that_there_are(app):
    operations = [
        operation
        for item in document_of(app)["paths"].values()
        for method, operation in item.items()
        if method != "parameters"
    ]
    links = [
        link
        for operation in operations
        for response in operation["responses"].values()
        for link in response.get("links", {}).values()
    ]
    assert links
    assert {link["operationId"] for link in links} <= {each["operationId"] for each in operations}


def test_an_events_own_envelope_is_the_webhooks():
    with Thorn(settings=LOCAL) as app:
        own = Event("article.own", app=app, envelope="cloudevents", example={"n": 1})
        content = document_of(app)["webhooks"][own.name]["post"]["requestBody"]["content"]
        assert list(content) == ["application/cloudevents+json"]
        (described,) = content.values()
        assert described["example"]["type"] == own.name
        assert described["schema"]["properties"]["specversion"] == {"const": "1.0"}


@pytest.mark.parametrize("envelope", ["thorn", "standard", "cloudevents"])
def test_each_event_is_a_webhook_with_its_schema_and_example(envelope):
    item = {
        "$defs": {"word": {"type": "string"}},
        "properties": {"title": {"$ref": "#/$defs/word"}},
    }
    settings = LOCAL.evolve(envelope=envelope, signatures=["github", "standard-webhooks"])
    with Thorn(settings=settings) as app:
        kept = Event(
            "article.created", app=app, schema=item, example={"title": "Hello"}, description="New."
        )
        document = document_of(app)
        contract = Contract(document)
        # And whatever else is declared in this process for any app.
        assert set(document["webhooks"]) >= {
            *(kept.name, "thorn.subscription.disabled", "thorn.test")
        }
        for name in (kept.name, "thorn.subscription.disabled", "thorn.test"):
            webhook = document["webhooks"][name]
            (content,) = webhook["post"]["requestBody"]["content"].values()
            contract.check(content["schema"], content["example"])
            assert name in json.dumps(content["example"])
            headers = {p["name"]: p["required"] for p in webhook["post"]["parameters"]}
            assert headers["webhook-id"]
            assert not headers["X-Hub-Signature-256"]
        webhook = document["webhooks"]["article.created"]["post"]
        ((kind, content),) = webhook["requestBody"]["content"].items()
        assert kind == media_type("application/json", envelope).partition(";")[0]
        assert (webhook["description"], content["example"]["data"]) == ("New.", {"title": "Hello"})
        # What is really sent follows it, and what isn't so doesn't.
        message = Message(
            id="msg_1", event=kept.name, data=dump_json({"title": "x"}), at=app.clock(), ref="/1"
        )
        sent = json.loads(encode_json(envelope_of(message, envelope)))
        contract.check(content["schema"], sent)
        with pytest.raises(jsonschema.ValidationError):
            contract.check(content["schema"], {**sent, "data": {"title": 5}})


def test_what_can_not_be_shown_is_left_out_of_the_document(app):
    kept = [
        Event("article.made", app=app, example={"it": object()}),
        Event(
            "article.seen", app=app, schema={"$schema": "http://json-schema.org/draft-07/schema#"}
        ),
    ]
    content = document_of(app)["webhooks"]["article.made"]["post"]["requestBody"]["content"]
    assert "example" not in content["application/json"]
    assert kept


def test_every_answer_is_as_described(app):
    contract = Contract(document_of(app))
    ada = Client(Resource(app, creations_per_minute=4, sends_per_minute=12), "ada")
    nobody = Client(ada.resource)

    def ask(client, method, template, *, key="", body=None, **more):
        response = client(method, template.replace("{id}", key), body, **more)
        contract.answered(method, template, response)
        return response

    with LocalRecipient() as recipient:
        new = {"event": ["article.*"], "url": recipient.url, "headers": {"X-Key": "1", "X-A": "2"}}
        key = {"idempotency-key": "k"}
        contract.check({"$ref": "#/components/schemas/NewSubscription"}, new)
        made = ask(ada, "POST", "/hooks/", body=new, headers=key).json
        ask(ada, "POST", "/hooks/", body=new, headers=key)
        ask(ada, "POST", "/hooks/", body={**new, "event": "x"}, headers=key)
        ask(ada, "POST", "/hooks/", body={"event": 5})
        ask(ada, "POST", "/hooks/", body=b"{", headers={"content-type": "application/json"})
        ask(ada, "POST", "/hooks/", body=b"{}")
        ask(ada, "POST", "/hooks/", body=b"x" * 70_000)
        for _ in range(4):
            ask(ada, "POST", "/hooks/", body={"event": "a.b", "url": URL})
        page = ask(ada, "GET", "/hooks/", limit="1")
        assert page.json["next"]
        ask(ada, "GET", "/hooks/", headers={"if-none-match": "*"})
        ask(ada, "GET", "/hooks/", limit="x")
        hook = "/hooks/{id}/"
        seen = ask(ada, "GET", hook, key=made["id"])
        contract.check({"$ref": "#/components/schemas/SubscriptionReplacement"}, seen.json)
        ask(ada, "PUT", hook, key=made["id"], body=seen.json)
        ask(ada, "PATCH", hook, key=made["id"], body={"rate_limit": 5})
        ask(ada, "PATCH", hook, key=made["id"], body={"rate_limit": "x"})
        for method in ("PUT", "PATCH", "DELETE"):
            ask(ada, method, hook, key=made["id"], body={}, headers={"if-match": '"x"'})
            ask(ada, method, hook, key="none", body={})
            ask(nobody, method, hook, key="none", body={})
        ask(ada, "GET", hook, key="none")
        ask(ada, "POST", hook + "rotate-secret/", key=made["id"])
        ask(ada, "POST", hook + "rotate-secret/", key=made["id"], body={"hmac_secret": 5})
        sent = ask(ada, "POST", hook + "test/", key=made["id"]).json
        recipient.answer(status=500, body=b"no", headers={"X-A": "1"})
        ask(ada, "POST", hook + "test/", key=made["id"])
        delivery = "/deliveries/{id}/"
        ask(ada, "POST", delivery + "retry/", key=sent["delivery_id"])
        ask(ada, "POST", delivery + "retry/", key=sent["delivery_id"])
        ask(ada, "POST", hook + "pause/", key=made["id"])
        held = ask(ada, "POST", hook + "test/", key=made["id"]).json
        ask(ada, "GET", delivery, key=held["delivery_id"])
        ask(ada, "POST", delivery + "cancel/", key=held["delivery_id"])
        ask(ada, "POST", delivery + "cancel/", key=held["delivery_id"])
        ask(ada, "POST", hook + "resume/", key=made["id"])
        ask(ada, "GET", delivery, key=sent["delivery_id"])
        ask(ada, "GET", delivery, key="none")
        ask(ada, "GET", hook + "deliveries/", key=made["id"], limit="1")
        ask(ada, "GET", hook + "deliveries/", key=made["id"], order="x")
        for period in ("hour", "day", "week", "month", "year"):
            ask(ada, "GET", hook + "stats/", key=made["id"], period=period)
        since = {"since": "2026-01-01T00:00:00Z"}
        ask(ada, "POST", hook + "recover/", key=made["id"], body=since)
        ask(ada, "POST", hook + "recover/", key=made["id"], body={})
        for _ in range(4):
            ask(ada, "POST", hook + "recover/", key=made["id"], body=since)
        ask(ada, "POST", hook + "test/", key=made["id"])
        ask(ada, "PATCH", hook, key=made["id"], body={"enabled": False})
        ask(ada, "POST", hook + "test/", key=made["id"])
        ask(ada, "GET", "/event-types/")
        ask(ada, "GET", "/openapi.json")
        ask(nobody, "GET", "/openapi.json")
        ask(ada, "DELETE", hook, key=made["id"])
    promised = {
        (method.upper(), path, int(status))
        for path, item in contract.document["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
        for status in operation["responses"]
    }
    succeeded = {each for each in promised if each[2] < 300}
    assert succeeded <= contract.seen
    assert contract.seen <= promised


def test_every_rate_that_is_limited_is_documented():
    with Thorn(settings=LOCAL) as app:
        paths = document_of(app)["paths"]
    limited = ("/hooks/", "/hooks/{id}/rotate-secret/", "/hooks/{id}/test/", "/hooks/{id}/recover/")
    for path in (*limited, "/deliveries/{id}/retry/"):
        assert "429" in paths[path]["post"]["responses"], path
