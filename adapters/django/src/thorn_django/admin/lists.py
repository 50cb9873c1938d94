"""Shared parts of the lists: rows of the store's database, paging with limited counts, filters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin import SimpleListFilter
from django.contrib.auth import get_permission_codename
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html

from thorn_core import DeliveryState
from thorn_core.keys import first_key, recipient_key
from thorn_core.patterns import matches
from thorn_core.stores.sql.rows import STATES
from thorn_django import get_app
from thorn_django.models import Message, QueueEntry
from thorn_django.store import DjangoStore

if TYPE_CHECKING:
    AnyModelAdmin = admin.ModelAdmin[Any]
    AnyPaginator = Paginator[Any]
else:
    AnyModelAdmin = admin.ModelAdmin
    AnyPaginator = Paginator

# The maximum number of listed and counted rows: a late page reads all rows before it.
LISTED = 10_000
# The maximum number of rows for a filter without an index: 0.1 s, or 2 s on a slow machine.
REACH = 100_000
# The maximum number of rows per action: a few seconds of one request.
AT_ONCE = 1_000
EVENT_NAMES = 500
SPANS = {"1h": timedelta(hours=1), "24h": timedelta(days=1), "7d": timedelta(days=7)}


def store_alias() -> str | None:
    """Return the database of the app's store; None for a store outside Django."""
    store = get_app().store
    return store.alias if isinstance(store, DjangoStore) else None


class BoundedPaginator(AnyPaginator):
    """Counts and pages through the first rows only."""

    @cached_property
    def count(self) -> int:
        """The number of rows, up to the listing limit."""
        found: Any = self.object_list
        return int(found[:LISTED].count())


