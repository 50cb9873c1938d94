"""Conditions: Django's Q objects as conditions of events, in addition to Thorn's own.

`ModelEvent("article.published", models.Q(state="PUBLISHED") | models.Q(featured=True))` evaluates
the Q on the instance, as the database does in a filter. The declaration of the event refuses
lookups that an instance can't evaluate.
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
# Thorn's own operators, which aren't lookups in Django.
OPERATORS = ("eq", "ne", "is", "is_not", "not_in", "true", "not")
NOW = "now_"


@as_q.register
def from_django(condition: models.Q) -> Q:
    """Return Thorn's Q for a Django Q.

    Args:
        condition: A Q with the lookups exact, gt, gte, lt, lte, in, contains, startswith, endswith,
            isnull and range, on fields of the instance and of related objects. It may contain
            Thorn's operators, such as `state__now_eq`.

    Raises:
        ValueError: It contains another lookup, or an expression that only a database can evaluate.

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

# Names that Django treats as a lookup or transform of some field.
_FIELDS: tuple[Any, ...] = (models.Field, *models.Field.__subclasses__())
_OTHERS = {name for field in _FIELDS for name in field.get_lookups()}
