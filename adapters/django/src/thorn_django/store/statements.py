"""Statements of our own: what Django's ORM has no words for, or not in one statement.

Each database words it differently: PostgreSQL unnests arrays, MySQL and MariaDB read a JSON table,
SQLite repeats a statement for each row. Rows come as their columns hold them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from django.db import IntegrityError
from django.db import models as django_models
from django.db.backends.base.base import BaseDatabaseWrapper

from thorn_django.models import Delivery, Recipient, SubscriptionPattern

T = TypeVar("T")
Rows = Sequence[Mapping[str, Any]]

# MySQL's error of a key that is taken.
DUPLICATE_ENTRY = 1062
VENDORS = ("postgresql", "mysql", "sqlite")
# Values of one IN: every database takes as many.
IN_SIZE = 500

# What MySQL's JSON tables call the columns that settling and recipients are given.
_JSON_TYPES = {
    "bigint": "BIGINT",
    "integer": "INT",
    "text": "LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    "id": "VARCHAR(160) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
}
_ARRAY_TYPES = {
    "BigIntegerField": "bigint",
    "BinaryField": "bytea",
    "BooleanField": "boolean",
    "CharField": "text",
    "FloatField": "double precision",
    "IntegerField": "integer",
    "SmallIntegerField": "smallint",
    "TextField": "text",
}


def chunks(values: Sequence[T], size: int = IN_SIZE) -> Iterator[Sequence[T]]:
    """Values in pieces: databases limit the parameters of a statement."""
    return (values[start : start + size] for start in range(0, len(values), size))


def _execute(connection: BaseDatabaseWrapper, statement: str, values: Sequence[Any]) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall()) if cursor.description else []


def first_keys(
    connection: BaseDatabaseWrapper, queryset: django_models.QuerySet[Any], limit: int
) -> list[str]:
    """Lock the first rows of a queryset in its order, an index's, but for those of others.

    A server that believes in fewer rows than there are, as after a sudden backlog, would take all
    of them and sort. PostgreSQL can't do so for a limit that it doesn't know when it plans: then it
    reads the index as far as it must.

    Args:
        connection: In a transaction.
        queryset: What is looked for, and its order.
        limit: How many at most.

    Returns:
        Their primary keys.
    """
    skips = connection.features.has_select_for_update_skip_locked
    keys: django_models.QuerySet[Any, Any] = queryset.values_list("pk", flat=True)
    locked = keys.select_for_update(skip_locked=skips)
    if connection.vendor != "postgresql":
        return list(locked[:limit])
    statement, values = locked.query.get_compiler(connection=connection).as_sql()
    found = _execute(connection, f"{statement} LIMIT (SELECT %s)", [*values, limit])
    return [key for (key,) in found]


def _table(model: type[django_models.Model]) -> str:
    # Ours, of which no letter needs quoting.
    return model._meta.db_table


def columns_of(model: type[django_models.Model]) -> list[str]:
    """The columns of a model's table."""
    return [field.attname for field in model._meta.local_concrete_fields]


# -- new rows


def insert_one(
    connection: BaseDatabaseWrapper, model: type[django_models.Model], row: dict[str, Any]
) -> bool:
    """Insert a row; False if its primary key is taken, which changes nothing.

    Args:
        connection: To its database.
        model: Of which table.
        row: With all its columns.
    """
    names = columns_of(model)
    placeholders = ", ".join(["%s"] * len(names))
    statement = f"INSERT INTO {_table(model)} ({', '.join(names)}) VALUES ({placeholders})"
    # MySQL tells of one row that ON DUPLICATE KEY has left as it is, as of one that was inserted.
    mysql = connection.vendor == "mysql"
    if not mysql:
        statement = f"{statement} {_leave(connection, names[0])}"
    with connection.cursor() as cursor:
        try:
            cursor.execute(statement, [row[name] for name in names])
        except IntegrityError as error:
            if mysql and error.args and error.args[0] == DUPLICATE_ENTRY:
                return False
            raise
        return bool(cursor.rowcount > 0)


def insert_new(
    connection: BaseDatabaseWrapper, model: type[django_models.Model], rows: Rows
) -> None:
    """Insert rows, and leave those as they are whose primary key is taken.

    Args:
        connection: To their database.
        model: Of which table.
        rows: With all its columns.
    """
    if not rows:
        return
    names = columns_of(model)
    columns = ", ".join(names)
    insert = f"INSERT INTO {_table(model)} ({columns})"
    if connection.vendor == "postgresql" and len(rows) > 1:
        arrays = ", ".join(
            f"%s::{_ARRAY_TYPES[field.get_internal_type()]}[]"
            for field in model._meta.local_concrete_fields
        )
        statement = f"{insert} SELECT * FROM unnest({arrays}) ON CONFLICT DO NOTHING"
        _execute(connection, statement, [[row[name] for row in rows] for name in names])
        return
    placeholders = ", ".join(["%s"] * len(names))
    statement = f"{insert} VALUES ({placeholders}) {_leave(connection, names[0])}"
    with connection.cursor() as cursor:
        if len(rows) == 1:
            cursor.execute(statement, [rows[0][name] for name in names])
        else:
            # MySQL's drivers make one statement of it.
            cursor.executemany(statement, [[row[name] for name in names] for row in rows])


