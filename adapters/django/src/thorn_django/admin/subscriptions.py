"""Subscriptions: edited through the app, which checks them and maintains their patterns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.db import connections
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import path
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.utils.http import urlencode
from django.views.decorators.http import require_POST

from thorn_core import Delivery as DeliveryValue
from thorn_core import Thorn
from thorn_core.api.representations import shown_secret
from thorn_core.api.validation import differing
from thorn_core.stores.sql.schema import SUBSCRIPTIONS
from thorn_django import get_app
from thorn_django.admin.chart import delivery_chart
from thorn_django.admin.forms import SubscriptionForm
from thorn_django.admin.lists import StoreAdmin, link, may, store_alias, url_of, within_reach
from thorn_django.admin.shown import MASK, answer, header_lines, milliseconds, printable
from thorn_django.models import AbstractSubscription, Delivery
from thorn_django.unit_of_work import in_transaction

# The time in seconds that "Send a test" waits for a result.
PATIENCE = 3.0
EVENTS_SHOWN = 3
# The fields of the form, in order; `owner` and `secret` only for new subscriptions.
NEW = ("url", "events", "owner", "description", "secret", *("content_type", "hmac_digest"))
CHANGED = ("url", "events", "description", "enabled", "content_type", "hmac_digest")
LOOKED_AT = ("url", "shown_events", "description", "enabled", "content_type", "hmac_digest")
STANDING = ("id", "owner", "disabled_reason", "failing_since", "created_at", "updated_at")


class EnabledFilter(admin.SimpleListFilter):
    """Filters subscriptions by their state."""

    title = "standing"
    parameter_name = "standing"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Sequence[tuple[str, str]]:
        """Return the states."""
        return [("enabled", "Enabled"), ("disabled", "Disabled"), ("failing", "Failing")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Filter the newest rows."""
        standing = {
            "enabled": Q(enabled=True),
            "disabled": Q(enabled=False),
            "failing": Q(failing_since__isnull=False),
        }.get(self.value() or "")
        return queryset if standing is None else within_reach(queryset, "id").filter(standing)


