"""Write down the schema of this version, with some rows, for the tests of later ones.

Run it once, when a revision is released: `python tests/sqlalchemy/schemas/freeze.py`. What a
released version has written is never written again.
"""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select

from thorn_core import RetryPolicy, Settings, Thorn
from thorn_core.stores.sql.schema import PREFIX, VERSION
from thorn_core.stores.sql.setup import script
from thorn_core.stores.sql.wording import Wording
from thorn_core.testing import LocalRecipient
from thorn_sqlalchemy import SqlStore

HERE = Path(__file__).parent
DIALECTS = ("sqlite", "postgresql", "mysql")
RELEASED = datetime(2025, 1, 1, tzinfo=UTC)
HEADERS = {"X-Team": "blue"}
SECRET = "whsec_" + base64.b64encode(b"of tests, not of any recipient's").decode()


def main() -> None:
    """Write a file for each database."""
    rows = list(_rows())
    for dialect in DIALECTS:
        statements = schema_of(dialect)
        for table, row in rows:
            names, values = ", ".join(row), ", ".join(_literal(v, dialect) for v in row.values())
            statements.append(f"INSERT INTO {table} ({names}) VALUES ({values})")
        text = "".join(f"{statement};\n\n" for statement in statements)
        (HERE / f"{dialect}-{VERSION}.sql").write_text(text, "utf-8")


def schema_of(dialect: str) -> list[str]:
    """The statements that make this version's tables."""
    return statements_of(script(Wording(dialect, "?", PREFIX, None)))


def statements_of(text: str) -> list[str]:
    """The statements of a script; those that only a client's transaction needs left out."""
    lines = [line.rstrip() for line in text.splitlines() if not line.startswith("--")]
    found = (part.strip() for part in "\n".join([*lines, ""]).split(";\n"))
    return [part for part in found if part and part not in ("BEGIN", "COMMIT")]


def _rows() -> Iterator[tuple[str, dict[str, Any]]]:
    """What a version writes: delivered, to be tried again, not routed yet."""
    settings = Settings(
        allowed_networks=["127.0.0.0/8"],
        allowed_ports=range(1, 65536),
        retry_policy=RetryPolicy((1,), jitter=0),
    )
    with tempfile.TemporaryDirectory() as directory, LocalRecipient() as recipient:
        store = SqlStore(f"sqlite:///{directory}/thorn.db")
        with Thorn(
            store=store, dispatcher="outbox", settings=settings, clock=lambda: RELEASED
        ) as app:
            app.subscribe("article.*", recipient.url, owner="42", secret=SECRET, headers=HEADERS)
            app.send("article.delivered", {"title": "Grüße"}, sender="42")
            app.worker().drain()
            recipient.answer(status=500)
            app.send("article.failed", {"title": "it's \\ 100 %"}, context={"n": 1})
            app.worker().drain()
            app.send("article.unrouted", {"title": "third"})
            with store.engine.connect() as connection:
                for table in store.tables.all():
                    for row in connection.execute(select(table)):
                        yield table.name, dict(row._mapping)


def _literal(value: Any, dialect: str) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).lower() if dialect == "postgresql" else str(int(value))
    if isinstance(value, bytes):
        return f"'\\x{value.hex()}'" if dialect == "postgresql" else f"X'{value.hex()}'"
    if isinstance(value, str):
        if dialect == "mysql":
            value = value.replace("\\", "\\\\")
        return "'" + value.replace("'", "''") + "'"
    return repr(value)


if __name__ == "__main__":
    main()
