"""Deliveries: what became of messages, with every attempt; once more, or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import quote
from django.core.exceptions import PermissionDenied
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import path
from django.utils.http import urlencode

from thorn_core import DeliveryState
from thorn_django import get_app
from thorn_django.admin.forms import RecoverForm
from thorn_django.admin.lists import (
    EventFilter,
    HistoryAdmin,
    StateFilter,
    SubscriptionFilter,
    TimeFilter,
    link,
    may,
    store_alias,
    url_of,
)
from thorn_django.admin.shown import attempt_row, block, printable, readable, stamp
from thorn_django.models import Attempt, Delivery, Message, State
from thorn_django.store import DjangoStore
from thorn_django.store.deliveries import of_messages
from thorn_django.store.rows import attempt_of
from thorn_django.store.subscriptions import subscription_model

# Of one delivery, the latest; the usual schedule makes ten.
ATTEMPTS_SHOWN = 100
# Subscriptions that are recovered at once, and deliveries of theirs: more are for the command.
SUBSCRIPTIONS = 100
RECOVERED = 10_000
FAILED = (DeliveryState.EXHAUSTED, DeliveryState.DISCARDED)
LISTED_TO_CONFIRM = 20
# Said by the buttons of a delivery's page, to come back there.
FROM_PAGE = "_from_page"


class DeliveryAdmin(HistoryAdmin):
    """Deliveries. Whoever may change them may retry, recover and discard."""

    change_form_template = "thorn_django/admin/delivery.html"
    list_display = ("event", "recipient", "state", "attempts", "reason_shown", "created_at")
    list_filter = (SubscriptionFilter, TimeFilter, StateFilter, EventFilter)
    sortable_by = ()
    ordering = ("-created_at", "-id")
    search_fields = ("id",)
    search_help_text = (
        "Search by full ID of a delivery, message or subscription. Lists the newest 10,000;"
        " filters search the newest 100,000."
    )
    actions = ("retry", "recover", "discard")
    fields = (
        *("id", "event", "state", "reason_shown", "recipient", "request_url"),
        *("message", "subscription", "attempt_count"),
        *("created_at", "due_at", "settled_at"),
    )
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Without what is long, and may hold secrets."""
        return super().get_queryset(request).defer("target")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """By ids, which have indexes."""
        term = search_term.strip()
        if not term:
            return queryset, False
        if term.startswith("msg_"):
            return queryset.filter(of_messages([term])), False
        if term.startswith("dlv_"):
            return queryset.filter(pk=term), False
        return queryset.filter(subscription_id=term), False

    # -- what is shown

    @admin.display
    def attempts(self, obj: Delivery) -> int:
        """How many were made."""
        return obj.attempt_count

    @admin.display(description="reason")
    def reason_shown(self, obj: Delivery) -> str:
        """Reason for the current state."""
        return printable(obj.reason or "-")

    @admin.display(description="request")
    def request_url(self, obj: Delivery) -> str:
        """Where requests go now."""
        found = get_app().delivery(obj.pk)
        target = None if found is None else found.target or get_app().subscription(_to(obj))
        return "-" if target is None else f"POST {printable(target.url)}"

    @admin.display
    def message(self, obj: Delivery) -> str:
        """Its message."""
        url = url_of(self.admin_site, Message, "change", quote(obj.message_id))
        return link(url, obj.message_id)

    @admin.display
    def subscription(self, obj: Delivery) -> str:
        """Its subscription, if that is in the store."""
        model = subscription_model()
        if not model._base_manager.using(store_alias()).filter(pk=_to(obj)).exists():
            return f"{_to(obj)} (not in the store)"
        return link(url_of(self.admin_site, model, "change", quote(_to(obj))), _to(obj))

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **options: Any
    ) -> Any:
        """With attempts, payload and buttons, as far as the user may have them."""
        obj, alias = options.get("obj"), store_alias()
        if obj is not None and alias is not None:
            if may(request, "view", Attempt):
                newest = Attempt._base_manager.using(alias).filter(delivery_id=obj.pk)
                rows = newest.order_by("-id").values()[:ATTEMPTS_SHOWN]
                context["attempts"] = [attempt_row(attempt_of(row)) for row in rows]
            if may(request, "view", Message):
                found = Message._base_manager.using(alias).filter(pk=obj.message_id).first()
                context["payload"] = found and block(readable(bytes(found.data)))
            if self.has_change_deliveries_permission(request):
                context["retries"] = DeliveryState(obj.state).settled
                context["discards"] = obj.state == State.PENDING
                context["actions_url"] = url_of(self.admin_site, Delivery, "changelist")
                context["from_page"] = FROM_PAGE
        return super().render_change_form(request, context, *args, **options)

    # -- actions

    def has_change_deliveries_permission(self, request: HttpRequest) -> bool:
        """Whoever has Django's permission to change them."""
        return may(request, "change", Delivery)

    @admin.action(description="Retry selected deliveries", permissions=["change_deliveries"])
    def retry(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        """Try them again, from the start of the schedule."""
        chosen = self.selected(request, queryset)
        reached = _enabled({_to(delivery) for delivery in chosen}) | _unstored(chosen)
        over = [d for d in chosen if DeliveryState(d.state).settled]
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

    @admin.action(description="Retry failed deliveries since …", permissions=["change_deliveries"])
    def recover(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        """Go on to the page that asks since when, for the subscriptions of these deliveries."""
        keys = sorted({_to(delivery) for delivery in self.selected(request, queryset)})
        url = url_of(self.admin_site, Delivery, "recover")
        if not keys or url is None:
            return None
        return HttpResponseRedirect(f"{url}?{urlencode({'subscription': keys}, doseq=True)}")

    @admin.action(description="Discard selected deliveries", permissions=["change_deliveries"])
    def discard(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        """Try them no more, once that is confirmed."""
        chosen = self.selected(request, queryset)
        pending = [delivery for delivery in chosen if delivery.state == State.PENDING]
        if not pending:
            if chosen:
                words = "Nothing was discarded: no selected delivery is pending."
                self.message_user(request, words, "WARNING")
            return self._back(request, chosen)
        if "confirmed" not in request.POST:
            return self._confirm(request, pending, len(chosen) - len(pending))
        gone = _discard([delivery.pk for delivery in pending])
        self._log(request, [d for d in pending if d.pk in gone], "Discarded.")
        self.message_user(request, f"{_several(len(gone))} discarded.", "SUCCESS")
        return self._back(request, chosen)

    def _confirm(self, request: HttpRequest, pending: Sequence[Any], others: int) -> HttpResponse:
        context = {
            "title": "Discard deliveries",
            "pending": pending,
            "listed": pending[:LISTED_TO_CONFIRM],
            "more": max(len(pending) - LISTED_TO_CONFIRM, 0),
            "others": others,
            "checkbox": ACTION_CHECKBOX_NAME,
            "from_page": FROM_PAGE if FROM_PAGE in request.POST else None,
        }
        return self.page(request, "thorn_django/admin/discard.html", context)

    def _back(self, request: HttpRequest, chosen: Sequence[Any]) -> HttpResponse | None:
        if FROM_PAGE not in request.POST or len(chosen) != 1:
            return None
        url = url_of(self.admin_site, Delivery, "change", quote(chosen[0].pk))
        return None if url is None else HttpResponseRedirect(url)

    def _log(self, request: HttpRequest, deliveries: Sequence[Delivery], words: str) -> None:
        # Only where the admin is installed has it models; this module can be imported anywhere.
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
        """With that of the page that asks since when."""
        view = self.admin_site.admin_view(self.recover_view)
        return [path("recover/", view, name="thorn_django_delivery_recover"), *super().get_urls()]

    def recover_view(self, request: HttpRequest) -> HttpResponse:
        """Try again what failed for some subscriptions since a time that is asked for."""
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
                f"More than {RECOVERED:,} deliveries have failed since then; choose a later time,"
                f" or run manage.py thorn_replay --subscription"
                f" {max(counts, key=lambda k: counts[k])}"
                f" --since {since.isoformat()}",
            )
        context = {
            "title": "Retry failed deliveries",
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
            words = f"Retried deliveries that failed since {stamp(since)}: {count:,}."
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
    return str(delivery.subscription_id)


def _several(count: int, less: str = "") -> str:
    verb = " was" if count == 1 else " were"
    return f"{count:,} deliver{'y' if count == 1 else 'ies'}{verb}{' ' if less else ''}{less}"


def _enabled(keys: set[str]) -> set[str]:
    """Of some subscriptions, those in the store that are delivered to."""
    rows = subscription_model()._base_manager.using(store_alias())
    return set(rows.filter(pk__in=keys, enabled=True).values_list("pk", flat=True))


def _unstored(deliveries: Sequence[Delivery]) -> set[str]:
    """The subscriptions of deliveries that carry them along."""
    rows = Delivery._base_manager.using(store_alias())
    asked = rows.filter(pk__in=[d.pk for d in deliveries], target__isnull=False)
    return set(asked.values_list("subscription_id", flat=True))


def _failed_since(key: str, since: datetime) -> int:
    rows = Delivery._base_manager.using(store_alias())
    failed = rows.filter(subscription_id=key, created_at__gte=since, state__in=FAILED)
    return failed[: RECOVERED + 1].count()


def _discard(keys: Sequence[str]) -> set[str]:
    """Discard those that are pending still; a worker may have taken some meanwhile."""
    store, now = get_app().store, get_app().clock()
    assert isinstance(store, DjangoStore)
    return store.database.run(partial(_discard_rows, keys=keys, now=now))


def _discard_rows(
    connection: BaseDatabaseWrapper, *, keys: Sequence[str], now: datetime
) -> set[str]:
    rows = Delivery._base_manager.using(connection.alias).filter(pk__in=keys)
    pending = rows.filter(state=State.PENDING)
    locked = pending.select_for_update() if connection.features.has_select_for_update else pending
    found = set(locked.values_list("pk", flat=True))
    rows.filter(pk__in=found).update(
        state=State.DISCARDED,
        settled_at=now,
        reason="an operator discarded it",
        ready_at=None,
        token=None,
        leased_until=None,
    )
    return found
