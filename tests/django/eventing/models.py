"""Models that send events, each for what it is like."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib.auth.models import User
from django.db import models

from thorn_core import ModelEvent, Q, webhook_model
from thorn_django.model_events import WebhookQuerySet


class Member(User):
    """A proxy of the user model."""

    class Meta:
        app_label = "auth"
        proxy = True


class Writer(models.Model):
    name = models.CharField(max_length=100)

    class Meta:
        app_label = "eventing"

    def __str__(self) -> str:
        return self.name


@webhook_model
class Label(models.Model):
    name = models.CharField(max_length=100)

    class Meta:
        app_label = "eventing"

    class webhooks:
        on_use = ModelEvent("label.used").dispatches_on_m2m_add("posts")

        def payload(self, label: Label) -> Any:
            return {"name": label.name}

    def __str__(self) -> str:
        return self.name


def unflagged() -> dict[str, Any]:
    return {"flag": 0}


@webhook_model
class Post(models.Model):
    writer = models.ForeignKey(
        Writer, null=True, blank=True, on_delete=models.CASCADE, related_name="posts"
    )
    title = models.CharField(max_length=200, default="")
    state = models.CharField(max_length=20, default="DRAFT")
    count = models.IntegerField(default=0)
    meta = models.JSONField(default=unflagged)
    file = models.FileField(blank=True)
    labels = models.ManyToManyField(Label, blank=True, related_name="posts")
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        app_label = "eventing"

    class webhooks:
        on_create = ModelEvent("post.created")
        on_change = ModelEvent("post.changed")
        on_delete = ModelEvent("post.deleted")
        on_publish = ModelEvent("post.published", state__now_eq="PUBLISHED").dispatches_on_change()
        on_popular = ModelEvent("post.popular", count__now_gt=100).dispatches_on_change()
        on_flag = ModelEvent("post.flagged", meta__flag__now_eq=1).dispatches_on_change()
        on_hand = ModelEvent("post.handed", writer__name__now_eq="Bob").dispatches_on_change()
        on_attach = ModelEvent("post.attached", file__now_ne="").dispatches_on_change()
        on_label = ModelEvent("post.labelled").dispatches_on_m2m_add("labels")
        on_unlabel = ModelEvent("post.unlabelled").dispatches_on_m2m_remove("labels")
        on_strip = ModelEvent("post.stripped").dispatches_on_m2m_clear("labels")

        def payload(self, post: Post) -> Any:
            return {"id": post.pk, "title": post.title, "state": post.state, "count": post.count}

    def __str__(self) -> str:
        return self.title

    def get_absolute_url(self) -> str:
        return f"/posts/{self.pk}/"


class Teaser(Post):
    """A proxy that has no events of its own."""

    class Meta:
        app_label = "eventing"
        proxy = True


@webhook_model
class Feature(Post):
    """A child with a table of its own, and events of its own."""

    stars = models.IntegerField(default=0)

    class Meta:
        app_label = "eventing"

    class webhooks:
        on_create = ModelEvent("feature.created")
        on_delete = ModelEvent("feature.deleted")
        on_star = ModelEvent("feature.starred", stars__now_gte=5).dispatches_on_change()
        on_label = ModelEvent("feature.labelled").dispatches_on_m2m_add("labels")


@webhook_model
class Sight(models.Model):
    sight_id = models.AutoField(primary_key=True)

    class Meta:
        app_label = "eventing"

    class webhooks:
        on_create = ModelEvent("sight.created")
        on_delete = ModelEvent("sight.deleted")

    def __str__(self) -> str:
        return str(self.pk)


@webhook_model
class Sound(models.Model):
    sound_id = models.AutoField(primary_key=True)

    class Meta:
        app_label = "eventing"

    class webhooks:
        on_create = ModelEvent("sound.created")
        on_delete = ModelEvent("sound.deleted")

    def __str__(self) -> str:
        return str(self.pk)


class Film(Sight, Sound):
    """A child of two, each with a table."""

    class Meta:
        app_label = "eventing"


class Comment(models.Model):
    """Sends nothing; goes with its post, and keeps its parent."""

    post = models.ForeignKey(Post, on_delete=models.CASCADE)
    text = models.CharField(max_length=100)

    class Meta:
        app_label = "eventing"

    def __str__(self) -> str:
        return self.text


@webhook_model
class Plain(models.Model):
    """Filters that name no former value."""

    name = models.CharField(max_length=50, default="")
    size = models.IntegerField(default=0)

    class Meta:
        app_label = "eventing"

    class webhooks:
        on_change = ModelEvent("plain.large", models.Q(size__gt=10) & ~models.Q(name=""))

    def __str__(self) -> str:
        return self.name


class Stamped(models.Model):
    """Abstract, and decorated."""

    name = models.CharField(max_length=50, default="")
    size = models.IntegerField(default=1)

    class Meta:
        app_label = "eventing"
        abstract = True

    class webhooks:
        fields = ("id", "name", "size")
        on_create = ModelEvent("stamped.created")
        on_rename = ModelEvent("stamped.renamed", name__now_startswith="New").dispatches_on_change()
        on_shout = ModelEvent("stamped.shouted", loud__now_eq=True).dispatches_on_change()

    def __str__(self) -> str:
        return self.name

    @property
    def loud(self) -> bool:
        return self.name.isupper()


webhook_model(Stamped)


class Memo(Stamped):
    class Meta:
        app_label = "eventing"


class Note(Stamped):
    class Meta:
        app_label = "eventing"


@webhook_model
class Ticket(models.Model):
    """A primary key that the program gives."""

    code = models.CharField(max_length=20, primary_key=True)
    state = models.CharField(max_length=20, default="OPEN")

    class Meta:
        app_label = "eventing"

    class webhooks:
        on_create = ModelEvent("ticket.created")
        on_close = ModelEvent("ticket.closed", state__now_eq="CLOSED").dispatches_on_change()

    def __str__(self) -> str:
        return self.code


@webhook_model
class Token(models.Model):
    """A primary key with a default."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    state = models.CharField(max_length=20, default="NEW")
    note = models.CharField(max_length=20, default="")

    class Meta:
        app_label = "eventing"

    class webhooks:
        on_create = ModelEvent("token.created")
        on_use = ModelEvent("token.used", state__now_eq="USED").dispatches_on_change()

    def __str__(self) -> str:
        return str(self.id)


