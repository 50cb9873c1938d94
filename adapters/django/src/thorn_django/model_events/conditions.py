"""Conditions: Django's Q objects as conditions of events, beside Thorn's own.

`ModelEvent("article.published", models.Q(state="PUBLISHED") | models.Q(featured=True))` asks of the
instance what the same Q asks of the database in a filter, as far as that can be asked of an
instance. A lookup that can't is refused when the event is declared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from operator import and_, or_
from typing import Any

from django.db import models

from thorn_core import Q, as_q

SAME = ("gt", "gte", "lt", "lte", "in", "contains", "startswith", "endswith")
LOOKUPS = ("exact", *SAME, "isnull", "range")
# Thorn's own operators, which Django has no lookups of.
OPERATORS = ("eq", "ne", "is", "is_not", "not_in", "true", "not")
NOW = "now_"


@as_q.register
def from_django(condition: models.Q) -> Q:
    """Thorn's Q of one of Django's.

    Args:
        condition: Of the lookups exact, gt, gte, lt, lte, in, contains, startswith, endswith,
            isnull and range, of fields of the instance and of what it leads to; Thorn's operators,
            such as `state__now_eq`, may be among them.

    Raises:
        ValueError: It holds another lookup, or something that only a database can work out.

    Example:
        >>> from types import SimpleNamespace
        >>> published = from_django(models.Q(state="PUBLISHED") & ~models.Q(author=None))
        >>> published(SimpleNamespace(state="PUBLISHED", author=None))
        False
    """
    parts = [_part(child) for child in condition.children]
    if not parts:
        return Q()
    joined = reduce(_JOINS[condition.connector], parts)
    return ~joined if condition.negated else joined


_JOINS: Mapping[str, Callable[[Q, Q], Q]] = {
    models.Q.AND: and_,
    models.Q.OR: or_,
    models.Q.XOR: lambda one, other: (one & ~other) | (~one & other),
}


def _part(child: Any) -> Q:
    if isinstance(child, models.Q):
        return from_django(child)
    if not isinstance(child, tuple):
        raise ValueError(f"{child!r} can only be evaluated by a database; {_ADVICE}")
    name, value = child
    if hasattr(value, "resolve_expression") or isinstance(value, models.QuerySet):
        raise ValueError(f"{name}={value!r} can only be evaluated by a database; {_ADVICE}")
    path, lookup = _split(name)
    if lookup == "exact":
        return Q(**{f"{path}__eq": value})
    if lookup == "isnull":
        return Q(**{f"{path}__{'is' if value else 'is_not'}": None})
    if lookup == "range":
        first, last = value
        return Q(**{f"{path}__gte": first, f"{path}__lte": last})
    return Q(**{f"{path}__{lookup}": value})


def _split(name: str) -> tuple[str, str]:
    path, _, last = name.rpartition("__")
    if not path:
        return name, "exact"
    if last in LOOKUPS or last in OPERATORS or last.startswith(NOW):
        return path, last
    if last in _OTHERS:
        raise ValueError(
            f"the lookup {last!r} of {name!r} can't be evaluated on an instance; {_ADVICE}."
            f" If {last!r} is a field, write {name}__exact"
        )
    return name, "exact"


_ADVICE = f"an event's condition may hold the lookups {', '.join(LOOKUPS)}"

# What Django takes for a lookup or a transform of some field.
_FIELDS: tuple[Any, ...] = (models.Field, *models.Field.__subclasses__())
_OTHERS = {name for field in _FIELDS for name in field.get_lookups()}
