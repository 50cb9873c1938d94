"""The SQL store: statements, rows and rules for all databases.

`begin`, `borrow`, `Transaction` and `failure_of` are for executors; see docs/extending/executor.md.
"""

from thorn_core.stores.sql.failures import failure_of
from thorn_core.stores.sql.sqlite import SqliteExecutor
from thorn_core.stores.sql.store import SqlStore
from thorn_core.stores.sql.transactions import Transaction, begin, borrow


def sqlite_store(url: str) -> SqlStore:
    """Create the store for a SQLite database, as `Thorn(store=url)` does.

    Args:
        url: `sqlite:///thorn.db` is a file relative to the working directory,
            `sqlite:////var/thorn.db` an absolute path, `sqlite://` a database in memory.

    Raises:
        ConfigurationError: The URL is not a SQLite URL, or SQLite is too old.

    Example:
        >>> from thorn_core import Thorn
        >>> store = sqlite_store("sqlite://")
        >>> with Thorn(store=store, dispatcher="outbox") as app, store.transaction() as transaction:
        ...     receipt = app.send("order.paid", {"number": 7}, within=transaction)
    """
    return SqlStore(SqliteExecutor(url))


__all__ = [
    "SqlStore",
    "SqliteExecutor",
    "Transaction",
    "begin",
    "borrow",
    "failure_of",
    "sqlite_store",
]
