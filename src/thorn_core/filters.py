"""Filters: conditions on an instance's fields, now and before a change."""

from __future__ import annotations

import difflib
import functools
import operator
from collections.abc import Callable, Container, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn

from thorn_core.spelling import edits

Previous = Mapping[str, Any] | None
Test = Callable[[Any, Previous], bool]


def _alike(value: Any, expected: Any) -> tuple[Any, Any]:
    """Make two datetimes comparable: treat one without a time zone as UTC."""
    if isinstance(value, datetime) and isinstance(expected, datetime):
        if value.tzinfo is None and expected.tzinfo is not None:
            return value.replace(tzinfo=UTC), expected
        if value.tzinfo is not None and expected.tzinfo is None:
            return value, expected.replace(tzinfo=UTC)
    return value, expected


def _eq(value: Any, expected: Any) -> bool:
    if expected is True or expected is False:
        return bool(value) is expected
    value, expected = _alike(value, expected)
    return bool(value == expected)


def _ordered(compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], bool]:
    def test(value: Any, expected: Any) -> bool:
        if value is None or expected is None:
            return False
        return bool(compare(*_alike(value, expected)))

    return test


def _text(method: str) -> Callable[[Any, Any], bool]:
    def test(value: Any, expected: Any) -> bool:
        return value is not None and bool(getattr(value, method)(expected))

    return test


OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "eq": _eq,
    "ne": lambda value, expected: not _eq(value, expected),
    "gt": _ordered(operator.gt),
    "gte": _ordered(operator.ge),
    "lt": _ordered(operator.lt),
    "lte": _ordered(operator.le),
    "is": operator.is_,
    "is_not": operator.is_not,
    "in": lambda value, expected: value in expected,
    "not_in": lambda value, expected: value not in expected,
    "contains": lambda value, expected: value is not None and expected in value,
    "startswith": _text("startswith"),
    "endswith": _text("endswith"),
    "true": lambda value, expected: bool(value) is bool(expected),
    "not": lambda value, expected: (not value) is bool(expected),
}
NOW = "now_"
# Operators that take several values.
AMONG = frozenset({"in", "not_in"})
# Names of these operators in other libraries.
OTHER_NAMES: Mapping[str, str] = {
    **dict.fromkeys(("equals", "equal", "exact", "iexact", "isequal"), "eq"),
    **dict.fromkeys(("neq", "noteq", "notequal", "notequals", "differs"), "ne"),
    **dict.fromkeys(("ge", "gteq", "atleast", "min"), "gte"),
    **dict.fromkeys(("le", "lteq", "atmost", "max"), "lte"),
    **dict.fromkeys(("greater", "greaterthan", "above", "more"), "gt"),
    **dict.fromkeys(("less", "lessthan", "below", "smaller"), "lt"),
    **dict.fromkeys(("isnull", "isnone"), "is"),
    **dict.fromkeys(("oneof", "anyof", "within"), "in"),
    **dict.fromkeys(("nin", "notoneof"), "not_in"),
    **dict.fromkeys(("icontains", "has", "includes"), "contains"),
    **dict.fromkeys(("istartswith", "beginswith"), "startswith"),
    "iendswith": "endswith",
}


