"""Models of SQLAlchemy: created, changed and deleted."""

from __future__ import annotations

import contextlib

import pytest
from modelling import former, hearing, world_of
from sqlalchemy import Column, ForeignKey, Integer, String, event, func, insert, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    object_session,
    registry,
    relationship,
)

from thorn_core import ModelEvent, StoreError, Thorn, buffer_events, webhook_model
from thorn_core.testing import capture


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "authors"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50))


@webhook_model
class Article(Base):
    __tablename__ = "articles"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(50))
    state: Mapped[str] = mapped_column(String(20), default="DRAFT")
    author_id: Mapped[int | None] = mapped_column(ForeignKey("authors.id"))
    author: Mapped[Author | None] = relationship()

    class webhooks:
        on_create = ModelEvent("article.created")
        on_change = ModelEvent("article.changed")
        on_delete = ModelEvent("article.removed")
        on_publish = ModelEvent("article.published", state__now_eq="PUBLISHED")
        on_publish.dispatches_on_change()

        def payload(self, article):
            return {"title": article.title}

    def get_absolute_url(self):
        return f"https://example.com/{self.id}"


class Unwatched(Base):
    __tablename__ = "unwatched"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50))


@pytest.fixture
def world(tmp_path):
    with world_of(f"sqlite:///{tmp_path / 'models.db'}", Base.metadata) as world:
        yield world


@pytest.fixture
def heard():
    with hearing() as heard:
        yield heard


def publish(world, **values):
    with world.session() as session, session.begin():
        session.add(Article(**{"title": "Hello", **values}))
    world.messages()
    return world.session()


# -- the three


def test_what_is_committed_is_sent(world):
    with world.session() as session:
        article = Article(title="Hello")
        session.add(article)
        session.commit()
        assert world.sent() == [("article.created", {"title": "Hello"})]
        article.title = "Goodbye"
        session.commit()
        assert world.sent() == [("article.changed", {"title": "Goodbye"})]
        session.delete(article)
        session.commit()
        (message,) = world.messages()
        assert (message.event, message.payload) == ("article.removed", {"title": "Goodbye"})
        assert message.ref == "https://example.com/1"


def test_what_is_rolled_back_is_not_sent(world):
    with world.session() as session:
        session.add(Article(title="Hello"))
        session.flush()
        session.rollback()
        session.add(Article(title="Goodbye"))
        session.commit()
    assert world.sent() == [("article.created", {"title": "Goodbye"})]


def test_a_savepoint_that_is_rolled_back_is_not_sent(world):
    with world.session() as session, session.begin():
        session.add(Article(title="One"))
        with session.begin_nested() as savepoint:
            session.add(Article(title="Two"))
            session.flush()
            savepoint.rollback()
        with session.begin_nested():
            session.add(Article(title="Three"))
    assert world.sent() == [
        ("article.created", {"title": "One"}),
        ("article.created", {"title": "Three"}),
    ]


def test_a_failed_flush_forgets_what_it_did(world):
    with world.session() as session:
        session.add(Article(id=1, title="One"))
        session.commit()
        session.add_all([Article(id=2, title="Two"), Article(id=1, title="One again")])
        with pytest.raises(Exception, match="UNIQUE"):
            session.flush()
        session.rollback()
        assert "thorn_flush" not in session.info
        session.add(Article(id=3, title="Three"))
        session.commit()
    assert [payload["title"] for _, payload in world.sent()] == ["One", "Three"]


def test_creating_and_changing_in_one_flush_is_creating(world):
    with world.session() as session, session.begin():
        article = Article(title="Hello")
        session.add(article)
        article.title = "Goodbye"
    assert world.sent() == [("article.created", {"title": "Goodbye"})]


def test_each_flush_tells_what_it_changed(world, heard):
    with publish(world) as session, session.begin():
        article = session.get(Article, 1)
        article.state = "REVIEW"
        session.flush()
        article.state = "PUBLISHED"
    assert former(heard) == [{"state": "DRAFT"}, {"state": "REVIEW"}]
    assert world.names() == ["article.changed", "article.changed", "article.published"]


