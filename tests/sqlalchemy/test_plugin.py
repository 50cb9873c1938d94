"""The plugin, which Thorn loads wherever the package is installed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from thorn_core import ConfigurationError, Thorn

PROGRAMS = {
    "an app on memory": (
        "from thorn_core import Event, Thorn\n"
        "with Thorn() as app:\n"
        "    Event('a.b', app=app).send({})"
    ),
    "a decorated class": (
        "from thorn_core import ModelEvent, Thorn, webhook_model\n"
        "@webhook_model(on_create=ModelEvent('a.b'))\n"
        "class Plain: pass\n"
        "Thorn().close()"
    ),
    "the built-in store": (
        "from thorn_core import Thorn\n"
        "from thorn_core.stores.sql import sqlite_store\n"
        "Thorn(store=sqlite_store('sqlite://'), dispatcher='outbox').close()"
    ),
    "the package alone": "import thorn_sqlalchemy.plugin",
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_a_program_that_does_not_use_sqlalchemy_does_not_import_it(program):
    check = (
        "\nimport sys; sys.exit('sqlalchemy was imported' if 'sqlalchemy' in sys.modules else 0)"
    )
    subprocess.run([sys.executable, "-c", program + check], check=True, timeout=60)


def test_the_package_has_its_names():
    import thorn_sqlalchemy

    assert all(getattr(thorn_sqlalchemy, name) for name in thorn_sqlalchemy.__all__)
    with pytest.raises(AttributeError, match="SqlStor"):
        thorn_sqlalchemy.SqlStor  # noqa: B018


@pytest.mark.parametrize(
    ("missing", "url", "advice"),
    [
        ("MySQLdb", "mysql://root@127.0.0.1/x", r"\); write mysql\+pymysql://$"),
        ("pymysql", "mysql+pymysql://root@127.0.0.1/x", "pip install 'thorn-sqlalchemy.mysql.'$"),
        ("psycopg", "postgresql+psycopg://a@b/x", "pip install 'thorn-sqlalchemy.postgresql.'$"),
    ],
)
def test_a_missing_driver_is_named_with_the_extra_of_its_database(
    missing, url, advice, monkeypatch
):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigurationError, match=rf"isn't installed .*{advice}"):
        Thorn(store=url)


@pytest.mark.parametrize("scheme", ["mssql", "oracle", "cockroachdb"])
def test_unsupported_databases_are_not_listed(scheme):
    with pytest.raises(ConfigurationError, match=f"no store for '{scheme}'; available: ") as error:
        Thorn(store=f"{scheme}://a@b/x")
    assert "postgresql" in str(error.value)
    assert scheme not in str(error.value).partition("available")[2]
    assert "install" not in str(error.value)
