"""`/healthz` and `/readyz`: for those who start, stop and route. They say nothing of what is served."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from starlette.types import Receive, Scope, Send

from otelprogress_collector.api.problem import busy, respond

Ready = Callable[[], str | None]
"""Why the collector does not serve now (it starts, it drains, its store refuses); `None`: it does."""

_ALIVE: Final = b'{"status":"alive"}'
_READY: Final = b'{"status":"ready"}'


class Health:
    """The ASGI application of `/healthz`: the loop turns. Nothing more, or a full disk would have it restarted."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """200."""
        await respond(send, _ALIVE)


class Readiness:
    """The ASGI application of `/readyz`.

    Args:
        ready: asked for each request; must be quick.
    """

    def __init__(self, ready: Ready) -> None:
        self._ready = ready

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """200, or 503 with the reason."""
        reason = self._ready()
        if reason is None:
            await respond(send, _READY)
        else:
            await busy(reason).answer(send)