def test_signals_say_in_which_session_it_happens(world, heard):
    with world.session() as session, session.begin():
        session.add(Article(title="Hello"))
        session.flush()
        ((name, instance, values),) = heard
        assert (name, values) == ("created", {"within": session})
        assert instance in session


def test_several_instances_come_in_the_order_they_were_written(world):
    with world.session() as session, session.begin():
        session.add_all([Article(title=str(n)) for n in range(5)])
    assert [payload["title"] for _, payload in world.sent()] == list("01234")


def test_many_messages_of_a_flush_are_written_together(world):
    with world.session() as session, session.begin():
        session.add_all([Article(title=str(n)) for n in range(16)])
        with world.statements() as statements:
            session.flush()
    assert sum("thorn_messages" in s for s in statements) == 1
    assert len(world.messages()) == 16


def test_more_messages_than_a_batch_holds_are_all_written(world, monkeypatch):
    from thorn_sqlalchemy.models import changes

    monkeypatch.setattr(changes, "BATCH", 3)
    with world.session() as session, session.begin():
        session.add_all([Article(title=str(n)) for n in range(7)])
    assert [payload["title"] for _, payload in world.sent()] == list("0123456")


# -- what a change is


def test_no_net_change_is_no_change(world, heard):
    with publish(world) as session, session.begin():
        article = session.get(Article, 1)
        article.title = "Hello"
        session.flush()
        article.title, article.state = "Other", "DRAFT"
        article.title = "Hello"
        assert article in session.dirty
    assert heard[1:] == []
    assert world.names() == []


def test_a_reference_by_relationship_is_a_change_of_its_key(world, heard):
    with world.session() as session, session.begin():
        ada, bob = Author(name="Ada"), Author(name="Bob")
        session.add_all([ada, bob, Article(title="Hello", author=ada)])
    with world.session() as session, session.begin():
        article, ada, bob = (session.get(c, k) for c, k in ((Article, 1), (Author, 1), (Author, 2)))
        article.author = bob
        session.flush()
        assert former(heard) == [{"author_id": 1, "author": ada}]
        article.author_id = None
        session.flush()
        assert former(heard)[1:] == [{"author_id": 2}]
        session.expire(article, ["author"])  # which SQLAlchemy doesn't by itself
        article.author = ada
        session.flush()
        assert former(heard)[2:] == [{"author_id": None, "author": None}]


def test_what_was_not_loaded_before_is_not_read_for_nothing(world, heard):
    with publish(world) as session:
        article = session.get(Article, 1)
        session.expire(article, ["title"])
        article.title = "Goodbye"
        with world.statements() as statements:
            session.commit()
        assert former(heard) == [{}]
        assert [s.split()[0] for s in statements] == ["UPDATE", "INSERT", "INSERT"]


def test_a_former_value_that_a_filter_needs_is_read_narrowly_and_once_for_all(world, heard):
    with world.session() as session, session.begin():
        session.add_all([Article(title=str(n), state="PUBLISHED"[: n * 9]) for n in range(3)])
    world.messages()
    with world.session() as session:
        articles = session.scalars(select(Article).order_by(Article.id)).all()
        for article in articles:
            session.expire(article, ["state", "title"])
            article.state, article.title = "PUBLISHED", "Changed"
        with world.statements() as statements:
            session.commit()
        reads = [s for s in statements if s.startswith("SELECT")]
        assert len(reads) == 1
        assert "title" not in reads[0]
        # Of the title it isn't known whether it changed.
        assert former(heard) == [{"state": ""}, {}, {}]
    assert world.names() == ["article.changed", "article.published", *["article.changed"] * 2]


def test_an_expired_instance_may_be_set_to_what_it_was(world, heard):
    with publish(world) as session:
        article = session.get(Article, 1)
        session.commit()
        article.state = "DRAFT"
        session.commit()
    assert heard[1:] == []


