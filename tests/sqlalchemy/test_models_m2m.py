"""Many-to-many collections: what is added, removed and cleared, from whichever side."""

from __future__ import annotations

import contextlib
import gc

import pytest
from modelling import hearing, world_of
from sqlalchemy import Column, ForeignKey, String, Table, and_, insert, text
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    WriteOnlyMapped,
    attribute_keyed_dict,
    mapped_column,
    relationship,
)

from thorn_core import ConfigurationError, ModelEvent, Thorn, webhook_model
from thorn_core.models import decorating

OVERLAPPING = {"overlaps": "articles,tags"}


def tagging(field="tags", **more):
    """A class's events on changes of a field."""
    return {
        "on_create": ModelEvent("article.created"),
        "on_delete": ModelEvent("article.removed"),
        "on_tag": ModelEvent("article.tagged").dispatches_on_m2m_add(field),
        "on_untag": ModelEvent("article.untagged").dispatches_on_m2m_remove(field),
        "on_clear": ModelEvent("article.cleared").dispatches_on_m2m_clear(field),
        **more,
    }


def declare(back=True, tags=None, articles=None, events=None):
    """Articles, tags, and the table between them."""

    class Base(DeclarativeBase):
        pass

    between = Table(
        "between",
        Base.metadata,
        Column("article_id", ForeignKey("articles.id", ondelete="CASCADE"), primary_key=True),
        Column("tag_id", ForeignKey("tags.id", ondelete="CASCADE"), primary_key=True),
    )
    to_tags = {"secondary": between, "order_by": "Tag.id", **(tags or {})}
    to_articles = {"secondary": between, **(articles or {})}
    if back is True:
        to_tags["back_populates"], to_articles["back_populates"] = "articles", "tags"

    class Tag(Base):
        __tablename__ = "tags"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(String(20))
        if back != "backref":
            articles = relationship("Article", **to_articles)

    @webhook_model(**(events or tagging()))
    class Article(Base):
        __tablename__ = "articles"
        id: Mapped[int] = mapped_column(primary_key=True)
        title: Mapped[str] = mapped_column(String(20))
        if back == "backref":
            to_tags["backref"] = "articles"
        tags = relationship("Tag", **to_tags)

        def webhook_payload(self):
            return self.title

    Base.Tag, Base.Article, Base.between = Tag, Article, between
    return Base


@pytest.fixture
def place_of(tmp_path):
    """Make the world of some models, with tags a, b and c, and an article that has a and b."""
    with contextlib.ExitStack() as stack:

        def make(models, url=None):
            url = url or f"sqlite:///{tmp_path / 'm2m.db'}"
            world = stack.enter_context(world_of(url, models.metadata))
            with world.engine.begin() as connection:
                if world.engine.dialect.name == "sqlite":
                    connection.execute(text("PRAGMA foreign_keys = ON"))
                tables = models.metadata.tables
                connection.execute(insert(tables["tags"]), [{"name": name} for name in "abc"])
                connection.execute(insert(tables["articles"]), [{"title": "x"}, {"title": "y"}])
                rows = [{"article_id": 1, "tag_id": 1}, {"article_id": 1, "tag_id": 2}]
                connection.execute(insert(tables["between"]), rows)
            return world

        yield make


@pytest.fixture
def world(place_of):
    models = declare()
    return place_of(models), models


def tags_of(session, models):
    return [session.get(models.Tag, number) for number in (1, 2, 3)]


# -- added, removed, cleared


def test_what_is_added_removed_and_cleared_is_sent(place, place_of):
    models = declare()
    world = place_of(models, place.url)
    with world.session() as session:
        article = session.get(models.Article, 1)
        a, b, c = tags_of(session, models)
        article.tags.append(c)
        session.commit()
        assert world.sent() == [("article.tagged", "x", ["3"])]
        article.tags.remove(a)
        article.tags.remove(b)
        session.commit()
        assert world.sent() == [("article.untagged", "x", ["1", "2"])]
        article.tags.clear()
        session.commit()
        assert world.sent() == [("article.untagged", "x", ["3"]), ("article.cleared", "x", [])]
        article.tags = [a, b]
        session.commit()
        assert world.sent() == [("article.tagged", "x", ["1", "2"])]
        article.tags = [b, c]
        session.rollback()
        article.tags = [c]
        session.commit()
        assert world.sent() == [
            ("article.tagged", "x", ["3"]),
            ("article.untagged", "x", ["1", "2"]),
        ]


