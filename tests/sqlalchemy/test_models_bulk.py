"""Statements that change many rows at once."""

from __future__ import annotations

from typing import ClassVar

import pytest
import sqlalchemy
from modelling import former, hearing, world_of
from places import Place
from sqlalchemy import (
    ForeignKey,
    String,
    bindparam,
    delete,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import ArgumentError, IntegrityError
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    aliased,
    column_property,
    deferred,
    mapped_column,
    object_session,
    relationship,
    sessionmaker,
)

from thorn_core import ModelEvent, signals, webhook_model
from thorn_sqlalchemy import WebhookSession
from thorn_sqlalchemy.models import keys


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "authors"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(20))


@webhook_model
class Article(Base):
    __tablename__ = "articles"
    id: Mapped[int] = mapped_column(primary_key=True)
    slug: Mapped[str | None] = mapped_column(String(20), unique=True)
    title: Mapped[str] = mapped_column("titel", String(50))
    state: Mapped[str] = mapped_column(String(20), default="DRAFT")
    views: Mapped[int] = mapped_column(default=0, server_default="0")
    author_id: Mapped[int | None] = mapped_column(ForeignKey("authors.id"))
    author: Mapped[Author | None] = relationship()
    text: Mapped[str | None] = deferred(mapped_column(String(200)))
    length = column_property(func.length(title))

    class webhooks:
        bulk = True
        on_create = ModelEvent("article.created")
        on_change = ModelEvent("article.changed")
        on_delete = ModelEvent("article.removed")
        on_publish = ModelEvent("article.published", state__now_eq="PUBLISHED")
        on_publish.dispatches_on_change()

        def payload(self, article):
            return [article.id, article.title, article.author and article.author.name]


@webhook_model
class Quiet(Base):
    __tablename__ = "quiet"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(20))

    class webhooks:
        on_create = ModelEvent("quiet.created")
        on_change = ModelEvent("quiet.changed")
        on_delete = ModelEvent("quiet.removed")


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def place(request, reused, tmp_path):
    if request.param == "sqlite":
        return Place("sqlite", f"sqlite:///{tmp_path / 'thorn.db'}")
    return reused(request.param)


@pytest.fixture
def world(place):
    with world_of(place.url, Base.metadata) as world:
        yield world


@pytest.fixture
def articles(world):
    """A world with articles a, b and c, the first by Ada, the last published."""
    with world.session() as session, session.begin():
        session.add_all(
            [
                Article(slug="a", title="A", author=Author(name="Ada")),
                Article(slug="b", title="B"),
                Article(slug="c", title="C", state="PUBLISHED"),
            ]
        )
    world.messages()
    return world


@pytest.fixture
def heard():
    with hearing() as heard:
        yield heard


def reads(statements):
    return [statement for statement in statements if statement.startswith("SELECT")]


# -- update


def test_an_update_tells_of_each_row_that_it_changed(articles, heard):
    with articles.session() as session, session.begin():
        result = session.execute(update(Article).where(Article.id != 2).values(state="PUBLISHED"))
        assert result.rowcount in (1, 2)  # MariaDB counts those changed
        assert former(heard) == [{"state": "DRAFT"}]
        assert all(values["within"] is session for _, _, values in heard)
        assert len(session.identity_map.values()) == 0
    assert articles.sent() == [
        ("article.changed", [1, "A", "Ada"]),
        ("article.published", [1, "A", "Ada"]),
    ]


def test_an_update_by_an_expression_is_compared_too(articles, heard):
    statement = update(Article).where(Article.id < 3).values({Article.title: Article.title + "!"})
    with articles.session() as session, session.begin():
        session.execute(statement.execution_options(synchronize_session=False))
    assert former(heard) == [{"title": "A"}, {"title": "B"}]
    assert [payload[1] for _, payload in articles.sent()] == ["A!", "B!"]


def test_an_update_of_everything_needs_no_condition(articles, heard):
    with articles.session() as session, session.begin():
        session.execute(update(Article).values(views=Article.views + 1))
    assert former(heard) == [{"views": 0}] * 3


def test_deferred_columns_are_read_with_the_others(articles, heard):
    with articles.session() as session, session.begin(), articles.statements() as statements:
        session.execute(update(Article).values(text=Article.title))
    assert former(heard) == [{"text": None}] * 3
    assert sum("FROM articles" in statement for statement in reads(statements)) == 2


