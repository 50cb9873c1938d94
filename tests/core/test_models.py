"""Models that send events."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace

import attrs
import pytest

from thorn_core import (
    OPERATOR,
    ConfigurationError,
    Event,
    ModelEvent,
    Q,
    Settings,
    StoreError,
    Thorn,
    hookimpl,
    model_reverser,
    signals,
    webhook_model,
)
from thorn_core.models import class_names
from thorn_core.testing import capture


@pytest.fixture
def app():
    with Thorn(dispatcher="outbox") as app:
        yield app.make_default()


@pytest.fixture
def sent(app):
    with capture(app) as messages:
        yield messages


@webhook_model
class Article:
    class webhooks:
        sender_field = "author"
        on_create = ModelEvent("article.created")
        on_change = ModelEvent("article.changed")
        on_delete = ModelEvent("article.removed")
        on_publish = ModelEvent("article.published", state__now_eq="PUBLISHED")
        on_publish.dispatches_on_change()
        on_tag = ModelEvent("article.tagged").dispatches_on_m2m_add("tags")
        on_untag = ModelEvent("article.untagged").dispatches_on_m2m_remove("tags")
        on_clear = ModelEvent("article.cleared").dispatches_on_m2m_clear("tags")

        def payload(self, article):
            return {"title": article.title}

        def headers(self, article):
            return {"X-Title": article.title}

    def __init__(self, title="Hello", author="42"):
        self.title, self.author, self.state = title, author, "DRAFT"

    def get_absolute_url(self):
        return f"https://example.com/{self.title}"


def names(sent):
    return [message.event for message in sent]


def test_a_model_sends_what_it_declares(app, sent):
    article = Article()
    signals.model_created.send(Article, instance=article)
    article.state = "PUBLISHED"
    signals.model_changed.send(Article, instance=article, previous={"state": "DRAFT"})
    signals.model_deleted.send(Article, instance=article)
    assert names(sent) == [
        "article.created",
        "article.changed",
        "article.published",
        "article.removed",
    ]
    (first, *_) = sent
    assert first.payload == {"title": "Hello"}
    assert first.headers == {"X-Title": "Hello"}
    assert first.sender == "42"
    assert first.ref == "https://example.com/Hello"


def test_a_now_filter_asks_what_was_before(app, sent):
    article = Article()
    article.state = "PUBLISHED"
    signals.model_changed.send(Article, instance=article, previous={"title": "Old"})
    signals.model_changed.send(Article, instance=article)
    assert names(sent) == ["article.changed", "article.changed"]


def test_many_to_many_changes_say_of_which_field_and_what(app, sent):
    article, tag = Article(), SimpleNamespace(pk=7)
    signals.model_m2m_added.send(Article, instance=article, field="tags", related=[tag, "x"])
    signals.model_m2m_removed.send(Article, instance=article, field="tags", related=[tag])
    signals.model_m2m_cleared.send(Article, instance=article, field="tags")
    signals.model_m2m_added.send(Article, instance=article, field="readers", related=[tag])
    assert names(sent) == ["article.tagged", "article.untagged", "article.cleared"]
    assert sent[0].context == {"field": "tags", "related": ["7", "x"]}


def test_subclasses_send_the_events_of_their_parents(app, sent):
    class Essay(Article):
        pass

    signals.model_created.send(Essay, instance=Essay())
    assert names(sent) == ["article.created"]


def test_a_decorated_subclass_sends_both(app, sent):
    @webhook_model(on_create=ModelEvent("essay.created"))
    class Essay(Article):
        pass

    signals.model_created.send(Essay, instance=Essay())
    assert names(sent) == ["essay.created", "article.created"]


def test_options_can_be_given_to_the_decorator(app, sent):
    @webhook_model(
        on_create=ModelEvent("user.created"),
        sender_field="account.owner",
        reverse=lambda user: f"https://example.com/users/{user.name}",
    )
    class User:
        name = "ada"
        account = SimpleNamespace(owner=SimpleNamespace(pk=3, __str__=lambda self: "x"))

        def webhook_payload(self):
            return {"name": self.name}

        def webhook_headers(self):
            return {"X-Name": self.name}

    signals.model_created.send(User, instance=User())
    (message,) = sent
    assert message.payload == {"name": "ada"}
    assert message.headers == {"X-Name": "ada"}
    assert (message.sender, message.ref) == ("3", "https://example.com/users/ada")


def test_without_fields_or_a_payload_method_nothing_of_an_instance_is_sent(app, sent):
    @webhook_model(on_create=ModelEvent("plain.created"))
    class Plain:
        def __init__(self):
            self.name, self.password = "x", "geheim"

    signals.model_created.send(Plain, instance=Plain())
    (message,) = sent
    assert (message.payload, message.ref, message.sender) == ({}, None, None)


def test_fields_choose_what_is_sent(app, sent):
    @webhook_model(
        on_create=ModelEvent("value.created"), fields=("name", "author.name", "editor.name")
    )
    @attrs.frozen
    class Value:
        name: str = "z"
        author: object = SimpleNamespace(name="Ada")
        editor: object = None
        note: str = "not chosen"

    signals.model_created.send(Value, instance=Value())
    assert sent[0].payload == {"name": "z", "author.name": "Ada", "editor.name": None}


def test_an_events_own_sender_and_reverser_win(app, sent):
    @webhook_model
    class Thing:
        class webhooks:
            sender_field = "a"
            on_create = ModelEvent(
                "thing.created", sender_field="b__c", reverse=lambda thing: "https://e.com/"
            )

            def payload(self, thing):
                return None

        a, b = "1", SimpleNamespace(c="2")

    signals.model_created.send(Thing, instance=Thing())
    assert (sent[0].sender, sent[0].ref) == ("2", "https://e.com/")


def test_a_name_may_hold_fields_of_the_instance(app, sent):
    @webhook_model
    class User:
        class webhooks:
            on_create = ModelEvent("user.{.name}.created", subscribers=())

            def payload(self, user):
                return {}

        name = "ada.lovelace@example.com"

    signals.model_created.send(User, instance=User())
    assert names(sent) == ["user.ada_lovelace_example_com.created"]
    assert sent[0].declared == "user.{.name}.created"


def test_an_event_can_be_sent_by_hand(app, sent):
    article = Article()
    event = Article.webhooks.events["on_publish"]
    event.send_from_instance(article)
    event.send(instance=article, data={"x": 1}, sender="7", headers={"x-title": "By hand"})
    event.send({"y": 2})
    assert [m.payload for m in sent] == [{"title": "Hello"}, {"x": 1}, {"y": 2}]
    assert sent[1].sender == "7"
    assert sent[1].headers == {"x-title": "By hand"}


@pytest.mark.parametrize(
    "fault",
    [
        {"payload": lambda self, x: 1 / 0},
        {"payload": lambda self, x: {"n": float("inf")}},
        {"headers": lambda self, x: {"Host": "x"}},
        {"sender_field": "missing"},
    ],
)
def test_what_fails_is_logged_and_breaks_no_save(app, sent, caplog, fault):
    for propagate in (False, True):
        event = ModelEvent("thing.created", propagate_errors=propagate)
        declaration = type("webhooks", (), {"on_create": event, **fault})
        thing = webhook_model(type("Thing", (), {"webhooks": declaration}))
        if propagate:
            with pytest.raises((ArithmeticError, ValueError, AttributeError)):
                signals.model_created.send(thing, instance=thing())
        else:
            signals.model_created.send(thing, instance=thing())
            assert "could not be sent for a Thing" in caplog.text
    assert sent == []
    assert app.stats().unsent == {"thing.created": 1}


def test_a_failing_filter_breaks_no_save(app, sent, caplog):
    @webhook_model(on_create=ModelEvent("thing.created", missing__eq=1))
    class Thing:
        pass

    signals.model_created.send(Thing, instance=Thing())
    assert "missing" in caplog.text


def test_without_an_app_saving_goes_on(caplog):
    signals.model_created.send(Article, instance=Article())
    assert "there is no app yet" in caplog.text


def test_an_event_may_be_sent_by_hand_only(app, sent):
    @webhook_model
    class Thing:
        class webhooks:
            on_charge = ModelEvent("thing.charged")

    for signal in (signals.model_created, signals.model_changed, signals.model_deleted):
        signal.send(Thing, instance=Thing())
    assert names(sent) == []
    Thing.webhooks.events["on_charge"].send_from_instance(Thing())
    assert names(sent) == ["thing.charged"]


@pytest.mark.parametrize("name", ["on_chagne", "on_created", "on_craete", "onchange"])
def test_a_misspelt_trigger_is_refused(name):
    with pytest.raises(ConfigurationError, match="did you mean 'on_c"):
        webhook_model(**{name: ModelEvent("thing.done")})(type("Thing", (), {}))


@pytest.mark.parametrize("value", ["thing.created", Event("thing.created")])
def test_what_is_no_event_is_refused(value):
    with pytest.raises(ConfigurationError, match="not a ModelEvent"):
        webhook_model(on_create=value)(type("Thing", (), {}))


def test_an_event_belongs_to_one_model():
    event = ModelEvent("thing.created")
    with pytest.raises(ConfigurationError, match="belongs to no model"):
        event.webhooks  # noqa: B018
    thing = webhook_model(on_create=event)(type("Thing", (), {}))
    with pytest.raises(ConfigurationError, match="already belongs to Thing"):
        webhook_model(on_create=event)(type("Other", (), {}))
    assert repr(thing.webhooks) == "<webhooks of Thing: on_create>"
    assert event.webhooks.model is thing


def test_a_condition_without_an_operator_is_refused():
    with pytest.raises(ValueError, match="did you mean 'state__eq'"):
        ModelEvent("article.published", state="PUBLISHED")


def test_conditions_may_be_qs():
    event = ModelEvent("a.b", Q(x__eq=1) | Q(x__eq=2), y__eq=3)
    assert event.filter(SimpleNamespace(x=2, y=3))
    assert not event.filter(SimpleNamespace(x=2, y=4))
    assert not event.filter(SimpleNamespace(x=3, y=3))


class Reversing:
    @hookimpl
    def thorn_reverse(self, view, args, kwargs):
        if view != "article:detail":
            return None
        return f"https://example.com/{'/'.join(map(str, args))}?{kwargs}"


def test_a_model_reverser_asks_the_web_adapter():
    reverse = model_reverser("article:detail", "category.name", uuid="uuid")
    instance = SimpleNamespace(category=SimpleNamespace(name="news"), uuid=5)
    with Thorn(plugins=[Reversing()]):
        assert reverse(instance) == "https://example.com/news?{'uuid': 5}"
        with pytest.raises(ConfigurationError, match="no URL for view 'other'"):
            model_reverser("other")(instance)


def test_a_model_reverser_uses_the_events_app():
    @webhook_model
    class Thing:
        class webhooks:
            reverse = model_reverser("article:detail", "name")

            def payload(self, thing):
                return {}

        name = "x"

    with Thorn(), Thorn(plugins=[Reversing()]) as app, capture(app) as sent:
        event = ModelEvent("thing.made", app=app).dispatches_on_create()
        event.bind(Thing.webhooks)
        event.send_from_instance(Thing())
        assert sent[0].ref == "https://example.com/x?{}"


class Unit:
    """A unit of work of the test's."""

    open = True

    def __init__(self):
        self.handle, self.callbacks = self, []

    def on_commit(self, callback):
        self.callbacks.append(callback)

    async def run(self, function):
        return function()

    def commit(self):
        for callback in self.callbacks:
            callback()


