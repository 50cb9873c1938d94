"""What of a body permission classes and the CSRF check see; the resource reads it for itself.

Whatever can't be parsed is nothing: it is for the resource to say so.
"""

from __future__ import annotations

from typing import Any

from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser, FormParser, JSONParser, MultiPartParser


class _Lenient(BaseParser):
    def parse(self, *given: Any, **named: Any) -> Any:
        """Parse it, if that can be done."""
        try:
            return super().parse(*given, **named)
        except (ParseError, RecursionError):
            return {}


class LenientJSONParser(_Lenient, JSONParser):
    """JSON."""


class LenientFormParser(_Lenient, FormParser):
    """A form."""


class LenientMultiPartParser(_Lenient, MultiPartParser):
    """A form, in parts."""


class Unparsed(BaseParser):
    """Anything else."""

    media_type = "*/*"

    def parse(self, *_: Any, **__: Any) -> Any:
        """Leave it alone."""
        return {}