def test_a_signal_says_the_field_and_the_objects(place_of):
    models = declare()
    world = place_of(models)
    with hearing() as heard, world.session() as session, session.begin():
        article = session.get(models.Article, 1)
        a, b, c = tags_of(session, models)
        article.tags = [c]
        session.flush()
        assert heard == [
            ("m2m_added", article, {"field": "tags", "related": [c], "within": session}),
            ("m2m_removed", article, {"field": "tags", "related": [a, b], "within": session}),
        ]


def test_what_comes_to_the_same_is_nothing(place_of):
    models = declare()
    world = place_of(models)
    with world.session() as session:
        article = session.get(models.Article, 1)
        a, b, c = tags_of(session, models)
        article.tags.append(c)
        article.tags.remove(c)
        article.tags = [b, a]
        session.commit()
    assert world.sent() == []


def test_a_new_instance_is_created_first(place_of):
    models = declare()
    world = place_of(models)
    with world.session() as session, session.begin():
        new = models.Article(title="z", tags=[*tags_of(session, models)[:1], models.Tag(name="d")])
        session.add(new)
    assert world.sent() == [("article.created", "z"), ("article.tagged", "z", ["1", "4"])]


def test_a_deletion_is_not_a_removal(place_of):
    models = declare()
    world = place_of(models)
    with world.session() as session, session.begin():
        article = session.get(models.Article, 1)
        assert len(article.tags) == 2
        session.delete(session.get(models.Tag, 1))
        session.flush()
        assert world.sent() == []
        session.delete(article)
    assert world.sent() == [("article.removed", "x")]


def test_what_is_removed_and_then_deleted_is_a_removal(place_of):
    models = declare()
    world = place_of(models)
    with world.session() as session, session.begin():
        article, tag = session.get(models.Article, 1), session.get(models.Tag, 1)
        article.tags.remove(tag)
        session.delete(tag)
    assert world.sent() == [("article.untagged", "x", ["1"])]


def test_a_removal_from_a_deleted_instance_is_only_its_deletion(place_of):
    models = declare()
    world = place_of(models)
    with world.session() as session, session.begin():
        article, tag = session.get(models.Article, 1), session.get(models.Tag, 1)
        tag.articles.remove(article)
        session.delete(article)
    assert world.sent() == [("article.removed", "x")]


def test_only_what_is_asked_for_is_sent(place_of):
    event = ModelEvent("article.tagged").dispatches_on_m2m_add("tags")
    models = declare(events={"on_tag": event})
    world = place_of(models)
    with hearing() as heard, world.session() as session, session.begin():
        article = session.get(models.Article, 1)
        article.tags.clear()
    assert heard == []


def test_a_failing_transaction_sends_nothing(place_of):
    models = declare()
    world = place_of(models)
    with world.session() as session:
        article = session.get(models.Article, 1)
        article.tags.clear()
        session.flush()
        session.rollback()
    assert world.sent() == []


# -- kinds of collections


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ({}, lambda tags, a, c: (tags.remove(a), tags.append(c))),
        ({"collection_class": set}, lambda tags, a, c: (tags.remove(a), tags.add(c))),
        (
            {"collection_class": attribute_keyed_dict("name")},
            lambda tags, a, c: (tags.pop("a"), tags.set(c)),
        ),
        ({"lazy": "dynamic"}, lambda tags, a, c: (tags.remove(a), tags.append(c))),
        ({"lazy": "write_only"}, lambda tags, a, c: (tags.remove(a), tags.add(c))),
        ({"lazy": "selectin"}, lambda tags, a, c: (tags.remove(a), tags.append(c))),
        ({"lazy": "joined"}, lambda tags, a, c: (tags.remove(a), tags.append(c))),
    ],
)
def test_any_collection_will_do(place_of, kind, change):
    if kind.get("lazy") == "write_only":
        kind = {**kind, "passive_deletes": True}
    models = declare(tags={**kind, "order_by": None} if "collection_class" in kind else kind)
    world = place_of(models)
    with world.session() as session, session.begin():
        a, _, c = tags_of(session, models)
        article = session.get(models.Article, 1)
        change(article.tags, a, c)
    assert world.sent() == [("article.tagged", "x", ["3"]), ("article.untagged", "x", ["1"])]


