"""Filters: now, and before a change."""

from __future__ import annotations

import copy
import operator
import pickle
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thorn_core import Q
from thorn_core.filters import OPERATORS


def thing(**values):
    return SimpleNamespace(**values)


@pytest.mark.parametrize(
    ("condition", "value", "expected"),
    [
        ({"x__eq": 1}, 1, True),
        ({"x__eq": 1}, 2, False),
        ({"x__eq": True}, "truthy", True),
        ({"x__eq": False}, "", True),
        ({"x__eq": True}, 0, False),
        ({"x__ne": True}, 0, True),
        ({"x__ne": 1}, 2, True),
        ({"x__gt": 1}, 2, True),
        ({"x__gt": 1}, 1, False),
        ({"x__gte": 1}, 1, True),
        ({"x__lt": 1}, 0, True),
        ({"x__lt": 1}, 1, False),
        ({"x__lte": 1}, 1, True),
        ({"x__gt": 1}, None, False),
        ({"x__lt": None}, 1, False),
        ({"x__is": None}, None, True),
        ({"x__is_not": None}, 0, True),
        ({"x__in": (1, 2)}, 2, True),
        ({"x__not_in": (1, 2)}, 2, False),
        ({"x__contains": "b"}, "abc", True),
        ({"x__contains": "b"}, None, False),
        ({"x__startswith": "a"}, "abc", True),
        ({"x__endswith": "c"}, "abc", True),
        ({"x__endswith": "c"}, None, False),
        ({"x__true": True}, [1], True),
        ({"x__true": False}, [], True),
        ({"x__not": True}, [], True),
        ({"x__not": False}, [], False),
    ],
)
def test_every_operator(condition, value, expected):
    assert Q(**condition)(thing(x=value)) is expected
    # Its twin: nothing held before the creation, and an unchanged value held as it does now.
    ((name, wanted),) = condition.items()
    twin = Q(**{name.replace("__", "__now_"): wanted})
    assert twin(thing(x=value), None) is expected
    assert twin(thing(x=value), {"other": 1}) is False
    assert twin(thing(x=value), {"x": value}) is False


def test_a_value_that_stood_at_the_limit_has_passed_it_now():
    assert Q(x__now_gt=5)(thing(x=6), {"x": 5})
    assert not Q(x__now_gt=5)(thing(x=7), {"x": 6})
    assert not Q(x__now_gt=5)(thing(x=5), {"x": 4})


def test_a_former_value_that_can_not_be_compared_did_not_hold():
    assert Q(x__now_gt=5)(thing(x=6), {"x": "five"})
    assert Q(x__now_startswith="a")(thing(x="ab"), {"x": 7})


def test_fields_nest_over_attributes_and_mappings():
    instance = thing(author=thing(profile={"name": "Ada"}), editor=None)
    assert Q(author__profile__name__eq="Ada")(instance)
    assert Q(editor__profile__name__is=None)(instance)
    assert Q(author__profile__name__now_eq="Ada")(
        instance, {"author": thing(profile={"name": "B"})}
    )
    assert Q(author__profile__name__now_eq="Ada")(instance, {"author__profile__name": "B"})
    assert not Q(author__profile__name__now_eq="Ada")(instance, {"editor": None})


def test_a_former_nothing_in_the_middle_of_a_path_is_nothing():
    ada = thing(profile=thing(name="Ada"))
    instance = thing(author=ada)
    assert Q(author__profile__now_is=ada.profile)(instance, {"author": None})
    assert Q(author__profile__name__now_eq="Ada")(instance, {"author": None})
    assert not Q(editor__name__now_is=None)(thing(editor=None), {"editor": None})


def test_a_field_that_the_former_object_lacks_is_named_by_its_whole_path():
    with pytest.raises(AttributeError, match=r"SimpleNamespace has no 'b' .in filter 'a__b'"):
        Q(a__b__now_eq=1)(thing(a=thing(b=1)), {"a": thing()})


def test_what_a_property_raised_is_kept_as_the_cause():
    class Broken:
        @property
        def state(self):
            raise AttributeError("the real trouble")

    with pytest.raises(AttributeError, match="Broken has no 'state'") as refusal:
        Q(state__eq=1)(Broken())
    assert str(refusal.value.__cause__) == "the real trouble"


