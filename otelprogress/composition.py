"""The composition root: builds what one process needs, joins it and takes it apart. The only file that knows all parts.

Three roles: a process on its own (host, feed, view, history, sender), a child that reports to its parent over the
worker link (host, link and sender, nothing else), and a forked child, which becomes the second at its first use. With
a collector each of them exports what is its own, and stays connected to the collector by a link of its own.

It is long because it is the only file that may know every part; what can be decided without them stands elsewhere.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import logging
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from otelprogress import active, config
from otelprogress.alive import Alive
from otelprogress.baselines import Baselines
from otelprogress.config import Settings
from otelprogress.exceptions import InvalidValue

if TYPE_CHECKING:
    from otelprogress.control import Control
    from otelprogress.feed.history import History
    from otelprogress.feed.host import Host
    from otelprogress.feed.link import LinkClient
    from otelprogress.feed.server import WebSocketServer
    from otelprogress.feed.worker_handler import WorkerLinks
    from otelprogress.model.rules import SpanRule
    from otelprogress.otel.metrics import ProgressMetrics
    from otelprogress.otel.provider import ProviderBinding
    from otelprogress.otel.sender import Sender
    from otelprogress.otel.spool import Encode, Spool
    from otelprogress.otel.target import OtlpEndpoint
    from otelprogress.view_driver import ViewDriver

LINK_VARIABLE: Final = "OTELPROGRESS_LINK"
RING_EVENTS: Final = 65_536
MAX_RUNS: Final = 10_000
"""Runs kept in memory: the application's. Ended ones go first, live ones never; the history keeps all."""
ALIVE_SHARE: Final = 3
"""A sign of life goes over the link to a collector each third of the lease."""
_SOON_NS: Final = 10_000_000_000
_logger = logging.getLogger("otelprogress")