def test_a_signals_transaction_is_honoured(app, sent):
    unit = Unit()
    signals.model_created.send(Article, instance=Article(), within=unit)
    assert sent == []
    unit.commit()
    assert names(sent) == ["article.created"]


@pytest.mark.parametrize("by_setting", [True, False])
def test_a_signals_transaction_can_be_ignored(by_setting):
    event = ModelEvent("thing.created", signal_honors_transaction=None if by_setting else False)
    thing = webhook_model(on_create=event)(type("Thing", (), {}))
    settings = Settings(signal_honors_transaction=not by_setting)
    with Thorn(settings=settings), capture() as sent:
        signals.model_created.send(thing, instance=thing(), within=Unit())
        assert names(sent) == ["thing.created"]


class Watching:
    def __init__(self):
        self.watched = []

    @hookimpl
    def thorn_model_adapter(self, model):
        return self if model.__name__ == "Watched" else None

    def watch(self, webhooks):
        self.watched.append((webhooks.model.__name__, sorted(webhooks.previous_fields)))

    def names(self, model):
        return class_names(model)

    def values(self, instance, fields):
        return {"column": 1}

    def to_python(self, model, field, value):
        return value


def test_an_orm_adapter_watches_models_declared_before_and_after_the_app():
    def declare():
        event = ModelEvent("watched.changed", state__now_eq=1, other__eq=2)
        options = {"on_change": event, "fields": ("column",)}
        return webhook_model(**options)(type("Watched", (), {}))

    gc.collect()
    before, adapter = declare(), Watching()
    with Thorn(plugins=[adapter]), capture() as sent:
        after = declare()
        assert adapter.watched == [("Watched", ["state"]), ("Watched", ["state"])]
        instance = after()
        instance.state, instance.other = 1, 2
        signals.model_changed.send(after, instance=instance, previous={"state": 0})
        assert [m.payload for m in sent] == [{"column": 1}]
    assert before is not after


