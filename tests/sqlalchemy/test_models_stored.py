"""Models of SQLAlchemy: filters, payloads and former values are what the row holds."""

from __future__ import annotations

import datetime as dt
import enum
import ipaddress
import uuid
from dataclasses import dataclass
from decimal import Decimal

import pytest
from modelling import former, hearing, world_of
from places import make_place
from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Date,
    DateTime,
    Enum,
    ForeignKey,
    Integer,
    Interval,
    LargeBinary,
    Numeric,
    PickleType,
    String,
    Table,
    TypeDecorator,
    Uuid,
    create_engine,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.associationproxy import association_proxy
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    composite,
    mapped_column,
    registry,
    relationship,
    synonym,
)

from thorn_core import ConfigurationError, ModelEvent, Thorn, webhook_model
from thorn_core.models import decorating

UTC = dt.UTC


class Base(DeclarativeBase):
    pass


class State(enum.Enum):
    DRAFT = "draft"
    PAID = "paid"


class Cents:
    """A value of a class of the program's, that can be changed in place."""

    def __init__(self, cents):
        self.cents = int(cents)

    def __eq__(self, other):
        return isinstance(other, Cents) and self.cents == other.cents

    __hash__ = None

    def __ge__(self, other):
        return self.cents >= other.cents

    def __str__(self):
        return f"{self.cents / 100:.2f}"


class InCents(TypeDecorator):
    impl = Integer
    cache_ok = True

    def process_bind_param(self, value, dialect):
        return value.cents if isinstance(value, Cents) else value

    def process_result_value(self, value, dialect):
        return None if value is None else Cents(value)


class Lower(TypeDecorator):
    impl = String(50)
    cache_ok = True

    def process_bind_param(self, value, dialect):
        return None if value is None else str(value).strip().lower()


class Salted(TypeDecorator):
    """Another text each time, as a salted hash is."""

    impl = String(50)
    cache_ok = True

    def process_bind_param(self, value, dialect):
        return None if value is None else f"{value}-{uuid.uuid4().hex[:8]}"


@dataclass
class Place:
    x: int
    y: int


@webhook_model
class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    note: Mapped[str] = mapped_column(String(20), default="")
    status: Mapped[int] = mapped_column(Integer, default=0)
    price: Mapped[Decimal] = mapped_column(Numeric(10, 2), default=0)
    open: Mapped[bool] = mapped_column(Boolean, default=False)
    state: Mapped[State] = mapped_column(Enum(State), default=State.DRAFT)
    due: Mapped[dt.date | None] = mapped_column(Date)
    token: Mapped[uuid.UUID | None] = mapped_column(Uuid)
    email: Mapped[str | None] = mapped_column(Lower())
    cost: Mapped[Cents] = mapped_column(InCents(), default=lambda: Cents(0))
    digest: Mapped[str | None] = mapped_column(Salted())
    extra: Mapped[dict] = mapped_column(MutableDict.as_mutable(JSON), default=dict)
    place: Mapped[Place] = composite(
        Place,
        mapped_column("x", Integer, nullable=True),
        mapped_column("y", Integer, nullable=True),
    )
    level = synonym("status")

    @hybrid_property
    def paid(self):
        return self.status == 2

    class webhooks:
        fields = (
            *("status", "level", "paid", "price", "open", "state", "due", "token", "email", "cost"),
            *("extra", "place.x", "digest"),
        )
        on_create = ModelEvent("order.created")
        on_change = ModelEvent("order.changed")
        on_delete = ModelEvent("order.removed")
        on_paid = ModelEvent("order.paid", status__now_eq=2).dispatches_on_change()
        on_hybrid = ModelEvent("order.hybrid", paid__now_eq=True).dispatches_on_change()
        on_level = ModelEvent("order.level", level__now_eq="2").dispatches_on_change()
        on_large = ModelEvent("order.large", price__now_gte=100).dispatches_on_change()
        on_state = ModelEvent("order.state", state__now_eq="PAID").dispatches_on_change()
        on_due = ModelEvent("order.due", due__now_gte="2026-01-01").dispatches_on_change()
        on_email = ModelEvent("order.mail", email__now_eq="ada@example.com").dispatches_on_change()
        on_cost = ModelEvent("order.cost", cost__now_gte=Cents(100)).dispatches_on_change()
        on_east = ModelEvent("order.east", place__x__now_gt=2).dispatches_on_change()
        on_extra = ModelEvent("order.extra", extra__a__now_eq=1).dispatches_on_change()


