"""Tidings' own face: its RPCs as JSON, its watches as server-sent events."""

from tidings_server.gateway.rest.handler import router

__all__ = ["router"]