def _leave(connection: BaseDatabaseWrapper, column: str) -> str:
    if connection.vendor == "mysql":
        # INSERT IGNORE would also ignore that a value is too long.
        return f"ON DUPLICATE KEY UPDATE {column} = {column}"
    return "ON CONFLICT DO NOTHING"


# -- what is due


def due_of_messages(
    connection: BaseDatabaseWrapper,
    ranges: Sequence[tuple[str, str, str]],
    now: int,
    *,
    full: Sequence[str],
    most: int,
) -> list[tuple[str, str]]:
    """What is due of some messages, and not of recipients that are paused or full.

    Args:
        connection: To their database.
        ranges: Of each message: its id, and where the ids of its deliveries are.
        now: Microseconds.
        full: Recipients that may get no more.
        most: How many at most.

    Returns:
        Ids of deliveries, in order, and their recipients.
    """
    free = "coalesce(turn.paused_until, 0) <= %s"
    if full:
        free += f" AND due.recipient NOT IN ({', '.join(['%s'] * len(full))})"
    found = (
        f"SELECT due.id, due.recipient FROM {_table(Delivery)} AS due"
        f" LEFT JOIN {_table(Recipient)} AS turn ON turn.recipient = due.recipient"
    )
    if connection.vendor == "postgresql":
        # In one wording for any number: planning many ranges takes longer.
        statement = (
            "SELECT due.id, due.recipient"
            " FROM unnest(%s::text[], %s::text[], %s::text[]) AS given (key, start, stop)"
            f" JOIN LATERAL ({found} WHERE due.message_id = given.key AND due.id >= given.start"
            f" AND due.id < given.stop AND due.ready_at <= %s AND {free}"
            " ORDER BY due.id LIMIT %s) AS due ON true ORDER BY due.id LIMIT %s"
        )
        arrays = [list(column) for column in zip(*ranges, strict=True)]
        return _execute(connection, statement, [*arrays, now, now, *full, most, most])
    each = " OR ".join(["(due.message_id = %s AND due.id >= %s AND due.id < %s)"] * len(ranges))
    statement = f"{found} WHERE ({each}) AND due.ready_at <= %s AND {free} ORDER BY due.id LIMIT %s"
    values = [value for some in ranges for value in some]
    return _execute(connection, statement, [*values, now, now, *full, most])


# -- recipients

# The column of the row that is there, and that of the one given.
_READY = {
    "mysql": ("ready_at", "VALUES(ready_at)"),
    "other": ("thorn_recipients.ready_at", "excluded.ready_at"),
}
_PAUSED = {
    "mysql": ("paused_until", "VALUES(paused_until)"),
    "other": ("thorn_recipients.paused_until", "excluded.paused_until"),
}


def make_due(connection: BaseDatabaseWrapper, times: Sequence[tuple[str, int]]) -> None:
    """Something is due for recipients: ready at these times, sooner if they were, later if paused.

    Args:
        connection: To their database.
        times: Recipients, each once and in order, and microseconds.
    """
    ready, given = _words(connection, _READY)
    paused, _ = _words(connection, _PAUSED)
    sooner = f"CASE WHEN {ready} < {given} THEN {ready} ELSE {given} END"
    later = f"CASE WHEN ({sooner}) > {paused} THEN ({sooner}) ELSE {paused} END"
    rows = [(recipient, at, 0) for recipient, at in times]
    _upsert(connection, f"ready_at = {later}", rows)


def leave_alone(connection: BaseDatabaseWrapper, ends: Sequence[tuple[str, int]]) -> None:
    """Pause recipients until these times, or later ones that were said before.

    Args:
        connection: To their database.
        ends: Recipients, each once and in order, and microseconds.
    """
    ready, _ = _words(connection, _READY)
    paused, given = _words(connection, _PAUSED)
    until = f"CASE WHEN {paused} > {given} THEN {paused} ELSE {given} END"
    # In this order: on MySQL a column reads as changed to those after it.
    waiting = (
        f"CASE WHEN {ready} IS NULL THEN NULL"
        f" WHEN {ready} > ({until}) THEN {ready} ELSE ({until}) END"
    )
    rows = [(recipient, None, at) for recipient, at in ends]
    _upsert(connection, f"ready_at = {waiting}, paused_until = {until}", rows)


def _words(
    connection: BaseDatabaseWrapper, words: Mapping[str, tuple[str, str]]
) -> tuple[str, str]:
    return words["mysql" if connection.vendor == "mysql" else "other"]


