"""What the lists share: rows of the store's database, pages that don't count millions, filters."""

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

# Rows that can be paged through, and that are counted: a page far behind costs all before it.
LISTED = 10_000
# Rows that a filter without an index looks through: a tenth of a second, two where it is slow.
REACH = 100_000
# Rows that an action takes on: what one request can do in a few seconds.
AT_ONCE = 1_000
EVENT_NAMES = 500
SPANS = {"1h": timedelta(hours=1), "24h": timedelta(days=1), "7d": timedelta(days=7)}


def store_alias() -> str | None:
    """The database of the app's store; None if that isn't one of Django's."""
    store = get_app().store
    return store.alias if isinstance(store, DjangoStore) else None


class BoundedPaginator(AnyPaginator):
    """Counts and pages through the first rows only."""

    @cached_property
    def count(self) -> int:
        """How many rows there are, at most as many as are listed."""
        found: Any = self.object_list
        return int(found[:LISTED].count())


class StoreAdmin(AnyModelAdmin):
    """Rows of the store; nobody sees any if the app keeps them elsewhere than in these tables."""

    paginator = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 50
    actions_selection_counter = True

    class Media:
        """Looks."""

        css = {"all": ["thorn_django/admin.css"]}  # noqa: RUF012 - as Django reads it

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Those of the store's database."""
        return super().get_queryset(request).using(store_alias())

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Whether the index shows it."""
        return store_alias() is not None and super().has_module_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whether the user may look."""
        return store_alias() is not None and super().has_view_permission(request, obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Whether the user may add one."""
        return store_alias() is not None and super().has_add_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whether the user may change one."""
        return store_alias() is not None and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whether the user may delete one."""
        return store_alias() is not None and super().has_delete_permission(request, obj)

    def page(self, request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
        """A page of ours, in the looks of the site that the request is for."""
        request.current_app = self.admin_site.name
        shared = {**self.admin_site.each_context(request), "opts": self.opts, "media": self.media}
        return TemplateResponse(request, template, shared | context)

    def selected(self, request: HttpRequest, found: QuerySet[Any]) -> list[Any]:
        """What an action is to work on; nothing, and a word about it, if that is too much."""
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
    """What only Thorn writes: to be looked at."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody may."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody may, by a form."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody may: `manage.py thorn_purge` removes what is old."""
        return False


def may(request: HttpRequest, what: str, model: type[Model]) -> bool:
    """Whether the user has one of Django's permissions on a model of the store."""
    codename = get_permission_codename(what, model._meta)
    allowed = request.user.has_perm(f"{model._meta.app_label}.{codename}")  # type: ignore[union-attr]
    return store_alias() is not None and allowed


def url_of(site: admin.AdminSite, model: type[Model], page: str, *arguments: str) -> str | None:
    """The URL of a page about a model; None if the site doesn't have it."""
    name = f"{site.name}:{model._meta.app_label}_{model._meta.model_name}_{page}"
    try:
        return reverse(name, args=arguments)
    except NoReverseMatch:
        return None


def link(url: str | None, text: object) -> str:
    """A link, or the text alone if there is nothing to link to."""
    return format_html("{}", text) if url is None else format_html('<a href="{}">{}</a>', url, text)


def within_reach(found: QuerySet[Any], order: str) -> QuerySet[Any]:
    """The newest rows only, as many as may be looked through without an index.

    Args:
        found: Rows that an index finds in that order.
        order: A field that grows with time.
    """
    newest = found.order_by(f"-{order}").values_list(order, flat=True)
    edge = list(newest[REACH : REACH + 1])
    return found.filter(**{f"{order}__gte": edge[0]}) if edge else found


def by_id(found: QuerySet[Any], term: str, key_of: Callable[[str], bytes | None]) -> QuerySet[Any]:
    """Rows of one id; none if there can't be such an id, all if there is nothing to look for.

    Args:
        found: The rows.
        term: What is looked for.
        key_of: Makes the key of an id.
    """
    if not term:
        return found
    key = key_of(term)
    return found.none() if key is None else found.filter(pk=key)


# -- filters


class SubscriptionFilter(SimpleListFilter):
    """Deliveries to one subscription, as its page links to them: a list of all would be endless."""

    title = "subscription"
    parameter_name = "subscription"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Sequence[tuple[str, str]]:
        """The one that is asked for."""
        value = self.value()
        return [] if value is None else [(value, value)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """By the index."""
        value = self.value()
        return queryset if value is None else queryset.filter(recipient=recipient_key(value))


class TimeFilter(SimpleListFilter):
    """Deliveries of messages that were sent lately."""

    title = "time"
    parameter_name = "made"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Sequence[tuple[str, str]]:
        """How lately."""
        return [("1h", "Past hour"), ("24h", "Past 24 hours"), ("7d", "Past 7 days")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """By the index."""
        span = SPANS.get(self.value() or "")
        if span is None:
            return queryset
        return queryset.filter(pk__gte=first_key(get_app().clock() - span))


class StateFilter(SimpleListFilter):
    """Deliveries in a state."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Sequence[tuple[str, str]]:
        """The states."""
        return [(str(state), str(state).replace("_", " ").capitalize()) for state in DeliveryState]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """By the queue for what isn't over yet; among the newest for the rest."""
        value = self.value()
        if value not in list(DeliveryState):
            return queryset
        state = DeliveryState(value)
        if state.finished:
            return within_reach(queryset, "id").filter(state=STATES[state])
        waiting = QueueEntry._base_manager.filter(leased_until__isnull=state == "pending")
        return queryset.filter(pk__in=waiting.values("pk"))


class EventFilter(SimpleListFilter):
    """Deliveries of events that match a pattern, which is typed in."""

    title = "event"
    parameter_name = "event"
    template = "thorn_django/admin/filter.html"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Sequence[tuple[str, str]]:
        """None to choose from."""
        return []

    def has_output(self) -> bool:
        """There is something to type into."""
        return True

    def choices(self, changelist: Any) -> Iterator[Any]:
        """What the form says beside its own value."""
        others = changelist.get_filters_params()
        others.pop(self.parameter_name, None)
        yield {
            "value": self.value() or "",
            "others": [(name, one) for name, several in others.items() for one in _each(several)],
            "query_string": changelist.get_query_string(remove=[self.parameter_name]),
        }

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Among the newest."""
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