@pytest.fixture
def heard():
    with hearing() as heard:
        yield heard


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "mariadb"])
def world(request, tmp_path_factory):
    for place in make_place(request.param, tmp_path_factory.mktemp("stored")):
        with world_of(place.url, Base.metadata) as world:
            yield world


@pytest.fixture
def order(world):
    """The id of an order as it is made; the events of that are forgotten."""
    with world.session() as session, session.begin():
        order = Order(extra={"a": 0}, x=1, y=1)
        session.add(order)
        session.flush()
        made = order.id
    world.messages()
    return made


def row(world, key):
    """What a row holds, read by a session of its own."""
    with world.session() as session:
        order = session.get(Order, key)
        return {name: getattr(order, name) for name in COLUMNS}


COLUMNS = ("status", "price", "open", "state", "due", "token", "email", "cost", "extra", "digest")
FORMS = [
    ("status", "2", ["order.paid", "order.hybrid", "order.level"]),
    ("price", "150.00", ["order.large"]),
    ("price", "99.999", ["order.large"]),
    ("price", 150, ["order.large"]),
    ("price", Decimal(150), ["order.large"]),
    ("state", "PAID", ["order.state"]),
    ("due", dt.datetime(2026, 3, 1, 12, 0), ["order.due"]),
    ("email", "  ADA@example.com", ["order.mail"]),
    ("cost", 500, ["order.cost"]),
    ("cost", Cents(500), ["order.cost"]),
    ("place", Place(3, 4), ["order.east"]),
    ("digest", "geheim", []),
]


@pytest.mark.parametrize(("name", "value", "sent"), FORMS)
def test_filters_and_payloads_see_what_the_row_holds(world, order, name, value, sent):
    if name == "due" and world.engine.dialect.name == "sqlite":
        value = value.date()
    with world.session() as session, session.begin():
        setattr(session.get(Order, order), name, value)
    told = {message.event: message.payload for message in world.messages()}
    assert sorted(told) == sorted(["order.changed", *sent])
    held = row(world, order)
    payload = told["order.changed"]
    assert payload["price"] == str(held["price"])
    assert payload["state"] == held["state"].value
    assert (payload["status"], payload["level"]) == (held["status"], held["status"])
    assert (payload["email"], payload["digest"]) == (held["email"], held["digest"])
    assert payload["cost"] == str(held["cost"])
    assert payload["due"] == (held["due"] and held["due"].isoformat())


def test_what_is_created_changed_and_deleted_is_told_in_the_same_form(world):
    token = uuid.uuid4()
    values = {"status": "1", "price": "10.129", "state": "PAID", "token": token, "email": "A@b.C "}
    with world.session() as session, session.begin():
        order = Order(**values, cost=5, digest="x", extra={"a": (1, 2)}, x=1, y=2)
        session.add(order)
        session.flush()
        key = order.id
        assert (order.status, order.price, order.state) == (1, Decimal("10.13"), State.PAID)
    with world.session() as session, session.begin():
        session.get(Order, key).note = "x"
    with world.session() as session, session.begin():
        order = session.get(Order, key)
        order.status, order.price = "junk", 7  # never written
        session.delete(order)
    created, changed, removed = world.sent()
    assert created[1] == changed[1] == removed[1]
    assert created[1] | {"digest": None} == {
        "status": 1,
        "level": 1,
        "paid": False,
        "price": "10.13",
        "open": False,
        "state": "paid",
        "due": None,
        "token": str(token),
        "email": "a@b.c",
        "cost": "0.05",
        "extra": {"a": [1, 2]},
        "place.x": 1,
        "digest": None,
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("status", "0"),
        ("price", "0"),
        ("price", "0.001"),
        ("state", "DRAFT"),
        ("cost", 0),
        ("cost", Cents(0)),
        ("extra", {"a": 0}),
    ],
)
def test_another_form_of_the_same_value_is_no_change(world, order, heard, name, value):
    with world.session() as session, session.begin():
        setattr(session.get(Order, order), name, value)
    assert heard == []
    with world.session() as session, session.begin():  # not loaded since it was assigned
        instance = session.get(Order, order)
        setattr(instance, name, value)
        session.flush()
        setattr(instance, name, getattr(row_of(session, order), name))
    assert heard == []


