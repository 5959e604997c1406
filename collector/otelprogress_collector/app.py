"""The composition root of the collector: builds all parts, joins them, starts and ends them. Nothing else knows all.

It is long because it is the only file that may know every part; what can be decided without them stands elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, WebSocketRoute

from otelprogress.exceptions import InvalidValue
from otelprogress.feed import runtime_file
from otelprogress.feed.clock import SystemClock
from otelprogress.feed.connection import ServerLimits
from otelprogress.model.applied import TreeLimits
from otelprogress.model.rules import RuleSet, parse_rules
from otelprogress_collector import __version__, logs
from otelprogress_collector.api.operation_metrics import OperationMetrics
from otelprogress_collector.api.reading import UVICORN_OPTIONS, Reading
from otelprogress_collector.auth.admission import CollectorAdmission, Refusal, token_of
from otelprogress_collector.auth.authority import AuthConfig, open_authority
from otelprogress_collector.auth.principal import Principal
from otelprogress_collector.auth.rate import RateLimits, TokenBuckets
from otelprogress_collector.auth.tls import (
    TlsConfig,
    grpc_credentials,
    ingest_needs_token,
    is_loopback,
    server_context,
)
from otelprogress_collector.auth.tokens import ensure_own_token
from otelprogress_collector.commanding import Commanding
from otelprogress_collector.config import ENV_PREFIX
from otelprogress_collector.exporters.backend import BackendConfig, parse_backends
from otelprogress_collector.exporters.forwarder import Forwarder
from otelprogress_collector.host import CollectorHost
from otelprogress_collector.listening import LoopErrors, listen
from otelprogress_collector.maintenance import Maintenance
from otelprogress_collector.mcp.mount import Mcp
from otelprogress_collector.monitor.monitor import Monitor
from otelprogress_collector.otlp_conversion import to_protobuf
from otelprogress_collector.receivers.admission import authenticate_with
from otelprogress_collector.receivers.decoding import Decoder
from otelprogress_collector.receivers.ingest import Ingest
from otelprogress_collector.receivers.limits import Limits
from otelprogress_collector.receivers.otlp_grpc import GrpcReceiver
from otelprogress_collector.receivers.otlp_http import routes as ingest_routes
from otelprogress_collector.recording import open_hub
from otelprogress_collector.self_metrics import exporter_lines, host_lines, monitor_lines, store_lines
from otelprogress_collector.self_traces import SelfTraces, TracedIngest
from otelprogress_collector.settings_summary import issuer_lines, jwt_configs, limit_lines, tls_lines
from otelprogress_collector.store.data_dir import check_mode
from otelprogress_collector.store.factory import open_store

if TYPE_CHECKING:
    from starlette.websockets import WebSocket

    from otelprogress.mcp.starting import Starter
    from otelprogress_collector.config import Config
    from otelprogress_collector.receivers.intake import Encoding, Intake, Signal

_LOG: Final = logging.getLogger("otelprogress_collector")
DRAIN_S: Final = 3.0
"""How long clients may take to go once the collector ends."""
EXPORT_DRAIN_S: Final = 2.0
"""How long backends have after that for what is queued; on disk the rest waits for the next start."""
_REPEATED: Final = ("authorization", "sec-websocket-protocol")


class Collector:
    """Everything of one collector.

    Args:
        config: checked.
        arguments: of the command line, for the alternative that a taken port suggests.

    Attributes:
        http_port: once it was started.
        grpc_port: likewise; 0: gRPC is off.
        own_token: of the user's own programs; empty: there is none (`no_auth`, or another address than loopback).
    """

    def __init__(self, config: Config, *, arguments: Sequence[str] = ()) -> None:
        self.config = config
        self.http_port = 0
        self.grpc_port = 0
        self.own_token = ""
        self._arguments = tuple(arguments)
        self._clock = SystemClock()
        self._starting = True
        self._runtime_path: Path | None = None
        self._http: _Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self._grpc: GrpcReceiver | None = None

    # --- start ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open everything in the order in which it depends on each other, the ports last.

        Where that fails, or is cancelled, everything that was opened is closed again before it raises: another
        `Collector` can be started on the same folder and ports.

        Raises:
            InvalidValue: a setting that cannot be meant, seen only now (a file, a token, a rule).
            StoreUnavailable: the data folder cannot be used.
            PortTaken: a port cannot be had.
            OSError: what the system refuses.
        """
        async with contextlib.AsyncExitStack() as opened:
            await self._open(opened)
            self._opened = opened.pop_all()

    async def _open(self, undo: contextlib.AsyncExitStack) -> None:
        config, clock = self.config, self._clock
        self._prepare_folder()
        tls = tls_of(config)
        http_listener = listen(config.host, config.http_port, setting="http_port", arguments=self._arguments)
        undo.callback(http_listener.close)
        self.http_port = http_listener.getsockname()[1]
        admission = CollectorAdmission(
            config.host,
            self.http_port,
            tls=config.tls,
            hosts=config.allowed_hosts,
            origins=config.allowed_origins,
        )
        self.authority = open_authority(self._auth())
        undo.push_async_callback(self.authority.close)
        self.store = await asyncio.to_thread(open_store, config.durability, config.data_path)
        undo.push_async_callback(asyncio.to_thread, self.store.close)
        opened = self.store.open()
        for note in opened.notes:
            _LOG.warning("the store: %s", note)
        hub, recorder = await asyncio.to_thread(
            open_hub,
            self.store,
            opened,
            clock.time_unix_ns(),
            ring_events=config.ring_events,
            tree_limits=TreeLimits(
                keep_ended_s=config.keep_ended_s,
                max_runs=config.max_runs,
                reorder_window_s=config.reorder_window_s,
            ),
        )
        self.forwarder = Forwarder(
            backends_of(config),
            config.data_path,
            to_protobuf=to_protobuf,
            durability=config.durability,
            clock=clock,
            redact=config.redact_exports,
        )
        await self.forwarder.start()
        undo.push_async_callback(self.forwarder.stop, EXPORT_DRAIN_S)
        self.host = CollectorHost(
            hub, self.store, recorder, clock=clock, max_pending_bytes=config.max_pending_bytes
        )
        undo.push_async_callback(self.host.close)
        self.monitor = Monitor(
            self.host,
            admit=self._admit_worker,
            send_span=self._send_span if self.forwarder.report() else None,
            closed=self.store.closed(),
            interests=self._interests,
            silent_lease_s=config.silent_lease_s,
        )
        links = self.monitor.links
        self.commanding = Commanding(self.host, links)
        links.on_connected, links.on_status = self.commanding.connected, self.commanding.received
        undo.callback(self.commanding.close)
        self.maintenance = Maintenance(
            self.store,
            self.host,
            clock=clock,
            retention_age_s=config.retention_age_s,
            retention_max_bytes=config.retention_max_bytes,
        )
        undo.push_async_callback(self.maintenance.close)
        self.operation_metrics = OperationMetrics()
        if config.operation_metrics:
            self.host.on_applied(self.operation_metrics)
        self.reading = Reading(
            self.host,
            self.authority,
            admission=admission,
            ready=self._why_not_ready,
            collect=self._collect,
            limits=ServerLimits(max_feed_clients=config.max_connections, max_unauthenticated=1_024),
            server_info={"version": __version__, "kind": "collector"},
            commanding=self.commanding,
        )
        undo.push_async_callback(self.reading.stop)
        limits = Limits(
            max_request_bytes=config.max_request_bytes, max_inflated_bytes=config.max_request_bytes
        )
        new_ingest: Callable[..., Ingest] = Ingest
        if config.self_otlp:
            traces = SelfTraces(config.self_otlp)
            undo.push_async_callback(asyncio.to_thread, traces.close)
            new_ingest = partial(TracedIngest, traces)
        self.ingest = new_ingest(
            Decoder(self._is_operation, rules=RuleSet(parse_rules(config.rules)), limits=limits),
            self.host,
            forward=self._forward,
            rate_limit=self._rate_limit() if config.requests_per_s else None,
        )
        authenticate = authenticate_with(self.authority, lambda: clock.time_unix_ns() / 1e9)
        routes: list[BaseRoute] = [
            *ingest_routes(
                self.ingest,
                authenticate,
                limits=limits,
                host_allowed=lambda host: admission.refusal([host] if host else [], ()) is None,
            ),
            WebSocketRoute("/v1/worker", self._serve_worker),
            *self.reading.routes(),
        ]
        self.mcp = self._open_mcp(admission) if config.mcp else None
        if self.mcp is not None:
            routes += self.mcp.routes()
        self._admission = admission
        undo.push_async_callback(self._close_ports)
        # Before the ports: the end of a worker's link is nobody's death then.
        undo.push_async_callback(self.monitor.close)
        self.host.start()
        self.monitor.start()
        self.maintenance.start()
        self.reading.start()
        if self.mcp is not None:
            self.mcp.start()
            undo.push_async_callback(self.mcp.stop)
        fresh = asyncio.create_task(self.authority.keep_fresh(), name="otelprogress-tokens")
        undo.push_async_callback(_cancelled, fresh)
        await self._start_http(Starlette(routes=routes), http_listener, tls)
        if config.grpc:
            await self._start_grpc(authenticate, limits, tls)
        self._starting = False
        self._announce()

    def _prepare_folder(self) -> None:
        if self.config.durability != "memory" or not self.config.no_auth:
            try:
                self.config.data_path.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise InvalidValue(
                    f"data_dir {self.config.data_path} cannot be used: {error.strerror}"
                ) from error
            if warning := check_mode(self.config.data_path):
                _LOG.warning("%s", warning)

    def _auth(self) -> AuthConfig:
        config = self.config
        tokens_file: Path | None = None
        if not config.no_auth:
            tokens_file = Path(config.tokens_file) if config.tokens_file else config.data_path / "tokens.json"
            if is_loopback(config.host):
                self.own_token, made = ensure_own_token(config.data_path, tokens_file, now_unix_s=time.time())
                if made:
                    _LOG.info("made a token for this user's programs: %s", config.data_path / "token")
            elif not tokens_file.exists():
                tokens_file = None
        return AuthConfig(
            tokens_file=tokens_file,
            jwt=jwt_configs(config),
            deny_list_file=Path(config.deny_list_file) if config.deny_list_file else None,
            required_for_ingest=ingest_needs_token(
                config.host, ingest_token=config.ingest_token, no_auth=config.no_auth
            ),
            no_auth=config.no_auth,
        )

    def _open_mcp(self, admission: CollectorAdmission) -> Mcp:
        config = self.config
        return Mcp(
            self.host,
            self.authority,
            admission=admission,
            commanding=self.commanding,
            address=self._address(),
            no_auth=config.no_auth,
            waits=config.mcp_waits,
            starter=self._starter(),
            version=__version__,
        )

    def _starter(self) -> Starter | None:
        """Of the commands that the operator listed; what they start reports here."""
        if not self.config.commands:
            return None
        from otelprogress.mcp.starting import Starter, read_commands

        ours = ENV_PREFIX.upper()
        environment = {name: value for name, value in os.environ.items() if not name.upper().startswith(ours)}
        environment["OTELPROGRESS_COLLECTOR"] = self._address()
        if warning := _without_token(self.config):
            _LOG.warning("%s", warning)
        if self.own_token:
            environment["OTELPROGRESS_TOKEN_FILE"] = str(self.config.data_path / "token")
        return Starter(read_commands(self.config.commands), environment=environment)

    def _address(self) -> str:
        scheme = "https" if self.config.tls else "http"
        return f"{scheme}://{_shown(self.config.host)}:{self.http_port}"

    async def _start_http(self, app: Starlette, listener: socket.socket, tls: TlsConfig | None) -> None:
        settings = uvicorn.Config(
            app,
            **UVICORN_OPTIONS,
            lifespan="off",
            log_config=None,
            timeout_graceful_shutdown=1,
            backlog=2048,
        )
        settings.load()
        settings.ssl = None if tls is None else server_context(tls)
        self._http = _Server(settings)
        self._serving = asyncio.create_task(self._http.serve(sockets=[listener]), name="otelprogress-http")
        listening = asyncio.create_task(self._http.listening.wait())
        await asyncio.wait((self._serving, listening), return_when=asyncio.FIRST_COMPLETED)
        await _cancelled(listening)
        if self._serving.done():
            self._serving.result()  # raises: it ended before it listened

    async def _start_grpc(self, authenticate: Any, limits: Limits, tls: TlsConfig | None) -> None:
        config = self.config
        # grpc says little of what is wrong with an address; this says it, and gives the port back.
        probe = listen(config.host, config.grpc_port, setting="grpc_port", arguments=self._arguments)
        self.grpc_port = probe.getsockname()[1]
        probe.close()
        self._grpc = GrpcReceiver(
            self.ingest,
            authenticate,
            limits=limits,
            credentials=None if tls is None else grpc_credentials(tls),
        )
        host = f"[{config.host}]" if ":" in config.host else config.host
        await self._grpc.start(f"{host}:{self.grpc_port}")

    def _announce(self) -> None:
        config = self.config
        address = self._address()
        _LOG.info(
            "listening on %s (OTLP/HTTP, feed, REST)%s; %s of %s, %d operations, epoch %s",
            address,
            f" and {_shown(config.host)}:{self.grpc_port} (OTLP/gRPC)" if self.grpc_port else "",
            config.durability,
            config.data_path,
            len(self.host.hub.tree),
            self.host.hub.epoch,
        )
        if not (is_loopback(config.host) and config.runtime_file):
            return
        try:
            self._runtime_path = runtime_file.write(
                f"{'wss' if config.tls else 'ws'}://{_shown(config.host)}:{self.http_port}",
                self.own_token,
                service="otelprogress-collector",
                kind="collector",
            )
        except (OSError, InvalidValue) as error:
            _LOG.warning(
                "the runtime file could not be written (%s): `otelprogress watch` needs --url", error
            )

    # --- what joins the parts ---------------------------------------------------------------------------------

    def _is_operation(self, run_id: str, tenant: str) -> bool:
        return self.host.hub.tree.tenant_of(run_id) == tenant

    async def _forward(self, signal: Signal, body: bytes, encoding: Encoding, conflated_only: bool) -> None:
        if signal == "traces":
            body = self.monitor.revised(body, encoding)
        await self.forwarder.accept(signal, body, encoding, conflated_only=conflated_only)

    async def _send_span(self, request: bytes) -> None:
        self.forwarder.submit_span(request)

    async def _serve_worker(self, websocket: WebSocket) -> None:
        """The worker link, for whom this port is: no page of another site, and nobody new at the end."""
        server = websocket.scope.get("server")
        refusal = self._admission.refusal(
            websocket.headers.getlist("host"),
            websocket.headers.getlist("origin"),
            arrived_at=server[0] if server else None,
        )
        if refusal is None and self.reading.feed.draining:
            refusal = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "The collector ends or restarts.\n")
        if refusal is not None:
            await websocket.send_denial_response(PlainTextResponse(refusal.text, refusal.status))
            return
        await self.monitor.links.serve(websocket)

    async def _admit_worker(self, websocket: WebSocket, token: str | None) -> Principal:
        headers = websocket.headers
        shown, _ = token_of(headers.getlist("authorization"), headers.getlist("sec-websocket-protocol"))
        token = token or shown
        await self.authority.prepare(token)
        return self.authority.judge(token, self._clock.time_unix_ns() / 1e9)

    def _interests(self, tenant: str, run_ids: Sequence[str]) -> float:
        hub = self.host.hub
        return max(
            (
                rate_hz
                for matcher, rate_hz in self.reading.feed.tick_interests().values()
                if any(hub.matches(matcher, run_id) for run_id in run_ids)
            ),
            default=0.0,
        )

    def _rate_limit(self) -> Callable[[Principal, Intake, int], float | None]:
        per_s = self.config.requests_per_s
        buckets = TokenBuckets(per_s=per_s, burst=max(1.0, 2 * per_s))
        limits = RateLimits(by_token=buckets, by_address=None)

        def limit(principal: Principal, intake: Intake, size_bytes: int) -> float | None:
            # All who send without a token share one bucket.
            asks = principal.token_id or principal.actor or "anybody"
            return limits.retry_after_s(self._clock.monotonic_s(), address="", token_id=asks) or None

        return limit

    def _why_not_ready(self) -> str | None:
        if self._starting:
            return "the collector starts"
        return None if self.host.writable else "the store takes nothing at the moment"

    def _collect(self) -> Iterator[tuple[str, str, str, Any, float]]:
        yield from host_lines(self.host)
        yield from monitor_lines(self.monitor)
        yield from store_lines(self.store, self.maintenance)
        yield from exporter_lines(self.forwarder.stats(), self.forwarder.unreadable)
        if self.config.operation_metrics:
            yield from self.operation_metrics.samples()

    # --- end --------------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Refuse what is new, answer what waits, say good-bye to clients and workers, keep what is queued."""
        self._starting = True
        if self._runtime_path is not None:
            runtime_file.remove(self._runtime_path)
        if self.mcp is not None:
            self.mcp.drain()
        # Senders who come meanwhile are told to come again: the ports stay open until readers are gone.
        self.ingest.leave()
        await self.reading.drain(DRAIN_S)
        await self._opened.aclose()
        _LOG.info("ended in good order at offset %d", self.host.hub.head)

    async def _close_ports(self) -> None:
        """Answer what was begun, as far as that goes within a second, and let go of both ports."""
        leaving: list[Awaitable[object]] = []
        if self._http is not None and self._serving is not None:
            self._http.should_exit = True
            leaving.append(asyncio.wait([self._serving]))
        if self._grpc is not None:
            leaving.append(self._grpc.stop(1.0))
        uvicorn_log = logging.getLogger("uvicorn.error")
        level = uvicorn_log.level
        uvicorn_log.setLevel(logging.CRITICAL)  # requests that are cut now are no news
        try:
            await asyncio.gather(*leaving)
        finally:
            uvicorn_log.setLevel(level)