class Q:
    """A condition on an instance, composed by `&`, `|` and `~`; compiled once.

    Args:
        *children: Other conditions that must also hold: Q values, or values that `as_q` accepts.
        **conditions: `field__operator=value`; nested fields by `__`, operators as in `OPERATORS`,
            each with a `now_` twin that is true only if it holds now and did not before.

    Raises:
        ValueError: An operator is missing or unknown.
        TypeError: A child isn't a Q.

    Example:
        >>> from types import SimpleNamespace
        >>> published = Q(state__now_eq="PUBLISHED") & ~Q(title__startswith="Draft")
        >>> published(SimpleNamespace(state="PUBLISHED", title="Hello"), {"state": "DRAFT"})
        True
    """

    __slots__ = ("_parts", "_test", "joined_by", "negated")

    _parts: tuple[Q | Condition, ...]
    _test: Test | None
    joined_by: str
    negated: bool

    def __init__(self, *children: Any, **conditions: Any) -> None:
        parts = (child if isinstance(child, Q) else as_q(child) for child in children)
        named = (Condition(name, value) for name, value in conditions.items())
        self._set((*parts, *named), "and", negated=False)

    def _set(self, parts: tuple[Q | Condition, ...], joined_by: str, *, negated: bool) -> None:
        object.__setattr__(self, "_parts", parts)
        object.__setattr__(self, "joined_by", joined_by)
        object.__setattr__(self, "negated", negated)
        object.__setattr__(self, "_test", None)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(
            f"can't set {name!r}: a Q is immutable; create another with &, | and ~"
        )

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"can't delete {name!r}: a Q is immutable")

    def __reduce__(self) -> tuple[Any, ...]:
        # Compiled functions can't be pickled or copied; they are created again.
        return _made, (self._parts, self.joined_by, self.negated)

    def __and__(self, other: Q) -> Q:
        return self._joined(other, "and")

    def __or__(self, other: Q) -> Q:
        return self._joined(other, "or")

    def _joined(self, other: Q, by: str) -> Q:
        if not isinstance(other, Q):
            return NotImplemented
        return _made((self, other), by, negated=False)

    def __invert__(self) -> Q:
        return _made((self,), "and", negated=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Q) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def _identity(self) -> tuple[Any, ...]:
        return self.joined_by, self.negated, self._parts

    def __repr__(self) -> str:
        if self.negated:
            return f"~{self._parts[0]!r}"
        if self.joined_by == "or" or (self._parts and all(isinstance(p, Q) for p in self._parts)):
            sign = " | " if self.joined_by == "or" else " & "
            return f"({sign.join(map(repr, self._parts))})"
        return f"Q({', '.join(map(repr, self._parts))})"

    def __call__(self, instance: Any, previous: Previous = None) -> bool:
        """Return whether the condition holds.

        Args:
            instance: The instance in its current state.
            previous: Previous values of the changed fields; None for a new instance.

        Raises:
            AttributeError: The instance has no such field.
            TypeError: A value can't be compared with the expected one.
        """
        return self.compile()(instance, previous)

    def compile(self) -> Test:
        """Return the function that evaluates the condition; create it once."""
        test = self._test
        if test is None:
            test = self._compiled()
            object.__setattr__(self, "_test", test)
        return test

    def _compiled(self) -> Test:
        tests = tuple(part.compile() for part in self._parts)
        if self.negated:
            (only,) = tests
            return lambda instance, previous: not only(instance, previous)
        if len(tests) == 1:
            return tests[0]
        if self.joined_by == "or":
            return lambda instance, previous: any(test(instance, previous) for test in tests)
        return lambda instance, previous: all(test(instance, previous) for test in tests)

    @property
    def fields(self) -> frozenset[str]:
        """The fields of the instance that the condition reads."""
        return frozenset().union(*(part.fields for part in self._parts))

    @property
    def now_fields(self) -> frozenset[str]:
        """The fields whose previous values the condition needs."""
        return frozenset().union(*(part.now_fields for part in self._parts))

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """All `field__operator=value` conditions in it, at any depth."""
        return tuple(c for part in self._parts for c in part.conditions)

    def expecting(self, expected: Callable[[Condition], Any]) -> Q:
        """Return the same conditions with converted values, for example in the column's type.

        Args:
            expected: Returns the new expected value of a condition.

        Example:
            >>> Q(votes__gte="10").expecting(lambda condition: int(condition.expected))
            Q(votes__gte=10)
        """
        parts = tuple(part.expecting(expected) for part in self._parts)
        return _made(parts, self.joined_by, self.negated)


@functools.singledispatch
def as_q(condition: Any) -> Q:
    """Convert another library's condition, such as Django's Q, to a Q.

    Adapters register converters: `@as_q.register`.

    Args:
        condition: The condition.

    Raises:
        TypeError: The type of the condition is unknown.

    Example:
        >>> class Same(tuple):
        ...     pass
        >>> @as_q.register
        ... def of_same(condition: Same) -> Q:
        ...     field, value = condition
        ...     return Q(**{f"{field}__eq": value})
        >>> Q(Same(["state", "PUBLISHED"]))
        (Q(state__eq='PUBLISHED'))
    """
    raise TypeError(f"{condition!r} is not a Q; conditions are Q values or field__op=value")


def _made(parts: tuple[Q | Condition, ...], joined_by: str, negated: bool) -> Q:  # noqa: FBT001
    made = Q()
    made._set(parts, joined_by, negated=negated)
    return made


