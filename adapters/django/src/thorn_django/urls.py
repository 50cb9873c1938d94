"""The REST resource's URLs: `path("hooks/", include("thorn_django.urls"))`.

Names: `thorn:hook-list`, the list of subscriptions; `thorn:resource`, with the path below it.
"""

from __future__ import annotations

from django.urls import path, re_path

from thorn_django.views import webhooks

app_name = "thorn"

urlpatterns = [
    path("", webhooks, name="hook-list"),
    # Any path: the resource responds to unknown ones.
    re_path(r"^(?P<below>[\s\S]+)\Z", webhooks, name="resource"),
]