def test_a_condition_stays_as_it_is():
    q = Q(x__eq=1)
    for change in (
        lambda: setattr(q, "negated", True),
        lambda: setattr(q, "other", 1),
        lambda: delattr(q, "joined_by"),
    ):
        with pytest.raises(AttributeError, match="a Q is immutable"):
            change()
    assert q == Q(x__eq=1)


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda q: pickle.loads(pickle.dumps(q))]
)
def test_a_compiled_condition_can_be_copied_and_pickled(duplicate):
    q = Q(x__eq=1) & ~(Q(y__in=[2]) | Q(z__now_gt=3))
    assert q(thing(x=1, y=0, z=0))
    twin = duplicate(q)
    assert twin == q
    assert twin(thing(x=1, y=0, z=0))


def test_a_field_may_be_named_like_an_operator():
    assert Q(true__eq=1)(thing(true=1))
    assert Q(now_eq__eq=1)(thing(now_eq=1))


def test_conditions_compose():
    a, b = Q(x__eq=1), Q(y__eq=2)
    cases = [(1, 2), (1, 0), (0, 2), (0, 0)]

    def truths(q):
        return [q(thing(x=x, y=y)) for x, y in cases]

    assert truths(a & b) == truths(Q(x__eq=1, y__eq=2)) == truths(Q(a, b)) == [1, 0, 0, 0]
    assert truths(a | b) == [1, 1, 1, 0]
    assert truths(~a) == [0, 0, 1, 1]
    assert truths(~(a & b)) == [0, 1, 1, 1]
    assert truths(~~a) == truths(a)
    assert truths(Q()) == [1, 1, 1, 1]
    assert truths(a & Q()) == truths(a)


def test_equal_conditions_are_equal():
    assert Q(x__eq=1) & ~Q(y__in=[2]) == Q(x__eq=1) & ~Q(y__in=[2])
    assert hash(Q(x__eq=1) & Q(y__in=[2])) == hash(Q(x__eq=1) & Q(y__in=[2]))
    assert len({hash(Q(**{f"x{n}__eq": 1})) for n in range(20)}) > 1
    assert Q(x__eq=1) != Q(x__eq=True)
    assert Q(x__eq=1) != Q(x__ne=1)
    assert Q(x__eq=1) | Q(y__eq=1) != Q(x__eq=1) & Q(y__eq=1)
    assert Q(x__eq=1) != 1


def test_a_condition_shows_itself():
    q = (Q(x__eq=1) | ~Q(y__in=[2])) & Q(z__true=True, a__eq="b")
    assert repr(q) == "((Q(x__eq=1) | ~Q(y__in=[2])) & Q(z__true=True, a__eq='b'))"


def test_the_fields_asked_for_are_known():
    q = Q(state__now_eq=1) | ~Q(author__name__eq=2) & Q(x__y__now_gt=3)
    assert q.fields == {"state", "author", "x"}
    assert q.now_fields == {"state", "x"}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("state", "state__eq"),
        ("author__name", "author__name__eq"),
        ("state__equ", "state__eq"),
        ("state__now_startwith", "state__now_startswith"),
        ("state__nwo_eq", "state__now_eq"),
        ("state__nw_equals", "state__now_eq"),
        ("state__not_eq", "state__ne"),
        ("__eq", "__eq__eq"),
        ("eq", "eq__eq"),
    ],
)
def test_a_missing_or_unknown_operator_is_refused_with_what_was_meant(name, meant):
    with pytest.raises(ValueError, match="operator") as refusal:
        Q(**{name: 1})
    assert f"did you mean '{meant}'?" in str(refusal.value)


@pytest.mark.parametrize("child", [1, "x", lambda instance: True])
def test_only_conditions_are_children(child):
    with pytest.raises(TypeError, match="not a Q"):
        Q(child)
    with pytest.raises(TypeError):
        Q(x__eq=1) & child
    with pytest.raises(TypeError):
        Q(x__eq=1) | child


def test_a_missing_field_is_named():
    with pytest.raises(AttributeError, match=r"SimpleNamespace has no 'y' .in filter 'y__z'"):
        Q(y__z__eq=1)(thing(x=1))
    with pytest.raises(AttributeError, match="dict has no 'z'"):
        Q(y__z__eq=1)(thing(y={}))


def test_what_can_not_be_compared_is_named():
    with pytest.raises(TypeError, match="x__gt=5 can't be applied to 'a'"):
        Q(x__gt=5)(thing(x="a"))
    with pytest.raises(TypeError, match="x__startswith='a' can't be applied to 7"):
        Q(x__startswith="a")(thing(x=7))


def test_a_condition_is_compiled_once():
    q = Q(x__eq=1) & Q(y__eq=2)
    assert q.compile() is q.compile()


# -- compared with a straightforward evaluation of the same tree