def test_refreshing_forgets_what_was_set(world, heard):
    with publish(world) as session:
        article = session.get(Article, 1)
        article.title = "Goodbye"
        session.refresh(article)
        session.commit()
    assert heard[1:] == []


def test_merging_changes_or_creates(world, heard):
    publish(world).close()
    with world.session() as session, session.begin():
        session.merge(Article(id=1, title="Merged"))
        session.merge(Article(id=2, title="New"))
    assert sorted(world.sent()) == [
        ("article.changed", {"title": "Merged"}),
        ("article.created", {"title": "New"}),
    ]
    assert former(heard) == [{"title": "Hello"}]


@pytest.mark.parametrize("expire_on_commit", [True, False])
def test_it_does_not_matter_what_a_commit_expires(world, heard, expire_on_commit):
    with world.session(expire_on_commit=expire_on_commit) as session:
        article = Article(title="Hello")
        session.add(article)
        session.commit()
        article.state = "PUBLISHED"
        session.commit()
        session.delete(article)
        session.commit()
    assert former(heard) == [{"state": "DRAFT"}]
    assert world.names() == [
        "article.created",
        "article.changed",
        "article.published",
        "article.removed",
    ]


def test_a_value_that_the_database_computes_is_a_change(world, heard):
    with publish(world) as session, session.begin():
        article = session.get(Article, 1)
        article.title = Article.title + "!"
        session.flush()
        assert former(heard) == [{"title": "Hello"}]
    assert world.sent() == [("article.changed", {"title": "Hello!"})]


def test_what_a_listener_sets_during_the_flush_is_seen(world, heard):
    def shout(mapper, connection, article):
        article.title = article.title.upper()

    event.listen(Article, "before_update", shout)
    try:
        with publish(world) as session, session.begin():
            session.get(Article, 1).state = "REVIEW"
    finally:
        event.remove(Article, "before_update", shout)
    assert former(heard) == [{"state": "DRAFT", "title": "Hello"}]


# -- deletions


class Shop(DeclarativeBase):
    pass


class Customer(Shop):
    __tablename__ = "customers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50))
    orders: Mapped[list[Order]] = relationship(
        back_populates="customer", cascade="all, delete-orphan"
    )


@webhook_model(on_delete=ModelEvent("part.removed"))
class Part(Shop):
    __tablename__ = "parts"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50))
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))

    def webhook_payload(self):
        return self.name


@webhook_model
class Order(Shop):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[str] = mapped_column(String(50))
    customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id"))
    customer: Mapped[Customer] = relationship(back_populates="orders")
    parts: Mapped[list[Part]] = relationship(cascade="all, delete-orphan")

    class webhooks:
        on_delete = ModelEvent("order.removed")

        def payload(self, order):
            return {
                "number": order.number,
                "customer": order.customer.name,
                "parts": [part.name for part in order.parts],
            }

    def get_absolute_url(self):
        return f"https://example.com/orders/{self.number}"


REMOVED = ("order.removed", {"number": "7", "customer": "Ada", "parts": ["bolt", "nut"]})


@pytest.fixture
def shop(tmp_path):
    with world_of(f"sqlite:///{tmp_path / 'shop.db'}", Shop.metadata) as shop:
        with shop.session() as session, session.begin():
            parts = [Part(name="bolt"), Part(name="nut")]
            session.add(Customer(name="Ada", orders=[Order(number="7", parts=parts)]))
        yield shop


def removed_orders(shop):
    return [(m.event, m.payload) for m in shop.messages() if m.event == "order.removed"]


def test_a_deletion_tells_of_what_had_not_been_loaded(shop):
    with shop.session() as session:
        order = session.get(Order, 1)
        session.commit()  # which expires it
        session.delete(order)
        session.commit()
    order, *parts = sorted(shop.messages(), key=lambda message: message.event)
    assert (order.event, order.payload) == REMOVED
    assert order.ref == "https://example.com/orders/7"
    assert sorted(part.payload for part in parts) == ["bolt", "nut"]


