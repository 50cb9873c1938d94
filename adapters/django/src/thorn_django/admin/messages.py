"""Messages, read-only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.http import urlencode

from thorn_core.keys import message_key
from thorn_django.admin.lists import HistoryAdmin, by_id, link, url_of, within_reach
from thorn_django.admin.shown import block, readable
from thorn_django.models import Delivery, Message, OutboxEntry


class RoutedFilter(admin.SimpleListFilter):
    """Filters messages by their routing."""

    title = "routing"
    parameter_name = "routed"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Sequence[tuple[str, str]]:
        """Return yes and no."""
        return [("yes", "Routed"), ("no", "Waiting")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Use the outbox for unrouted messages; filter the newest rows for the others."""
        if self.value() == "no":
            return queryset.filter(pk__in=OutboxEntry._base_manager.values("pk"))
        if self.value() == "yes":
            return within_reach(queryset, "id").filter(waiting__isnull=True)
        return queryset


class MessageAdmin(HistoryAdmin):
    """Messages in the store's database; workers move messages of other databases there."""

    list_display = ("id", "event", "sender", "at", "routed")
    list_filter = (RoutedFilter,)
    sortable_by = ()
    # In the order of their times.
    ordering = ("-id",)
    search_fields = ("id",)
    search_help_text = "Search by full ID. Lists the newest 10,000."
    fields = (
        "id",
        "event",
        "at",
        "sender",
        "sender_name",
        "ref",
        "routed",
        "deliveries",
        "payload",
    )
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Leave out the payloads, which may be large."""
        return super().get_queryset(request).defer("data").select_related("waiting")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Search by id."""
        return by_id(queryset, search_term.strip(), message_key), False

    @admin.display(boolean=True)
    def routed(self, obj: Message) -> bool:
        """Return True if the message is routed."""
        return not hasattr(obj, "waiting")

    @admin.display(description="sender's name")
    def sender_name(self, obj: Message) -> str:
        """Return the sender as in requests."""
        return str((obj.extra or {}).get("sender_name") or "-")

    @admin.display
    def ref(self, obj: Message) -> str:
        """Return the URL of the message's object."""
        return str((obj.extra or {}).get("ref") or "-")

    @admin.display
    def deliveries(self, obj: Message) -> str:
        """Return a link to the message's deliveries."""
        url = url_of(self.admin_site, Delivery, "changelist")
        return link(url and f"{url}?{urlencode({'q': obj.pk})}", "Deliveries of this message")

    @admin.display
    def payload(self, obj: Message) -> str:
        """Return the payload as sent."""
        return block(readable(bytes(obj.data)))
