"""Adds the resource's OpenAPI document to drf-spectacular's schema under unique names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ComponentRegistry, ResolvedComponent
from drf_spectacular.settings import spectacular_settings

from thorn_core import get_app
from thorn_core.api import openapi_document
from thorn_django.rest import below_of

TAG = "webhooks"
# A project may have its own messages and subscriptions.
PREFIX = "Webhook"
NULL = "null"


class ResourceSchema(AutoSchema):
    """Describes an operation with the resource's OpenAPI document."""

    def get_operation(
        self,
        path: str,
        path_regex: str,
        path_prefix: str,
        method: str,
        registry: ComponentRegistry,
    ) -> dict[str, Any]:
        """Return the operation of a path and a method."""
        self.registry = registry
        document = openapi_document(get_app(), hooks_at_root=True)
        view: Any = self.view  # The view is a ResourceViewSet.
        item = document["paths"]["/" + below_of(path, view.depth)]
        translated = _Translation(document["components"], registry)
        operation: dict[str, Any] = translated.of(item[method.lower()])
        shared = translated.of(item.get("parameters", []))
        if shared:
            operation["parameters"] = [*shared, *operation.get("parameters", [])]
        operation["tags"] = [TAG]
        auth = self.get_auth()
        return {**operation, "security": auth} if auth else operation


class _Translation:
    """Copies parts of the resource's document into the project's.

    Args:
        components: The components of the resource's document.
        registry: The project's component registry.
    """

    def __init__(self, components: Mapping[str, Any], registry: ComponentRegistry) -> None:
        self._components = components
        self._registry = registry
        self._nullable = not spectacular_settings.OAS_VERSION.startswith("3.1")

    def of(self, node: Any) -> Any:
        """Return a copied part with its references."""
        if isinstance(node, list):
            return [self.of(each) for each in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return self._referred(node["$ref"])
        found = {name: self.of(value) for name, value in node.items()}
        if isinstance(name := found.get("operationId"), str):
            # The id of an operation, or of a link to one.
            found["operationId"] = f"{TAG}{name[0].upper()}{name[1:]}"
        if isinstance(found.get("properties"), dict):
            found["properties"] = {k: self._named(k, v) for k, v in found["properties"].items()}
        return _older(found) if self._nullable else found

    def _referred(self, reference: str) -> Any:
        kind, name = reference.split("/")[-2:]
        target = self._components[kind][name]
        if kind != ResolvedComponent.SCHEMA:
            return self.of(target)
        return self._component(name, lambda: self.of(target))

    def _named(self, name: str, schema: dict[str, Any]) -> dict[str, Any]:
        """Return a property; give its enumeration a name that can't collide with the project's."""
        if "enum" not in schema:
            return schema
        choices: dict[str, Any] = {
            key: schema[key] for key in ("type", "format", "enum") if key in schema
        }
        others = {key: value for key, value in schema.items() if key not in choices}
        name = "".join(word.capitalize() for word in name.split("_"))
        return {"allOf": [self._component(name, lambda: choices)], **others}

    def _component(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        component = ResolvedComponent(  # type: ignore[no-untyped-call]
            name=PREFIX + name, type=ResolvedComponent.SCHEMA, object=ResourceSchema
        )
        if component not in self._registry:
            component.schema = make()
            self._registry.register(component)
        return component.ref


def _older(schema: dict[str, Any]) -> dict[str, Any]:
    """Convert null types and constants of OpenAPI 3.1 to 3.0; drop unsupported keywords."""
    schema = {name: value for name, value in schema.items() if name != "propertyNames"}
    kinds = schema.get("type")
    if isinstance(kinds, list):
        rest = [kind for kind in kinds if kind != NULL]
        return {**schema, "type": rest[0], "nullable": True}
    if schema.get("type") == NULL:
        return {"nullable": True}
    either = schema.get("oneOf")
    if isinstance(either, list) and {"nullable": True} in either:
        rest = [each for each in either if each != {"nullable": True}]
        return {
            **{k: v for k, v in schema.items() if k != "oneOf"},
            "allOf": rest,
            "nullable": True,
        }
    return schema