class SubscriptionAdmin(StoreAdmin):
    """Subscriptions of Thorn's model, or of a project's model with its own fields."""

    form = SubscriptionForm
    change_form_template = "thorn_django/admin/subscription.html"
    list_display = ("url_shown", "shown_events", "owner", "enabled", "failing_since", "created_at")
    list_display_links = ("url_shown",)
    list_filter = (EnabledFilter,)
    sortable_by = ()
    ordering = ("-id",)
    search_fields = ("id",)
    search_help_text = (
        "Search by ID, owner, or part of a URL (newest 100,000). Lists at most 10,000."
    )
    actions = ("enable", "disable", "recover")
    readonly_fields = (*STANDING, "shown_events", "shown_headers")

    # -- the list

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Search by id or owner, which have indexes, else by URL."""
        term = search_term.strip()
        if not term:
            return queryset, False
        exact = queryset.filter(Q(pk=term) | Q(owner=term))
        if exact[:1]:
            return exact, False
        return within_reach(queryset, "id").filter(url__icontains=term), False

    @admin.display(description="URL", ordering=None)
    def url_shown(self, obj: AbstractSubscription) -> str:
        """URL that receives the requests."""
        return printable(obj.url)

    @admin.display(description="events")
    def shown_events(self, obj: AbstractSubscription) -> str:
        """Return the first patterns."""
        more = len(obj.events) - EVENTS_SHOWN
        return ", ".join(obj.events[:EVENTS_SHOWN]) + (f" and {more} more" if more > 0 else "")

    @admin.display(description="headers")
    def shown_headers(self, obj: AbstractSubscription) -> str:
        """Return the headers without credentials, for users who may only view."""
        found = get_app().subscription(obj.pk)
        return "" if found is None else "\n".join(header_lines(found))

    @admin.action(description="Enable selected subscriptions", permissions=["change"])
    def enable(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Enable subscriptions."""
        self._switch(request, queryset, on=True)

    @admin.action(description="Disable selected subscriptions", permissions=["change"])
    def disable(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Disable subscriptions."""
        self._switch(request, queryset, on=False)

    def _switch(self, request: HttpRequest, queryset: QuerySet[Any], *, on: bool) -> None:
        chosen = [s for s in self.selected(request, queryset) if s.enabled is not on]
        for subscription in chosen:
            get_app().update_subscription(subscription.pk, **_switched(on=on))
            words = "Enabled." if on else "Disabled."
            self.log_change(request, subscription, words)
        done = "enabled" if on else "disabled"
        self.message_user(request, f"{_several(len(chosen))} {done}.", "SUCCESS")

    @admin.action(
        description="Retry failed and cancelled deliveries since …", permissions=["recover"]
    )
    def recover(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        """Redirect to the page that asks for a start time."""
        chosen = [subscription.pk for subscription in self.selected(request, queryset)]
        url = url_of(self.admin_site, Delivery, "recover")
        if url is None or not chosen:
            return None
        return HttpResponseRedirect(f"{url}?{urlencode({'subscription': chosen}, doseq=True)}")

    def has_recover_permission(self, request: HttpRequest) -> bool:
        """Return True for users who may change deliveries."""
        return may(request, "change", Delivery)

    # -- the page

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Make the owner read-only after creation."""
        names = super().get_readonly_fields(request, obj)
        return [name for name in names if obj is not None or name != "owner"]

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the editable fields, the status, and then the project's own fields."""
        own = [
            field.name
            for field in (*self.opts.fields, *self.opts.many_to_many)
            if field.editable and field.name not in SUBSCRIPTIONS.names and not field.auto_created
        ]
        changing = obj is not None and self.has_change_permission(request, obj)
        asked = NEW if obj is None else CHANGED if changing else LOOKED_AT
        headers = "headers" if obj is None or changing else "shown_headers"
        sets: list[Any] = [(None, {"fields": (*asked, "rate_limit", headers)})]
        if own:
            sets.append((self.opts.app_config.verbose_name, {"fields": tuple(own)}))
        if obj is not None:
            sets.append(("Status", {"fields": STANDING}))
        return sets

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:  # noqa: FBT001 - Django's signature
        """Create or change the subscription through the app."""
        values = form.checked
        if not change:
            owner = form.cleaned_data.get("owner") or None
            events, url = values.pop("events"), values.pop("url")
            obj.pk = get_app().subscribe(events, url, owner=owner, **values).id
        else:
            dropped = _change(get_app(), obj.pk, values)
            if dropped:
                words = (
                    f"Removed these headers because they belonged to the URL's old origin:"
                    f" {', '.join(dropped)}."
                )
                self.message_user(request, words, "WARNING")
        rows = type(obj)._base_manager.using(store_alias())
        named = {field.name for field in self.opts.concrete_fields} - set(SUBSCRIPTIONS.names)
        own = {name: getattr(obj, name) for name in form.cleaned_data if name in named}
        if own:
            rows.filter(pk=obj.pk).update(**own)
        obj.refresh_from_db(from_queryset=rows)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        """Remove the subscription through the app."""
        get_app().unsubscribe(obj.pk)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Remove subscriptions through the app."""
        for key in list(queryset.values_list("pk", flat=True)):
            get_app().unsubscribe(key)

    def response_add(
        self, request: HttpRequest, obj: Any, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Show the secret once."""
        return self._secret_page(request, obj, added=True)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **options: Any
    ) -> Any:
        """Add a chart and buttons."""
        obj = options.get("obj")
        if obj is not None:
            context |= self._beside(request, obj)
        return super().render_change_form(request, context, *args, **options)

    def _beside(self, request: HttpRequest, obj: AbstractSubscription) -> dict[str, Any]:
        alias, asked = store_alias(), {"subscription": obj.pk}
        found: dict[str, Any] = {}
        if alias is not None and may(request, "view", Delivery):
            found["chart"] = delivery_chart(obj.pk, get_app().clock())
            deliveries = url_of(self.admin_site, Delivery, "changelist")
            if deliveries is not None:
                found["deliveries_url"] = f"{deliveries}?{urlencode(asked)}"
        recover = url_of(self.admin_site, Delivery, "recover")
        if recover is not None and self.has_recover_permission(request):
            found["recover_url"] = f"{recover}?{urlencode(asked)}"
        if self.has_change_permission(request, obj):
            found["test_url"] = url_of(self.admin_site, self.model, "test", quote(obj.pk))
            found["rotate_url"] = url_of(self.admin_site, self.model, "rotate", quote(obj.pk))
        return found

    # -- buttons

    def get_urls(self) -> list[Any]:
        """Add the URLs of the buttons."""
        name = f"{self.opts.app_label}_{self.opts.model_name}"
        view = self.admin_site.admin_view
        return [
            path("<path:object_id>/test/", view(self.test_view), name=f"{name}_test"),
            path("<path:object_id>/rotate/", view(self.rotate_view), name=f"{name}_rotate"),
            *super().get_urls(),
        ]

    @method_decorator(require_POST)
    def rotate_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Create a new secret and show it."""
        obj = self._to_change(request, object_id)
        if obj is None:
            return self._gone(request, object_id)
        overlap = request.POST.get("overlap")
        try:
            get_app().rotate_secret(obj.pk, overlap=None if overlap is None else float(overlap))
        except ValueError as error:
            self.message_user(request, str(error), "ERROR")
            return HttpResponseRedirect(self._page_of(obj))
        obj.refresh_from_db(from_queryset=self.get_queryset(request))
        self.log_change(request, obj, "Rotated the secret.")
        return self._secret_page(request, obj)

    @method_decorator(require_POST)
    def test_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Send a test message and show its result."""
        obj = self._to_change(request, object_id)
        if obj is None:
            return self._gone(request, object_id)
        if obj.enabled:
            self._send_test(request, obj)
        else:
            self.message_user(request, "The subscription is disabled; enable it first.", "ERROR")
        return HttpResponseRedirect(self._page_of(obj))

    def _page_of(self, obj: AbstractSubscription) -> str:
        return url_of(self.admin_site, self.model, "change", quote(obj.pk)) or ".."

    def _send_test(self, request: HttpRequest, obj: AbstractSubscription) -> None:
        app, alias = get_app(), store_alias()
        receipt = app.send_test(obj.pk)
        self.log_change(request, obj, f"Sent the test message {receipt.message.id}.")
        # The outer transaction must commit first, so waiting is useless.
        waits = alias is not None and not in_transaction(connections[alias])
        delivery = _tried(app, receipt.message.id) if waits else None
        words, level = _outcome(app, delivery)
        url, text = None, ""
        if may(request, "view", Delivery):
            if delivery is not None:
                url, text = (
                    url_of(self.admin_site, Delivery, "change", quote(delivery.id)),
                    "the delivery",
                )
            else:
                url = url_of(self.admin_site, Delivery, "changelist")
                url = None if url is None else f"{url}?{urlencode({'subscription': obj.pk})}"
                text = "the deliveries"
        more = "" if url is None else format_html(" See {}.", link(url, text))
        self.message_user(request, format_html("{}{}", words, more), level)

    def _to_change(self, request: HttpRequest, object_id: str) -> Any:
        obj = self.get_object(request, unquote(object_id))
        if not self.has_change_permission(request, obj):
            raise PermissionDenied
        return obj

    def _gone(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)  # type: ignore[attr-defined,no-any-return]

    def _secret_page(
        self, request: HttpRequest, obj: AbstractSubscription, *, added: bool = False
    ) -> HttpResponse:
        # Respond directly, so that no session, cookie or message stores the secret.
        made = get_app().subscription(obj.pk)
        assert made is not None
        context = {
            "title": "New secret",
            "subtitle": str(obj),
            "original": obj,
            "secret": shown_secret(made),
            "public_key": made.public_key,
            "added": added,
            "former_until": max(made.secret_expiry.values(), default=None),
            "list_url": url_of(self.admin_site, self.model, "changelist"),
            "add_url": url_of(self.admin_site, self.model, "add"),
            "page_url": url_of(self.admin_site, self.model, "change", quote(obj.pk)),
        }
        return self.page(request, "thorn_django/admin/secret.html", context)


