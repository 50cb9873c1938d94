"""Models of SQLAlchemy: every way to map a class, and every kind of column."""

from __future__ import annotations

import contextlib
import gc
import weakref
from dataclasses import dataclass
from typing import ClassVar

import pytest
from modelling import former, hearing, world_of
from sqlalchemy import JSON, Column, ForeignKey, Integer, String, Table, func, select
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedAsDataclass,
    Session,
    column_property,
    composite,
    declarative_base,
    deferred,
    mapped_column,
    registry,
    relationship,
    synonym,
    undefer,
)

from thorn_core import ModelEvent, Thorn, webhook_model
from thorn_sqlalchemy.models import model_adapter


@pytest.fixture
def make_world(tmp_path):
    with contextlib.ExitStack() as stack:

        def make(metadata):
            return stack.enter_context(world_of(f"sqlite:///{tmp_path / 'm.db'}", metadata))

        yield make


@pytest.fixture
def heard():
    with hearing() as heard:
        yield heard


def events(prefix="thing"):
    return {
        "on_create": ModelEvent(f"{prefix}.created"),
        "on_change": ModelEvent(f"{prefix}.changed"),
        "on_delete": ModelEvent(f"{prefix}.removed"),
    }


def live_through(world, instance, **change):
    """Create, change and delete an instance."""
    with world.session(expire_on_commit=False) as session:
        session.add(instance)
        session.commit()
        for name, value in change.items():
            setattr(instance, name, value)
        session.commit()
        session.delete(instance)
        session.commit()


NAMED = ("id", "name")
LIFE = [
    ("thing.created", {"id": 1, "name": "x"}),
    ("thing.changed", {"id": 1, "name": "y"}),
    ("thing.removed", {"id": 1, "name": "y"}),
]


# -- ways to map


def test_a_class_may_be_mapped_imperatively_before_it_is_decorated(make_world):
    own = registry()

    class Thing:
        def __init__(self, name):
            self.name = name

    table = Table("things", own.metadata, Column("id", Integer, primary_key=True))
    table.append_column(Column("name", String(50)))
    own.map_imperatively(Thing, table)
    world = make_world(own.metadata)
    webhook_model(**events(), fields=NAMED)(Thing)
    live_through(world, Thing("x"), name="y")
    assert world.sent() == LIFE


def test_a_class_may_be_mapped_imperatively_after_it_is_decorated(make_world):
    own = registry()

    @webhook_model(**events(), fields=NAMED)
    class Thing:
        def __init__(self, name):
            self.name = name

    table = Table("things", own.metadata, Column("id", Integer, primary_key=True))
    table.append_column(Column("name", String(50)))
    world = make_world(own.metadata)
    assert model_adapter(Thing) is None
    own.map_imperatively(Thing, table)
    assert model_adapter(Thing) is not None
    live_through(world, Thing("x"), name="y")
    assert world.sent() == LIFE


def test_the_app_may_be_made_before_or_after_everything_else(tmp_path):
    own = registry()

    @webhook_model(**events(), fields=NAMED)
    @dataclass
    class Thing:
        name: str

    table = Table("things", own.metadata, Column("id", Integer, primary_key=True))
    table.append_column(Column("name", String(50)))
    own.map_imperatively(Thing, table)
    own.configure()
    with world_of(f"sqlite:///{tmp_path / 'late.db'}", own.metadata) as world:
        live_through(world, Thing("x"), name="y")
        assert world.sent() == LIFE


def test_a_class_may_be_decorated_before_a_decorator_maps_it(make_world):
    own = registry()
    world = make_world(own.metadata)

    @own.mapped_as_dataclass
    @webhook_model(**events(), fields=NAMED)
    class Thing:
        __tablename__ = "things"
        id: Mapped[int] = mapped_column(primary_key=True, init=False)
        name: Mapped[str] = mapped_column(String(50))

    own.metadata.create_all(world.engine)
    live_through(world, Thing(name="x"), name="y")
    assert world.sent() == LIFE


def test_a_mapped_dataclass_sends_events(make_world):
    class Base(MappedAsDataclass, DeclarativeBase):
        pass

    @webhook_model
    class Thing(Base):
        __tablename__ = "things"
        id: Mapped[int] = mapped_column(primary_key=True, init=False)
        name: Mapped[str] = mapped_column(String(50))

        class webhooks:
            fields = NAMED
            on_create = ModelEvent("thing.created")
            on_change = ModelEvent("thing.changed")
            on_delete = ModelEvent("thing.removed")

    world = make_world(Base.metadata)
    live_through(world, Thing(name="x"), name="y")
    assert world.sent() == LIFE


