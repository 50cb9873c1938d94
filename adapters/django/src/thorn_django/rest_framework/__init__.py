"""The REST resource on Django REST framework: `thorn_django.rest_framework.urls`.

The project's authentication, throttling and browsable API apply; the resource creates the
responses.
"""
