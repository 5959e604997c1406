"""A real uvicorn on a free port of 127.0.0.1, in the test's loop, with the collector's WebSocket protocol."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from starlette.types import ASGIApp

from otelprogress_collector.api.ws_protocol import CollectorWebSocket
from tests.waiting import aeventually


@asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[int]:
    """The port on which `app` is served meanwhile."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(
            app, ws=CollectorWebSocket, lifespan="off", log_config=None, timeout_graceful_shutdown=1
        )
    )
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await aeventually(lambda: server.started)
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task
        listener.close()