def test_a_deletion_together_with_all_it_refers_to_tells_of_that(shop):
    with shop.session() as session, session.begin():
        session.delete(session.get(Customer, 1))
    assert removed_orders(shop) == [REMOVED]


def test_an_orphan_is_deleted(shop):
    with shop.session() as session, session.begin():
        order = session.get(Order, 1)
        del order.parts[0]
    assert shop.sent() == [("part.removed", "bolt")]


def test_a_deletion_that_fails_is_not_sent(shop):
    with shop.session() as session:
        session.execute(text("PRAGMA foreign_keys = ON"))
        session.execute(text("CREATE TABLE bill (id REFERENCES orders)"))
        session.execute(text("INSERT INTO bill VALUES (1)"))
        session.commit()
        session.delete(session.get(Order, 1))
        with pytest.raises(IntegrityError):
            session.commit()
        session.rollback()
        session.commit()
    assert shop.sent() == []


def test_a_deletion_that_turns_out_not_to_be_one_is_not_sent(shop):
    def keep(session, context, instances):
        for instance in session.deleted:
            session.add(instance)

    with shop.session() as session, session.begin():
        event.listen(session, "before_flush", keep)
        session.delete(session.get(Order, 1))
    assert shop.sent() == []


def test_a_new_instance_in_the_row_of_a_deleted_one_is_both(world):
    with publish(world) as session, session.begin():
        session.delete(session.get(Article, 1))
        session.add(Article(id=1, title="Another"))
    assert world.sent() == [
        ("article.removed", {"title": "Hello"}),
        ("article.created", {"title": "Another"}),
    ]


def test_the_database_may_delete_by_itself_what_depends_on_it(tmp_path):
    class Own(DeclarativeBase):
        pass

    class Child(Own):
        __tablename__ = "children"
        id: Mapped[int] = mapped_column(primary_key=True)
        parent_id: Mapped[int] = mapped_column(ForeignKey("parents.id", ondelete="CASCADE"))

    @webhook_model(on_delete=ModelEvent("parent.removed"))
    class Parent(Own):
        __tablename__ = "parents"
        id: Mapped[int] = mapped_column(primary_key=True)
        children: Mapped[list[Child]] = relationship(cascade="all", passive_deletes=True)

        def webhook_payload(self):
            return [child.id for child in self.children]

    with world_of(f"sqlite:///{tmp_path / 'own.db'}", Own.metadata) as world:
        with world.session() as session, session.begin():
            session.add(Parent(children=[Child(), Child()]))
        with world.session() as session, session.begin():
            session.execute(text("PRAGMA foreign_keys = ON"))
            session.delete(session.get(Parent, 1))
        assert world.sent() == [("parent.removed", [1, 2])]


# -- what goes wrong


@pytest.fixture
def declare(tmp_path):
    """Make a world of one class of things, with these events."""
    with contextlib.ExitStack() as stack:

        def make(payload=lambda self, thing: {"name": thing.name}, settings=None, **events):
            own = registry()

            @webhook_model
            @own.mapped
            class Thing:
                __tablename__ = "things"
                id = Column(Integer, primary_key=True)
                name = Column(String(50))
                webhooks = type("webhooks", (), {"payload": payload, **events})

            url = f"sqlite:///{tmp_path / 'things.db'}"
            world = stack.enter_context(world_of(url, own.metadata, **(settings or {})))
            return world, Thing

        yield make


def broken(self, thing):
    raise RuntimeError("no payload")


def test_a_failing_payload_breaks_no_save(declare, caplog):
    world, thing = declare(broken, on_create=ModelEvent("thing.created"))
    with world.session() as session:
        session.add(thing(name="x"))
        session.commit()
        assert session.scalar(select(func.count()).select_from(thing)) == 1
    assert "no payload" in caplog.text
    assert world.sent() == []