def test_an_update_that_is_rolled_back_is_not_sent(articles):
    with articles.session() as session:
        session.execute(update(Article).values(views=9))
        session.rollback()
        with session.begin_nested() as savepoint:
            session.execute(update(Article).values(views=8))
            savepoint.rollback()
        session.commit()
    assert articles.sent() == []


def test_an_update_leaves_the_sessions_instances_as_it_would(articles):
    with articles.session() as session, session.begin():
        one, two = session.get(Article, 1), session.get(Article, 2)
        two.title = "Pending"
        session.execute(update(Article).where(Article.id == 1).values(title="New"))
        assert one.title == "New"
        session.execute(
            update(Article).where(Article.id == 1).values(title="Newer"),
            execution_options={"synchronize_session": False},
        )
        assert one.title == "New"
        assert one in session
        assert two.title == "Pending"
    assert articles.sent() == [
        ("article.changed", [2, "Pending", None]),
        ("article.changed", [1, "New", "Ada"]),
        ("article.changed", [1, "Newer", "Ada"]),
    ]


@pytest.mark.parametrize("place", ["sqlite", "postgresql"], indirect=True)
def test_an_update_gives_what_it_returns(articles):
    with articles.session() as session, session.begin():
        statement = update(Article).where(Article.id == 1).values(title="New")
        assert session.scalars(statement.returning(Article.title)).all() == ["New"]
    assert articles.names() == ["article.changed"]


def test_an_update_by_primary_key_tells_of_each_row(articles, heard):
    with articles.session() as session, session.begin():
        session.execute(
            update(Article), [{"id": 1, "title": "A"}, {"id": 2, "title": "X", "views": 3}]
        )
    assert former(heard) == [{"title": "B", "views": 0}]


def test_an_update_with_parameters_tells_of_what_it_matches(articles, heard):
    statement = update(Article).where(Article.slug == bindparam("which")).values(views=5)
    with articles.session() as session, session.begin():
        session.execute(statement, {"which": "b"})
        session.connection().execute(  # past the ORM: never seen
            update(Article.__table__).where(Article.__table__.c.id == 1).values(views=5)
        )
    assert former(heard) == [{"views": 0}]


def test_a_query_can_update_and_delete(articles, heard):
    with articles.session() as session, session.begin():
        session.query(Article).filter(Article.slug == "b").update({"title": "Q"})
        session.query(Article).filter_by(id=3).delete()
    assert former(heard) == [{"title": "B"}]
    assert articles.names() == ["article.changed", "article.removed"]


def test_pending_changes_are_flushed_before_an_update(articles, heard):
    with articles.session() as session, session.begin():
        session.add(Article(id=4, title="D"))
        article = session.get(Article, 1)
        article.title = "Flushed"
        session.execute(update(Article).where(Article.title == "Flushed").values(title="Bulk"))
        session.execute(update(Article).where(Article.id == 4).values(title="E"))
    assert former(heard) == [{"title": "A"}, {"title": "Flushed"}, {"title": "D"}]


def test_without_autoflush_nothing_is_flushed(articles, heard):
    with articles.session(autoflush=False) as session, session.begin():
        article = session.get(Article, 1)
        article.title = "Pending"
        session.execute(update(Article).where(Article.id == 1).values(views=1))
        assert former(heard) == [{"views": 0}]


# -- delete


def test_a_delete_tells_of_each_row(articles):
    with articles.session() as session, session.begin():
        result = session.execute(delete(Article).where(Article.id < 3))
        assert result.rowcount == 2
    assert articles.sent() == [
        ("article.removed", [1, "A", "Ada"]),
        ("article.removed", [2, "B", None]),
    ]


def test_a_delete_that_fails_is_not_sent(articles):
    with articles.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE bills (article INTEGER REFERENCES articles (id))")
        connection.exec_driver_sql("INSERT INTO bills VALUES (1)")
    with articles.session() as session:
        if articles.engine.dialect.name == "sqlite":
            session.connection().exec_driver_sql("PRAGMA foreign_keys = ON")
        with pytest.raises(IntegrityError), session.begin_nested():
            session.execute(delete(Article))
        session.execute(delete(Article).where(Article.id == 3))
        session.commit()
    assert articles.sent() == [("article.removed", [3, "C", None])]
    with articles.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE bills")


@pytest.mark.parametrize("place", ["mariadb"], indirect=True)
def test_what_a_delete_spares_is_not_sent(articles):
    with articles.session() as session, session.begin():
        try:
            statement = delete(Article).with_dialect_options(mysql_limit=1)
        except ArgumentError:
            pytest.skip("this SQLAlchemy hasn't yet")
        assert session.execute(statement).rowcount == 1
    assert articles.names() == ["article.removed"]