class Condition:
    """One `field__operator=value`.

    Attributes:
        name: The name as written, `author__name__now_eq`.
        path: The names before the operator.
        operator: The operator without `now_`.
        now: Whether the condition must not have held before.
        expected: The expected value.
    """

    __slots__ = ("expected", "name", "now", "operator", "path")

    def __init__(self, name: str, expected: Any) -> None:
        *path, last = name.split("__")
        self.now = last.startswith(NOW) and last.removeprefix(NOW) in OPERATORS
        self.operator = last.removeprefix(NOW) if self.now else last
        if not path or not all(path) or self.operator not in OPERATORS:
            raise ValueError(_advice(name, path, last))
        if self.operator in AMONG and (
            isinstance(expected, str | bytes) or not isinstance(expected, Container)
        ):
            # `in` would search a string for parts, and a generator would be empty the second time.
            raise ValueError(
                f"condition {name!r} has {expected!r}; use a list, a tuple or a set of values"
            )
        self.name, self.path, self.expected = name, tuple(path), expected

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Condition)
            and self.name == other.name
            and type(self.expected) is type(other.expected)
            and bool(self.expected == other.expected)
        )

    def __hash__(self) -> int:
        # A list isn't hashable.
        return hash((self.name, type(self.expected)))

    def __repr__(self) -> str:
        return f"{self.name}={self.expected!r}"

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The condition itself."""
        return (self,)

    def expecting(self, expected: Callable[[Condition], Any]) -> Condition:
        """Return the condition with another expected value."""
        return Condition(self.name, expected(self))

    @property
    def fields(self) -> frozenset[str]:
        """The field of the instance that the condition reads."""
        return frozenset(self.path[:1])

    @property
    def now_fields(self) -> frozenset[str]:
        """The field whose previous value the condition needs, if any."""
        return self.fields if self.now else frozenset()

    def compile(self) -> Test:
        """Return the function that evaluates the condition."""
        get, holds, expected = _getter(self.path), OPERATORS[self.operator], self.expected
        name = self.name

        def holds_now(instance: Any, previous: Previous) -> bool:
            value = get(instance)
            try:
                return holds(value, expected)
            except (TypeError, AttributeError) as error:
                raise TypeError(f"{name}={expected!r} can't be applied to {value!r}") from error

        if not self.now:
            return holds_now
        whole, first = "__".join(self.path), self.path[0]
        former = _former_getter(self.path)

        def holds_since(instance: Any, previous: Previous) -> bool:
            if previous is None:
                return holds_now(instance, previous)
            if whole not in previous and first not in previous:
                return False  # the value is unchanged, so the condition held before
            if not holds_now(instance, previous):
                return False
            value = former(previous)
            try:
                return not holds(value, expected)
            except (TypeError, AttributeError):
                return True

        return holds_since


def _advice(name: str, path: list[str], last: str) -> str:
    meant_operator = _likely_operator(last)
    if meant_operator and path and all(path):
        meant = "__".join((*path, meant_operator))
    else:
        meant = f"{name}__eq"
    return (
        f"condition {name!r} has no operator; did you mean {meant!r}?"
        f" Operators are {', '.join(OPERATORS)}, and each with {NOW} before it"
    )


def _likely_operator(last: str) -> str | None:
    bare = last.removeprefix(NOW)
    found = _known_operator(bare)
    if found is not None:
        return f"{NOW}{found}" if last.startswith(NOW) else found
    first, _, rest = last.partition("_")
    found = _known_operator(rest) if rest and edits(f"{first}_", NOW) == 1 else None
    return None if found is None else f"{NOW}{found}"


def _known_operator(name: str) -> str | None:
    # A strict comparison: `author__name` lacks an operator and doesn't misspell `ne`.
    likely = difflib.get_close_matches(name, OPERATORS, 1, cutoff=0.75)
    return OTHER_NAMES.get(name.replace("_", "")) or next(iter(likely), None)


def _getter(path: tuple[str, ...]) -> Callable[[Any], Any]:
    first, *rest = path
    if not rest:
        return lambda instance: _step(instance, first, path)
    return lambda instance: _walk(_step(instance, first, path), rest, path)


def _walk(value: Any, names: Iterable[str], path: tuple[str, ...]) -> Any:
    for name in names:
        if value is None:
            return None
        value = _step(value, name, path)
    return value


def _step(value: Any, name: str, path: tuple[str, ...]) -> Any:
    if isinstance(value, Mapping):
        if name in value:
            return value[name]
        raise AttributeError(_no_field(value, name, path))
    try:
        return getattr(value, name)
    except AttributeError as error:  # keep the cause, because a property may have raised it
        raise AttributeError(_no_field(value, name, path)) from error


def _no_field(value: Any, name: str, path: tuple[str, ...]) -> str:
    return f"{type(value).__name__} has no {name!r} (in filter {'__'.join(path)!r})"


def _former_getter(path: tuple[str, ...]) -> Callable[[Mapping[str, Any]], Any]:
    whole, first, rest = "__".join(path), path[0], path[1:]

    def get(previous: Mapping[str, Any]) -> Any:
        return previous[whole] if whole in previous else _walk(previous[first], rest, path)

    return get
