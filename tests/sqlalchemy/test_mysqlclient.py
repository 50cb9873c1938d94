"""mysqlclient writes bytes as text unless it is told otherwise; the server would change them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from sqlalchemy import make_url

from thorn_core import StoreSetupError
from thorn_sqlalchemy.engines import _options
from thorn_sqlalchemy.executor import check_bytes

URL = make_url("mysql+mysqldb://ada:secret@db/shop")


def connection(*, prefix, driver="mysqldb"):
    return SimpleNamespace(
        connection=SimpleNamespace(driver_connection=SimpleNamespace(_binary_prefix=prefix)),
        dialect=SimpleNamespace(driver=driver),
        engine=SimpleNamespace(url=URL),
    )


def test_a_url_sets_the_option():
    assert _options(URL)["connect_args"]["binary_prefix"] is True
    assert "binary_prefix" not in _options(make_url("mysql+pymysql://db/shop"))["connect_args"]


def test_an_engine_without_the_option_is_refused_with_the_way_out():
    with pytest.raises(StoreSetupError, match="binary_prefix") as caught:
        check_bytes(connection(prefix=False))
    assert "secret" not in str(caught.value)


def test_other_engines_are_accepted():
    check_bytes(connection(prefix=True))
    check_bytes(connection(prefix=False, driver="pymysql"))