def test_a_decorated_class_can_go():
    thing = weakref.ref(webhook_model(on_create=ModelEvent("thing.created"))(type("Thing", (), {})))
    gc.collect()
    assert thing() is None


def test_what_the_store_can_not_keep_is_raised(app, monkeypatch):
    """Else what is done goes on without anybody being told, ever."""

    @webhook_model
    class Thing:
        class webhooks:
            on_create = ModelEvent("thing.created", app=app)

    def fail(messages, *, within):
        raise StoreError("the database is away")

    monkeypatch.setattr(app.store, "publish", fail)
    with pytest.raises(StoreError, match="away"):
        signals.model_created.send(Thing, instance=Thing())


# -- whose events they are


def reached(app, message):
    """The owners whose subscriptions a message is for."""
    return [s.owner for s in app.subscribers(message.event, sender=message.sender)]


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize(
    "author",
    [
        None,
        "",
        SimpleNamespace(company=None),
        SimpleNamespace(company=SimpleNamespace(is_anonymous=True)),
        SimpleNamespace(company=SimpleNamespace(is_anonymous=True, pk=None)),
    ],
)
def test_what_is_nobodys_reaches_the_operator_only(app, sent, author, own):
    path = "author" if isinstance(author, str | None) else "author__company"
    field = {"sender_field": path}

    @webhook_model(**({} if own else field))
    class Draft:
        class webhooks:
            on_create = ModelEvent("draft.created", **(field if own else {}))

        def __init__(self):
            self.author = author

    for owner in ("ada", "bob", None):
        app.subscribe("draft.*", "https://example.com/", owner=owner)
    signals.model_created.send(Draft, instance=Draft())
    (message,) = sent
    assert reached(app, message) == [None]
    assert reached(app, attrs.evolve(message, sender=None)) == ["ada", "bob", None]