@webhook_model
class Room(models.Model):
    """Columns that the database works out."""

    name = models.CharField(max_length=50, db_default="room")
    width = models.IntegerField(default=1)
    height = models.IntegerField(default=1)
    area = models.GeneratedField(
        expression=models.F("width") * models.F("height"),
        output_field=models.IntegerField(),
        db_persist=True,
    )

    class Meta:
        app_label = "eventing"

    class webhooks:
        fields = ("name", "area")
        on_create = ModelEvent("room.created")
        on_change = ModelEvent("room.changed")
        on_grow = ModelEvent("room.large", area__now_gt=100).dispatches_on_change()

    def __str__(self) -> str:
        return self.name


@webhook_model
class Page(models.Model):
    """Statements send events too."""

    slug = models.CharField(max_length=50, unique=True, null=True)
    site = models.CharField(max_length=50, default="a")
    number = models.IntegerField(null=True)
    state = models.CharField(max_length=20, default="DRAFT")
    hits = models.IntegerField(default=0)
    writer = models.ForeignKey(
        Writer, null=True, blank=True, on_delete=models.SET_NULL, related_name="pages"
    )

    objects = WebhookQuerySet.as_manager()

    class Meta:
        app_label = "eventing"
        base_manager_name = "objects"
        constraints = (models.UniqueConstraint(fields=["site", "number"], name="page_number"),)

    class webhooks:
        bulk = True
        on_create = ModelEvent("page.created")
        on_change = ModelEvent("page.changed")
        on_delete = ModelEvent("page.deleted")
        on_publish = ModelEvent("page.published", state__now_eq="PUBLISHED").dispatches_on_change()

        def payload(self, page: Page) -> Any:
            return {"slug": page.slug, "state": page.state, "hits": page.hits}

    def __str__(self) -> str:
        return self.slug or ""


@webhook_model
class Person(models.Model):
    """Relationships with itself, one both ways and one not."""

    name = models.CharField(max_length=50)
    friends = models.ManyToManyField("self")
    idols = models.ManyToManyField("self", symmetrical=False, related_name="fans")

    class Meta:
        app_label = "eventing"

    class webhooks:
        on_befriend = ModelEvent("person.befriended").dispatches_on_m2m_add("friends")
        on_part = ModelEvent("person.parted").dispatches_on_m2m_remove("friends")
        on_admire = ModelEvent("person.admired").dispatches_on_m2m_add("idols")
        on_fame = ModelEvent("person.famed").dispatches_on_m2m_add("fans")

        def payload(self, person: Person) -> Any:
            return {"name": person.name}

    def __str__(self) -> str:
        return self.name