async def _cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class _Server(uvicorn.Server):
    """uvicorn without signal handlers: those are the collector's."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say so once it listens."""
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone."""
        yield


def backends_of(config: Config) -> tuple[BackendConfig, ...]:
    """All OTLP backends.

    Raises:
        InvalidValue: one that cannot be meant.
    """
    return parse_backends([*({"url": url} for url in config.export_otlp), *config.exporters])


def tls_of(config: Config) -> TlsConfig | None:
    """The files of TLS, looked at; `None`: plain text.

    Raises:
        InvalidValue: a file that cannot be used.
    """
    if config.tls_cert_file is None or config.tls_key_file is None:
        return None
    tls = TlsConfig(
        cert_file=Path(config.tls_cert_file),
        key_file=Path(config.tls_key_file),
        client_ca_file=Path(config.tls_client_ca_file) if config.tls_client_ca_file else None,
    )
    server_context(tls)
    return tls


def check(config: Config) -> Iterator[str]:
    """What the settings come to, a line each; starts and makes nothing.

    Raises:
        InvalidValue: a setting that cannot be meant.
        StoreUnavailable: a data folder that others may write to.
    """
    tls = tls_of(config)
    rules = parse_rules(config.rules)
    CollectorAdmission(
        config.host, config.http_port, hosts=config.allowed_hosts, origins=config.allowed_origins
    )
    yield f"http      {'https' if tls else 'http'}://{_shown(config.host)}:{config.http_port}"
    yield f"grpc      {_shown(config.host)}:{config.grpc_port}" if config.grpc else "grpc      off"
    yield f"store     {config.durability} in {config.data_path}"
    if config.data_path.is_dir() and (warning := check_mode(config.data_path)):
        yield f"warning   {warning}"
    yield from limit_lines(config)
    yield from tls_lines(tls)
    needed = ingest_needs_token(config.host, ingest_token=config.ingest_token, no_auth=config.no_auth)
    yield f"tokens    {'none' if config.no_auth else 'for everything' if needed else 'for everything but OTLP'}"
    yield from issuer_lines(config)
    how = ", without secrets" if config.redact_exports else ""
    for backend in backends_of(config):
        yield f"backend   {backend.name}: {backend.protocol} to {backend.authority} ({', '.join(backend.signals)}{how})"
    for rule in rules:
        yield f"rule      {rule}"
    if config.mcp and config.commands:
        from otelprogress.mcp.starting import Starter, read_commands

        yield f"commands  {Starter(read_commands(config.commands)).described()}"
        if warning := _without_token(config):
            yield f"warning   {warning}"


def _without_token(config: Config) -> str:
    """That what a model starts has no token to report here with; empty: it has one, or needs none."""
    has_one = is_loopback(config.host) or any(
        os.environ.get(name) for name in ("OTELPROGRESS_TOKEN", "OTELPROGRESS_TOKEN_FILE")
    )
    if has_one:  # without tokens (`no_auth`) it listens on loopback
        return ""
    return (
        f"commands that a model starts get no token, since {config.host} is no loopback address: what they report is "
        "refused. Start the collector with OTELPROGRESS_TOKEN_FILE naming one with progress:write"
    )


def run(config: Config) -> bool:
    """Serve until SIGTERM or SIGINT; `False`: a bug ended it, and a new start goes on from what is written.

    Raises:
        InvalidValue, StoreUnavailable, PortTaken, OSError: see `Collector.start`.
    """
    logs.configure(config.log_level, config.log_format)
    return asyncio.run(_run(config))


async def _run(config: Config) -> bool:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(LoopErrors())
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    collector = Collector(config, arguments=sys.argv[1:])
    await collector.start()
    print(banner(collector), flush=True)
    waiting = [asyncio.ensure_future(one.wait()) for one in (ended, collector.host.failed)]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for one in waiting:
        one.cancel()
    failed = collector.host.failed.is_set()
    await collector.stop()
    return not failed


def banner(collector: Collector) -> str:
    """What a person who started it by hand wants to copy."""
    config = collector.config
    address = f"{'https' if config.tls else 'http'}://{_shown(config.host)}:{collector.http_port}"
    lines = [
        f"otelprogress-collector {__version__}",
        f"  send   OTELPROGRESS_COLLECTOR={address} python app.py",
    ]
    if config.runtime_file and is_loopback(config.host):
        lines.append("  watch  otelprogress watch")
    if collector.own_token:
        lines.append(
            f"  feed   {address.replace('http', 'ws', 1)}/v1/feed   token in {config.data_path / 'token'}"
        )
        lines.append(
            f'  REST   curl -H "Authorization: Bearer $(cat {config.data_path / "token"})" {address}/v1/operations'
        )
    return "\n".join(lines)


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host or "0.0.0.0"  # noqa: S104 - shown, not bound