def test_a_sender_may_be_required(caplog):
    @webhook_model
    class Draft:
        class webhooks:
            sender_field = "author"
            on_create = ModelEvent("draft.created")
            on_note = ModelEvent("draft.noted", propagate_errors=True)

        author = None

    with Thorn(settings=Settings(sender_required=True)) as app, capture(app) as sent:
        app.make_default()
        with pytest.raises(ConfigurationError, match="paid has no sender"):
            app.send("invoice.paid")
        with pytest.raises(ConfigurationError, match="sender_required"):
            Draft.webhooks.events["on_note"].send_from_instance(Draft())
        signals.model_created.send(Draft, instance=Draft())
        assert "draft.created has no sender" in caplog.text
        app.send("invoice.paid", sender=7)
        app.send_test(app.subscribe("*", "https://example.com/").id)
    assert [(m.event, m.sender) for m in sent] == [("invoice.paid", "7"), ("thorn.test", None)]


# -- what is misspelt


class Misspelt:
    """What the names of the tests below are looked up in."""

    __slots__ = ("author", "state", "tags", "title")
    title: str


class Assigned:
    def __init__(self):
        self.title, self.state, self.author, self.tags = "", "", "", []

    def shout(self):
        return self.title.upper()


@pytest.mark.parametrize("base", [Misspelt, Assigned])
@pytest.mark.parametrize(
    ("declared", "near"),
    [
        ({"on_change": ModelEvent("misspelt.thing", stat__eq=1)}, "state"),
        ({"on_change": ModelEvent("misspelt.thing", staet__now_eq=1)}, "state"),
        ({"on_change": ModelEvent("misspelt.thing", ~Q(title__eq="") | Q(tilte__eq=""))}, "title"),
        ({"on_change": ModelEvent("misspelt.{.titel}")}, "title"),
        ({"on_change": ModelEvent("misspelt.thing", sender_field="auhtor")}, "author"),
        (
            {"on_change": ModelEvent("misspelt.thing", reverse=model_reverser("v", id="titl"))},
            "title",
        ),
        ({"on_change": ModelEvent("misspelt.thing"), "sender_field": "autor.company"}, "author"),
        ({"on_change": ModelEvent("misspelt.thing"), "fields": ("title", "State")}, "state"),
        ({"on_tag": ModelEvent("misspelt.thing").dispatches_on_m2m_add("tgas")}, "tags"),
    ],
)
def test_a_misspelt_name_of_the_model_is_refused_when_it_is_declared(base, declared, near):
    with pytest.raises(ConfigurationError, match=f"did you mean '{near}'"):
        webhook_model(**declared)(type("Thing", (base,), {"__slots__": ()}))


