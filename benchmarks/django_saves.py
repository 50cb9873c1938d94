"""Saves of a Django model with events: `python benchmarks/django_saves.py NUMBER ROUNDS`.

Prints the cost of new and changed instances as JSON: the medians of the peer, of the subject and
of their ratios.
"""

from __future__ import annotations

import gc
import json
import sys
import time
import uuid
from collections.abc import Callable

import django
from common import alternate
from django.core.management import call_command
from django.db import connection, models, transaction

from thorn_core import ModelEvent, webhook_model
from thorn_core.codecs import dump_json

django.setup()

# Saves per transaction, as in a typical request handler.
PER_TRANSACTION = 10
VALUES = {"title": "Hello", "state": "DRAFT", "body": "x" * 300}
DATA = dump_json({"id": 1000, **VALUES})


class Columns(models.Model):
    """Columns of both models."""

    title = models.CharField(max_length=200)
    state = models.CharField(max_length=20)
    body = models.TextField()

    class Meta:
        abstract = True
        app_label = "bench"

    def __str__(self) -> str:
        return self.title


@webhook_model
class Article(Columns):
    """A model with three events."""

    class webhooks:  # noqa: N801 - the name that webhook_model looks for
        fields = ("id", *VALUES)
        on_create = ModelEvent("article.created")
        on_change = ModelEvent("article.changed")
        on_publish = ModelEvent(
            "article.published", state__now_eq="PUBLISHED"
        ).dispatches_on_change()


class Plain(Columns):
    """A model without events."""


class LikeSized(models.Model):
    """Rows of the size of messages, with a similar index."""

    id = models.UUIDField(primary_key=True)
    event = models.CharField(max_length=200)
    data = models.BinaryField()
    at = models.BigIntegerField()
    sender = models.CharField(max_length=255, null=True)
    extra = models.TextField(null=True)

    class Meta:
        app_label = "bench"
        indexes = (models.Index(fields=["sender", "id"], name="like_sized_sender"),)

    def __str__(self) -> str:
        return str(self.id)


_serial = iter(range(10**9))


def create_row() -> None:
    """Create a row, as the peer does in place of a message."""
    key = uuid.UUID(int=(time.time_ns() << 64) + next(_serial))
    LikeSized.objects.create(id=key, event="article.created", data=DATA, at=1)


def timed(instances: list[Columns], save: Callable[[Columns], None]) -> float:
    """Return the microseconds per save, in transactions of a few saves."""
    # Garbage of one run shouldn't slow the other.
    gc.collect()
    begun = time.perf_counter()
    for start in range(0, len(instances), PER_TRANSACTION):
        with transaction.atomic():
            for instance in instances[start : start + PER_TRANSACTION]:
                save(instance)
    return (time.perf_counter() - begun) / len(instances) * 1e6


def save_with_row(instance: Columns) -> None:
    """Save an instance without events, and create a row."""
    instance.save()
    create_row()


def fresh(model: type[Columns], number: int, save: Callable[[Columns], None]) -> float:
    """Measure saves of new instances."""
    return timed([model(**VALUES) for _ in range(number)], save)


def changed(model: type[Columns], number: int, save: Callable[[Columns], None]) -> float:
    """Measure saves of loaded and changed instances."""
    instances = list(model._default_manager.order_by("-pk")[:number])
    for instance in instances:
        instance.title = f"Hello {next(_serial)}"
    return timed(instances, save)


def main(number: int, rounds: int) -> None:
    """Measure new and changed instances."""
    from thorn_django.models import Message

    call_command("migrate", verbosity=0, interactive=False)
    with connection.schema_editor() as editor:
        for model in (Article, Plain, LikeSized):
            editor.create_model(model)
    figures = {}
    for name, cost in (("new", fresh), ("changed", changed)):
        # The first saves fill caches that later ones use.
        cost(Plain, PER_TRANSACTION, save_with_row)
        cost(Article, PER_TRANSACTION, Article.save)
        before = Message.objects.count()
        figures[name] = alternate(
            lambda cost=cost: cost(Plain, number, save_with_row),
            lambda cost=cost: cost(Article, number, Article.save),
            rounds,
        )
        made = Message.objects.count() - before
        assert made == number * rounds, f"{made} messages of {number * rounds} saves"
    print(json.dumps(figures))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
