"""Statements that databases word differently, and what all of them share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from sqlalchemy.dialects import mysql, postgresql, sqlite

from sqlalchemy import ColumnElement, Insert, Table, bindparam, case, exists, insert, select
from thorn_sqlalchemy.database import MYSQL

T = TypeVar("T")

# Values of one IN: every database takes as many, and few statements are worded differently.
IN_SIZE = 500


def insert_new(dialect: str, table: Table) -> Insert:
    """An INSERT of a whole row that leaves a row with the same primary key as it is.

    Args:
        dialect: Name of the database.
        table: Where to; the parameters are its columns.
    """
    if dialect == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    if dialect == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing()
    keys = list(table.primary_key)
    if dialect in MYSQL:
        # INSERT IGNORE would also ignore that a value is too long.
        return mysql.insert(table).on_duplicate_key_update({keys[0].name: keys[0]})
    there = exists(*keys).where(*(column == _value_of(column) for column in keys))
    values = select(*(_value_of(column) for column in table.columns)).where(~there)
    return insert(table).from_select(list(table.columns), values)


def _value_of(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return bindparam(column.key, type_=column.type)


def one_of(column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
    """True if a column's value is one of the values given as a parameter."""
    return column.in_(bindparam(name, type_=column.type, expanding=True))


def earlier(a: ColumnElement[int], b: ColumnElement[int]) -> ColumnElement[int]:
    """The lesser of two times."""
    return case((a < b, a), else_=b)


def later(a: ColumnElement[int], b: ColumnElement[int]) -> ColumnElement[int]:
    """The greater of two times."""
    return case((a > b, a), else_=b)


def chunks(values: Sequence[T], size: int = IN_SIZE) -> Iterator[Sequence[T]]:
    """Values in pieces: databases limit the parameters of a statement."""
    return (values[start : start + size] for start in range(0, len(values), size))