def test_what_a_value_hasnt_is_refused_where_its_class_is_known():
    with pytest.raises(ConfigurationError, match="str has no 'lenght'"):
        webhook_model(on_change=ModelEvent("misspelt.thing", title__lenght__gt=3))(
            type("Thing", (Misspelt,), {})
        )


def test_a_method_is_no_field():
    with pytest.raises(ConfigurationError, match="shout is a method"):
        webhook_model(on_change=ModelEvent("misspelt.thing", shout__eq="X"))(
            type("Thing", (Assigned,), {})
        )


def test_what_only_instances_have_is_left_to_them(app, sent):
    @webhook_model(on_change=ModelEvent("misspelt.thing", status__eq="x", anything__at__eq=1))
    class Thing(Assigned):
        pass

    thing = Thing()
    thing.status, thing.anything = "x", SimpleNamespace(at=1)
    signals.model_changed.send(Thing, instance=thing)
    assert names(sent) == ["misspelt.thing"]


@pytest.mark.parametrize(
    ("option", "near"),
    [
        ("senderfield", "sender_field"),
        ("sender", "sender_field"),
        ("Sender_Field", "sender_field"),
        ("field", "fields"),
        ("revers", "reverse"),
        ("paylod", "payload"),
        ("get_payload", "payload"),
    ],
)
def test_a_misspelt_option_of_the_webhooks_is_refused(option, near):
    inner = type("webhooks", (), {option: "author", "on_create": ModelEvent("misspelt.thing")})
    with pytest.raises(ConfigurationError, match=f"did you mean '{near}'"):
        webhook_model(type("Thing", (), {"webhooks": inner}))


def test_helpers_of_a_payload_method_are_nobodys_business(app, sent):
    @webhook_model
    class Thing:
        class webhooks:
            on_create = ModelEvent("misspelt.thing")
            _prefix = "x"

            def payload(self, thing):
                return self.shortened("long")

            def shortened(self, text):
                return self._prefix + text[:1]

    signals.model_created.send(Thing, instance=Thing())
    assert sent[0].payload == "xl"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"timeuot": 3}, "did you mean 'timeout'"),
        ({"retrymax": 3}, "did you mean 'retry_max'"),
        ({"retry__max": 3}, "did you mean 'retry_max'"),
        ({"senderfield": "author"}, "did you mean 'sender_field'"),
        ({"recipient_validator": []}, "did you mean 'recipient_validators'"),
        ({"fields": ("title",)}, "class webhooks"),
        ({"signal_dispatcher": None}, "thorn_core.signals"),
        ({"state": "x"}, "did you mean 'state__eq'"),
    ],
)
def test_a_misspelt_option_of_an_event_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        ModelEvent("misspelt.thing", **options)