def test_an_old_declarative_base_works_too(make_world):
    Base = declarative_base()

    @webhook_model(**events(), fields=NAMED)
    class Thing(Base):
        __tablename__ = "things"
        id = Column(Integer, primary_key=True)
        name = Column(String(50))

    world = make_world(Base.metadata)
    live_through(world, Thing(name="x"), name="y")
    assert world.sent() == LIFE


def test_a_class_that_sqlalchemy_does_not_map_is_not_taken():
    @webhook_model(**events())
    class Plain:
        pass

    assert model_adapter(Plain) is None
    assert model_adapter(int) is None


# -- inheritance


def animals(kind):
    class Base(DeclarativeBase):
        pass

    class Animal(Base):
        __tablename__ = "animals"
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str] = mapped_column(String(20))
        name: Mapped[str] = mapped_column(String(20))
        __mapper_args__: ClassVar = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}

    class Dog(Animal):
        if kind == "joined":
            __tablename__ = "dogs"
            id: Mapped[int] = mapped_column(ForeignKey("animals.id"), primary_key=True)
        trick: Mapped[str | None] = mapped_column(String(20))
        __mapper_args__: ClassVar = {"polymorphic_identity": "dog"}

    return Base, Animal, Dog


@pytest.mark.parametrize("kind", ["single", "joined"])
def test_a_subclass_sends_the_events_of_its_base(make_world, heard, kind):
    Base, Animal, Dog = animals(kind)
    webhook_model(**events(), fields=("kind", "name"))(Animal)
    world = make_world(Base.metadata)
    live_through(world, Dog(name="Rex", trick="sit"), trick="roll")
    values = {"kind": "dog", "name": "Rex"}
    assert world.sent() == [
        ("thing.created", values),
        ("thing.changed", values),
        ("thing.removed", values),
    ]
    assert former(heard) == [{"trick": "sit"}]


@pytest.mark.parametrize("kind", ["single", "joined"])
def test_a_decorated_subclass_sends_its_events_only_for_its_own(make_world, heard, kind):
    Base, Animal, Dog = animals(kind)
    world = make_world(Base.metadata)
    webhook_model(**events("dog"))(Dog)
    live_through(world, Animal(name="Tom"), name="Tim")
    assert (world.sent(), heard) == ([], [])
    live_through(world, Dog(name="Rex"), name="Max")
    assert world.names() == ["dog.created", "dog.changed", "dog.removed"]


@pytest.mark.parametrize("kind", ["single", "joined"])
def test_where_both_are_decorated_each_change_is_signalled_once(make_world, heard, kind):
    Base, Animal, Dog = animals(kind)
    webhook_model(**events("animal"))(Animal)
    world = make_world(Base.metadata)
    webhook_model(on_create=ModelEvent("dog.created"))(Dog)
    live_through(world, Dog(name="Rex"), name="Max")
    assert [name for name, _, _ in heard] == ["created", "changed", "deleted"]
    assert world.names() == ["dog.created", "animal.created", "animal.changed", "animal.removed"]


def test_an_abstract_base_and_a_mixin_can_be_decorated(make_world):
    class Base(DeclarativeBase):
        pass

    @webhook_model(on_create=ModelEvent("base.created"), fields=("id",))
    class Abstract(Base):
        __abstract__ = True
        id: Mapped[int] = mapped_column(primary_key=True)

    @webhook_model(on_create=ModelEvent("mixin.created"), fields=("name",))
    class Mixin:
        name: Mapped[str] = mapped_column(String(20))

    class Before(Mixin, Abstract):
        __tablename__ = "before"

    world = make_world(Base.metadata)

    class After(Mixin, Abstract):
        __tablename__ = "after"

    Base.metadata.create_all(world.engine)
    with world.session() as session, session.begin():
        session.add_all([Before(name="x"), After(name="y")])
    assert sorted(world.sent(), key=str) == [
        ("base.created", {"id": 1}),
        ("base.created", {"id": 1}),
        ("mixin.created", {"name": "x"}),
        ("mixin.created", {"name": "y"}),
    ]


# -- several apps, and none left


def test_several_apps_watch_a_model_once(make_world, heard):
    class Base(DeclarativeBase):
        pass

    @webhook_model(**events(), fields=NAMED)
    class Thing(Base):
        __tablename__ = "things"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(String(50))

    world = make_world(Base.metadata)
    with Thorn(), Thorn():
        live_through(world, Thing(name="x"), name="y")
    assert [name for name, _, _ in heard] == ["created", "changed", "deleted"]
    assert world.sent() == LIFE


