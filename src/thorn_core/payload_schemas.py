"""JSON Schemas that payloads must follow."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from thorn_core.errors import ConfigurationError, PayloadError


def schema_check(schema: Mapping[str, Any] | None) -> Callable[[str, bytes], None] | None:
    """Create a function that raises PayloadError for payloads that violate the schema."""
    if schema is None:
        return None
    try:
        from jsonschema import SchemaError
        from jsonschema.validators import validator_for
    except ImportError as error:
        raise ConfigurationError(
            "event schemas need jsonschema; run: pip install 'thorn-core[schema]'"
        ) from error
    maker = validator_for(schema)
    try:
        maker.check_schema(dict(schema))
    except SchemaError as error:
        raise ConfigurationError(f"the schema is not valid: {error.message}") from error
    validator = maker(schema)

    def check(name: str, encoded: bytes) -> None:
        faults = sorted(validator.iter_errors(json.loads(encoded)), key=lambda f: f.json_path)
        if faults:
            listed = "; ".join(f"{fault.json_path}: {_told(fault)}" for fault in faults[:5])
            raise PayloadError(f"the payload of {name} does not match its schema: {listed}")

    return check


# Keywords whose messages contain only keys.
_NAMING_KEYS = ("additionalProperties", "dependentRequired", "required")


def _told(fault: Any) -> str:
    """Describe what is wrong with a payload without quoting it, because errors are logged."""
    if fault.validator in _NAMING_KEYS:
        return str(fault.message)
    rule = json.dumps(fault.validator_value, ensure_ascii=False, default=str)
    return f"is not valid by {fault.validator}: {rule if len(rule) <= 100 else rule[:99] + '…'}"