# -- insert


@pytest.fixture
def without_returning(articles, monkeypatch):
    """As MySQL is, which MariaDB isn't any more."""
    dialect = articles.engine.dialect
    for name in ("insert_returning", "insert_executemany_returning"):
        monkeypatch.setattr(dialect, name, False)
    monkeypatch.setattr(dialect, "insert_executemany_returning_sort_by_parameter_order", False)


def created(world):
    return [payload[:2] for name, payload in world.sent() if name == "article.created"]


@pytest.mark.parametrize("form", ["parameters", "one", "values", "many values", "select"])
def test_an_insert_tells_of_each_row(articles, form):
    rows = [{"title": "D", "slug": "d"}, {"title": "E", "slug": "e"}]
    with articles.session() as session, session.begin():
        if form == "parameters":
            session.execute(insert(Article), rows)
        elif form == "one":
            session.execute(insert(Article), rows[0])
        elif form == "values":
            result = session.execute(insert(Article).values(rows[0]))
            assert result.inserted_primary_key == (4,)
        elif form == "many values":
            result = session.execute(insert(Article).values(rows))
            assert result.rowcount in (2, -1)
        else:
            source = select(literal("E"), literal("DRAFT"))
            session.execute(insert(Article).from_select(["titel", "state"], source))
        assert len(session.identity_map.values()) == 0
    expected = {"parameters": "DE", "many values": "DE", "select": "E"}.get(form, "D")
    assert created(articles) == [[4 + n, title] for n, title in enumerate(expected)]


def test_an_insert_gives_what_it_returns(articles):
    rows = [{"title": "D"}, {"title": "E"}]
    with articles.session() as session, session.begin():
        found = session.scalars(insert(Article).returning(Article), rows)
        assert [article.title for article in found] == ["D", "E"]
        found = session.execute(insert(Article).returning(Article.title, Article.views), rows)
        assert found.keys() == ["title", "views"] or list(found.keys()) == ["titel", "views"]
        assert [tuple(row) for row in found] == [("D", 0), ("E", 0)]
        found = session.execute(insert(Article).returning(Article.id), rows)
        assert sorted(found.scalars()) == [8, 9]
        assert session.scalar(insert(Article).values(title="F").returning(Article.id)) == 10
        statement = insert(Article).values(title="G").returning(Article)
        assert session.execute(statement).scalar_one().id == 11
    assert len(created(articles)) == 8


def test_an_insert_of_rows_that_differ_in_their_columns(articles):
    rows = [{"title": "D"}, {"title": "E", "views": 7}, {"title": "F", "slug": None}]
    with articles.session() as session, session.begin():
        session.execute(insert(Article), rows)
    assert [title for _, title in created(articles)] == ["D", "E", "F"]


def test_rows_inserted_with_their_keys_are_found(articles):
    with articles.session() as session, session.begin():
        session.execute(insert(Article), [{"id": 9, "title": "I"}, {"id": 7, "title": "G"}])
    assert sorted(created(articles)) == [[7, "G"], [9, "I"]]


@pytest.mark.parametrize("place", ["mariadb"], indirect=True)
@pytest.mark.skipif(
    tuple(map(int, sqlalchemy.__version__.split(".")[:2])) == (2, 0)
    and int(sqlalchemy.__version__.split(".")[2]) < 32,
    reason="SQLAlchemy does not tell the keys",
)
def test_without_returning_rows_are_inserted_one_by_one(articles, make, without_returning, caplog):
    with make() as session, session.begin():
        session.execute(insert(Article), [{"title": "D"}, {"title": "E"}])
        session.execute(insert(Article).values(title="F"))
        assert created_so_far(session) == 6
        session.execute(insert(Article).values([{"title": "G"}, {"title": "H"}]))
        session.bulk_insert_mappings(Article, rows := [{"title": "I"}], return_defaults=True)
        session.execute(insert(Article), [{"id": 20, "title": "J", "slug": None}])
    assert created(articles) == [[4, "D"], [5, "E"], [6, "F"], [rows[0]["id"], "I"], [20, "J"]]
    assert caplog.text.count("no events for rows of Article") == 1


def created_so_far(session):
    return session.scalar(select(func.count()).select_from(Article))


# -- upserts