def _upsert(connection: BaseDatabaseWrapper, changes: str, rows: Sequence[tuple[Any, ...]]) -> None:
    insert = f"INSERT INTO {_table(Recipient)} (recipient, ready_at, paused_until)"
    if connection.vendor == "postgresql":
        _execute(
            connection,
            f"{insert} SELECT * FROM unnest(%s::text[], %s::bigint[], %s::bigint[])"
            f" ON CONFLICT (recipient) DO UPDATE SET {changes}",
            [list(column) for column in zip(*rows, strict=True)],
        )
        return
    if connection.vendor == "mysql":
        conflict = f"ON DUPLICATE KEY UPDATE {changes}"
    else:
        conflict = f"ON CONFLICT (recipient) DO UPDATE SET {changes}"
    with connection.cursor() as cursor:
        cursor.executemany(f"{insert} VALUES (%s, %s, %s) {conflict}", rows)


# -- deliveries

_SETTLED = {
    "key": "id",
    "more": "integer",
    "becomes": "text",
    "due": "bigint",
    "settled": "bigint",
    "why": "text",
}
_CHANGES = (
    "state = {becomes}, attempt_count = attempt_count + {more},"
    " due_at = COALESCE({due}, due_at), settled_at = {settled}, reason = {why},"
    " ready_at = {due}, token = NULL, leased_until = NULL"
)


def settle(connection: BaseDatabaseWrapper, rows: Rows) -> None:
    """Write how deliveries ended.

    Args:
        connection: To their database.
        rows: For each its id as `key`, `more` attempts, what it `becomes`, when it is `due` again,
            when it was `settled`, and `why`.
    """
    if not rows:
        return
    table = _table(Delivery)
    if connection.vendor == "sqlite":
        changes = _CHANGES.format(**{name: f"%({name})s" for name in _SETTLED})
        with connection.cursor() as cursor:
            cursor.executemany(f"UPDATE {table} SET {changes} WHERE id = %(key)s", rows)
        return
    changes = _CHANGES.format(**{name: f"given.{name}" for name in _SETTLED})
    if connection.vendor == "postgresql":
        arrays = ", ".join(
            f"%s::{'text' if kind == 'id' else kind}[]" for kind in _SETTLED.values()
        )
        _execute(
            connection,
            f"UPDATE {table} SET {changes}"
            f" FROM unnest({arrays}) AS given ({', '.join(_SETTLED)}) WHERE id = given.key",
            [[row[name] for row in rows] for name in _SETTLED],
        )
        return
    paths = ", ".join(f"`{n}` {_JSON_TYPES[kind]} PATH '$.{n}'" for n, kind in _SETTLED.items())
    quoted = _CHANGES.format(**{name: f"given.`{name}`" for name in _SETTLED})
    _execute(
        connection,
        f"UPDATE {table} JOIN JSON_TABLE(%s, '$[*]' COLUMNS ({paths})) AS given"
        f" ON id = given.`key` SET {quoted}",
        [json.dumps([dict(row) for row in rows])],
    )


def first_due(
    connection: BaseDatabaseWrapper, sizes: Mapping[str, int], now: int
) -> list[tuple[str, str]]:
    """The first deliveries due of each recipient, the oldest first: ids and recipients.

    Args:
        connection: To their database.
        sizes: How many of each recipient at most.
        now: Microseconds.
    """
    first = (
        f"SELECT id, recipient FROM {_table(Delivery)} WHERE recipient = {{name}}"
        " AND ready_at <= %s ORDER BY ready_at, id LIMIT {size}"
    )
    if connection.vendor == "postgresql":
        # One wording for any number: planning a long union takes longer.
        found = _execute(
            connection,
            "SELECT first.id, first.recipient FROM unnest(%s::text[], %s::bigint[])"
            " AS given (name, size) CROSS JOIN LATERAL"
            f" ({first.format(name='given.name', size='given.size')}) AS first",
            [list(sizes), list(sizes.values()), now],
        )
    else:
        values = [value for name, size in sizes.items() for value in (name, now, size)]
        found = _execute(connection, _union(first.format(name="%s", size="%s"), len(sizes)), values)
    return found


def _union(part: str, times: int) -> str:
    # In brackets of a table's own, where SQLite allows ORDER BY and LIMIT.
    parts = (f"SELECT * FROM ({part}) AS part{number}" for number in range(times))
    return " UNION ALL ".join(parts)


# -- patterns


def first_ids(
    connection: BaseDatabaseWrapper,
    asked: Sequence[tuple[str, str | None]],
    after: str,
    limit: int,
) -> list[str]:
    """The first subscriptions of each of some patterns.

    Args:
        connection: To their database.
        asked: Patterns, and an owner or None for any.
        after: Only ids after this one.
        limit: How many of each at most.
    """
    # All have an owner, or none has.
    of_owner = "" if asked[0][1] is None else "AND owner = %s "
    part = (
        f"SELECT subscription_id FROM {_table(SubscriptionPattern)}"
        f" WHERE pattern = %s {of_owner}AND subscription_id > %s"
        " ORDER BY subscription_id LIMIT %s"
    )
    values: list[Any] = []
    for pattern, owner in asked:
        values += [pattern, after, limit] if owner is None else [pattern, owner, after, limit]
    return [key for (key,) in _execute(connection, _union(part, len(asked)), values)]
