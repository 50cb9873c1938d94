"""Listeners: registers for SQLAlchemy's events when a model is watched."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any
from weakref import ref

from sqlalchemy import event
from sqlalchemy.orm import Mapper, Session

from thorn_core import ConfigurationError, ModelAdapter
from thorn_sqlalchemy.models import changes
from thorn_sqlalchemy.models.bulk import on_statement
from thorn_sqlalchemy.models.relationships import links_to
from thorn_sqlalchemy.models.watches import (
    Watch,
    all_watches,
    declarations,
    make_watch,
    mappers_below,
)

# Never hold it while mappers are configured: that may wait for a thread that maps classes.
_lock = threading.RLock()
# The listeners for events of all mappers and all sessions.
_listened: set[str] = set()


def start(adapter: ModelAdapter) -> None:
    """Notice newly mapped classes from now on."""
    _listen_once(Mapper, "after_mapper_constructed", partial(_mapped, adapter))
    _listen_once(Mapper, "after_configured", _configured)


def watch(model: type, adapter: ModelAdapter) -> None:
    """Watch a decorated class and its subclasses.

    Args:
        model: The class.
        adapter: The adapter that checks the declarations.

    Raises:
        ConfigurationError: The mappers are configured, and the events use an unknown name.
    """
    start(adapter)
    _settle([mapper for mapper in mappers_below(model) if _watch(mapper, adapter)])


def _mapped(adapter: ModelAdapter, mapper: Mapper[Any], model: type) -> None:
    if declarations(model):
        _watch(mapper, adapter)


def _configured() -> None:
    _settle([mapper for mapper, watch in all_watches() if not watch.refused])


def _watch(mapper: Mapper[Any], adapter: ModelAdapter) -> bool:
    """Listen to changes of a class's instances; return False if nothing is left to resolve."""
    declared = declarations(mapper.class_)
    with _lock:
        watch = make_watch(mapper)
        if watch.declared == frozenset(map(ref, declared)):
            return watch.refused
        watch.ask(declared, adapter)
        _listen(mapper, watch)
    _listen_once(Session, "before_flush", changes.begin)
    _listen_once(Session, "after_flush", changes.gather_changes)
    _listen_once(Session, "after_flush_postexec", changes.send_changes)
    _listen_once(Session, "after_soft_rollback", changes.forget_changes)
    if watch.bulk:
        _listen_once(Session, "do_orm_execute", on_statement)
    return True


def _settle(mappers: Iterable[Mapper[Any]]) -> None:
    """Resolve the watches whose mappers are configured.

    Raises:
        ConfigurationError: The events use an unknown name. The watch stays unresolved, so that
            every flush of such an instance raises it again.
    """
    faults: list[ConfigurationError] = []
    for mapper in mappers:
        if not mapper.configured:
            continue
        watch = make_watch(mapper)
        try:
            watch.resolve(mapper)
        except ConfigurationError as fault:
            watch.refused = True
            faults.append(fault)
            continue
        for field in watch.fields:
            for owner, link in links_to(mapper, field):
                with _lock:
                    other = make_watch(owner)
                    if link not in other.links:
                        other.links += (link,)
                        _listen(owner, other)
    if faults:
        raise faults[0]


def _listen(mapper: Mapper[Any], watch: Watch) -> None:
    collections = bool(watch.links or watch.fields)
    for identifier, asked, function in (
        ("after_insert", watch.create or watch.change or collections, changes.inserted),
        ("before_update", watch.change or collections, changes.updating),
        ("after_update", watch.create or watch.delete or collections, changes.updated),
        ("before_delete", watch.delete, changes.deleting),
    ):
        if asked and identifier not in watch.listening:
            watch.listening.add(identifier)
            event.listen(mapper, identifier, partial(function, watch), raw=True)


def _listen_once(target: Any, identifier: str, function: Callable[..., Any]) -> None:
    if identifier not in _listened:
        with _lock:
            if identifier not in _listened:
                event.listen(target, identifier, function)
                _listened.add(identifier)
