"""Models in every kind of session: asynchronous, scoped, of Flask, of several databases."""

from __future__ import annotations

import asyncio

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from modelling import world_of
from sqlalchemy import Column, ForeignKey, String, Table, create_engine, insert, make_url, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    relationship,
    scoped_session,
    sessionmaker,
)

from thorn_core import ConfigurationError, ModelEvent, Thorn, webhook_model
from thorn_sqlalchemy import SqlStore, WebhookSession, define_tables


class Base(DeclarativeBase):
    pass


between = Table(
    "between",
    Base.metadata,
    Column("article_id", ForeignKey("articles.id"), primary_key=True),
    Column("tag_id", ForeignKey("tags.id"), primary_key=True),
)


class Tag(Base):
    __tablename__ = "tags"
    id: Mapped[int] = mapped_column(primary_key=True)


@webhook_model
class Article(Base):
    __tablename__ = "articles"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(50))
    tags: Mapped[list[Tag]] = relationship(secondary=between)

    class webhooks:
        bulk = True
        on_create = ModelEvent("article.created")
        on_change = ModelEvent("article.changed")
        on_delete = ModelEvent("article.removed")
        on_tag = ModelEvent("article.tagged").dispatches_on_m2m_add("tags")

        def payload(self, article):
            return [article.title, len(article.tags)]


@pytest.fixture
def world(tmp_path):
    with world_of(f"sqlite:///{tmp_path / 'models.db'}", Base.metadata) as world:
        yield world


# -- asynchronous ones


@pytest.mark.parametrize(
    ("place", "driver"),
    [
        ("sqlite", "sqlite+aiosqlite"),
        ("postgresql", "postgresql+psycopg"),
        ("postgresql", "postgresql+asyncpg"),
    ],
    indirect=["place"],
)
def test_asynchronous_sessions_send_events(place, driver):
    pytest.importorskip(driver.partition("+")[2])

    async def live(world):
        engine = create_async_engine(make_url(place.url).set(drivername=driver))
        make = async_sessionmaker(engine, expire_on_commit=False)
        async with make.begin() as session:
            session.add(Article(title="One"))
            await session.flush()
            await session.rollback()
        async with make() as session:
            article = Article(title="Two", tags=[Tag()])
            session.add(article)
            await session.commit()
            article.title = "Three"
            await session.commit()
        async with make.begin() as session:
            # What isn't loaded, and what a payload loads during the flush.
            article = await session.get(Article, article.id)
            article.title = "Four"
        async with make.begin() as session:
            await session.execute(update(Article).values(title="Five"))
            await session.execute(insert(Article), [{"title": "Six"}])
        async with make.begin() as session:
            await session.delete(await session.get(Article, article.id))
        await engine.dispose()
        return world.sent()

    with world_of(place.url, Base.metadata) as world:
        sent = asyncio.run(live(world))
    assert sent == [
        ("article.created", ["Two", 1]),
        ("article.tagged", ["Two", 1], ["1"]),
        ("article.changed", ["Three", 1]),
        ("article.changed", ["Four", 1]),
        ("article.changed", ["Five", 1]),
        ("article.created", ["Six", 0]),
        ("article.removed", ["Five", 1]),
    ]


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
def test_an_asynchronous_session_may_be_a_webhook_session(place):
    async def live(world):
        engine = create_async_engine(make_url(place.url).set(drivername="sqlite+aiosqlite"))
        async with AsyncSession(engine, sync_session_class=WebhookSession) as session:
            await session.run_sync(lambda s: s.bulk_insert_mappings(Article, [{"title": "x"}]))
            await session.commit()
        await engine.dispose()
        return world.sent()

    with world_of(place.url, Base.metadata) as world:
        assert asyncio.run(live(world)) == [("article.created", ["x", 0])]


# -- others


def test_scoped_sessions_send_events(world):
    session = scoped_session(sessionmaker(world.engine))
    session.add(Article(title="x"))
    session.commit()
    session.remove()
    assert world.sent() == [("article.created", ["x", 0])]


