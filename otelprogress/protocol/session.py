"""Both sides of one feed connection, sans I/O: the names that drivers use."""

from __future__ import annotations

from otelprogress.protocol.client_session import ClientSession, Delivery, Subscription
from otelprogress.protocol.server_session import Authorize, Grant, ServerSession

__all__ = ["Authorize", "ClientSession", "Delivery", "Grant", "ServerSession", "Subscription"]