@pytest.mark.parametrize("trigger", ["on_create", "on_change", "on_delete"])
def test_a_failing_payload_may_roll_the_save_back(declare, trigger):
    event = ModelEvent("thing.happened", propagate_errors=True)
    world, thing = declare(broken, **{trigger: event})
    with world.engine.begin() as connection:
        connection.execute(insert(thing.__table__).values(name="x"))
    with world.session() as session:
        one = thing(name="y") if trigger == "on_create" else session.get(thing, 1)
        session.add(one)
        if trigger == "on_delete":
            session.delete(one)
        else:
            one.name = "z"
        with pytest.raises(RuntimeError, match="no payload"):
            session.commit()
        session.rollback()
        assert session.scalars(select(thing.name)).all() == ["x"]
        assert "thorn_flush" not in session.info


def test_a_change_whose_message_cannot_be_kept_is_not_made(declare):
    world, thing = declare(on_create=ModelEvent("thing.created"))
    world.store.tables.messages.drop(world.engine)
    with world.session() as session:
        session.add(thing(name="x"))
        with pytest.raises(StoreError, match="thorn init-db"):
            session.commit()
        session.rollback()
        assert session.scalars(select(thing.name)).all() == []


def test_a_payload_may_read_the_database(declare):
    def count(self, thing):
        session = object_session(thing)
        return session.scalar(select(func.count()).select_from(type(thing)))

    world, thing = declare(count, on_create=ModelEvent("thing.created"))
    with world.session() as session, session.begin():
        session.add_all([thing(), thing()])
    assert [payload for _, payload in world.sent()] == [2, 2]


def test_what_a_payload_changes_is_flushed_afterwards(declare):
    def rename(self, thing):
        thing.name = "changed"
        return thing.name

    created, changed = ModelEvent("thing.created"), ModelEvent("thing.changed")
    world, thing = declare(rename, on_create=created, on_change=changed)
    with world.session() as session:
        session.add(thing(name="x"))
        session.commit()
    assert world.sent() == [("thing.created", "changed"), ("thing.changed", "changed")]


def test_a_signal_that_does_not_wait_for_the_commit_goes_at_once(declare):
    event = ModelEvent("thing.created", signal_honors_transaction=False)
    world, thing = declare(on_create=event)
    with Thorn(dispatcher="outbox") as other, world.session() as session:
        other.make_default()
        session.add(thing(name="x"))
        session.flush()
        session.rollback()
        assert [message.event for message in other.messages_to_route()] == ["thing.created"]


def test_a_deletion_that_fails_is_not_sent_at_once_either(declare):
    event = ModelEvent("thing.removed", signal_honors_transaction=False)
    world, thing = declare(on_delete=event)
    with world.session() as session, session.begin():
        session.add(thing(name="x"))
    with Thorn(dispatcher="outbox") as other, world.session() as session:
        other.make_default()
        session.execute(text("PRAGMA foreign_keys = ON"))
        session.execute(text("CREATE TABLE bill (id REFERENCES things)"))
        session.execute(text("INSERT INTO bill VALUES (1)"))
        session.commit()
        session.delete(session.get(thing, 1))
        with pytest.raises(IntegrityError):
            session.flush()
        assert other.messages_to_route() == []


def test_a_buffer_around_a_transaction_loses_nothing(declare):
    world, thing = declare(on_create=ModelEvent("thing.created"))
    with buffer_events(), world.session() as session:
        session.add(thing(name="x"))
        session.commit()
        assert world.names() == ["thing.created"]
        session.add(thing(name="y"))
        session.flush()
        session.rollback()
    assert world.names() == []


def test_without_an_app_saving_goes_on(declare, caplog):
    world, thing = declare(on_create=ModelEvent("thing.created"))
    world.app.close()
    with Session(world.engine) as session, session.begin():
        session.add(thing(name="x"))
    assert "there is no app yet" in caplog.text


def test_tests_can_capture_what_is_sent(declare):
    world, thing = declare(on_create=ModelEvent("thing.created"))
    with capture(world.app) as sent, world.session() as session:
        session.add(thing(name="x"))
        session.flush()
        assert sent == []
        session.commit()
        assert [message.event for message in sent] == ["thing.created"]


