"""The reading side of the collector on a real port, over a real hub and a host that commits when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import aiohttp
import uvicorn
from starlette.applications import Starlette

from otelprogress.feed.admission import token_matches
from otelprogress.feed.clock import Clock, SystemClock
from otelprogress.model.events import Event
from otelprogress.model.tree import OperationTree
from otelprogress.protocol.cursor import CursorKey
from otelprogress.protocol.hub import Hub
from otelprogress.protocol.messages import Limits
from otelprogress_collector.api.reading import UVICORN_OPTIONS, Reading
from otelprogress_collector.auth.admission import CollectorAdmission
from otelprogress_collector.auth.principal import READ, Denied, Principal

TOKEN = "a-token-for-tests"
T = TypeVar("T")


class FakeHost:
    """What `CollectorHost` promises to readers. Everything runs on the server's loop."""

    def __init__(
        self, hub: Hub | None = None, *, clock: Clock | None = None, limits: Limits | None = None
    ) -> None:
        self.hub = hub or Hub(
            OperationTree(), epoch="epoch-1", cursor_key=CursorKey(b"k" * 32), limits=limits
        )
        self.clock = clock or SystemClock()
        self._listeners: list[Callable[[], None]] = []
        self._quiet = asyncio.Event()
        self._quiet.set()

    async def readable(self) -> None:
        while not self._quiet.is_set():
            await self._quiet.wait()

    def is_readable(self) -> bool:
        return self._quiet.is_set()

    def on_change(self, listener: Callable[[], None]) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def begin(self) -> None:
        """A commit begins: nobody may look."""
        self._quiet.clear()

    def commit(self) -> None:
        """It ended."""
        self._quiet.set()
        for listener in tuple(self._listeners):
            listener()

    def publish(self, *events: Event) -> None:
        for event in events:
            self.hub.publish(event, self.clock.time_unix_ns())
        self.commit()


class FakeAuthority:
    """Tokens in a dict."""

    required_for_ingest = True

    def __init__(self, tokens: dict[str, Principal] | None = None) -> None:
        self.tokens = tokens if tokens is not None else {TOKEN: reader()}
        self.prepared: list[str | None] = []
        self.denied: set[str] = set()
        """Actors on the deny-list."""

    def judge(self, token: str | None, now_unix_s: float) -> Principal:
        for known, principal in self.tokens.items():
            if token_matches(known, token):
                if principal.expires_at_unix_s is not None and principal.expires_at_unix_s <= now_unix_s:
                    raise Denied("the token expired")
                if self.revoked(principal):
                    raise Denied("the token was revoked")
                return principal
        raise Denied("the token is missing or wrong")

    async def prepare(self, token: str | None) -> None:
        self.prepared.append(token)

    def revoked(self, principal: Principal) -> bool:
        return principal.actor in self.denied


def reader(actor: str = "ada", **fields: Any) -> Principal:
    return Principal(actor=actor, scopes=fields.pop("scopes", frozenset({READ})), **fields)


class Served:
    """A running server and what stands behind it, from another thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, host: FakeHost, reading: Reading, port: int) -> None:
        self.loop = loop
        self.host = host
        self.reading = reading
        self.address = ("127.0.0.1", port)
        self.url = f"ws://127.0.0.1:{port}"
        self.http = f"http://127.0.0.1:{port}"

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call something on the server's loop, and wait for it."""

        async def run() -> T:
            return function(*arguments)

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(30)

    def run(self, coroutine: Any) -> Any:
        """Run a coroutine on the server's loop, and wait for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def submit(self, event: Event) -> None:
        """Publish one event, in a commit of its own, in order, without waiting."""
        self.loop.call_soon_threadsafe(self.host.publish, event)

    @property
    def client_count(self) -> int:
        return self.call(lambda: self.reading.feed.client_count)

    @property
    def failures(self) -> int:
        return self.reading.feed.stats.failures


@contextlib.contextmanager
def serving(
    *,
    authority: FakeAuthority | None = None,
    hosts: Sequence[str] = (),
    origins: Sequence[str] = (),
    feed_limits: Limits | None = None,
    clock: Clock | None = None,
    hub: Hub | None = None,
    routes: Sequence[Any] = (),
    **options: Any,
) -> Iterator[Served]:
    """The routes of `Reading` on a free port, on a thread of its own."""
    options.setdefault("ready", lambda: None)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        admission = CollectorAdmission("127.0.0.1", port, hosts=hosts, origins=origins)
        up = threading.Event()
        served: list[Served] = []
        failed: list[BaseException] = []
        ending: list[asyncio.Event] = []

        async def main() -> None:
            host = FakeHost(hub, clock=clock, limits=feed_limits)
            reading = Reading(host, authority or FakeAuthority(), admission=admission, **options)
            app = Starlette(routes=[*reading.routes(), *routes])
            config = uvicorn.Config(
                app, **UVICORN_OPTIONS, lifespan="off", log_level="warning", timeout_graceful_shutdown=2
            )
            server = uvicorn.Server(config)
            reading.start()
            ending.append(asyncio.Event())
            running = asyncio.create_task(server.serve(sockets=[listener]))
            while not server.started:
                await asyncio.sleep(0.005)
            served.append(Served(asyncio.get_running_loop(), host, reading, port))
            up.set()
            await ending[0].wait()
            host.commit()
            await reading.drain(1.0)
            server.should_exit = True
            await running
            await reading.stop()

        def run() -> None:
            try:
                asyncio.run(main())
            except BaseException as error:
                failed.append(error)
            finally:
                up.set()

        thread = threading.Thread(target=run)
        thread.start()
        up.wait(30)
        if failed:
            raise failed[0]
        try:
            yield served[0]
        finally:
            served[0].loop.call_soon_threadsafe(ending[0].set)
            thread.join(30)
            assert not thread.is_alive()
    if failed:
        raise failed[0]


class Answer:
    """One HTTP answer, read."""

    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def media_type(self) -> str:
        return self.headers["Content-Type"].partition(";")[0]


async def get(
    served: Served,
    path: str,
    *,
    token: str | None = TOKEN,
    headers: dict[str, str] | None = None,
    parameters: Any = None,
    method: str = "GET",
    **body: Any,
) -> Answer:
    """Ask the server once."""
    asked = {"Authorization": f"Bearer {token}"} if token else {}
    async with (
        aiohttp.ClientSession() as session,
        session.request(
            method, served.http + path, headers=asked | (headers or {}), params=parameters, **body
        ) as response,
    ):
        return Answer(response.status, response.headers, await response.read())