def test_a_watched_model_can_go(tmp_path):
    def declare():
        class Base(DeclarativeBase):
            pass

        @webhook_model(**events())
        class Tag(Base):
            __tablename__ = "tags"
            id: Mapped[int] = mapped_column(primary_key=True)

        links = Table(
            "links",
            Base.metadata,
            Column("thing", ForeignKey("things.id")),
            Column("tag", ForeignKey("tags.id")),
        )

        @webhook_model(on_tag=ModelEvent("thing.tagged").dispatches_on_m2m_add("tags"), **events())
        class Thing(Base):
            __tablename__ = "things"
            id: Mapped[int] = mapped_column(primary_key=True)
            name: Mapped[str] = mapped_column(String(50))
            tags: Mapped[list[Tag]] = relationship(secondary=links, backref="things")

        with world_of(f"sqlite:///{tmp_path / 'gone.db'}", Base.metadata) as world:
            with world.session() as session, session.begin():
                session.add(Thing(name="x", tags=[Tag()]))
            assert len(world.names()) == 3
        return weakref.ref(Thing), weakref.ref(Tag)

    thing, tag = declare()
    for _ in range(3):
        gc.collect()
    assert thing() is None
    assert tag() is None


# -- kinds of columns


class Kinds(DeclarativeBase):
    pass


class Owner(Kinds):
    __tablename__ = "owners"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50))


@dataclass(frozen=True)
class Point:
    x: int
    y: int


def asks(**filters):
    return ModelEvent("document.changed", **filters).dispatches_on_change()


@webhook_model
class Document(Kinds):
    __tablename__ = "documents"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column("titel", String(50), default="Title")
    headline = synonym("title")
    _state: Mapped[str] = mapped_column("state", String(20), default="DRAFT")
    extra: Mapped[dict] = mapped_column(MutableDict.as_mutable(JSON), default=dict)
    plain: Mapped[dict | None] = mapped_column(JSON)
    text: Mapped[str | None] = deferred(mapped_column(String(1000)))
    notes: Mapped[str | None] = deferred(mapped_column(String(1000)))
    place: Mapped[Point] = composite(
        Point,
        mapped_column("x", Integer, nullable=True),
        mapped_column("y", Integer, nullable=True),
    )
    version: Mapped[int] = mapped_column()
    changed_at: Mapped[int] = mapped_column(default=0, onupdate=lambda: 99)
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("owners.id"))
    owner: Mapped[Owner | None] = relationship()
    length = column_property(func.length(title))
    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012

    @hybrid_property
    def state(self):
        return self._state

    @state.inplace.setter
    def _set_state(self, value):
        self._state = value

    @property
    def loud(self):
        return self.title.upper()

    class webhooks:
        on_change = ModelEvent("document.changed")
        on_state = asks(state__now_eq="PUBLISHED")
        on_headline = asks(headline__now_eq="New")
        on_loud = asks(loud__now_eq="NEW")
        on_place = asks(place__x__now_eq=2)
        on_owner = asks(owner__name__now_eq="Bob")
        on_version = asks(version__now_gt=1)
        on_touch = asks(changed_at__now_eq=99)

        def payload(self, document):
            return None


@pytest.fixture
def documents(make_world):
    world = make_world(Kinds.metadata)
    with world.session() as session, session.begin():
        owners = [Owner(name="Ada"), Owner(name="Bob")]
        session.add_all([*owners, Document(extra={"a": 1}, plain={"b": 1}, place=Point(1, 1))])
        session.flush()
        session.get(Document, 1).owner = owners[0]
    world.messages()
    return world


def change(world, heard, *, load=True, **values):
    """What is told to have been before some values are set."""
    del heard[:]
    with world.session() as session, session.begin():
        document = session.get(Document, 1, options=[undefer("*")] if load else [])
        if not load:
            session.expire(document)
        for name, value in values.items():
            setattr(document, name, value)
    (told,) = former(heard)
    assert told.pop("changed_at", None) in (0, 99, None)
    assert told.pop("version", None) is not None
    return told


@pytest.mark.parametrize("load", [True, False])
def test_former_values_go_by_the_names_of_attributes(documents, heard, load):
    told = change(documents, heard, load=load, headline="New", state="PUBLISHED")
    assert told == {
        "title": "Title",
        "headline": "Title",
        "loud": "TITLE",
        "_state": "DRAFT",
        "state": "DRAFT",
    }


@pytest.mark.parametrize("load", [True, False])
def test_a_composites_former_value_is_made_of_its_columns(documents, heard, load):
    told = change(documents, heard, load=load, place=Point(2, 1))
    assert told.pop("place") == Point(1, 1)
    assert told in ({"x": 1}, {"x": 1, "y": 1})


