"""`GET /v1/operations` and `GET /v1/operations/{operation}`: the state, asked for once, or once it has moved on."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from math import inf
from typing import TYPE_CHECKING, Final

import msgspec
from starlette.types import Receive, Scope, Send

from otelprogress.exceptions import AmbiguousOperation, UnknownOperation
from otelprogress.protocol.digests import digest_since
from otelprogress.protocol.encoding import encode_operation
from otelprogress.protocol.messages import Filter
from otelprogress_collector.api.access import matcher_of
from otelprogress_collector.api.problem import JSON, Problem, busy, respond
from otelprogress_collector.api.query import ListParameters, ViewParameters, read_query
from otelprogress_collector.api.ws_protocol import EXTENSION

if TYPE_CHECKING:
    from otelprogress.model.events import OperationView
    from otelprogress.protocol.filters import Matcher
    from otelprogress_collector.api.access import Access
    from otelprogress_collector.api.delivery import Delivery
    from otelprogress_collector.api.http_protocol import CollectorHttp
    from otelprogress_collector.auth.principal import Principal
    from otelprogress_collector.host import CollectorHost

MAX_WAIT_S: Final = 60.0
MAX_WAITING: Final = 10_000
_MAX_NAME_CHARS: Final = 256
_MAX_CANDIDATES: Final = 20
_EVERYTHING: Final = Filter(roots=False)
_TEXT: Final = "text/plain; charset=utf-8"


class Operations:
    """The ASGI application of `/v1/operations`.

    Args:
        host: what is asked.
        access: who may ask for what.
    """

    def __init__(self, host: CollectorHost, access: Access) -> None:
        self._host = host
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            body, media_type = await self._answer(scope)
        except Problem as refused:
            await refused.answer(send)
        else:
            await respond(send, body, media_type=media_type)

    async def _answer(self, scope: Scope) -> tuple[bytes, str]:
        principal = await self._access.reader(scope)
        hub = self._host.hub
        wanted, asked = read_query(
            scope["query_string"], ListParameters, max_clauses=hub.limits.filter_clauses
        )
        if asked.render == "events" and asked.since is not None:
            raise Problem(HTTPStatus.BAD_REQUEST, "since is the position of a digest: ask with render=digest")
        await self._host.readable()
        self._access.still(principal)
        now_unix_ns = self._host.clock.time_unix_ns()
        matcher = matcher_of(principal, wanted)
        if asked.render == "digest":
            told = digest_since(hub, matcher, asked.since, now_unix_ns, max_tokens=asked.max_tokens)
            return told.text.encode(), _TEXT
        return self._listed(matcher, now_unix_ns), JSON

    def _listed(self, matcher: Matcher, now_unix_ns: int) -> bytes:
        hub = self._host.hub
        run_ids, more = hub.matching(matcher, now_unix_ns, hub.limits.operations)
        parts = [
            part[0] for run_id in run_ids if (part := hub.operation_part(run_id, now_unix_ns)) is not None
        ]
        body = b'{"operations":[%b],"more":%d' % (b",".join(parts), more)
        if more:
            body += b',"next":%b' % msgspec.json.encode(run_ids[-1])
        return body + b"}"


class _Waiter:
    """A request that waits for one run to change."""

    __slots__ = ("_change", "_host", "_run_id", "changed", "due_s")

    def __init__(self, host: CollectorHost, run_id: str) -> None:
        self.due_s = inf
        self.changed = asyncio.Event()
        self._host = host
        self._run_id = run_id
        self._change = host.hub.change_of(run_id)

    def pump(self, now_s: float, now_unix_ns: int) -> None:
        """Look whether it did."""
        change = self._host.hub.change_of(self._run_id)
        if change != self._change:
            self._change = change
            self.changed.set()

    def look(self, now_s: float, now_unix_ns: int) -> None:
        """The time is over."""
        self.changed.set()

    def plan(self, now_s: float) -> None:
        """The request said when it ends."""

    def fail(self) -> None:
        """Have the request look itself."""
        self.changed.set()

    def recheck(self) -> bool:
        """The request looks at its token itself before it answers."""
        return True


class Operation:
    """The ASGI application of `/v1/operations/{operation}`.

    Args:
        host: what is asked.
        access: who may ask for what.
        delivery: gives a turn to those who wait.
    """

    def __init__(self, host: CollectorHost, access: Access, delivery: Delivery) -> None:
        self.draining = False
        self._host = host
        self._access = access
        self._delivery = delivery
        self._waiting: set[_Waiter] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, perhaps later."""
        try:
            view = await self._answer(scope)
        except Problem as refused:
            await refused.answer(send)
        else:
            await respond(send, encode_operation(view, self._host.hub.limits.server_frame_bytes))

    async def _answer(self, scope: Scope) -> OperationView:
        principal = await self._access.reader(scope)
        _, asked = read_query(scope["query_string"], ViewParameters, max_clauses=None)
        if not 0 <= asked.wait <= MAX_WAIT_S:
            raise Problem(HTTPStatus.BAD_REQUEST, f"wait is between 0 and {MAX_WAIT_S:g} seconds")
        await self._host.readable()
        run_id = self._find(scope["path_params"]["operation"], principal)
        view = self._view(run_id)
        if asked.after is None or view.revision > asked.after:
            return view
        connection: CollectorHttp | None = scope.get("extensions", {}).get(EXTENSION)
        return await self._later(view, principal, asked.after, asked.wait, connection)

    def _find(self, text: str, principal: Principal) -> str:
        matcher = matcher_of(principal, _EVERYTHING)
        try:
            if len(text) > _MAX_NAME_CHARS:
                raise UnknownOperation("no operation has a name that long")
            return self._host.hub.resolve(text, matcher)
        except UnknownOperation as unknown:
            raise Problem(HTTPStatus.NOT_FOUND, str(unknown)) from None
        except AmbiguousOperation as ambiguous:
            raise Problem(
                HTTPStatus.CONFLICT, str(ambiguous), candidates=ambiguous.candidates[:_MAX_CANDIDATES]
            ) from None

    def _view(self, run_id: str) -> OperationView:
        view = self._host.hub.view(run_id, self._host.clock.time_unix_ns(), steps=True)
        if view is None:
            raise Problem(HTTPStatus.NOT_FOUND, "the operation was forgotten")
        return view

    async def _later(
        self,
        view: OperationView,
        principal: Principal,
        revision: int,
        wait_s: float,
        connection: CollectorHttp | None,
    ) -> OperationView:
        """The state once its revision is higher, or as it is after `wait_s`."""
        if len(self._waiting) >= MAX_WAITING:
            raise busy(f"{MAX_WAITING} requests wait")
        clock = self._host.clock
        until_s = clock.monotonic_s() + wait_s
        expires_at_s = self._access.grant(principal).expires_at_s
        waiter = _Waiter(self._host, view.id)
        self._waiting.add(waiter)
        self._delivery.add(waiter)
        if connection is not None:
            connection.on_writable = waiter.changed.set  # called at its end, too
        try:
            while (
                view.revision <= revision
                and not self.draining
                and not (connection is not None and connection.transport.is_closing())
            ):
                now_s = clock.monotonic_s()
                if now_s >= until_s:
                    break
                self._delivery.look_at(waiter, min(until_s, expires_at_s or until_s), now_s)
                await waiter.changed.wait()
                waiter.changed.clear()
                await self._host.readable()
                self._access.still(principal)
                # Forgotten, or out of sight: both can have happened meanwhile.
                view = self._view(self._find(view.id, principal))
        finally:
            if connection is not None:
                connection.on_writable = None
            self._delivery.remove(waiter)
            self._waiting.discard(waiter)
        return view

    def drain(self) -> None:
        """Answer those who wait with what is there."""
        self.draining = True
        for waiter in self._waiting:
            waiter.changed.set()