@pytest.mark.parametrize("lazy", ["dynamic", "write_only"])
def test_a_collection_that_is_never_loaded_is_known_to_be_cleared(place_of, lazy):
    models = declare(tags={"lazy": lazy, "passive_deletes": True})
    world = place_of(models)
    with world.session() as session:
        article = session.get(models.Article, 1)
        a, b, _ = tags_of(session, models)
        article.tags.remove(a)
        session.commit()
        assert world.sent() == [("article.untagged", "x", ["1"])]
        article.tags.remove(b)
        session.commit()
        assert world.sent() == [("article.untagged", "x", ["2"]), ("article.cleared", "x", [])]


def test_a_collection_that_must_not_be_loaded_is_not(place_of):
    models = declare(tags={"lazy": "raise"})
    world = place_of(models)
    with world.session() as session, session.begin():
        a, _, c = tags_of(session, models)
        article = session.get(models.Article, 1)
        c.articles.append(article)
        a.articles.clear()
    assert world.sent() == [("article.tagged", "x", ["3"]), ("article.untagged", "x", ["1"])]


def test_a_relationship_to_one_over_a_table_will_do(place_of):
    models = declare(tags={"uselist": False, "order_by": None, **OVERLAPPING}, back=False)
    world = place_of(models)
    with world.session() as session:
        article = session.get(models.Article, 2)
        article.tags = session.get(models.Tag, 1)
        session.commit()
        article.tags = session.get(models.Tag, 2)
        session.commit()
        article.tags = None
        session.commit()
    assert world.sent() == [
        ("article.tagged", "y", ["1"]),
        ("article.tagged", "y", ["2"]),
        ("article.untagged", "y", ["1"]),
        ("article.untagged", "y", ["2"]),
        ("article.cleared", "y", []),
    ]


# -- from the other side


@pytest.mark.parametrize("back", [True, "backref", False])
def test_a_change_from_the_other_side_is_one_of_this(place_of, back):
    models = declare(back=back, articles=OVERLAPPING if back is False else None)
    world = place_of(models)
    with world.session(autoflush=False) as session, session.begin():
        tag = session.get(models.Tag, 3)
        tag.articles.extend(session.get(models.Article, number) for number in (1, 2))
    assert world.sent() == [("article.tagged", "x", ["3"]), ("article.tagged", "y", ["3"])]
    with world.session(autoflush=False) as session, session.begin():
        a, _, c = tags_of(session, models)
        a.articles.clear()
        c.articles.clear()
    assert sorted(world.sent()) == [
        ("article.cleared", "y", []),
        ("article.untagged", "x", ["1", "3"]),
        ("article.untagged", "y", ["3"]),
    ]


def test_a_new_object_of_the_other_side_is_an_addition(place_of):
    models = declare()
    world = place_of(models)
    with world.session() as session, session.begin():
        session.add(models.Tag(name="d", articles=[session.get(models.Article, 1)]))
    assert world.sent() == [("article.tagged", "x", ["4"])]


@pytest.mark.parametrize("back", [True, False])
def test_changes_from_both_sides_are_one(place_of, back):
    models = declare(back=back, articles=OVERLAPPING if back is False else None)
    world = place_of(models)
    with world.session(autoflush=False) as session, session.begin():
        article, other = session.get(models.Article, 1), session.get(models.Article, 2)
        a, b, c = tags_of(session, models)
        assert article.tags == [a, b]
        article.tags.remove(a)
        b.articles.remove(article)
        c.articles.append(other)
    assert world.sent() == [
        ("article.untagged", "x", ["1", "2"]),
        ("article.cleared", "x", []),
        ("article.tagged", "y", ["3"]),
    ]


def test_another_relationship_over_the_same_table_counts_too(place_of):
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
        name: Mapped[str] = mapped_column(String(20))

    @webhook_model(**tagging())
    class Article(Base):
        __tablename__ = "articles"
        id: Mapped[int] = mapped_column(primary_key=True)
        title: Mapped[str] = mapped_column(String(20))
        tags: Mapped[list[Tag]] = relationship(secondary=between)
        more: WriteOnlyMapped[Tag] = relationship(
            secondary=between, passive_deletes=True, overlaps="tags"
        )
        some: Mapped[list[Tag]] = relationship(
            secondary=between,
            secondaryjoin=lambda: and_(Tag.id == between.c.tag_id, Tag.name == "c"),
            overlaps="tags,more",
        )
        seen: Mapped[list[Tag]] = relationship(secondary=between, viewonly=True)

        def webhook_payload(self):
            return self.title

    Base.Tag, Base.Article = Tag, Article
    world = place_of(Base)
    with world.session() as session:
        article = session.get(Article, 2)
        a, _, c = tags_of(session, Base)
        article.more.add(a)
        session.commit()
        assert world.sent() == [("article.tagged", "y", ["1"])]
        # This one is about other rows, as far as one can tell.
        article.some.append(c)
        session.commit()
        assert world.sent() == []