def row_of(session, key):
    return session.get(Order, key, populate_existing=False)


def test_a_value_changed_in_place_is_compared_with_the_rows(world, order, heard):
    with world.session() as session, session.begin():
        instance = session.get(Order, order)
        instance.extra["a"] = 1
    assert world.names() == ["order.changed", "order.extra"]
    with world.session() as session, session.begin():
        instance = session.get(Order, order)
        cost = instance.cost
        cost.cents = 700  # in place, which nobody notices
        instance.cost = Cents(700)
        instance.note = "x"
    assert former(heard)[-1]["cost"] == Cents(0)
    assert world.names() == ["order.changed", "order.cost"]


def test_a_second_flush_goes_by_what_the_first_one_wrote(world, order, heard):
    with world.session() as session, session.begin():
        instance = session.get(Order, order)
        instance.status, instance.price = "2", "150.00"
        session.flush()
        instance.status, instance.price = 2, Decimal("150.00")
        session.flush()
    assert len(former(heard)) == 1
    assert sorted(world.names()) == [
        *("order.changed", "order.hybrid", "order.large", "order.level", "order.paid")
    ]


def test_what_a_mutable_value_becomes_is_still_tracked(world, order):
    with world.session(expire_on_commit=False) as session:
        instance = session.get(Order, order)
        instance.extra = {"a": (1,)}
        session.commit()
        assert instance.extra == {"a": [1]}
        instance.extra["a"] = 1
        session.commit()
    assert "order.extra" in world.names()
    assert row(world, order)["extra"] == {"a": 1}


def test_nothing_is_read_where_the_types_tell(world, order):
    with world.session() as session, session.begin():
        instance = session.get(Order, order)
        instance.status, instance.price, instance.state = 2, Decimal("150.0"), State.PAID
        instance.email, instance.cost, instance.token = "A@b.c", Cents(5), uuid.uuid4()
        with world.statements() as statements:
            session.flush()
    world.messages()
    # What filters want of `cost`, which may have been changed in place.
    (read,) = [s for s in statements if s.startswith("SELECT") and "FROM orders" in s]
    assert "orders.cost" in read
    assert "orders.status" not in read


def test_what_must_be_read_is_read_once_for_many(world):
    with world.session() as session, session.begin():
        session.add_all([Order(status=str(number)) for number in range(20)])
        with world.statements() as statements:
            session.flush()
        reads = [s for s in statements if s.startswith("SELECT") and "orders.status" in s]
        assert len(reads) == 1
    assert [payload["status"] for _, payload in world.sent()] == list(range(20))


def test_a_key_of_the_program_may_have_another_form(world):
    with world.session() as session, session.begin():
        session.add(Order(id="123456", status="5"))
    ((event, payload),) = world.sent()
    assert (event, payload["status"]) == ("order.created", 5)


def test_a_failing_flush_leaves_nothing_behind(world, order, heard):
    with world.session() as session:
        session.add_all([Order(id=order, status="1")])
        with pytest.raises(Exception, match=r"(?i)unique|duplicate"):
            session.commit()
    assert heard == []


def test_a_deletion_is_about_whom_the_row_belonged_to(tmp_path):
    class Own(DeclarativeBase):
        pass

    class User(Own):
        __tablename__ = "users"
        id: Mapped[int] = mapped_column(primary_key=True)

    @webhook_model(on_delete=ModelEvent("note.removed"), sender_field="user", fields=("user",))
    class Note(Own):
        __tablename__ = "notes"
        id: Mapped[int] = mapped_column(primary_key=True)
        user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
        user: Mapped[User | None] = relationship()

    with world_of(f"sqlite:///{tmp_path / 'notes.db'}", Own.metadata) as world:
        with world.session() as session, session.begin():
            session.add(Note(id=1, user=User(id=7)))
            session.add(Note(id=2, user=User(id=8)))
        with world.session() as session, session.begin():
            one, two = session.get(Note, 1), session.get(Note, 2)
            assert two.user.id == 8
            for note in (one, two):
                note.user = None  # never written
                session.delete(note)
        told = [(m.payload["user"], m.sender) for m in world.messages()]
        assert sorted(told) == [(7, "7"), (8, "8")]