def test_a_session_that_a_connection_controls_sends_with_it(world):
    with world.engine.connect() as connection:
        outer = connection.begin()
        with Session(connection) as session:
            session.add(Article(title="x"))
            session.commit()
        outer.rollback()
        with Session(connection) as session:
            session.add(Article(title="y"))
            session.commit()
    assert world.sent() == [("article.created", ["y", 0])]


def test_a_session_of_another_database_sends_after_its_commit(world, tmp_path, caplog):
    other = create_engine(f"sqlite:///{tmp_path / 'other.db'}")
    Base.metadata.create_all(other)
    with Session(other) as session:
        session.add(Article(title="x"))
        session.flush()
        assert world.sent() == []
        session.commit()
    assert world.sent() == [("article.created", ["x", 0])]
    assert "another database" in caplog.text
    other.dispose()


def test_a_session_without_a_database_for_thorns_tables_says_so(world):
    with Session(
        binds={Article: world.engine, Tag: world.engine, between: world.engine}
    ) as session:
        session.add(Article(title="x"))
        with pytest.raises(ConfigurationError, match=r"add the tables to its binds"):
            session.commit()
        session.rollback()
    tables = dict.fromkeys(world.store.tables.all(), world.engine)
    with Session(binds={Base: world.engine, **tables}) as session:
        session.add(Article(title="y"))
        session.commit()
    assert world.sent() == [("article.created", ["y", 0])]


def test_a_statement_is_read_where_it_is_executed(world, tmp_path):
    other = create_engine(f"sqlite:///{tmp_path / 'other.db'}")
    Base.metadata.create_all(other)
    with Session(world.engine) as session, session.begin():
        session.add(Article(title="here"))
        session.execute(insert(Article).values(title="there"), bind_arguments={"bind": other})
    assert world.sent() == [("article.created", ["here", 0]), ("article.created", ["there", 0])]
    with other.connect() as connection:
        assert connection.scalar(Article.__table__.select().with_only_columns(Article.title)) == (
            "there"
        )
    other.dispose()


# -- Flask-SQLAlchemy


@pytest.fixture
def flask(tmp_path):
    """A Flask app with its models in one database and others, by a bind key, in another."""
    app = Flask(__name__, instance_path=str(tmp_path))
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{tmp_path / 'main.db'}"
    app.config["SQLALCHEMY_BINDS"] = {"side": f"sqlite:///{tmp_path / 'side.db'}"}
    db = SQLAlchemy(app)
    tables = define_tables(db.metadata)

    @webhook_model(on_create=ModelEvent("main.created"), bulk=True)
    class Main(db.Model):
        id: Mapped[int] = mapped_column(primary_key=True)

    @webhook_model(on_create=ModelEvent("side.created"))
    class Side(db.Model):
        __bind_key__ = "side"
        id: Mapped[int] = mapped_column(primary_key=True)

    db.Main, db.Side = Main, Side
    with app.app_context():
        db.create_all()
        store = SqlStore(db.engine, tables=tables)
        with Thorn(store=store, dispatcher="outbox") as thorn:
            db.thorn = thorn.make_default()
            yield db
        db.session.remove()
        for engine in db.engines.values():
            engine.dispose()


def names(app):
    return sorted(message.event for message in app.messages_to_route())


def test_flasks_session_sends_events(flask):
    flask.session.add(flask.Main())
    flask.session.rollback()
    flask.session.add_all([flask.Main(), flask.Main()])
    flask.session.flush()
    flask.session.execute(insert(flask.Main), [{"id": 7}])
    flask.session.commit()
    assert names(flask.thorn) == ["main.created"] * 3


def test_flasks_binds_are_respected(flask):
    flask.session.add_all([flask.Main(), flask.Side()])
    flask.session.rollback()
    flask.session.add(flask.Side())
    flask.session.commit()
    assert names(flask.thorn) == ["side.created"]