def upsert(world, rows, **changes):
    name = world.engine.dialect.name
    if name == "mysql":
        return mysql.insert(Article).values(rows).on_duplicate_key_update(**changes)
    make = {"postgresql": postgresql, "sqlite": sqlite}[name].insert
    return make(Article).values(rows).on_conflict_do_update(index_elements=["slug"], set_=changes)


@pytest.mark.parametrize("returning", [False, True])
def test_an_upsert_tells_what_it_made_and_what_it_changed(articles, heard, returning):
    rows = [{"slug": "a", "title": "?"}, {"slug": "c", "title": "?"}, {"slug": "d", "title": "D"}]
    statement = upsert(articles, rows, state="PUBLISHED")
    with articles.session() as session, session.begin():
        if returning:
            statement = statement.returning(Article.slug)
            assert sorted(session.scalars(statement)) == ["a", "c", "d"]
        else:
            session.execute(statement)
    # c was published before: nothing of it has changed.
    assert [name for name, _, _ in heard] == ["created", "changed"]
    assert former(heard) == [{"state": "DRAFT"}]
    assert [payload[1] for _, payload in articles.sent()] == ["D", "A", "A"]


def test_an_upsert_of_parameters_and_one_by_primary_key(articles, heard):
    name = articles.engine.dialect.name
    with articles.session() as session, session.begin():
        if name == "mysql":
            statement = mysql.insert(Article)
            statement = statement.on_duplicate_key_update(titel=statement.inserted.titel)
        else:
            statement = {"postgresql": postgresql, "sqlite": sqlite}[name].insert(Article)
            statement = statement.on_conflict_do_update(
                index_elements=["id"], set_={"titel": statement.excluded.titel}
            )
        session.execute(statement, [{"id": 2, "title": "New"}, {"id": 8, "title": "H"}])
    assert former(heard) == [{"title": "B"}]
    assert created(articles) == [[8, "H"]]


def test_an_insert_that_does_nothing_on_a_conflict(articles, heard):
    name, rows = (
        articles.engine.dialect.name,
        [{"slug": "a", "title": "?"}, {"slug": "d", "title": "D"}],
    )
    with articles.session() as session, session.begin():
        if name == "mysql":
            session.execute(insert(Article).values(rows).prefix_with("IGNORE"))
        else:
            make = {"postgresql": postgresql, "sqlite": sqlite}[name].insert
            session.execute(make(Article).values(rows).on_conflict_do_nothing())
    assert [title for _, title in created(articles)] == ["D"]
    assert former(heard) == []


@pytest.mark.parametrize("place", ["mariadb"], indirect=True)
def test_an_upsert_without_returning(articles, heard, without_returning):
    rows = [{"slug": "a", "title": "?"}, {"slug": "d", "title": "D"}]
    statement = mysql.insert(Article)
    with articles.session() as session, session.begin():
        session.execute(upsert(articles, rows, state="PUBLISHED"))
        session.execute(
            statement.on_duplicate_key_update(titel=statement.inserted.titel),
            [{"slug": "b", "title": "New"}, {"slug": "e", "title": "E"}],
        )
    assert former(heard) == [{"state": "DRAFT"}, {"title": "B"}]
    assert [title for _, title in created(articles)] == ["D", "E"]


def test_an_upsert_of_one_row(articles, heard):
    with articles.session() as session, session.begin():
        session.execute(upsert(articles, {"slug": "a", "title": "?"}, state="PUBLISHED"))
        session.execute(upsert(articles, {"slug": "d", "title": "D"}, state="PUBLISHED"))
        session.execute(upsert(articles, {"title": "E"}, state="PUBLISHED"))
    assert former(heard) == [{"state": "DRAFT"}]
    assert [title for _, title in created(articles)] == ["D", "E"]


def test_an_insert_of_one_row_that_does_nothing_on_a_conflict(articles, heard):
    name = articles.engine.dialect.name
    with articles.session() as session, session.begin():
        for slug in ("d", "a"):
            values = {"slug": slug, "title": slug}
            if name == "mysql":
                session.execute(insert(Article).values(values).prefix_with("IGNORE"))
            else:
                make = {"postgresql": postgresql, "sqlite": sqlite}[name].insert
                session.execute(make(Article).values(values).on_conflict_do_nothing())
    assert [name for name, _, _ in heard] == ["created"]