# -- what filters compare with


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ({"status__eq": "many"}, "many"),
        ({"price__now_gte": "lots"}, "can't hold"),
        ({"state__eq": "PAYED"}, "PAYED"),
        ({"state__in": ["PAID", "draft", "SENT"]}, "SENT"),
        ({"due__lt": "tomorrow"}, "tomorrow"),
        ({"customer__eq": 7}, "compare its key"),
        ({"customer__name__lenght__gt": 7}, "str has no 'lenght'"),
        ({"customer__nmae__eq": "x"}, "Customer has no 'nmae'; did you mean 'name'"),
        ({"customr__eq": None}, "Sale has no 'customr'; did you mean 'customer'"),
        ({"colour__now_eq": "red"}, "Sale has no 'colour'; it has .*buyer"),
    ],
)
def test_what_can_never_hold_is_refused_once_the_mappers_are_there(condition, said):
    with pytest.raises(ConfigurationError, match=said):
        sale_with(on_change=ModelEvent("sale.changed", **condition))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"fields": ("titel",)}, "did you mean 'title'"),
        ({"fields": ("nothing",)}, "Sale has no 'nothing'"),
        ({"fields": ("customer.password",)}, "'password' is secret"),
        ({"fields": ("login",)}, "'login' is secret"),
        ({"fields": ("sign_in",)}, "'sign_in' is secret"),
        ({"fields": ("pin",)}, "'pin' is secret"),
        ({"sender_field": "owner"}, "Sale has no 'owner'"),
        ({"sender_field": "customer.name.first"}, "str has no 'first'"),
        ({"fields": ("tags.name",)}, "list has no 'name'"),
    ],
)
def test_options_name_what_the_class_has(options, said):
    with pytest.raises(ConfigurationError, match=said):
        sale_with(on_change=ModelEvent("sale.changed"), **options)


@pytest.mark.parametrize(
    "condition",
    [
        {"buyer__eq": "x"},
        {"headline__eq": "x", "title__upper__is_not": None},
        {"customer__name__now_eq": "Ada", "customer__is_not": None},
        {"tag_names__contains": "x"},
        {"short__eq": "x"},
        {"state__now_in": ["PAID"], "state__value__eq": "paid"},
        {"total__amount__gte": 5},
        {"meta__any__thing__eq": 5},
        {"due__year__eq": 2026},
        {"made_by_backref__is": None},
        {"password_changed__is": None},
    ],
)
def test_names_of_every_kind_are_known(condition):
    sale = sale_with(
        on_change=ModelEvent("sale.changed", **condition), fields=("id", "password_changed")
    )
    assert sale.webhooks.events["on_change"].filter.conditions


def sale_with(**declared):
    """A class with attributes of every kind, its mappers configured."""

    class Own(DeclarativeBase):
        pass

    links = Table(
        "links",
        Own.metadata,
        Column("a", ForeignKey("sales.id")),
        Column("b", ForeignKey("tags.id")),
    )

    class Customer(Own):
        __tablename__ = "customers"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(String(20))
        password: Mapped[str] = mapped_column(String(20))

    class Tag(Own):
        __tablename__ = "tags"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(String(20))

    with Thorn():

        @webhook_model(**declared)
        class Sale(Own):
            __tablename__ = "sales"
            id: Mapped[int] = mapped_column(primary_key=True)
            title: Mapped[str] = mapped_column(String(20))
            headline = synonym("title")
            status: Mapped[int] = mapped_column(Integer)
            price: Mapped[Decimal] = mapped_column(Numeric(10, 2))
            state: Mapped[State] = mapped_column(Enum(State))
            due: Mapped[dt.date] = mapped_column(Date)
            total: Mapped[Cents] = mapped_column(InCents())
            meta: Mapped[dict] = mapped_column(JSON)
            login: Mapped[str] = mapped_column("password_hash", String(20))
            sign_in = synonym("login")
            pin: Mapped[str] = mapped_column(String(4), info={"secret": True})
            password_changed: Mapped[dt.datetime] = mapped_column(DateTime)
            customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id"))
            customer: Mapped[Customer] = relationship()
            buyer = association_proxy("customer", "name")
            tags: Mapped[list[Tag]] = relationship(secondary=links)
            tag_names = association_proxy("tags", "name")

            @hybrid_property
            def short(self):
                return self.title[:1]

        class Maker(Own):
            __tablename__ = "makers"
            id: Mapped[int] = mapped_column(ForeignKey("sales.id"), primary_key=True)
            made: Mapped[Sale] = relationship(backref="made_by_backref")

        Own.registry.configure()
        KEPT.append((Customer, Tag, Sale, Maker))
    return Sale


