"""Parsers for permission classes and the CSRF check; the resource parses the body itself.

An unparsable body counts as empty: the resource reports the error.
"""

from __future__ import annotations

from typing import Any

from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser, FormParser, JSONParser, MultiPartParser


class _Lenient(BaseParser):
    def parse(self, *given: Any, **named: Any) -> Any:
        """Parse the body, if possible."""
        try:
            return super().parse(*given, **named)
        except (ParseError, RecursionError):
            return {}


class LenientJSONParser(_Lenient, JSONParser):
    """Parses JSON."""


class LenientFormParser(_Lenient, FormParser):
    """Parses a form."""


class LenientMultiPartParser(_Lenient, MultiPartParser):
    """Parses a multipart form."""


class Unparsed(BaseParser):
    """Accepts any other body."""

    media_type = "*/*"

    def parse(self, *_: Any, **__: Any) -> Any:
        """Ignore the body."""
        return {}