@pytest.mark.parametrize("place", ["sqlite", "postgresql"], indirect=True)
def test_statements_that_instances_are_selected_from(articles, heard):
    changed = update(Article).where(Article.id < 3).values(views=1).returning(Article)
    upserted = upsert(articles, {"slug": "a", "title": "?"}, views=2).returning(Article)
    inserted = insert(Article).values(title="D").returning(Article)
    with articles.session() as session, session.begin():
        for statement, titles in ((changed, "AB"), (upserted, "A"), (inserted, "D")):
            found = session.scalars(select(Article).from_statement(statement))
            assert [article.title for article in found] == list(titles)
    assert former(heard) == [{"views": 0}, {"views": 0}, {"views": 1}]
    assert [name for name, _, _ in heard] == ["changed"] * 3 + ["created"]


def test_an_alias_can_be_updated(articles, heard):
    other = aliased(Article)
    with articles.session() as session, session.begin():
        session.execute(
            update(other).where(other.slug == "b").values(views=1),
            execution_options={"synchronize_session": False},
        )
    assert former(heard) == [{"views": 0}]


# -- what isn't asked for


def test_without_bulk_nothing_is_sent_and_nothing_is_read(articles, heard):
    with articles.session() as session, session.begin(), articles.statements() as statements:
        session.execute(insert(Quiet), [{"name": "x"}, {"name": "y"}])
        session.execute(update(Quiet).values(name="z"))
        session.execute(delete(Quiet))
    assert heard == []
    assert reads(statements) == []


def test_only_what_an_event_asks_for_is_read(place):
    class Own(DeclarativeBase):
        pass

    @webhook_model(on_delete=ModelEvent("thing.removed"), bulk=True, fields=("id", "name"))
    class Thing(Own):
        __tablename__ = "things"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(String(20))

    with world_of(place.url, Own.metadata) as world:
        with world.session() as session, session.begin(), world.statements() as statements:
            session.execute(insert(Thing), [{"name": "x"}])
            session.execute(update(Thing).values(name="y"))
            assert reads(statements) == []
            session.execute(delete(Thing))
        assert world.sent() == [("thing.removed", {"id": 1, "name": "y"})]


def test_many_rows_are_read_by_chunks(articles, monkeypatch, heard):
    monkeypatch.setattr(keys, "CHUNK", 10)
    with articles.session() as session, session.begin():
        session.execute(insert(Article), [{"title": str(number)} for number in range(25)])
        session.execute(update(Article).values(views=1))
        session.execute(delete(Article))
    names = [name for name, _, _ in heard]
    assert [names.count(name) for name in ("created", "changed", "deleted")] == [25, 28, 28]


@pytest.mark.parametrize("place", ["postgresql", "mariadb"], indirect=True)
def test_rows_to_be_updated_are_locked(articles):
    with articles.session() as session, session.begin(), articles.statements() as statements:
        session.execute(update(Article).where(Article.id == 1).values(views=1))
    assert "FOR UPDATE" in reads(statements)[0]


def test_an_instance_told_of_can_load_what_it_refers_to_but_is_not_the_sessions(articles, heard):
    seen = []

    def look(model, *, instance, **values):
        seen.append((object_session(instance), instance.author.name))

    with articles.session() as session, session.begin():
        with signals.model_changed.connected_to(look):
            session.execute(update(Article).where(Article.id == 1).values(views=1))
        ((other, name),) = seen
        assert other is not session
        assert name == "Ada"


# -- inheritance


class Animals(DeclarativeBase):
    pass


@webhook_model(
    bulk=True,
    on_create=ModelEvent("animal.created"),
    on_change=ModelEvent("animal.changed"),
    on_delete=ModelEvent("animal.removed"),
    fields=("id", "kind", "name", "own"),
)
class Animal(Animals):
    __tablename__ = "animals"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    name: Mapped[str] = mapped_column(String(20))
    __mapper_args__: ClassVar = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}

    @property
    def own(self):
        return getattr(self, "trick", None) or getattr(self, "lives", None)


class Dog(Animal):
    __tablename__ = "dogs"
    id: Mapped[int] = mapped_column(ForeignKey("animals.id"), primary_key=True)
    trick: Mapped[str] = mapped_column(String(20))
    __mapper_args__: ClassVar = {"polymorphic_identity": "dog"}


class Cat(Animal):
    lives: Mapped[int | None]
    __mapper_args__: ClassVar = {"polymorphic_identity": "cat"}


@pytest.fixture
def animals(place):
    with world_of(place.url, Animals.metadata) as world:
        yield world


