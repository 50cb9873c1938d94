"""Deliveries: the results of messages with every attempt; retries and cancels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import quote
from django.core.exceptions import PermissionDenied
from django.db.models import Func, OuterRef, QuerySet, Subquery, Value
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import path
from django.utils.http import urlencode

from thorn_core.keys import delivery_key, first_key, message_key, recipient_key
from thorn_core.stores.sql.rows import CANCELLED, FAILED, FINISHED, OPEN
from thorn_django import get_app
from thorn_django.admin.forms import RecoverForm
from thorn_django.admin.lists import (
    EventFilter,
    HistoryAdmin,
    StateFilter,
    SubscriptionFilter,
    TimeFilter,
    by_id,
    link,
    may,
    store_alias,
    url_of,
)
from thorn_django.admin.shown import attempt_row, attempt_value, block, printable, readable, stamp
from thorn_django.fields import MessageIdField
from thorn_django.models import Attempt, Delivery, Message
from thorn_django.subscription_model import subscription_model

# The maximum number of attempts shown for a delivery, latest first; the usual schedule makes ten.
ATTEMPTS_SHOWN = 100
# Limits of one recovery: subscriptions, and their deliveries; the command has no such limits.
SUBSCRIPTIONS = 100
RECOVERED = 10_000
LISTED_TO_CONFIRM = 20
# A delivery page's buttons send this field, to return to the page.
FROM_PAGE = "_from_page"


class DeliveryAdmin(HistoryAdmin):
    """Deliveries. Users with the change permission may retry, recover and cancel."""

    change_form_template = "thorn_django/admin/delivery.html"
    list_display = ("event", "to", "state_shown", "attempts", "reason_shown", "created_at")
    list_filter = (SubscriptionFilter, TimeFilter, StateFilter, EventFilter)
    sortable_by = ()
    # In the order of their messages' times.
    ordering = ("-id",)
    search_fields = ("id",)
    search_help_text = (
        "Search by full ID of a delivery, message or subscription. Lists the newest 10,000;"
        " filters search the newest 100,000."
    )
    actions = ("retry", "recover", "cancel")
    fields = (
        *("id", "event", "state_shown", "reason_shown", "request_url"),
        *("message", "subscription", "attempts"),
        *("created_at", "due_at", "finished_at"),
    )
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Include the events' names; leave out long columns, which may contain secrets."""
        # With a join of the few recipients, MariaDB would read and sort all deliveries of each.
        found = super().get_queryset(request).defer("target")
        found = found.prefetch_related("recipient", "queued")
        key = Func(
            OuterRef("pk"), Value(1), Value(16), function="substr", output_field=MessageIdField()
        )
        messages = Message._base_manager.filter(pk=key)
        return found.annotate(event=Subquery(messages.values("event")))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Search by ids, which have indexes."""
        term = search_term.strip()
        if term.startswith("msg_"):
            key = message_key(term)
            if key is None:
                return queryset.none(), False
            return queryset.filter(pk__gte=key, pk__lte=key + bytes([255] * 8)), False
        if not term or term.startswith("dlv_"):
            return by_id(queryset, term, delivery_key), False
        return queryset.filter(recipient=recipient_key(term)), False

    # -- columns and fields

    @admin.display
    def event(self, obj: Any) -> str:
        """Return the message's event."""
        return str(obj.event or "-")

    @admin.display(description="subscription")
    def to(self, obj: Delivery) -> str:
        """Return the subscription's id."""
        return _to(obj)

    @admin.display(description="state")
    def state_shown(self, obj: Delivery) -> str:
        """Return the delivery's state."""
        return _state(obj)

    @admin.display(description="due at")
    def due_at(self, obj: Delivery) -> datetime | None:
        """Return the time of the next attempt."""
        return obj.queued.due_at if hasattr(obj, "queued") else None

    @admin.display(description="reason")
    def reason_shown(self, obj: Delivery) -> str:
        """Reason for the current state."""
        return printable(obj.reason or "-")

    @admin.display(description="request")
    def request_url(self, obj: Delivery) -> str:
        """Return the current URL of requests."""
        found = get_app().delivery(obj.pk)
        target = None if found is None else found.target or get_app().subscription(_to(obj))
        return "-" if target is None else f"POST {printable(target.url)}"

    @admin.display
    def message(self, obj: Delivery) -> str:
        """Return a link to the message."""
        url = url_of(self.admin_site, Message, "change", quote(obj.message_id))
        return link(url, obj.message_id)

    @admin.display
    def subscription(self, obj: Delivery) -> str:
        """Return a link to the subscription, if the store has it."""
        model = subscription_model()
        if not model._base_manager.using(store_alias()).filter(pk=_to(obj)).exists():
            return f"{_to(obj)} (not in the store)"
        return link(url_of(self.admin_site, model, "change", quote(_to(obj))), _to(obj))

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **options: Any
    ) -> Any:
        """Add attempts, payload and buttons, according to the user's permissions."""
        obj, alias = options.get("obj"), store_alias()
        if obj is not None and alias is not None:
            if may(request, "view", Attempt):
                found = Attempt._base_manager.using(alias).filter(delivery_id=obj.pk)
                newest = found.order_by("-at")[:ATTEMPTS_SHOWN]
                context["attempts"] = [attempt_row(attempt_value(row)) for row in newest]
            if may(request, "view", Message):
                message = Message._base_manager.using(alias).filter(pk=obj.message_id).first()
                context["payload"] = message and block(readable(bytes(message.data)))
            if self.has_change_deliveries_permission(request):
                context["retries"] = obj.state != OPEN
                context["cancels"] = _pending(obj)
                context["actions_url"] = url_of(self.admin_site, Delivery, "changelist")
                context["from_page"] = FROM_PAGE
        return super().render_change_form(request, context, *args, **options)

    # -- actions

    def has_change_deliveries_permission(self, request: HttpRequest) -> bool:
        """Return True for users with Django's change permission."""
        return may(request, "change", Delivery)

    @admin.action(description="Retry selected deliveries", permissions=["change_deliveries"])
    def retry(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        """Retry deliveries from the start of the schedule."""
        chosen = self.selected(request, queryset)
        reached = _enabled({_to(delivery) for delivery in chosen}) | _unstored(chosen)
        over = [d for d in chosen if d.state != OPEN]
        again = [d for d in over if _to(d) in reached]
        if again:
            get_app().replay([delivery.pk for delivery in again])
            self._log(request, again, "Retried.")
            self.message_user(request, f"{_several(len(again))} retried.", "SUCCESS")
        if len(over) < len(chosen):
            words = (
                f"{_several(len(chosen) - len(over), 'not retried')}: only finished deliveries can"
                f" be."
            )
            self.message_user(request, words, "WARNING")
        if len(again) < len(over):
            words = "the subscription is disabled or has been removed."
            self.message_user(
                request, f"{_several(len(over) - len(again), 'not retried')}: {words}", "ERROR"
            )
        return self._back(request, chosen)

    @admin.action(
        description="Retry failed and cancelled deliveries since …",
        permissions=["change_deliveries"],
    )
    def recover(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        """Redirect to the page that asks for a start time, for the deliveries' subscriptions."""
        keys = sorted({_to(delivery) for delivery in self.selected(request, queryset)})
        url = url_of(self.admin_site, Delivery, "recover")
        if not keys or url is None:
            return None
        return HttpResponseRedirect(f"{url}?{urlencode({'subscription': keys}, doseq=True)}")

    @admin.action(description="Cancel selected deliveries", permissions=["change_deliveries"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        """Cancel deliveries after a confirmation."""
        chosen = self.selected(request, queryset)
        pending = [delivery for delivery in chosen if _pending(delivery)]
        if not pending:
            if chosen:
                words = "Nothing was cancelled: no selected delivery is pending."
                self.message_user(request, words, "WARNING")
            return self._back(request, chosen)
        if "confirmed" not in request.POST:
            return self._confirm(request, pending, len(chosen) - len(pending))
        gone = get_app().cancel([delivery.pk for delivery in pending])
        self._log(request, pending, "Cancelled.")
        self.message_user(request, f"{_several(gone)} cancelled.", "SUCCESS")
        return self._back(request, chosen)

    def _confirm(self, request: HttpRequest, pending: Sequence[Any], others: int) -> HttpResponse:
        context = {
            "title": "Cancel deliveries",
            "pending": pending,
            "listed": pending[:LISTED_TO_CONFIRM],
            "more": max(len(pending) - LISTED_TO_CONFIRM, 0),
            "others": others,
            "checkbox": ACTION_CHECKBOX_NAME,
            "from_page": FROM_PAGE if FROM_PAGE in request.POST else None,
        }
        return self.page(request, "thorn_django/admin/cancel.html", context)

    def _back(self, request: HttpRequest, chosen: Sequence[Any]) -> HttpResponse | None:
        if FROM_PAGE not in request.POST or len(chosen) != 1:
            return None
        url = url_of(self.admin_site, Delivery, "change", quote(chosen[0].pk))
        return None if url is None else HttpResponseRedirect(url)

    def _log(self, request: HttpRequest, deliveries: Sequence[Delivery], words: str) -> None:
        # The admin has models only if it is installed; this module must be importable without it.
        from django.contrib.admin.models import CHANGE, LogEntry

        if deliveries and request.user.pk is not None:
            LogEntry.objects.log_actions(
                user_id=request.user.pk,
                queryset=deliveries,
                action_flag=CHANGE,
                change_message=words,
            )

    # -- recovering

    def get_urls(self) -> list[Any]:
        """Add the URL of the page that asks for a start time."""
        view = self.admin_site.admin_view(self.recover_view)
        return [path("recover/", view, name="thorn_django_delivery_recover"), *super().get_urls()]

    def recover_view(self, request: HttpRequest) -> HttpResponse:
        """Retry failed and cancelled deliveries of some subscriptions since a requested time."""
        if not self.has_change_deliveries_permission(request):
            raise PermissionDenied
        asked = list(dict.fromkeys(request.GET.getlist("subscription")))
        model = subscription_model()
        rows = model._base_manager.using(store_alias()).filter(pk__in=asked[:SUBSCRIPTIONS])
        found = list(rows.order_by("pk"))
        form = RecoverForm(request.POST if request.method == "POST" else None)
        ready = [subscription for subscription in found if subscription.enabled]
        if request.method == "POST" and form.is_valid():
            since = form.cleaned_data["since"]
            counts = {s.pk: _failed_since(s.pk, since) for s in ready}
            if sum(counts.values()) <= RECOVERED:
                return self._recover(request, ready, since)
            form.add_error(
                "since",
                f"There are more than {RECOVERED:,} failed and cancelled deliveries since then;"
                f" choose a later time, or run manage.py thorn_replay --subscription"
                f" {max(counts, key=lambda k: counts[k])}"
                f" --since {since.isoformat()}",
            )
        context = {
            "title": "Retry failed and cancelled deliveries",
            "media": self.media + form.media,
            "form": form,
            "ready": ready,
            "disabled": [subscription for subscription in found if not subscription.enabled],
            "missing": len(asked) - len(found),
        }
        return self.page(request, "thorn_django/admin/recover.html", context)

    def _recover(
        self, request: HttpRequest, subscriptions: Iterable[Any], since: datetime
    ) -> HttpResponse:
        total, keys = 0, []
        for subscription in subscriptions:
            count = get_app().replay(subscription_id=subscription.pk, since=since)
            words = f"Retried failed and cancelled deliveries since {stamp(since)}: {count:,}."
            self.log_change(request, subscription, words)
            total += count
            keys.append(subscription.pk)
        words = f"{_several(total)} retried."
        self.message_user(request, words, "SUCCESS" if total else "INFO")
        url = url_of(self.admin_site, Delivery, "changelist") or "../"
        if len(keys) == 1:
            url += f"?{urlencode({'subscription': keys[0]})}"
        return HttpResponseRedirect(url)


def _to(delivery: Delivery) -> str:
    return str(delivery.recipient.subscription_id)


def _pending(delivery: Delivery) -> bool:
    return hasattr(delivery, "queued") and delivery.queued.leased_until is None


def _state(delivery: Delivery) -> str:
    """Return the state by its name; for an open delivery, the queue decides."""
    if delivery.state != OPEN:
        return str(FINISHED[delivery.state])
    if not _pending(delivery):
        return "in_flight"
    return "held" if delivery.recipient.paused else "pending"


def _several(count: int, less: str = "") -> str:
    verb = " was" if count == 1 else " were"
    return f"{count:,} deliver{'y' if count == 1 else 'ies'}{verb}{' ' if less else ''}{less}"


def _enabled(keys: set[str]) -> set[str]:
    """Return the stored and enabled subscriptions among some."""
    rows = subscription_model()._base_manager.using(store_alias())
    return set(rows.filter(pk__in=keys, enabled=True).values_list("pk", flat=True))


def _unstored(deliveries: Iterable[Delivery]) -> set[str]:
    """Return the recipients without a subscription in the store."""
    rows = Delivery._base_manager.using(store_alias())
    asked = rows.filter(pk__in=[d.pk for d in deliveries], target__isnull=False)
    return set(asked.values_list("recipient__subscription_id", flat=True))


def _failed_since(key: str, since: datetime) -> int:
    rows = Delivery._base_manager.using(store_alias())
    failed = rows.filter(
        recipient=recipient_key(key), pk__gte=first_key(since), state__in=(FAILED, CANCELLED)
    )
    return failed[: RECOVERED + 1].count()
