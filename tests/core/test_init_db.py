"""`thorn init-db`: the tables of the store that is built in, and those of plugins."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from thorn_core import StoreSetupError
from thorn_core.cli.group import run
from thorn_core.stores.sql import SqliteExecutor, SqlStore

COMMAND = [sys.executable, "-m", "thorn_core.cli", "init-db"]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    monkeypatch.delenv("THORN_STORE", raising=False)
    monkeypatch.delenv("THORN_APP", raising=False)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "thorn.db"


@pytest.fixture
def shop(tmp_path, monkeypatch, path):
    """A user's app, whose tables have a prefix of their own."""
    name = f"shop_{os.urandom(4).hex()}"
    (tmp_path / f"{name}.py").write_text(
        "from thorn_core import Thorn\n"
        "from thorn_core.stores.sql import SqliteExecutor, SqlStore\n"
        "def app():\n"
        f"    store = SqlStore(SqliteExecutor('sqlite:///{path}'), prefix='hooks_')\n"
        "    return Thorn(store=store, dispatcher='outbox', default=False)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return ["--app", f"{name}:app"]


def tables(path):
    with closing(sqlite3.connect(path)) as driver:
        return {name for (name,) in driver.execute("SELECT name FROM sqlite_master")}


def test_it_creates_the_tables_once(path, capfd):
    url = f"sqlite:///{path}"
    assert run(["init-db", "--store", url]) == 0
    assert capfd.readouterr().out == f"{url}: created the tables, schema 0001\n"
    assert {"thorn_messages", "thorn_deliveries"} <= tables(path)
    assert run(["init-db", "--store", url]) == 0
    assert capfd.readouterr().out == f"{url}: already up to date, schema 0001\n"


def test_an_app_s_store_has_its_own_prefix(path, shop, capfd):
    assert run([*shop, "init-db"]) == 0
    assert "created the tables" in capfd.readouterr().out
    assert "hooks_messages" in tables(path)
    assert "thorn_messages" not in tables(path)


def test_a_store_with_a_prefix_is_created_by_its_app(path):
    with closing(sqlite3.connect(path)) as driver:
        driver.execute("CREATE TABLE hooks_messages (id)")
    store = SqlStore(SqliteExecutor(f"sqlite:///{path}"), prefix="hooks_")
    with pytest.raises(StoreSetupError, match="run: thorn --app module:attribute init-db"):
        store.check()
    store.close()


def test_a_store_without_a_prefix_is_created_by_its_url(path):
    with closing(sqlite3.connect(path)) as driver:
        driver.execute("CREATE TABLE thorn_messages (id)")
    store = SqlStore(SqliteExecutor(f"sqlite:///{path}"))
    with pytest.raises(StoreSetupError, match=f"run: thorn init-db --store sqlite:///{path}"):
        store.check()
    store.close()


def test_it_takes_the_store_of_the_environment(path, capfd, monkeypatch):
    monkeypatch.setenv("THORN_STORE", f"sqlite:///{path}")
    assert run(["init-db"]) == 0
    assert "created the tables" in capfd.readouterr().out


def test_an_app_that_is_named_comes_before_the_environment(path, shop, monkeypatch):
    monkeypatch.setenv("THORN_STORE", f"sqlite:///{path}.other")
    assert run([*shop, "init-db"]) == 0
    assert "hooks_messages" in tables(path)


def test_what_it_prints_makes_the_tables(path, capfd):
    url = f"sqlite:///{path}"
    assert run(["init-db", "--store", url, "--sql"]) == 0
    assert not path.exists()
    with closing(sqlite3.connect(path)) as driver:
        driver.executescript(capfd.readouterr().out)
    assert run(["init-db", "--store", url]) == 0
    assert "already up to date, schema 0001" in capfd.readouterr().out


def test_several_may_run_it_at_once(path):
    commands = [[*COMMAND, "--store", f"sqlite:///{path}"]] * 2
    runs = [subprocess.Popen(each, stderr=subprocess.PIPE, text=True) for each in commands]
    told = [(process.communicate(timeout=60)[1], process.returncode) for process in runs]
    assert [code for _, code in told] == [0, 0], told


def test_tables_of_another_version_are_left_alone(path, capfd):
    url = f"sqlite:///{path}"
    assert run(["init-db", "--store", url]) == 0
    with closing(sqlite3.connect(path)) as driver:
        driver.execute("UPDATE thorn_schema_version SET version_num = '9999'")
        driver.commit()
    assert run(["init-db", "--store", url]) == 2
    assert "have schema 9999" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["init-db"], "needs a database"),
        (["init-db", "--store", "memory://"], "has no tables to create"),
        (["--app", "thorn_core:Thorn", "init-db"], "has no tables to create"),
        (["init-db", "--store", "nonsense://u:s3cret@h/x"], "no store for 'nonsense'"),
        (["init-db", "--store", "sqlite://thorn.db"], "write sqlite:///thorn.db"),
    ],
)
def test_a_mistake_is_told(arguments, message, capfd):
    assert run(arguments) == 2
    told = capfd.readouterr()
    assert message in told.err.replace("\n", " ")
    assert "s3cret" not in told.err + told.out