@pytest.mark.parametrize("path", ["", "author.", "author company", 3, ("author",)])
def test_a_sender_field_is_a_path(path):
    for declare in (
        lambda: ModelEvent("misspelt.thing", sender_field=path),
        lambda: webhook_model(on_create=ModelEvent("misspelt.thing"), sender_field=path)(
            type("Thing", (), {})
        ),
    ):
        with pytest.raises(ConfigurationError, match="sender_field is"):
            declare()


@pytest.mark.parametrize("fields", ["title", 3, ("",), (None,)])
def test_fields_are_a_tuple_of_names(fields):
    with pytest.raises(ConfigurationError, match="fields is"):
        webhook_model(on_create=ModelEvent("misspelt.thing"), fields=fields)(type("Thing", (), {}))


@pytest.mark.parametrize("field", ["password", "author.password_hash", "oldPassword", "hashed_pw"])
def test_a_password_is_never_chosen_by_accident(field):
    with pytest.raises(ConfigurationError, match="is secret; remove it"):
        webhook_model(on_create=ModelEvent("misspelt.thing"), fields=("title", field))(
            type("Thing", (), {})
        )


def test_fields_and_a_payload_method_are_one_too_many():
    with pytest.raises(ConfigurationError, match="keep one"):

        @webhook_model
        class Thing:
            class webhooks:
                fields = ("title",)
                on_create = ModelEvent("misspelt.thing")

                def payload(self, thing):
                    return {}


# -- Thorn 1.x


@pytest.mark.parametrize(
    ("base", "name"),
    [
        (ModelEvent, "should_dispatch"),
        (ModelEvent, "to_message"),
        (ModelEvent, "_get_name"),
        (ModelEvent, "send_from_instance"),
        (ModelEvent, "prepare_recipient_validators"),
        (Event, "prepare_recipient_validators"),
        (Event, "prepare_payload"),
        (Event, "get_hmac_signer"),
    ],
)
def test_what_thorn_1_let_subclasses_override_is_refused(base, name):
    with pytest.raises(ConfigurationError, match=f"Mine.{name} is from Thorn 1.x.*; use "):
        type("Mine", (base,), {name: lambda self, *args: False})


def test_an_app_of_thorn_1_is_refused():
    with pytest.raises(ConfigurationError, match="settings=Settings"):

        class Mine(Thorn):
            settings_cls = "mine:Settings"


def test_an_attribute_that_would_loosen_nothing_any_more_is_refused():
    with pytest.raises(ConfigurationError, match="recipient_validators=, given to the event"):

        class Mine(Event):
            recipient_validators = ()


def test_a_subclass_with_methods_of_its_own_is_fine(app, sent):
    class Mine(Event):
        def twice(self, data):
            return [self.send(data) for _ in range(2)]

    Mine("thing.done").twice({})
    assert names(sent) == ["thing.done"] * 2


def test_an_instance_may_be_sent_as_thorn_1_did(app, sent):
    event = Article.webhooks.events["on_publish"]
    event.send(Article("Hello", author="7"))
    assert (sent[0].payload, sent[0].sender) == ({"title": "Hello"}, "7")


def test_a_message_can_be_sent_to_operators_only_by_hand(app, sent):
    for owner in ("ada", None):
        app.subscribe("invoice.*", "https://example.com/", owner=owner)
    app.send("invoice.paid", sender=OPERATOR)
    assert reached(app, sent[0]) == [None]


class TestWhoTakesTheName:
    def test_events_are_sent_although_something_takes_the_place_of_webhooks_later(self):
        @webhook_model(on_create=ModelEvent("org.created"))
        class Org:
            pass

        Org.webhooks = property(lambda self: [])
        with Thorn(dispatcher="outbox").make_default() as app:
            signals.model_created.send(Org, instance=Org())
            assert [message.event for message in app.messages_to_route()] == ["org.created"]

    def test_what_has_taken_the_place_of_the_class_of_events_is_named(self):
        with pytest.raises(ConfigurationError, match=r"Org\.webhooks is a property.*related_name"):

            @webhook_model
            class Org:
                webhooks = property(lambda self: [])
