"""What the store says of a database's error: nothing that the row holds."""

from __future__ import annotations

import traceback

import pytest
from django.db import connections
from eventing.sent import sending

from thorn_core import StoreError

HIDDEN = "pa55pa55"
GIVEN = {"headers": {"Authorization": f"Bearer {HIDDEN}"}, "description": HIDDEN}


def test_an_error_of_the_database_quotes_no_row(alias, caplog):
    column = "description(100)" if alias == "mariadb" else "description"
    with sending(alias) as sent, connections[alias].cursor() as cursor:
        cursor.execute(f"CREATE UNIQUE INDEX one ON thorn_subscriptions ({column})")
        try:
            sent.app.subscribe("*", "https://example.com/", **GIVEN)
            with pytest.raises(StoreError, match="can't be used") as refusal:
                sent.app.subscribe("*", "https://example.com/", **GIVEN)
        finally:
            table = " ON thorn_subscriptions" if alias == "mariadb" else ""
            cursor.execute(f"DROP INDEX one{table}")
    told, found = traceback.format_exception(refusal.value), refusal.value
    while found is not None:
        told += [str(found), repr(found)]
        found = found.__cause__ or found.__context__
    assert HIDDEN not in "".join(told)
    assert HIDDEN not in caplog.text