def test_a_relationship_of_a_class_to_itself_has_two_sides(tmp_path):
    class Base(DeclarativeBase):
        pass

    follows = Table(
        "follows",
        Base.metadata,
        Column("follower_id", ForeignKey("users.id"), primary_key=True),
        Column("followed_id", ForeignKey("users.id"), primary_key=True),
    )

    @webhook_model
    class User(Base):
        __tablename__ = "users"
        id: Mapped[int] = mapped_column(primary_key=True)
        following: Mapped[list[User]] = relationship(
            secondary=follows,
            primaryjoin=lambda: User.id == follows.c.follower_id,
            secondaryjoin=lambda: User.id == follows.c.followed_id,
            back_populates="followers",
        )
        followers: Mapped[list[User]] = relationship(
            secondary=follows,
            primaryjoin=lambda: User.id == follows.c.followed_id,
            secondaryjoin=lambda: User.id == follows.c.follower_id,
            back_populates="following",
        )

        class webhooks:
            on_follow = ModelEvent("user.follows").dispatches_on_m2m_add("following")
            on_followed = ModelEvent("user.followed").dispatches_on_m2m_add("followers")
            on_lonely = ModelEvent("user.lonely").dispatches_on_m2m_clear("followers")

            def payload(self, user):
                return user.id

    with world_of(f"sqlite:///{tmp_path / 'self.db'}", Base.metadata) as world:
        with world.session() as session, session.begin():
            ada, bob = User(id=1), User(id=2)
            session.add_all([ada, bob])
            ada.following.append(bob)
        assert sorted(world.sent()) == [("user.followed", 2, ["1"]), ("user.follows", 1, ["2"])]
        with world.session() as session, session.begin():
            ada = session.get(User, 1)
            ada.following.clear()
        assert world.sent() == [("user.lonely", 2, [])]


def test_a_class_mapped_later_has_a_side_too(tmp_path):
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

    @webhook_model(on_tag=ModelEvent("article.tagged").dispatches_on_m2m_add("tags"))
    class Article(Base):
        __tablename__ = "articles"
        id: Mapped[int] = mapped_column(primary_key=True)
        tags: Mapped[list[Tag]] = relationship(secondary=between)

        def webhook_payload(self):
            return self.id

    with world_of(f"sqlite:///{tmp_path / 'late.db'}", Base.metadata) as world:
        with world.session() as session, session.begin():
            session.add_all([Tag(id=1), Article(id=1)])

        class Label(Base):
            __table__ = Tag.__table__
            articles: Mapped[list[Article]] = relationship(secondary=between, overlaps="tags")

        with world.session() as session, session.begin():
            label = session.get(Label, 1)
            label.articles.append(session.get(Article, 1))
        assert world.sent() == [("article.tagged", 1, ["1"])]


def test_subclasses_have_the_field_too(place_of):
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
        name: Mapped[str] = mapped_column(String(20))
        articles: Mapped[list[Article]] = relationship(secondary=between, back_populates="tags")

    @webhook_model(**tagging())
    class Article(Base):
        __tablename__ = "articles"
        id: Mapped[int] = mapped_column(primary_key=True)
        title: Mapped[str] = mapped_column(String(20))
        tags: Mapped[list[Tag]] = relationship(secondary=between, back_populates="articles")

        def webhook_payload(self):
            return self.title

    class Essay(Article):
        __tablename__ = "essays"
        id: Mapped[int] = mapped_column(ForeignKey("articles.id"), primary_key=True)

    world = place_of(Base)
    with world.session() as session, session.begin():
        essay = Essay(title="e")
        tag = session.get(Tag, 1)
        tag.articles.append(essay)
    assert world.sent() == [("article.created", "e"), ("article.tagged", "e", ["1"])]


# -- what it costs