FIELDS = ("x", "y", "author__rank")
values = st.one_of(st.none(), st.booleans(), st.integers(-2, 2))
conditions = st.tuples(
    st.sampled_from(FIELDS),
    st.booleans(),
    st.sampled_from(["eq", "ne", "gt", "gte", "lt", "lte", "is", "is_not", "true", "not"]),
    values,
)
trees = st.recursive(
    conditions,
    lambda inner: st.one_of(
        st.tuples(st.just("not"), inner),
        st.tuples(st.sampled_from(["and", "or"]), inner, inner),
    ),
    max_leaves=8,
)


def as_q(tree):
    if tree[0] == "not":
        return ~as_q(tree[1])
    if tree[0] == "and":
        return as_q(tree[1]) & as_q(tree[2])
    if tree[0] == "or":
        return as_q(tree[1]) | as_q(tree[2])
    field, now, name, expected = tree
    return Q(**{f"{field}__{'now_' if now else ''}{name}": expected})


PLAIN = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}


def holds(name, value, expected):
    if name in ("eq", "ne"):
        equal = bool(value) == expected if isinstance(expected, bool) else value == expected
        return equal if name == "eq" else not equal
    if name in PLAIN:
        return None not in (value, expected) and PLAIN[name](value, expected)
    if name in ("is", "is_not"):
        return (value is expected) == (name == "is")
    return bool(value) == bool(expected) if name == "true" else (not value) == bool(expected)


def evaluate(tree, now, previous):
    if tree[0] == "not":
        return not evaluate(tree[1], now, previous)
    if tree[0] == "and":
        return evaluate(tree[1], now, previous) and evaluate(tree[2], now, previous)
    if tree[0] == "or":
        return evaluate(tree[1], now, previous) or evaluate(tree[2], now, previous)
    field, twin, name, expected = tree
    result = holds(name, value_of(now, field), expected)
    if twin and previous is not None:
        result = result and not holds(name, value_of(now | previous, field), expected)
    return result


def value_of(fields, field):
    if field in fields:
        return fields[field]
    author = fields["author"]
    return author["rank"] if isinstance(author, dict) else getattr(author, "rank", None)


authors = st.one_of(
    st.none(), values.map(lambda rank: {"rank": rank}), values.map(lambda rank: thing(rank=rank))
)
known = {"x": values, "y": values, "author": authors}
formers = st.fixed_dictionaries({}, optional={**known, "author__rank": values})


@given(trees, st.fixed_dictionaries(known), st.none() | formers)
def test_a_compiled_condition_agrees_with_a_straightforward_evaluation(tree, now, previous):
    assert as_q(tree)(thing(**now), previous) == evaluate(tree, now, previous)


def test_every_operator_is_tried_here():
    assert set(OPERATORS) == {
        *("eq", "ne", "gt", "gte", "lt", "lte", "is", "is_not", "in", "not_in"),
        *("contains", "startswith", "endswith", "true", "not"),
    }


@pytest.mark.parametrize(
    ("condition", "meant"),
    [
        ("state__now_equals", "state__now_eq"),
        ("state__equals", "state__eq"),
        ("state__exact", "state__eq"),
        ("votes__greater_than", "votes__gt"),
        ("votes__now_gteq", "votes__now_gte"),
        ("author__isnull", "author__is"),
        ("title__starts_with", "title__startswith"),
        ("title__icontains", "title__contains"),
        ("state__notin", "state__not_in"),
    ],
)
def test_the_names_that_others_give_operators_are_understood_and_refused(condition, meant):
    with pytest.raises(ValueError, match=f"did you mean '{meant}'"):
        Q(**{condition: 1})


def test_expected_values_can_be_brought_into_another_form():
    condition = Q(Q(votes__gte="10") | ~Q(votes__in=["1"]), state__now_eq="x")
    read = condition.expecting(
        lambda c: [int(v) for v in c.expected] if c.operator == "in" else c.expected * 2
    )
    assert read == Q(Q(votes__gte="1010") | ~Q(votes__in=[1]), state__now_eq="xx")
    assert {c.name for c in read.conditions} == {"votes__gte", "votes__in", "state__now_eq"}


def test_a_time_without_a_zone_is_compared_as_utc():
    noon = datetime(2026, 3, 1, 12)
    for here, there in ((noon, noon.replace(tzinfo=UTC)), (noon.replace(tzinfo=UTC), noon)):
        instance = SimpleNamespace(at=here)
        assert Q(at__eq=there, at__gte=there, at__lte=there)(instance)
        assert not Q(at__gt=there)(instance)
        assert not Q(at__ne=there)(instance)
        assert Q(at__now_gte=there)(instance, {"at": here - timedelta(hours=1)})