@pytest.mark.parametrize("load", [True, False])
@pytest.mark.parametrize("by", ["object", "key"])
def test_a_relationships_former_object_is_looked_up(documents, heard, load, by):
    with documents.session() as session:
        bob = session.get(Owner, 2)
        session.expunge(bob)
    values = {"owner_id": 2} if by == "key" else {"owner": bob}
    del heard[:]
    with documents.session() as session, session.begin():
        if by == "object":
            session.add(bob)
        document = session.get(Document, 1)
        if not load:
            session.expire(document)
        for name, value in values.items():
            setattr(document, name, value)
        session.flush()
        (told,) = former(heard)
        assert told["owner_id"] == 1
        assert told["owner"].name == "Ada"


def test_now_filters_see_all_of_that(documents):
    def sent(**values):
        with documents.session() as session, session.begin():
            document = session.get(Document, 1)
            for name, value in values.items():
                setattr(document, name, value)
        return len(documents.names())

    assert sent(title="Other") == 1
    assert sent(title="New") == 1 + 2
    assert sent(state="PUBLISHED") == 1 + 1
    assert sent(place=Point(2, 5)) == 1 + 1
    assert sent(place=Point(2, 6)) == 1
    assert sent(owner_id=2) == 1 + 1


def test_changes_inside_a_mutable_value_are_seen(documents, heard):
    with documents.session() as session, session.begin():
        document = session.get(Document, 1)
        document.extra["a"] = 2
    told = former(heard)
    assert len(told) == 1
    assert documents.names()[:1] == ["document.changed"]


def test_a_mutable_value_is_compared(documents, heard):
    with documents.session() as session, session.begin():
        document = session.get(Document, 1)
        document.plain = {"b": 1}
        document.extra = {"a": 1}
    assert former(heard) == []
    with documents.session() as session, session.begin():
        session.get(Document, 1).plain = {"b": 2}
    assert former(heard)[0]["plain"] == {"b": 1}


def test_what_a_filter_needs_of_a_mutable_value_is_read(make_world, heard):
    class Base(DeclarativeBase):
        pass

    @webhook_model(on_change=ModelEvent("thing.changed", extra__a__now_eq=2))
    class Thing(Base):
        __tablename__ = "things"
        id: Mapped[int] = mapped_column(primary_key=True)
        extra: Mapped[dict] = mapped_column(MutableDict.as_mutable(JSON))

    world = make_world(Base.metadata)
    with world.session() as session, session.begin():
        session.add(Thing(extra={"a": 1}))
    with world.session() as session, session.begin():
        thing = session.get(Thing, 1)
        thing.extra["a"] = 2
    assert former(heard) == [{"extra": {"a": 1}}]
    with world.session() as session, session.begin():
        thing = session.get(Thing, 1)
        thing.extra["a"] = 3
        thing.extra["a"] = 2
    assert former(heard)[1:] == []
    assert world.names() == ["thing.changed"]


# -- values


def values_of(instance, *fields):
    return model_adapter(type(instance)).values(instance, fields)


def test_values_of_deferred_columns_are_read_together(documents):
    with documents.session() as session:
        document = session.get(Document, 1)
        with documents.statements() as statements:
            values = values_of(document, "title", "extra", "text", "notes")
        assert len(statements) == 1
        assert values == {"title": "Title", "extra": {"a": 1}, "text": None, "notes": None}


def test_values_are_those_of_any_attribute_or_path(documents):
    with documents.session() as session:
        document = session.get(Document, 1)
        assert values_of(document, "headline", "place", "length", "state", "loud") == {
            "headline": "Title",
            "place": Point(1, 1),
            "length": 5,
            "state": "DRAFT",
            "loud": "TITLE",
        }
        assert values_of(document, "owner", "owner.name") == {"owner": 1, "owner.name": "Ada"}
        document.owner = None
        assert values_of(document, "owner", "owner__name") == {"owner": None, "owner__name": None}


def test_values_do_not_flush(documents):
    with documents.session() as session:
        document = session.get(Document, 1)
        document.title = "Not yet"
        with documents.statements() as statements:
            assert values_of(document, "title", "text")["title"] == "Not yet"
        assert [s.split()[0] for s in statements] == ["SELECT"]


def test_a_version_that_is_stale_sends_nothing(documents, heard):
    with documents.session() as session, Session(documents.engine) as other:
        document = session.get(Document, 1)
        other.get(Document, 1).title = "Theirs"
        other.commit()
        del heard[:]
        document.title = "Mine"
        with pytest.raises(Exception, match="expected to update 1 row"):
            session.commit()
        session.rollback()
        assert heard == []
        assert session.scalar(select(Document.title)) == "Theirs"
