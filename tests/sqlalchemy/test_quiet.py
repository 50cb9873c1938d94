"""Parameters of statements are payloads and secrets: no log and no error has them."""

from __future__ import annotations

import logging
import re
import traceback

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from thorn_core import StoreError, Thorn
from thorn_sqlalchemy import SqlStore

HIDDEN = "pa55pa55"
GIVEN = {
    "secret": "whsec_" + 4 * "Pa55pa55",
    "headers": {"Authorization": f"Bearer {HIDDEN}"},
    "description": HIDDEN,
}


@pytest.fixture(params=[True, False], ids=["own engine", "url"])
def app(request, place, caplog):
    """An app on an engine of the program's, or on a URL, while SQLAlchemy logs all it can."""
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "sqlalchemy.engine")
    engine = create_engine(place.url)
    store = SqlStore(engine if request.param else place.url)
    store.create()
    column = "description(100)" if place.kind == "mariadb" else "description"
    with engine.begin() as connection:
        connection.execute(text(f"CREATE UNIQUE INDEX one ON thorn_subscriptions ({column})"))
    with Thorn(store=store, dispatcher="outbox") as app:
        yield app
    engine.dispose()


def told_by(error):
    """What a program that logs an exception, or looks at its causes, gets to see."""
    texts, waiting = traceback.format_exception(error), [error]
    while waiting:
        found = waiting.pop()
        texts += [str(found), repr(found)]
        waiting += [e for e in (found.__cause__, found.__context__) if e is not None]
    return "".join(texts)


def test_no_log_and_no_error_has_a_secret_or_a_payload(app, caplog):
    url = f"https://e.com/?token={HIDDEN}"
    made = app.subscribe("*", url, **GIVEN)
    assert app.subscription(made.id).secret == GIVEN["secret"]
    with pytest.raises(StoreError) as refusal:
        app.subscribe("*", url, **GIVEN)
    assert HIDDEN not in told_by(refusal.value).lower()
    with Session(app.store.engine) as session:
        app.send("a.b", {"password": HIDDEN}, within=session)
        session.commit()
    assert len(app.messages_to_route()) == 1
    assert re.search("INSERT INTO .*thorn_subscriptions", caplog.text)
    assert HIDDEN not in caplog.text.lower()


def test_a_programs_own_engine_goes_on_logging_its_own_statements(place, caplog):
    caplog.set_level(logging.DEBUG, "sqlalchemy.engine")
    engine = create_engine(place.url)
    store = SqlStore(engine)
    store.create()
    with Thorn(store=store, dispatcher="outbox") as app, Session(engine) as session:
        session.execute(text("SELECT :word"), {"word": "of the program"})
        app.send("a.b", {"password": HIDDEN}, within=session)
        session.execute(text("SELECT :word"), {"word": "afterwards"})
        session.commit()
    assert not engine.hide_parameters
    assert "of the program" in caplog.text
    assert "afterwards" in caplog.text
    assert HIDDEN not in caplog.text
    engine.dispose()
