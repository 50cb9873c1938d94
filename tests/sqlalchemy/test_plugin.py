"""The plugin, which Thorn loads wherever the package is installed."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