class Temperature:
    """What is in no form that JSON has."""

    def __init__(self, kelvin: float) -> None:
        self.kelvin = kelvin


class TemperatureField(models.FloatField):
    def from_db_value(self, value: Any, *_: Any) -> Any:
        return None if value is None else Temperature(value)

    def get_prep_value(self, value: Any) -> Any:
        return value.kelvin if isinstance(value, Temperature) else value

    def value_to_string(self, obj: Any) -> str:
        return f"{self.value_from_object(obj).kelvin} K"


@webhook_model
class Parcel(models.Model):
    """Columns of every kind, and a name that is only checked at the commit."""

    data = models.BinaryField(default=bytes)
    file = models.FileField(blank=True)
    time = models.DurationField(null=True)
    meta = models.JSONField(default=dict)
    warmth = TemperatureField(null=True)
    post = models.ForeignKey(Post, null=True, on_delete=models.DO_NOTHING)

    class Meta:
        app_label = "eventing"

    class webhooks:
        fields = ("id", "data", "file", "time", "meta", "warmth", "post_id")
        on_create = ModelEvent("parcel.created")
        on_change = ModelEvent("parcel.changed")

    def __str__(self) -> str:
        return str(self.pk)


class Team(models.Model):
    """Reached by an explicit table in between, and by something else than its primary key."""

    code = models.CharField(max_length=20, unique=True)

    class Meta:
        app_label = "eventing"

    def __str__(self) -> str:
        return self.code


@webhook_model
class Player(models.Model):
    name = models.CharField(max_length=50)
    teams = models.ManyToManyField(Team, through="Membership", related_name="players")

    class Meta:
        app_label = "eventing"

    class webhooks:
        on_join = ModelEvent("player.joined").dispatches_on_m2m_add("teams")
        on_leave = ModelEvent("player.left").dispatches_on_m2m_remove("teams")

        def payload(self, player: Player) -> Any:
            return {"name": player.name}

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    player = models.ForeignKey(Player, on_delete=models.CASCADE)
    team = models.ForeignKey(Team, to_field="code", on_delete=models.CASCADE)
    since = models.IntegerField(default=0)

    class Meta:
        app_label = "eventing"

    def __str__(self) -> str:
        return f"{self.player} in {self.team_id}"


@webhook_model
class Eager(models.Model):
    """Events that don't wait for the commit, and events whose making fails."""

    name = models.CharField(max_length=50, default="")

    class Meta:
        app_label = "eventing"

    class webhooks:
        on_create = ModelEvent("eager.created", signal_honors_transaction=False)
        on_change = ModelEvent("eager.changed", ~Q(name__eq="x"), signal_honors_transaction=False)

    def __str__(self) -> str:
        return self.name


@webhook_model
class Fragile(models.Model):
    """A payload method that fails as it is told to."""

    name = models.CharField(max_length=50, default="")

    class Meta:
        app_label = "eventing"

    class webhooks:
        on_create = ModelEvent("fragile.created")

        def payload(self, fragile: Fragile) -> Any:
            return fragile.webhook_data()

    def __str__(self) -> str:
        return self.name

    def webhook_data(self) -> Any:
        if self.name == "value":
            raise ValueError("no payload")
        if self.name == "database":
            Fragile.objects.create(pk=self.pk, name="twice")
        return {"name": self.name}


@webhook_model
class Hooked:
    """A class that is none of Django's, and decorated."""

    class webhooks:
        on_create = ModelEvent("hooked.created")


class Thing(Hooked, models.Model):
    """A model that inherits its events from it."""

    name = models.CharField(max_length=50, default="")

    class Meta:
        app_label = "eventing"

    def __str__(self) -> str:
        return self.name


