"""Sessions whose legacy bulk methods also send events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import insert, inspect, select
from sqlalchemy.orm import InstanceState, Mapper, Session

from thorn_sqlalchemy.models.keys import Key, among, attributes, chunks, key_names, locking
from thorn_sqlalchemy.models.rows import Before, Reader, tell_changed, tell_created
from thorn_sqlalchemy.models.watches import asks, attribute_names, column_properties


class WebhookSession(Session):
    """A Session whose legacy bulk methods send the events of models with `bulk = True`.

    SQLAlchemy has no events for `bulk_save_objects`, `bulk_insert_mappings` and
    `bulk_update_mappings`, so Thorn can't see them in other sessions. For such a model, an insert
    asks the database for the primary keys, and an update reads the rows before and after.

    Example:
        >>> from sqlalchemy import create_engine
        >>> from sqlalchemy.orm import sessionmaker
        >>> Session = sessionmaker(create_engine("sqlite://"), class_=WebhookSession)
        >>> with Session() as session:
        ...     isinstance(session, WebhookSession)
        True
    """

    def bulk_save_objects(
        self,
        objects: Iterable[object],
        return_defaults: bool = False,  # noqa: FBT001, FBT002 - SQLAlchemy's signature
        update_changed_only: bool = True,  # noqa: FBT001, FBT002
        preserve_order: bool = True,  # noqa: FBT001, FBT002
    ) -> None:
        """Call `Session.bulk_save_objects`, and set primary keys from the database if necessary."""
        items = list(objects)
        new: dict[Mapper[Any], list[Any]] = {}
        old: dict[Mapper[Any], list[Key]] = {}
        for item in items:
            state: InstanceState[Any] | None = inspect(item, raiseerr=False)
            if state is None:
                continue  # SQLAlchemy refuses it.
            if state.identity is None:
                if asks(state.mapper, "create"):
                    new.setdefault(state.mapper, []).append(item)
            elif asks(state.mapper, "change"):
                old.setdefault(state.mapper, []).append(state.identity)
        before = {
            mapper: self._before(mapper, _all_names(mapper), keys) for mapper, keys in old.items()
        }
        super().bulk_save_objects(
            items, return_defaults or bool(new), update_changed_only, preserve_order
        )
        for mapper, made in new.items():
            self._created(mapper, [tuple(mapper.primary_key_from_instance(item)) for item in made])
        for mapper, rows in before.items():
            self._changed(mapper, _all_names(mapper), rows)

    def bulk_insert_mappings(
        self,
        mapper: Mapper[Any] | type,
        mappings: Iterable[dict[str, Any]],
        return_defaults: bool = False,  # noqa: FBT001, FBT002
        render_nulls: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        """Call `Session.bulk_insert_mappings` and send the events."""
        target: Mapper[Any] = inspect(mapper)
        if not asks(target, "create"):
            return super().bulk_insert_mappings(mapper, mappings, return_defaults, render_nulls)
        rows, names = list(mappings), key_names(target)
        if not rows:
            return None
        statement, options = insert(target), {"render_nulls": render_nulls, "autoflush": False}
        if not return_defaults:
            self.execute(statement, rows, execution_options=options)
            return None
        dialect = self.get_bind(mapper=target).dialect
        if dialect.insert_executemany_returning_sort_by_parameter_order:
            columns = attributes(target.class_, names)
            statement = statement.returning(*columns, sort_by_parameter_order=True)
            for row, key in zip(
                rows, self.execute(statement, rows, execution_options=options), strict=True
            ):
                row.update(zip(names, key, strict=True))
        else:
            super().bulk_insert_mappings(mapper, rows, True, render_nulls)  # noqa: FBT003
            self._created(target, [tuple(row.get(name) for name in names) for row in rows])
        return None

    def bulk_update_mappings(
        self, mapper: Mapper[Any] | type, mappings: Iterable[dict[str, Any]]
    ) -> None:
        """Call `Session.bulk_update_mappings` and send the events."""
        target: Mapper[Any] = inspect(mapper)
        if not asks(target, "change"):
            return super().bulk_update_mappings(mapper, mappings)
        rows = list(mappings)
        names = attribute_names(target, {name for row in rows for name in row})
        keys = [tuple(row[name] for name in key_names(target)) for row in rows]
        before = self._before(target, names, keys)
        super().bulk_update_mappings(mapper, rows)
        self._changed(target, names, before)
        return None

    def _before(self, mapper: Mapper[Any], names: Sequence[str], keys: Sequence[Key]) -> Before:
        columns, found = attributes(mapper.class_, key_names(mapper)), {}
        wanted = locking(select(*columns, *attributes(mapper.class_, names)), mapper)
        with self.no_autoflush:
            for some in chunks(keys):
                for row in self.execute(wanted.where(among(columns, some))):
                    found[tuple(row[: len(columns)])] = tuple(row[len(columns) :])
        return found

    def _created(self, mapper: Mapper[Any], keys: list[Key]) -> None:
        with Reader(self) as reader:
            tell_created(self, reader, mapper, keys)

    def _changed(self, mapper: Mapper[Any], names: Sequence[str], before: Before) -> None:
        with Reader(self) as reader:
            tell_changed(self, reader, mapper, names, before)


def _all_names(mapper: Mapper[Any]) -> list[str]:
    return [prop.key for prop in column_properties(mapper)]