def test_it_costs_no_read(world):
    world, models = world
    with world.session() as session:
        article = session.get(models.Article, 1)
        _a, _b, c = tags_of(session, models)
        assert len(article.tags) == 2
        for change in (article.tags.append, article.tags.remove):
            change(c)
            with world.statements() as statements:
                session.flush()
            assert [s.split()[0] for s in statements][1:] == ["INSERT", "INSERT"]
        article.tags.clear()
        with world.statements() as statements:
            session.flush()
        assert [s.split()[0] for s in statements] == ["DELETE", "INSERT", "INSERT"]


def test_a_collection_that_is_not_loaded_stays_so(world):
    world, models = world
    with world.session(autoflush=False) as session, session.begin():
        article = session.get(models.Article, 1)
        a, _, c = tags_of(session, models)
        c.articles.append(article)
        a.articles.remove(article)
        with world.statements() as statements:
            session.flush()
        assert "tags" not in article.__dict__
    # What was removed may have been the last; whether it was is asked, of one row.
    reads = [s for s in statements if s.startswith("SELECT")]
    assert reads == []  # something was added


def test_only_an_event_on_clearing_asks_whether_it_is_empty(place_of):
    quiet = tagging()
    del quiet["on_clear"]
    for events, expected in ((tagging(), 1), (quiet, 0)):
        models = declare(events=events)
        world = place_of(models)
        with world.session() as session, session.begin():
            article = session.get(models.Article, 1)
            tag = session.get(models.Tag, 1)
            tag.articles.remove(article)
            with world.statements() as statements:
                session.flush()
        reads = [s for s in statements if s.startswith("SELECT")]
        assert len(reads) == expected
        assert all("LIMIT" in read for read in reads)
        models.metadata.drop_all(world.engine)


def test_a_class_on_the_other_side_is_listened_to_only_for_the_collection(world):
    world, models = world
    with hearing() as heard, world.session() as session, session.begin():
        tag = session.get(models.Tag, 1)
        tag.name = "other"
        session.flush()
        session.delete(session.get(models.Tag, 3))
    assert heard == []
    assert not list(models.Tag.__mapper__.dispatch.before_delete)


# -- what is declared wrongly


@pytest.fixture
def forgotten():
    """Let the classes of the test go: they would be refused again in the next."""
    before, watchers = set(decorating._models), list(decorating._watchers)
    # Apps that other tests have left to the garbage collector would watch them too.
    decorating._watchers.clear()
    yield
    decorating._watchers.update(watchers)
    for model in set(decorating._models) - before:
        decorating._models.discard(model)


@pytest.mark.parametrize("field", ["labels", "title", "author", "seen"])
def test_a_field_that_is_none_is_refused(field, forgotten):
    def make():
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

        @webhook_model(on_tag=ModelEvent("a.b").dispatches_on_m2m_add(field))
        class Article(Base):
            __tablename__ = "articles"
            id: Mapped[int] = mapped_column(primary_key=True)
            title: Mapped[str] = mapped_column(String(20))
            author_id: Mapped[int] = mapped_column(ForeignKey("tags.id"))
            author: Mapped[Tag] = relationship()
            tags: Mapped[list[Tag]] = relationship(secondary=between)
            readers: Mapped[list[Tag]] = relationship(secondary=between, overlaps="tags")
            seen: Mapped[list[Tag]] = relationship(secondary=between, viewonly=True)

        return Base, Article, Tag

    expected = f"Article.*'{field}'.*it has.* readers, .*tags"
    with Thorn():
        base, *_ = kept = make()
        with pytest.raises(ConfigurationError, match=expected):
            base.registry.configure()
        with pytest.raises(ConfigurationError, match=expected), Thorn():
            pass
    del kept, base, _
    gc.collect()
    base, *_ = make()
    base.registry.configure()
    with pytest.raises(ConfigurationError, match=expected):
        Thorn()


def test_a_wrong_field_is_refused_at_every_flush(tmp_path, forgotten):
    class Base(DeclarativeBase):
        pass

    with world_of(f"sqlite:///{tmp_path / 'wrong.db'}", Base.metadata) as world:

        @webhook_model(on_tag=ModelEvent("a.b").dispatches_on_m2m_add("tags"))
        class Article(Base):
            __tablename__ = "articles"
            id: Mapped[int] = mapped_column(primary_key=True)

        Base.metadata.create_all(world.engine)
        with pytest.raises(ConfigurationError, match="has no 'tags'"):
            Article()
        for _ in range(2):
            with world.session() as session, pytest.raises(ConfigurationError, match="'tags'"):
                session.add(Article())
                session.commit()
