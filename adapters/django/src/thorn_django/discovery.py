"""The modules of a project that declare events."""

from __future__ import annotations

import importlib
import logging

from django.apps import apps
from django.utils.module_loading import module_has_submodule

logger = logging.getLogger(__name__)

# Modules of an app that may declare events, besides its models.
MODULES = ("events", "webhooks")


def import_events() -> None:
    """Import `events` and `webhooks` of every installed app that has them.

    A failed import is logged: its events are unknown, so messages that need them wait.
    """
    if not apps.models_ready:
        return
    for config in apps.get_app_configs():
        for name in MODULES:
            if config.module is None or not module_has_submodule(config.module, name):
                continue
            try:
                importlib.import_module(f"{config.name}.{name}")
            except Exception:
                logger.exception(
                    "%s.%s can't be imported; messages that need its events will wait",
                    config.name,
                    name,
                )