def test_rows_of_subclasses_are_told_as_such(animals, heard):
    with animals.session() as session, session.begin():
        session.execute(
            insert(Dog), [{"name": "Rex", "trick": "sit"}, {"name": "Max", "trick": "x"}]
        )
        session.execute(insert(Cat), [{"name": "Tom", "lives": 9}])
        session.execute(insert(Animal), {"name": "Nemo"})
    assert sorted(animals.sent(), key=lambda sent: sent[1]["id"]) == [
        ("animal.created", {"id": 1, "kind": "dog", "name": "Rex", "own": "sit"}),
        ("animal.created", {"id": 2, "kind": "dog", "name": "Max", "own": "x"}),
        ("animal.created", {"id": 3, "kind": "cat", "name": "Tom", "own": 9}),
        ("animal.created", {"id": 4, "kind": "animal", "name": "Nemo", "own": None}),
    ]
    del heard[:]
    with animals.session() as session, session.begin():
        session.execute(update(Dog).where(Dog.trick == "sit").values(trick="roll"))
        session.execute(update(Cat).values(lives=8))
        session.execute(update(Animal).where(Animal.id == 2).values(name="Moritz"))
        session.execute(update(Dog), [{"id": 2, "name": "Max", "trick": "y"}])
    assert former(heard) == [
        {"trick": "sit"},
        {"lives": 9},
        {"name": "Max"},
        {"name": "Moritz", "trick": "x"},
    ]
    assert animals.sent()[0][1] == {"id": 1, "kind": "dog", "name": "Rex", "own": "roll"}
    with animals.session() as session, session.begin():
        session.execute(delete(Cat))
        session.execute(delete(Animal).where(Animal.name == "Nemo"))
    assert [payload["name"] for _, payload in animals.sent()] == ["Tom", "Nemo"]


@pytest.mark.skipif(sqlalchemy.__version__ < "2.1", reason="SQLAlchemy can't do it yet")
def test_a_class_that_is_always_joined_with_its_subclasses(place):
    class Own(DeclarativeBase):
        pass

    @webhook_model(on_change=ModelEvent("node.changed"), bulk=True)
    class Node(Own):
        __tablename__ = "nodes"
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str] = mapped_column(String(20))
        name: Mapped[str] = mapped_column(String(20))
        __mapper_args__: ClassVar = {
            "polymorphic_on": "kind",
            "polymorphic_identity": "node",
            "with_polymorphic": "*",
        }

    class Leaf(Node):
        __tablename__ = "leaves"
        id: Mapped[int] = mapped_column(ForeignKey("nodes.id"), primary_key=True)
        __mapper_args__: ClassVar = {"polymorphic_identity": "leaf"}

    with world_of(place.url, Own.metadata) as world, world.session() as session:
        session.add_all([Node(name="a"), Leaf(name="b")])
        session.commit()
        session.execute(update(Node).values(name="c"))
        session.commit()
        assert world.names() == ["node.changed"] * 2


# -- the legacy methods


@pytest.fixture
def make(articles):
    return sessionmaker(articles.engine, class_=WebhookSession)


def test_objects_saved_in_bulk_are_told(articles, make, heard):
    with make.begin() as session:
        one = session.get(Article, 1)
        session.expunge(one)
        one.title = "New"
        fresh = [Article(title="D"), Article(title="E")]
        session.bulk_save_objects([*fresh, one, Author(name="Bob")])
    assert former(heard) == [{"title": "A"}]
    assert articles.sent() == [
        ("article.created", [4, "D", None]),
        ("article.created", [5, "E", None]),
        ("article.changed", [1, "New", "Ada"]),
    ]


def test_mappings_saved_in_bulk_are_told(articles, make, heard):
    rows = [{"title": "D"}, {"title": "E"}]
    with make.begin() as session:
        session.bulk_insert_mappings(Article, rows)
        assert rows == [{"title": "D"}, {"title": "E"}]
        session.bulk_insert_mappings(Article, rows[:1], return_defaults=True)
        assert rows[0]["id"] == 6
        session.bulk_update_mappings(Article, [{"id": 4, "title": "D!"}, {"id": 5, "title": "E"}])
        session.bulk_insert_mappings(Author, [{"name": "Bob"}])
        session.bulk_update_mappings(Author, [{"id": 1, "name": "Eve"}])
    assert former(heard) == [{"title": "D"}]
    assert articles.sent() == [
        ("article.created", [4, "D", None]),
        ("article.created", [5, "E", None]),
        ("article.created", [6, "D", None]),
        ("article.changed", [4, "D!", None]),
    ]


def test_in_another_session_they_are_not(articles, heard):
    with Session(articles.engine) as session, session.begin():
        session.bulk_insert_mappings(Article, [{"title": "D"}])
    assert heard == []