def _switched(*, on: bool) -> dict[str, Any]:
    return {"enabled": on} if on else {"enabled": on, "disabled_reason": "an operator disabled it"}


def _change(app: Thorn, key: str, values: dict[str, Any]) -> list[str]:
    """Change the differing fields; return masked headers that a new origin does not get."""
    current = app.subscription(key)
    changes = {} if current is None else differing(current, values)
    if current is None or not changes:
        return []
    if changes.get("enabled") is False:
        changes |= _switched(on=False)
    changed = app.update_subscription(key, **changes)
    if "url" not in changes:
        return []
    masked = [line.partition(":")[0] for line in header_lines(current) if line.endswith(MASK)]
    return [name for name in masked if name not in changed.headers]


def _several(count: int) -> str:
    return f"{count:,} subscription{' was' if count == 1 else 's were'}"


def _tried(app: Thorn, message_id: str) -> DeliveryValue | None:
    """Return a message's delivery to a subscription, once attempted or at the time-out."""
    found: list[DeliveryValue] = []

    def tried() -> bool:
        found[:] = app.deliveries(message_id=message_id)
        return any(d.attempt_count or d.state.finished for d in found)

    app.wait_until(tried, PATIENCE)
    return found[0] if found else None


def _outcome(app: Thorn, delivery: DeliveryValue | None) -> tuple[str, str]:
    """Return the result of a test and its message level."""
    attempts = [] if delivery is None else list(app.attempts(delivery.id))
    if delivery is None or not (attempts or delivery.state.finished):
        return "Test message queued; a worker will deliver it.", "INFO"
    if not attempts:
        return f"The test message wasn't delivered: {delivery.reason}.", "ERROR"
    last = attempts[-1]
    words = f"{answer(last)} after {milliseconds(last.duration)}"
    if last.ok:
        return f"The test message was delivered: {words}.", "SUCCESS"
    return f"The test message failed: {words}.", "ERROR"
