"""What is said of a driver's error: no values, which may be secrets and payloads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thorn_core.stores import redact, redacted

NOT_NULL = 'null value in column "owner" of relation "t" violates not-null constraint'


@pytest.mark.parametrize(
    "said",
    [
        "database is locked",
        "no such table: thorn_messages",
        "UNIQUE constraint failed: thorn_messages.id",
        'relation "thorn_messages" does not exist',
        'column "sender" of relation "thorn_messages" does not exist',
        'duplicate key value violates unique constraint "thorn_messages_pkey"',
        "Table 'thorn.thorn_messages' doesn't exist",
        "Data too long for column 'description' at row 1",
        'connection to server at "127.0.0.1", port 5432 failed: Connection refused',
        "Can't connect to MySQL server on 'localhost' ([Errno 111] Connection refused)",
        'password authentication failed for user "thorn"',
    ],
)
def test_what_went_wrong_is_told(said):
    assert redacted(said) == said


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("Duplicate entry 'pa55' for key 'PRIMARY'", "Duplicate entry …"),
        ("Duplicate entry 'it's 'pa55'' for key 'PRIMARY'", "Duplicate entry …"),
        (f"{NOT_NULL}\nDETAIL:  Failing row contains (1, pa55).", NOT_NULL),
        ('invalid input syntax for type json\nDETAIL:  Token "pa55" …\nCONTEXT: pa55', None),
        ("syntax error at or near \"x\"\nLINE 1: INSERT INTO t VALUES ('pa55')", None),
        ("You have an error in your SQL syntax near 'VALUES ('pa55', 1)' at line 1", None),
        ("Incorrect string value: '\\xF0pa55' for column `t`.`c` at row 1", None),
        ("a value can't be '\npa55", None),
    ],
)
def test_values_are_not(said, left):
    assert "pa55" not in redacted(said)
    assert left is None or redacted(said) == left


@given(st.text(st.sampled_from("'\"a \n"), max_size=30))
def test_whatever_stands_before_a_value_it_is_not_told(text):
    for quoted in ("'pa55'", '"pa55"'):
        assert "pa55" not in redacted(f"{text}entry {quoted}{text}")


def test_every_exception_of_the_chain_says_the_same():
    driver = ValueError(1062, "Duplicate entry 'pa55' for key 'PRIMARY'")
    library = RuntimeError(str(driver))
    library.__cause__, library.__context__ = driver, driver
    driver.__context__ = library  # a circle
    redact(library)
    assert driver.args == (1062, "Duplicate entry …")
    assert "pa55" not in f"{library}{driver!r}"
