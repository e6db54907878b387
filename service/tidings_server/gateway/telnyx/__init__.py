"""Telnyx's dialect: AI Missions."""

from tidings_server.gateway.telnyx.missions import router

__all__ = ["router"]