KEPT: list = []


@pytest.fixture(autouse=True)
def forgotten():
    """Let classes that were refused go: they would be refused again by each app."""
    before = set(decorating._models)
    yield
    for model in set(decorating._models) - before:
        decorating._models.discard(model)
    KEPT.clear()


# -- PostgreSQL's own types


class Own(DeclarativeBase):
    pass


@webhook_model
class Host(Own):
    __tablename__ = "hosts"
    id: Mapped[int] = mapped_column(primary_key=True)
    note: Mapped[str] = mapped_column(String(20), default="")
    ip = mapped_column(postgresql.INET)
    net = mapped_column(postgresql.CIDR)
    mac = mapped_column(postgresql.MACADDR)
    span = mapped_column(postgresql.INT4RANGE)
    spans = mapped_column(postgresql.INT4MULTIRANGE)
    during = mapped_column(postgresql.TSTZRANGE)
    tags = mapped_column(postgresql.ARRAY(String(20)))
    grid = mapped_column(postgresql.ARRAY(Integer, dimensions=2))
    meta = mapped_column(postgresql.JSONB)
    pairs = mapped_column(MutableDict.as_mutable(postgresql.HSTORE))
    raw = mapped_column(LargeBinary)
    pickled = mapped_column(PickleType)
    took = mapped_column(Interval)
    bits = mapped_column(postgresql.BIT(4))
    words = mapped_column(postgresql.TSVECTOR)
    code = mapped_column(postgresql.CHAR(4))
    load = mapped_column(postgresql.DOUBLE_PRECISION)
    at = mapped_column(DateTime(timezone=True))
    local = mapped_column(DateTime)
    token = mapped_column(postgresql.UUID(as_uuid=False))
    day = mapped_column(Date)

    class webhooks:
        on_create = ModelEvent("host.created")
        on_change = ModelEvent("host.changed")
        on_delete = ModelEvent("host.removed")
        on_wide = ModelEvent("host.wide", span__upper__now_gt=10).dispatches_on_change()
        on_tag = ModelEvent("host.tagged", tags__now_contains="x").dispatches_on_change()
        fields = (
            *(
                "ip",
                "net",
                "mac",
                "span",
                "spans",
                "during",
                "tags",
                "grid",
                "meta",
                "pairs",
                "raw",
            ),
            *("pickled", "took", "bits", "words", "code", "load", "local", "token", "day"),
        )


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    for place in make_place("postgresql", tmp_path_factory.mktemp("hosts")):
        engine = create_engine(place.url)
        with engine.begin() as connection:
            connection.execute(text("CREATE EXTENSION IF NOT EXISTS hstore"))
        engine.dispose()
        with world_of(place.url, Own.metadata) as world:
            yield world


