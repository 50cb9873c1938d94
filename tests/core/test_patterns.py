"""Event names and patterns."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thorn_core import InvalidNameError
from thorn_core.patterns import (
    MAX_LENGTH,
    MAX_WORDS,
    candidates,
    check_name,
    check_pattern,
    check_template,
    fill,
    has_fields,
    matches,
)

words = st.sampled_from(["a", "b", "article", "x-1", "_"])
names = st.lists(words, min_size=1, max_size=6).map(".".join)
patterns = st.lists(st.one_of(words, st.just("*")), min_size=1, max_size=6).map(".".join)


def naive(pattern, name):
    """The definition, as a regular expression."""
    *front, last = pattern.split(".")
    parts = ["[^.]+" if word == "*" else re.escape(word) for word in front]
    parts.append("[^.]+(?:[.][^.]+)*" if last == "*" else re.escape(last))
    return re.fullmatch("[.]".join(parts), name) is not None


@given(patterns, names)
def test_matching_follows_the_definition(pattern, name):
    assert matches(pattern, name) == naive(pattern, name)


@given(patterns, names)
def test_the_candidates_of_a_name_are_the_patterns_that_match_it(pattern, name):
    assert (pattern in candidates(name)) == matches(pattern, name)


@st.composite
def near(draw):
    """A pattern made of a name by putting stars in, and the name, perhaps changed a little."""
    pieces = draw(st.lists(words, min_size=1, max_size=6))
    stars = draw(st.lists(st.booleans(), min_size=len(pieces), max_size=len(pieces)))
    kept = draw(st.integers(1, len(pieces)))
    pattern = ["*" if star else word for word, star in zip(pieces, stars, strict=True)][:kept]
    place = draw(st.integers(0, len(pieces) - 1))
    change = draw(st.sampled_from(["none", "replace", "drop", "add"]))
    if change == "replace":
        pieces[place] = draw(words)
    elif change == "drop" and len(pieces) > 1:
        del pieces[place]
    elif change == "add":
        pieces.insert(place, draw(words))
    return ".".join(pattern), ".".join(pieces)


@given(near())
def test_near_misses_are_told_from_matches(pair):
    pattern, name = pair
    assert (pattern in candidates(name)) == matches(pattern, name) == naive(pattern, name)


@given(names, st.data())
def test_a_pattern_made_of_a_name_is_among_its_candidates(name, data):
    pieces = name.split(".")
    place = data.draw(st.integers(0, len(pieces) - 1))
    starred = [*pieces[:place], "*"]
    assert ".".join(starred) in candidates(name)


@given(names)
def test_candidates_are_each_there_once_and_as_many_as_the_words_allow(name):
    found = candidates(name)
    count = len(name.split("."))
    assert len(set(found)) == len(found) == 2**count + 2 ** (count - 1) - 1


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("article.*", "article.created", True),
        ("article.*", "article.tag.added", True),
        ("article.*", "article", False),
        ("*.created", "article.created", True),
        ("*.created", "article.tag.created", False),
        ("*", "a.b.c", True),
        ("*.*", "a", False),
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
    ],
)
def test_the_documented_examples(pattern, name, expected):
    assert matches(pattern, name) is expected


@pytest.mark.parametrize("name", ["", ".", "a.", ".a", "a..b"])
def test_an_empty_word_is_refused(name):
    for check in (check_name, check_pattern, check_template):
        with pytest.raises(InvalidNameError, match="empty word"):
            check(name)


@pytest.mark.parametrize("name", ["a b", "a/b", "é", "a.b\n", "a:b", "a*", "a.*b"])
def test_a_foreign_character_is_refused_and_shown(name):
    for check in (check_name, check_pattern):
        with pytest.raises(InvalidNameError, match="holds"):
            check(name)


def test_a_star_is_for_patterns_only():
    assert check_pattern("a.*.b") == "a.*.b"
    with pytest.raises(InvalidNameError, match="use letters"):
        check_name("a.*")
    with pytest.raises(InvalidNameError, match="must be a whole word"):
        check_pattern("a.b*")


def test_length_and_words_are_bounded():
    assert check_name(".".join("a" * MAX_WORDS))
    with pytest.raises(InvalidNameError, match="at most 10"):
        check_name(".".join("a" * (MAX_WORDS + 1)))
    with pytest.raises(InvalidNameError, match="at most 200"):
        check_name("a" * (MAX_LENGTH + 1))


@pytest.mark.parametrize("name", [7, None, b"a", ["a"], {}])
def test_what_is_no_text_is_refused(name):
    for check in (check_name, check_pattern, check_template):
        with pytest.raises(InvalidNameError, match="not a string"):
            check(name)


def test_fields_are_filled_in_as_one_word_each():
    instance = SimpleNamespace(
        name="ada.l@example.com", account=SimpleNamespace(tier=3), nothing=None, empty=""
    )
    assert fill("user.{.name}", instance) == "user.ada_l_example_com"
    assert fill("t{.account.tier}.{.nothing}.{.empty}", instance) == "t3._._"
    assert fill("t.{.nothing.tier}", instance) == "t._"
    with pytest.raises(AttributeError, match="missing"):
        fill("user.{.missing}", instance)


@given(st.text())
def test_whatever_a_field_holds_the_name_is_one(value):
    name = fill("user.{.value}.x", SimpleNamespace(value=value[:100]))
    assert len(name.split(".")) == 3


def test_a_template_is_checked_around_its_fields():
    assert check_template("user.{.a.b}.c") == "user.{.a.b}.c"
    assert has_fields("user.{.a}")
    assert not has_fields("user.a")
    with pytest.raises(
        InvalidNameError, match=r"holds '\{'; a field .* is written \{\.attribute\}"
    ):
        check_template("user.{a}")
    for bad in ("user.{a}", "user.{.}", "user.{.a", "user..{.a}"):
        with pytest.raises(InvalidNameError):
            check_template(bad)