class StoreAdmin(AnyModelAdmin):
    """Rows of the store; the list is empty if the app uses a store outside these tables."""

    paginator = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 50
    actions_selection_counter = True

    class Media:
        """The stylesheet."""

        css = {"all": ["thorn_django/admin.css"]}  # noqa: RUF012 - as Django reads it

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the rows of the store's database."""
        return super().get_queryset(request).using(store_alias())

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Return True if the index shows the model."""
        return store_alias() is not None and super().has_module_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return True if the user may view rows."""
        return store_alias() is not None and super().has_view_permission(request, obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return True if the user may add a row."""
        return store_alias() is not None and super().has_add_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return True if the user may change a row."""
        return store_alias() is not None and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return True if the user may delete a row."""
        return store_alias() is not None and super().has_delete_permission(request, obj)

    def page(self, request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
        """Return a page of Thorn in the style of the request's site."""
        request.current_app = self.admin_site.name
        shared = {**self.admin_site.each_context(request), "opts": self.opts, "media": self.media}
        return TemplateResponse(request, template, shared | context)

    def selected(self, request: HttpRequest, found: QuerySet[Any]) -> list[Any]:
        """Return an action's rows; if there are too many, return none and show a message."""
        chosen = list(found[: AT_ONCE + 1])
        if len(chosen) <= AT_ONCE:
            return chosen
        self.message_user(
            request,
            f"More than {AT_ONCE:,} selected; select fewer, or use the management commands.",
            "ERROR",
        )
        return []


class HistoryAdmin(StoreAdmin):
    """Read-only rows that only Thorn writes."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return False: nobody may add rows."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: nobody may change rows in a form."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: `manage.py thorn_purge` deletes old rows."""
        return False


def may(request: HttpRequest, what: str, model: type[Model]) -> bool:
    """Return True if the user has a Django permission on a model of the store."""
    codename = get_permission_codename(what, model._meta)
    allowed = request.user.has_perm(f"{model._meta.app_label}.{codename}")  # type: ignore[union-attr]
    return store_alias() is not None and allowed


def url_of(site: admin.AdminSite, model: type[Model], page: str, *arguments: str) -> str | None:
    """Return the URL of a page about a model; None if the site doesn't have it."""
    name = f"{site.name}:{model._meta.app_label}_{model._meta.model_name}_{page}"
    try:
        return reverse(name, args=arguments)
    except NoReverseMatch:
        return None


def link(url: str | None, text: object) -> str:
    """Return a link, or only the text if there is no target."""
    return format_html("{}", text) if url is None else format_html('<a href="{}">{}</a>', url, text)


def within_reach(found: QuerySet[Any], order: str) -> QuerySet[Any]:
    """Return the newest rows, up to the limit for filters without an index.

    Args:
        found: Rows in the order of an index.
        order: A field that increases with time.
    """
    newest = found.order_by(f"-{order}").values_list(order, flat=True)
    edge = list(newest[REACH : REACH + 1])
    return found.filter(**{f"{order}__gte": edge[0]}) if edge else found


def by_id(found: QuerySet[Any], term: str, key_of: Callable[[str], bytes | None]) -> QuerySet[Any]:
    """Return rows with an id; none for an invalid id, all for an empty term.

    Args:
        found: The rows.
        term: The search term.
        key_of: Returns the key of an id.
    """
    if not term:
        return found
    key = key_of(term)
    return found.none() if key is None else found.filter(pk=key)


# -- filters


class SubscriptionFilter(SimpleListFilter):
    """Deliveries to one subscription, from a link on its page: a full list would be too long."""

    title = "subscription"
    parameter_name = "subscription"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Sequence[tuple[str, str]]:
        """Return the current subscription."""
        value = self.value()
        return [] if value is None else [(value, value)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Filter by the index."""
        value = self.value()
        return queryset if value is None else queryset.filter(recipient=recipient_key(value))


class TimeFilter(SimpleListFilter):
    """Deliveries of recent messages."""

    title = "time"
    parameter_name = "made"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Sequence[tuple[str, str]]:
        """Return the time spans."""
        return [("1h", "Past hour"), ("24h", "Past 24 hours"), ("7d", "Past 7 days")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Filter by the index."""
        span = SPANS.get(self.value() or "")
        if span is None:
            return queryset
        return queryset.filter(pk__gte=first_key(get_app().clock() - span))


class StateFilter(SimpleListFilter):
    """Deliveries in a state."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Sequence[tuple[str, str]]:
        """Return the states."""
        return [(str(state), str(state).replace("_", " ").capitalize()) for state in DeliveryState]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Use the queue for open states; filter the newest rows for the others."""
        value = self.value()
        if value not in list(DeliveryState):
            return queryset
        state = DeliveryState(value)
        if state.finished:
            return within_reach(queryset, "id").filter(state=STATES[state])
        waiting = QueueEntry._base_manager.filter(leased_until__isnull=state == "pending")
        return queryset.filter(pk__in=waiting.values("pk"))


class EventFilter(SimpleListFilter):
    """Deliveries of events that match an entered pattern."""

    title = "event"
    parameter_name = "event"
    template = "thorn_django/admin/filter.html"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Sequence[tuple[str, str]]:
        """Return no choices."""
        return []

    def has_output(self) -> bool:
        """Return True, to show the input field."""
        return True

    def choices(self, changelist: Any) -> Iterator[Any]:
        """Return the data of the input form."""
        others = changelist.get_filters_params()
        others.pop(self.parameter_name, None)
        yield {
            "value": self.value() or "",
            "others": [(name, one) for name, several in others.items() for one in _each(several)],
            "query_string": changelist.get_query_string(remove=[self.parameter_name]),
        }

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Filter the newest rows."""
        pattern = (self.value() or "").strip()
        if not pattern:
            return queryset
        near = within_reach(queryset, "id")
        if "*" not in pattern:
            return near.filter(event=pattern)
        rows = within_reach(Message._base_manager.using(store_alias()), "id")
        begin = rows.filter(event__startswith=pattern.partition("*")[0]).order_by()
        names = begin.values_list("event", flat=True).distinct()[:EVENT_NAMES]
        return near.filter(event__in=[name for name in names if matches(pattern, name)])


def _each(value: Any) -> Iterable[str]:
    return value if isinstance(value, list | tuple) else [value]