def test_no_type_of_postgresql_loses_an_event(hosts):
    values = {
        "ip": "10.0.0.1",
        "net": ipaddress.ip_network("10.0.0.0/8"),
        "mac": "08-00-2B-01-02-03",
        "span": postgresql.Range(1, 5, bounds="[]"),
        "spans": [postgresql.Range(1, 2), postgresql.Range(5, 7)],
        "during": postgresql.Range(dt.datetime(2026, 1, 1, tzinfo=UTC), None),
        "tags": ("a", "b"),
        "grid": [[1, 2], [3, 4]],
        "meta": {"a": (1, 2), "b": None},
        "pairs": {"a": "1", "b": None},
        "raw": bytearray(b"\0\1"),
        "pickled": {1: {2, 3}},
        "took": dt.timedelta(days=1, seconds=2),
        "bits": "0101",
        "words": "hello world",
        "code": "ab",
        "load": float("nan"),
        "at": dt.datetime(2026, 1, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=2))),
        "local": dt.datetime(2026, 1, 1, 12, 0, 0, 5),
        "token": uuid.UUID(int=7).hex.upper(),
        "day": "2026-03-01",
    }
    with hosts.session() as session, session.begin():
        session.add(Host(id=1, **values))
    with hosts.session() as session, session.begin():
        session.get(Host, 1).note = "x"
    with hosts.session() as session, session.begin():
        session.delete(session.get(Host, 1))
    created, changed, removed = hosts.sent()
    assert [event for event, _ in (created, changed, removed)] == [
        *("host.created", "host.changed", "host.removed")
    ]
    assert created[1] == changed[1] == removed[1]
    assert created[1] == {
        "ip": "10.0.0.1",
        "net": "10.0.0.0/8",
        "mac": "08:00:2b:01:02:03",
        "span": {"lower": 1, "upper": 6, "bounds": "[)"},
        "spans": [
            {"lower": 1, "upper": 2, "bounds": "[)"},
            {"lower": 5, "upper": 7, "bounds": "[)"},
        ],
        "during": created[1]["during"],
        "tags": ["a", "b"],
        "grid": [[1, 2], [3, 4]],
        "meta": {"a": [1, 2], "b": None},
        "pairs": {"a": "1", "b": None},
        "raw": "AAE=",
        "pickled": {"1": [2, 3]},
        "took": "P1DT2S",
        "bits": created[1]["bits"],
        "words": "'hello' 'world'",
        "code": "ab  ",
        "load": "NaN",
        "local": "2026-01-01T12:00:00.000005",
        "token": str(uuid.UUID(int=7)),
        "day": "2026-03-01",
    }
    assert created[1]["during"]["bounds"] == "[)"


def test_ranges_and_arrays_are_compared_as_they_are_stored(hosts, heard):
    with hosts.session() as session, session.begin():
        session.add(Host(id=2, span=postgresql.Range(1, 5), tags=["a"]))
    hosts.messages()
    del heard[:]
    with hosts.session() as session, session.begin():
        host = session.get(Host, 2)
        host.span, host.tags = postgresql.Range(1, 4, bounds="[]"), ("a",)
    assert heard == []
    with hosts.session() as session, session.begin():
        host = session.get(Host, 2)
        host.span, host.tags = postgresql.Range(0, 11, bounds="(]"), ["a", "x"]
    assert sorted(hosts.names()) == ["host.changed", "host.tagged", "host.wide"]


def test_times_are_the_same_moment_whatever_zone_they_were_given_in(hosts, heard):
    noon = dt.datetime(2026, 1, 1, 12, tzinfo=UTC)
    with hosts.session() as session, session.begin():
        session.add(Host(id=3, at=noon.astimezone(dt.timezone(dt.timedelta(hours=5)))))
    del heard[:]
    with hosts.session() as session, session.begin():
        session.get(Host, 3).at = noon
    assert heard == []


def test_an_imperatively_mapped_class_is_told_as_it_is_stored(tmp_path):
    own = registry()

    @webhook_model(on_create=ModelEvent("thing.created"), fields=("number", "double"))
    class Thing:
        def __init__(self, number):
            self.number = number

        @property
        def double(self):
            return self.number * 2

    table = Table("things", own.metadata, Column("id", Integer, primary_key=True))
    table.append_column(Column("number", Integer))
    own.map_imperatively(Thing, table)
    with world_of(f"sqlite:///{tmp_path / 'own.db'}", own.metadata) as world:
        with world.session() as session, session.begin():
            session.add(Thing("21"))
        assert world.sent() == [("thing.created", {"number": 21, "double": 42})]