class Runtime:
    """Everything of one process, built, joined and taken apart.

    Args:
        settings: resolved.
        automatic: made by zero-code set-up: an explicit `configure()` may replace it.
        on_provider_found: called when the application made a provider of its own.
        shutdown: called when a child made by multiprocessing leaves.

    Attributes:
        instrumentation: what operations report through.
        host: what is known about them.
        server: the feed; `None`: no port is open.
        link: the way to the parent's feed; `None`: this process is none's child.
        presence: the link to the collector; `None`: there is none.
        runtime_path: where programs of this machine find the feed; `None`: nowhere.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        automatic: bool = False,
        on_provider_found: Callable[[], object] | None = None,
        shutdown: Callable[[], object] | None = None,
    ) -> None:
        from otelprogress.feed.host import Host
        from otelprogress.model.tree import OperationTree, TreeLimits
        from otelprogress.otel.emitter import ProgressEmitter
        from otelprogress.otel.flush_budget import FlushBudget
        from otelprogress.otel.log_processor import ProgressLogProcessor
        from otelprogress.otel.provider import ProviderBinding
        from otelprogress.otel.span_processor import ProgressSpanProcessor
        from otelprogress.protocol.cursor import CursorKey
        from otelprogress.protocol.hub import Hub
        from otelprogress.sampler import Sampler

        self.settings = settings
        self.automatic = automatic
        self.pid = os.getpid()
        self._shutdown = shutdown
        self.server: WebSocketServer | None = None
        self.link: LinkClient | None = None
        self._workers: WorkerLinks | None = None
        self.presence: LinkClient | None = None
        self.view: ViewDriver | None = None
        self.runtime_path: Path | None = None
        self.metrics: ProgressMetrics | None = None
        self._undo: list[Callable[[], object]] = []
        self._closed = False
        version = _version()
        writer_id = active.new_writer_id()
        is_child = settings.link is not None
        rules = _rules(settings.rules)

        self.history: History | None = None
        if settings.history and not is_child:
            from otelprogress.feed.history import History

            self.history = History()
        history = self.history
        tree = OperationTree(
            next_number=None if history is None else history.next_number,
            limits=TreeLimits(max_runs=MAX_RUNS),
            baselines=None if history is None else Baselines(history),
        )
        self.host: Host = Host(
            Hub(
                tree,
                epoch=secrets.token_hex(8),
                cursor_key=CursorKey(secrets.token_bytes(32)),
                # Nobody subscribes to a child: its parent keeps the log.
                ring_events=1 if is_child else RING_EVENTS,
            )
        )
        # A child too: a parent shows what its children say, and exports none of it.
        self.sender: Sender | None = self._make_sender(version, writer_id)
        self._flush_budget = None if self.sender is None else FlushBudget(self.sender)
        service = {"service.name": settings.service_name} if settings.service_name else {}
        self.span_processor = ProgressSpanProcessor(rules)
        self.binding: ProviderBinding = ProviderBinding(
            span_processor=self.span_processor,
            log_processor=ProgressLogProcessor(),
            sender=self.sender,
            version=version,
            resource_attributes=service,
            on_found=on_provider_found,
        )
        self.sampler = Sampler()
        self.instrumentation = active.Instrumentation(
            emitter=ProgressEmitter(self.host.submit, user_logs=self.binding.user_logger),
            binding=self.binding,
            submit=self.host.submit,
            sampler=self.sampler,
            service=settings.service_name or _service_of(self.binding),
            lease_s=settings.lease_s,
            strict=settings.strict,
            writer_id=writer_id,
        )
        self.sampler.bind(self.instrumentation)
        self.sampler.add_chore(Alive(self.instrumentation))
        self._control: Control | None = None

    def _make_sender(self, version: str, writer_id: str) -> Sender | None:
        from otelprogress.otel.target import otlp_target

        target = otlp_target(
            os.environ,
            endpoint=self.settings.endpoint,
            collector=self.settings.collector,
            token=self._collector_token,
        )
        if target is None:
            return None
        from otelprogress.otel.sender import Sender

        return Sender(
            target,
            resource=self._resource,
            version=version,
            writer_id=writer_id,
            lease_s=self.settings.lease_s,
            only_own=True,
            open_spool=None if self.settings.spool_dir is None else self._open_spool,
            drain=self.host.drain,
        )

    def _open_spool(self, endpoint: OtlpEndpoint, encode: Encode, limit: int) -> Spool:
        from otelprogress.feed.process_identity import is_gone, process_identity
        from otelprogress.otel.disk_spool import DiskSpool
        from otelprogress.otel.spool_folder import SpoolFolder, SpoolOwner

        assert self.settings.spool_dir is not None
        # A token says whose events these are: another application's are not for this one to deliver.
        application = self.settings.service_name or os.path.abspath(sys.argv[0] if sys.argv else "")  # noqa: PTH100
        owner = SpoolOwner(application, process_identity, is_gone)
        return DiskSpool(
            SpoolFolder(Path(self.settings.spool_dir).absolute(), owner, endpoint.url), encode, limit=limit
        )

    def _resource(self) -> dict[str, Any]:
        return self.binding.resource()

    def _collector_token(self) -> str:
        """Read at each use: a token is renewed in its file, and a collector that restarts may write another one."""
        from otelprogress.feed.discovery import collector_token

        assert self.settings.collector is not None
        return collector_token(self.settings.collector, self.settings.token_file)

    # --- start -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Join the parts, open the port, let operations report here.

        Raises:
            FeedUnavailable: no port could be had.
            InvalidValue: the folder of the runtime file is not private.
        """
        from otelprogress.otel.span_processor import ProgressSpanProcessor
        from otelprogress.propagation import inherited_context

        settings, host, ins = self.settings, self.host, self.instrumentation
        self._tell_children()
        if settings.link is None:
            self._start_metrics()
        for listener in (self.sender, self.history):
            if listener is not None:
                host.add_listener(listener)
        if settings.link is not None:
            self._start_link(settings.link)
        elif settings.feed:
            from otelprogress.feed.server import ThreadRefused

            try:
                self._start_feed()
            except ThreadRefused as error:
                # The application has hit a limit of its system, which is no reason to stop it.
                _logger.warning("otelprogress: nobody can watch this process: %s", error)
        if settings.collector is not None:
            self._start_presence(settings.collector)
        if self.sender is not None:
            self.sender.deliver_leftovers()
        if self.server is None and self.link is None:
            host.set_wake(self.sampler.ring)
            self.sampler.add_chore(self._drain)
            self.sampler.ensure_started()
        draws_bars = settings.link is None and self._start_view()
        if settings.notes_from_logging is not None:
            from otelprogress.integrations import logging_notes

            handler = logging_notes.install(settings.notes_from_logging)
            self._undo.append(lambda: logging_notes.uninstall(handler))
        _install_integrations(settings.integrations)
        ProgressSpanProcessor.bind(
            host.submit,
            writer_id=ins.writer_id,
            lease_s=ins.lease_s,
            service=ins.service or None,
            process_id=ins.process_id,
            enclosing=active.enclosing_span_id,
        )
        active.started_in = inherited_context()
        active.flush = self.flush if self.link is not None or self.sender is not None else None
        self._leave_with_multiprocessing()
        active.draws_bars = draws_bars
        # Last: from here on other threads' operations report. What they take on their way, and wait for the late
        # imports with, must not be wanted in here any more.
        active.current = ins

    def _tell_children(self) -> None:
        """What was said by argument stands in the environment of children too: each exports what is its own."""
        said = {
            f"{config.PREFIX}COLLECTOR": self.settings.collector,
            f"{config.PREFIX}SPOOL_DIR": self.settings.spool_dir and os.path.abspath(self.settings.spool_dir),  # noqa: PTH100
        }
        for name, value in said.items():
            if value and not os.environ.get(name):
                os.environ[name] = value
                self._undo.append(functools.partial(_unset, name, value))

    def facts(self) -> dict[str, str]:
        """What a feed says of its process: `otelprogress doctor` shows it."""
        facts = {"service": self.instrumentation.service, "pid": str(self.pid), "version": _version()}
        with contextlib.suppress(Exception):  # the application's providers are asked: whatever they are
            facts["providers"] = "; ".join(
                f"{one.signal}: {' '.join(filter(None, (one.origin, one.kind)))}"
                + (f" to {', '.join(one.exporters)}" if one.exporters else "")
                + (f" ({one.note})" if one.note else "")
                for one in self.binding.providers()
            )
        if self.sender is not None:
            facts["sender"] = "; ".join(self.sender.report())
            facts["sender_troubles"] = "; ".join(self.sender.troubles())
        if self.presence is not None:
            facts["collector"] = self.presence.report()
        if refused := self.host.stats.report():
            facts["host"] = refused
        if rules := self.span_processor.rules.rules:
            facts |= {"rules": str(len(rules)), "rule_spans": str(self.span_processor.seen)}
        return facts

    def _drain(self) -> bool:
        self.host.drain(
            0.0 if self._closed else None
        )  # a process that leaves has a drain of its own for the rest
        due = self.host.next_deadline_unix_ns()
        return due is not None and due - time.time_ns() < _SOON_NS

    @property
    def control(self) -> Control:
        """Brings commands to the operations of this process, whichever way they come."""
        if self._control is None:
            from otelprogress.control import Control

            self._control = Control(self.instrumentation)
        return self._control

    def _start_metrics(self) -> None:
        from otelprogress.otel.metrics import ProgressMetrics

        settings = self.settings
        resource = {"service.name": settings.service_name} if settings.service_name else {}
        self.metrics = ProgressMetrics(sender=self.sender, version=_version(), resource=resource)
        self.host.add_listener(self.metrics)

    def _start_feed(self) -> None:
        from otelprogress.feed import runtime_file
        from otelprogress.feed.commanding import Commanding
        from otelprogress.feed.discovery import token_from_file
        from otelprogress.feed.runtime_folder import ensure_private_folder, runtime_folder
        from otelprogress.feed.server import WebSocketServer
        from otelprogress.feed.worker_handler import WorkerLinks

        settings = self.settings
        # With a collector the file holds the collector's: it must not open the feeds of all who report there.
        token_file = settings.token_file if settings.collector is None else None
        token = secrets.token_urlsafe(32) if token_file is None else token_from_file(token_file)
        unwritable: OSError | None = None
        try:
            ensure_private_folder(runtime_folder())
        except OSError as error:  # a read-only disk is no reason not to run
            unwritable = error
        links = WorkerLinks(self.host, token=token)
        server = WebSocketServer(
            self.host,
            token=token,
            bind=settings.bind,
            port=settings.port,
            worker_handler=links,
            commanding=Commanding(
                self.host, writer_id=self.instrumentation.writer_id, obey=self.control.take, links=links
            ),
            server_info=self.facts,
        )
        server.start()
        self.server, self._workers = server, links
        try:
            if unwritable is not None:
                raise unwritable
            self.runtime_path = runtime_file.write(server.url, token, service=self.instrumentation.service)
        except OSError as error:
            _logger.warning(
                "otelprogress: the runtime file could not be written (%s): `otelprogress watch` needs --url",
                error,
            )
            return
        os.environ[LINK_VARIABLE] = str(self.runtime_path)

    def _start_link(self, path: str) -> None:
        from otelprogress.feed.link import LinkClient
        from otelprogress.feed.link_route import ParentRoute

        ins = self.instrumentation
        self.link = LinkClient(
            self.host,
            ParentRoute(path),
            writer_id=ins.writer_id,
            service=ins.service,
            on_command=self.control.take,
        )
        self.link.attach()

    def _start_presence(self, collector: str) -> None:
        from otelprogress.feed.link import LinkClient
        from otelprogress.feed.link_route import CollectorRoute
        from otelprogress.feed.tls import client_tls

        ins = self.instrumentation
        self.presence = LinkClient(
            self.host,
            CollectorRoute(collector, self._collector_token, tls=client_tls),
            writer_id=ins.writer_id,
            service=ins.service,
            alive_every_s=self.settings.lease_s / ALIVE_SHARE,
            on_interest=None if self.sender is None else self.sender.take_interest,
            on_command=self.control.take,
        )
        self.presence.attach()

    def _leave_with_multiprocessing(self) -> None:
        """Children of multiprocessing leave through os._exit(), past atexit."""
        multiprocessing: Any = sys.modules.get("multiprocessing.util")
        process: Any = sys.modules.get("multiprocessing.process")
        if multiprocessing is None or self._shutdown is None:
            return
        if self.link is not None or (process is not None and process.parent_process() is not None):
            multiprocessing.Finalize(None, self._shutdown, exitpriority=10)

    def _start_view(self) -> bool:
        """Returns whether it draws bars."""
        mode = self.settings.view
        if mode == "off" or (mode == "auto" and "_pytest" in sys.modules):
            return False
        from otelprogress.view_driver import ViewDriver
        from otelprogress.visualization.terminal import TerminalView, open_view

        view = open_view(mode)
        if view is None:
            return False
        if self.runtime_path is not None:
            with contextlib.suppress(OSError, ValueError):
                print("otelprogress: `otelprogress watch` shows this from anywhere", file=sys.stderr)
        self.view = ViewDriver(view, self.host)
        self.view.start()
        return isinstance(view, TerminalView)

    # --- end ---------------------------------------------------------------------------------------------------

    def flush(self, timeout_s: float) -> bool:
        """Wait, at most `timeout_s` seconds, until what was said has left this process. Returns whether it has.

        For OTLP endpoints the wait is shorter where they are slow (`otel.flush_budget`).
        """
        deadline_s = time.monotonic() + timeout_s
        self.sampler.look()
        self.host.drain()
        done = True
        if self.link is not None:
            done = self.link.flush(max(0.0, deadline_s - time.monotonic()))
        if self._flush_budget is not None:
            # This may be the end of each task of a pool, which an endpoint far away must not slow down.
            done = self._flush_budget.flush(max(0.0, deadline_s - time.monotonic())) and done
        return done

    def close(self, detector: str = "atexit", cause: str | None = None) -> None:
        """End what lives as lost, let everything leave, give threads and port back: within `shutdown_timeout_s`."""
        if self._closed or os.getpid() != self.pid:
            return
        self._closed = True
        deadline_s = time.monotonic() + self.settings.shutdown_timeout_s

        def left(share: float = 1.0) -> float:
            return max(0.05, (deadline_s - time.monotonic()) * share)

        steps: list[Callable[[], object]] = [
            *self._undo,
            lambda: self.sampler.close(left(0.2)),
            lambda: self._conclude_workers(left(0.3)),
            lambda: self._lose_live(detector, cause),
            self._detach,
            # While those below still listen.
            lambda: self.host.drain_to_leave(left(0.5)),
        ]
        if self.view is not None:
            view = self.view
            steps.append(lambda: view.close(left(0.3)))
        if self.metrics is not None:
            steps.append(self.metrics.shutdown)
        if self.history is not None:
            history = self.history
            steps.append(lambda: history.close(left(0.4)))
        if self.runtime_path is not None:
            steps.append(self._remove_runtime_file)
        if self.server is not None:
            server = self.server
            steps.append(lambda: server.close(left(0.3)))
        if self.link is not None:
            link = self.link
            steps.append(lambda: link.close(left(0.5)))
        steps.append(lambda: self.binding.shutdown(left()))
        if self.sender is not None:
            sender = self.sender
            share = 1.0 if self.presence is None else 0.8
            steps.append(lambda: sender.shutdown(left(share)))
        if self.presence is not None:
            presence = self.presence
            # After the last events: what is open at a collector when its writer says `bye` is lost.
            steps.append(lambda: presence.close(left()))
        steps.append(lambda: self.host.close(left()))
        for step in steps:
            try:
                step()
            except Exception:
                _logger.debug("otelprogress: an error of its own while it shut down", exc_info=True)

    def _conclude_workers(self, timeout_s: float) -> None:
        if self._workers is not None:
            self._workers.conclude(timeout_s)

    def _lose_live(self, detector: str, cause: str | None) -> None:
        # Children first, so that a parent's last state shows them.
        for operation in reversed(list(self.instrumentation.live.values())):
            operation.end_lost(detector, cause)

    def _detach(self) -> None:
        if active.current is self.instrumentation:
            active.current = None
            active.draws_bars = False
            active.flush = None
            active.started_in = None

    def _remove_runtime_file(self) -> None:
        from otelprogress.feed import runtime_file

        assert self.runtime_path is not None
        if os.environ.get(LINK_VARIABLE) == str(self.runtime_path):
            del os.environ[LINK_VARIABLE]
        runtime_file.remove(self.runtime_path)

    # --- fork --------------------------------------------------------------------------------------------------

    def leave_to_parent(self) -> Settings:
        """In a forked child: let go of the parent's operations, threads and sockets.

        Returns:
            What the child is to report with: to the parent, without a port, a view or a history of its own.
        """
        for operation in list(self.instrumentation.live.values()):
            operation.leave_to_parent()
        self.instrumentation.live.clear()
        self.sampler.reset_after_fork()
        self.host.reset_after_fork()
        for link in (self.link, self.presence):
            if link is not None:
                link.abandon()
        self.binding.reset_after_fork()
        if self.sender is not None:
            self.sender.reset_after_fork()
        for undo in self._undo:
            with contextlib.suppress(Exception):
                undo()
        active.current = None
        active.draws_bars = False
        active.flush = None
        active.forget_spans_only()
        path = self.settings.link or (None if self.runtime_path is None else str(self.runtime_path))
        return config.replaced(
            self.settings,
            service_name=self.instrumentation.service,
            link=path,
            feed=False,
            view="off",
            history=False,
        )