# -- what it costs


def test_an_event_costs_its_inserts_and_no_read(world):
    with world.session() as session:
        with world.statements() as statements:
            session.add(Article(title="Hello"))
            session.flush()
        # A message's are two on SQLite: its own, and its row in the outbox.
        assert [s.split()[0] for s in statements] == ["INSERT"] * 3
        article = session.get(Article, 1)
        for change in ("PUBLISHED", "DRAFT"):
            article.state = change
            with world.statements() as statements:
                session.flush()
            assert [s.split()[0] for s in statements] == ["UPDATE", "INSERT", "INSERT"]
        session.commit()
        session.refresh(article)
        session.delete(article)
        with world.statements() as statements:
            session.flush()
        assert [s.split()[0] for s in statements] == ["DELETE", "INSERT", "INSERT"]


def test_a_model_without_webhooks_is_not_listened_to(world):
    dispatch = Unwatched.__mapper__.dispatch
    for name in ("after_insert", "before_update", "after_update", "before_delete"):
        assert not list(getattr(dispatch, name))
    with world.session() as session:
        session.add(Unwatched(name="x"))
        session.flush()
        assert "thorn_flush" not in session.info


def test_only_what_an_event_asks_for_is_listened_to(declare):
    _, thing = declare(on_delete=ModelEvent("thing.removed"))
    dispatch = thing.__mapper__.dispatch
    assert not list(dispatch.after_insert)
    assert not list(dispatch.before_update)
    assert len(list(dispatch.before_delete)) == 1


# -- in a flush


def test_a_reference_written_after_the_row_is_a_change(tmp_path, heard):
    class Own(DeclarativeBase):
        pass

    class Comment(Own):
        __tablename__ = "comments"
        id: Mapped[int] = mapped_column(primary_key=True)
        post_id: Mapped[int] = mapped_column(ForeignKey("posts.id"))

    @webhook_model(on_create=ModelEvent("post.created"), on_change=ModelEvent("post.changed"))
    class Post(Own):
        __tablename__ = "posts"
        id: Mapped[int] = mapped_column(primary_key=True)
        best_id: Mapped[int | None] = mapped_column(ForeignKey("comments.id"))
        comments: Mapped[list[Comment]] = relationship(foreign_keys=Comment.post_id)
        best: Mapped[Comment | None] = relationship(foreign_keys=best_id, post_update=True)

    with world_of(f"sqlite:///{tmp_path / 'own.db'}", Own.metadata) as world:
        with world.session() as session, session.begin():
            one, two = Comment(), Comment()
            post = Post(comments=[one, two], best=one)
            session.add(post)
            session.flush()
            post.best = two
            session.flush()
            post.best = None
            session.flush()
            assert former(heard) == [{"best_id": 1, "best": one}, {"best_id": 2, "best": two}]
        assert world.names() == ["post.created", "post.changed", "post.changed"]


def test_listeners_may_write_past_the_flush(world):
    def copy(mapper, connection, article):
        object_session(article).bulk_insert_mappings(Unwatched, [{"name": article.title}])

    event.listen(Article, "after_insert", copy)
    try:
        with world.session() as session, session.begin():
            session.add_all([Article(title="One"), Article(title="Two")])
    finally:
        event.remove(Article, "after_insert", copy)
    assert [payload["title"] for _, payload in world.sent()] == ["One", "Two"]


def test_what_a_flush_that_never_ended_recorded_is_not_sent(world):
    def break_off(session, *_):
        raise RuntimeError("the connection is lost")

    with world.session() as session:
        session.add(Article(title="One"))
        for identifier in ("after_flush", "after_rollback"):
            event.listen(session, identifier, break_off)
        with pytest.raises(RuntimeError):
            session.flush()
        for identifier in ("after_flush", "after_rollback"):
            event.remove(session, identifier, break_off)
        session.rollback()
        session.add(Article(title="Two"))
        session.commit()
    assert [payload["title"] for _, payload in world.sent()] == ["Two"]
