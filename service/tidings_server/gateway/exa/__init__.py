"""Exa's dialect: the events of Websets."""

from tidings_server.gateway.exa.routes import router

__all__ = ["router"]