class ForeignTags(models.ManyToManyField):
    """A many-to-many field of somebody else's, as django-taggit's is."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"to": "eventing.Writer", "related_name": "items", **options})

    def contribute_to_related_class(self, cls: Any, related: Any) -> None:
        super().contribute_to_related_class(cls, related)
        del self.m2m_field_name


@webhook_model
class Item(models.Model):
    """A field that only looks like Django's, beside one of Django's."""

    tags = ForeignTags()
    labels = models.ManyToManyField(Label, related_name="items")

    class Meta:
        app_label = "eventing"

    class webhooks:
        on_create = ModelEvent("item.created")
        on_label = ModelEvent("item.labelled").dispatches_on_m2m_add("labels")

        def payload(self, item: Item) -> Any:
            return {"id": item.pk}

    def __str__(self) -> str:
        return str(self.pk)


@webhook_model
class Entry(models.Model):
    """Columns that programs assign in other forms than the database gives."""

    status = models.IntegerField(default=0)
    price = models.DecimalField(max_digits=10, decimal_places=2, default=0)
    at = models.DateTimeField(null=True)
    day = models.DateField(null=True)
    lasted = models.DurationField(null=True)
    key = models.UUIDField(null=True)
    done = models.BooleanField(default=False)
    meta = models.JSONField(default=dict)
    data = models.BinaryField(default=bytes)
    address = models.GenericIPAddressField(null=True)
    kind = models.CharField(max_length=20, default="")
    post = models.ForeignKey(Post, null=True, on_delete=models.SET_NULL, db_constraint=False)

    class Meta:
        app_label = "eventing"

    class webhooks:
        fields = (
            *("status", "price", "at", "day", "lasted", "key", "done", "meta", "data"),
            *("address", "kind", "post"),
        )
        on_create = ModelEvent("entry.created")
        on_change = ModelEvent("entry.changed")
        on_delete = ModelEvent("entry.deleted")
        on_pay = ModelEvent("entry.paid", status__now_eq="2").dispatches_on_change()
        on_grow = ModelEvent("entry.large", price__now_gte=100).dispatches_on_change()
        on_time = ModelEvent("entry.late", at__now_gte="2026-01-01T00:00Z").dispatches_on_change()

    def __str__(self) -> str:
        return str(self.pk)


class Box:
    """A value that is changed in place, and knows no equality."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items


class BoxField(models.TextField):
    def from_db_value(self, value: Any, *_: Any) -> Any:
        return None if value is None else Box(value.split())

    def get_prep_value(self, value: Any) -> Any:
        return " ".join(value.items) if isinstance(value, Box) else value


class Amount:
    def __init__(self, number: int, unit: str) -> None:
        self.number, self.unit = number, unit

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Amount) and (self.number, self.unit) == (other.number, other.unit)

    __hash__ = None  # type: ignore[assignment]


class AmountDescriptor:
    """Makes an Amount of two columns, as django-money does."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        value = instance.__dict__[self.name]
        return value if isinstance(value, Amount) else Amount(value, instance.unit)

    def __set__(self, instance: Any, value: Any) -> None:
        if isinstance(value, Amount):
            instance.unit = value.unit
        instance.__dict__[self.name] = value


class AmountField(models.IntegerField):
    def contribute_to_class(self, cls: Any, name: str, **options: Any) -> None:
        super().contribute_to_class(cls, name, **options)
        setattr(cls, name, AmountDescriptor(name))

    def get_prep_value(self, value: Any) -> Any:
        return value.number if isinstance(value, Amount) else value


@webhook_model
class Crate(models.Model):
    """Fields of somebody else's, and a value that is set while loading."""

    box = BoxField(default="")
    amount = AmountField(default=0)
    unit = models.CharField(max_length=5, default="kg")
    label = models.CharField(max_length=20, null=True)

    class Meta:
        app_label = "eventing"

    class webhooks:
        on_create = ModelEvent("crate.created")
        on_fill = ModelEvent("crate.filled", box__items__now_contains="c").dispatches_on_change()
        on_weigh = ModelEvent("crate.heavy", amount__number__now_gt=5).dispatches_on_change()
        on_unit = ModelEvent("crate.unit", amount__unit__now_eq="t").dispatches_on_change()
        on_label = ModelEvent("crate.labelled", label__now_eq="none").dispatches_on_change()

        def payload(self, crate: Crate) -> Any:
            return {"items": crate.box.items, "amount": crate.amount.number}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "label" in self.__dict__ and self.label is None:
            self.label = "none"

    def __str__(self) -> str:
        return str(self.pk)


@webhook_model
class Org(models.Model):
    """Another model's foreign key takes the name of its events."""

    class Meta:
        app_label = "eventing"

    class webhooks:
        on_create = ModelEvent("org.created")

    def __str__(self) -> str:
        return str(self.pk)


class Endpoint(models.Model):
    org = models.ForeignKey(Org, on_delete=models.CASCADE, related_name="webhooks")

    class Meta:
        app_label = "eventing"

    def __str__(self) -> str:
        return str(self.pk)
