"""The admin: edits subscriptions, and shows messages and deliveries.

Projects can register the classes on their own site, or inherit from them.
"""

from __future__ import annotations

from importlib import import_module

from django.apps import apps
from django.contrib import admin
from django.utils.module_loading import module_has_submodule

from thorn_core import ThornError
from thorn_django.admin.deliveries import DeliveryAdmin
from thorn_django.admin.messages import MessageAdmin
from thorn_django.admin.subscriptions import SubscriptionAdmin
from thorn_django.models import AbstractSubscription, Delivery, Message
from thorn_django.subscription_model import subscription_model


def _register() -> None:
    admin.site.register(Message, MessageAdmin)
    admin.site.register(Delivery, DeliveryAdmin)
    try:
        model = subscription_model()
    except ThornError:
        return  # `manage.py check` reports the problem with it.
    if not _registered_by_its_project(model):
        admin.site.register(model, SubscriptionAdmin)


def _registered_by_its_project(model: type[AbstractSubscription]) -> bool:
    """Return True if the model's own app registers it, even if Django loads that app later."""
    config = apps.get_app_config(model._meta.app_label)
    theirs = config.module is not None and config.name != "thorn_django"
    if theirs and module_has_submodule(config.module, "admin"):
        import_module(f"{config.name}.admin")
    return admin.site.is_registered(model)


_register()

__all__ = ["DeliveryAdmin", "MessageAdmin", "SubscriptionAdmin"]