def _unset(name: str, value: str) -> None:
    if os.environ.get(name) == value:
        del os.environ[name]


def _version() -> str:
    try:
        return importlib.metadata.version("otelprogress")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree
        return ""


def _rules(rules: object) -> tuple[SpanRule, ...]:
    from otelprogress.model.rules import SpanRule, parse_rules

    if isinstance(rules, str):
        return parse_rules(rules)
    found = tuple(rules) if isinstance(rules, Iterable) else (rules,)
    for rule in found:
        if not isinstance(rule, SpanRule):
            raise InvalidValue(f"rules={rule!r}: give SpanRule objects, or their text form")
    return found


def _service_of(binding: ProviderBinding) -> str:
    """What the application's own provider says; `unknown_service` says nothing."""
    try:
        name = str(binding.resource().get("service.name", ""))
    except Exception:
        return ""
    return "" if name.startswith("unknown_service") else name


def _install_integrations(names: Iterable[str]) -> None:
    for name in names:
        if name != "tqdm":
            raise InvalidValue(f"integrations={name!r}: known is 'tqdm'")
        try:
            importlib.import_module("otelprogress.integrations.tqdm_bridge").install()
        except Exception:
            _logger.debug("otelprogress: the bridge to %s could not be installed", name, exc_info=True)
