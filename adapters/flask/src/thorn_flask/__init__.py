"""Thorn on Flask: an extension, the REST resource, commands, and views for webhooks."""

from thorn_flask.extension import ThornFlask, current_thorn
from thorn_flask.portal import portal_blueprint
from thorn_flask.receiving import verify_webhook
from thorn_flask.rest import rest_blueprint

__version__ = "2.0.0"

__all__ = ["ThornFlask", "current_thorn", "portal_blueprint", "rest_blueprint", "verify_webhook"]
