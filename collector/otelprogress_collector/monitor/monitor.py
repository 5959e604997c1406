"""Who is alive: joins links, leases and closing spans to the host. What each decides stands in its own module."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import msgspec

from otelprogress.model import semconv
from otelprogress.model.events import State
from otelprogress.model.writers import key_of
from otelprogress_collector.auth.rate import Doorstep
from otelprogress_collector.monitor.closing_span import closing_request, spans_in, under_new_ids
from otelprogress_collector.monitor.closings import HOLD_S, Closings
from otelprogress_collector.monitor.leases import SILENT_LEASE_S, TICK_S, Heard, Leases
from otelprogress_collector.monitor.verdicts import PROVEN, Detector, lost, silent_for
from otelprogress_collector.monitor.worker_links import FAREWELL_GRACE_S, GRACE_S, Admit, WorkerLinks
from otelprogress_collector.store.interface import StoreUnavailable

if TYPE_CHECKING:
    from otelprogress.model.tree import Applied
    from otelprogress_collector.host import CollectorHost

_LOG: Final = logging.getLogger("otelprogress_collector.monitor")
SendSpan = Callable[[bytes], Awaitable[None]]
"""Queues one OTLP trace request (protobuf) for every backend."""
Interests = Callable[[str, Sequence[str]], float]
"""(tenant, run ids) -> the highest rate at which anybody watches one of them, in Hz; 0: nobody does."""
_IDLE_RATE_HZ: Final = 1.0
_RUNS_ASKED_FOR: Final = 1_000
"""Runs of one writer that are looked at for interest."""


class MonitorStats(msgspec.Struct, gc=False):
    """What was counted since the start."""

    lost_runs: int = 0
    leases_expired: int = 0
    spans_closed: int = 0
    true_spans_late: int = 0


class Monitor:
    """See the module.

    Args:
        host: whose runs are watched.
        admit: who connects over the worker link.
        send_span: takes closing spans; `None`: there is no backend, nothing is closed.
        closed: ids of runs whose spans were closed before this start, as the store knows them.
        interests: who watches what.
        silent_lease_s: of writers that gave no lease.
        hold_s: how long an unproven verdict is held before its span is closed.
        grace_s: how long a writer may be away, see `WorkerLinks`.
        farewell_grace_s: how long its last events may take, likewise.
        doorstep: how many may stand there, likewise.
    """

    def __init__(
        self,
        host: CollectorHost,
        *,
        admit: Admit,
        send_span: SendSpan | None,
        closed: Iterable[str] = (),
        interests: Interests | None = None,
        silent_lease_s: float = SILENT_LEASE_S,
        hold_s: float = HOLD_S,
        grace_s: float = GRACE_S,
        farewell_grace_s: float = FAREWELL_GRACE_S,
        doorstep: Doorstep | None = None,
    ) -> None:
        self.stats = MonitorStats()
        self.links = WorkerLinks(
            host,
            admit=admit,
            lose=self._lose_writer,
            grace_s=grace_s,
            farewell_grace_s=farewell_grace_s,
            doorstep=doorstep,
        )
        self._host = host
        self._send_span = send_span
        self._interests = interests
        self._silent_lease_s = silent_lease_s
        self._leases = Leases(silent_lease_s)
        self._closings = Closings(closed, hold_s=hold_s)
        self._task: asyncio.Task[None] | None = None
        self._forget = host.on_applied(self._applied)

    def start(self) -> None:
        """Begin to watch, on the running loop, before anybody can be heard."""
        self._remember_lost()
        # Now, not with the first tick: who is heard before that is given its lease, not that of a restart.
        self._expire(self._host.clock.monotonic_s())
        self._task = asyncio.get_running_loop().create_task(self._run(), name="otelprogress-monitor")

    async def close(self) -> None:
        """Say good-bye to all workers and judge nobody any more."""
        self._forget()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self.links.drain()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            try:
                await self.tick(self._host.clock.monotonic_s())
            except Exception:
                _LOG.exception("the monitor failed: this is a bug of the collector")

    async def tick(self, now_s: float) -> None:
        """Look at leases, held spans and interest once; called every `TICK_S`."""
        await self._host.readable()
        self._expire(now_s)
        await self._close_due(now_s)
        self._tell_interest()

    # --- verdicts -----------------------------------------------------------------------------------------------

    def _expire(self, now_s: float) -> None:
        by_key = {key_of(writer): writer for writer in self._host.hub.tree.writers()}
        heard = [
            Heard(key, writer.heard_ns, writer.lease_s, self.links.linked(writer.id, writer.tenant))
            for key, writer in by_key.items()
        ]
        for key in self._leases.tick(heard, now_s):
            writer = by_key[key]
            self.stats.leases_expired += 1
            cause = silent_for(writer.lease_s, self._silent_lease_s)
            self._lose(list(writer.live), "lease", writer.heard_ns, cause)

    def _lose_writer(
        self, writer_id: str, tenant: str, detector: Detector, heard_unix_ns: int, cause: str
    ) -> None:
        self._lose(
            list(self._host.hub.tree.runs_of_writer(writer_id, tenant)), detector, heard_unix_ns, cause
        )

    def _lose(
        self,
        run_ids: Sequence[str],
        detector: Detector,
        heard_unix_ns: int,
        cause: str,
    ) -> None:
        host = self._host
        now_unix_ns = host.clock.time_unix_ns()
        for run_id in run_ids:
            view = host.hub.tree.view(run_id, now_unix_ns)
            if view is not None and view.live:
                self.stats.lost_runs += 1
                host.submit(lost(view, detector, heard_unix_ns, cause))

    # --- closing spans ------------------------------------------------------------------------------------------

    def _applied(self, applied: Sequence[Applied]) -> None:
        if self._send_span is None:
            return
        now_s = self._host.clock.monotonic_s()
        for each in applied:
            event = each.source
            if event.kind == semconv.OPERATION_ENDED:
                if event.state is not State.LOST:
                    self._closings.spoke(event.run_id)
                elif not event.writer_id:
                    # What a writer says of itself comes with its own span.
                    proven = event.lost_detector in PROVEN
                    self._closings.lost(event.run_id, proven=proven, now_s=now_s)
            elif event.kind == semconv.OPERATION_STATE_CHANGED:
                self._closings.spoke(event.run_id)

    def _remember_lost(self) -> None:
        """After a restart: verdicts whose spans were not closed before it."""
        if self._send_span is None:
            return
        hub = self._host.hub
        now_unix_ns, now_s = self._host.clock.time_unix_ns(), self._host.clock.monotonic_s()
        for run_id in hub.tree.run_ids():
            view = hub.tree.view(run_id, now_unix_ns)
            if view is not None and view.state is State.LOST and view.lost_detector in _OURS:
                self._closings.lost(run_id, proven=view.lost_detector in PROVEN, now_s=now_s)

    async def _close_due(self, now_s: float) -> None:
        due = self._closings.due(now_s)
        if not due or self._send_span is None:
            return
        requests: list[bytes] = []
        closed: list[str] = []
        now_unix_ns = self._host.clock.time_unix_ns()
        for run_id in due:
            view = self._host.hub.tree.view(run_id, now_unix_ns, steps=True)
            span = self._host.hub.tree.span_facts(run_id)
            if view is None or span is None or view.state is not State.LOST or not span.sampled:
                self._closings.spoke(run_id)
                continue
            resource: dict[str, Any] = {semconv.SERVICE_NAME: view.service or "unknown_service"}
            if view.process_id is not None:
                resource |= {semconv.PROCESS_PID: view.process_id}
            requests.append(closing_request(view, span, resource=resource))
            closed.append(run_id)
        if not closed:
            return
        try:
            # Remembered first: a span that is sent twice stays twice, one that a crash kept back is only missing.
            await self._host.mark_closed(closed)
        except StoreUnavailable:
            return  # they stay due
        for run_id, request in zip(closed, requests, strict=True):
            if not self._closings.held(run_id):
                continue  # it was heard again meanwhile
            self._closings.close(run_id)
            self.stats.spans_closed += 1
            await self._send_span(request)

    def revised(self, body: bytes, encoding: str) -> bytes:
        """A trace request as it may be forwarded: true spans of closed runs under new ids, else the same bytes."""
        closings = self._closings
        if not closings.concerned:
            return body
        for run_id in spans_in(body, encoding, closings.held_ids):
            closings.spoke(run_id)
        late = spans_in(body, encoding, closings.closed) if closings.closed else []
        if not late:
            return body
        self.stats.true_spans_late += len(late)
        return under_new_ids(body, encoding, frozenset(late), _new_span_id)

    # --- interest ---------------------------------------------------------------------------------------------

    def _tell_interest(self) -> None:
        if self._interests is None:
            return
        tree = self._host.hub.tree
        for writer_id, tenant in self.links.connected_of_tenants():
            run_ids = list(islice(tree.runs_of_writer(writer_id, tenant), _RUNS_ASKED_FOR))
            self.links.interest(writer_id, tenant, max(_IDLE_RATE_HZ, self._interests(tenant, run_ids)))


_OURS: Final = frozenset({"link", "keepalive", "lease"})


def _new_span_id() -> bytes:
    return secrets.token_bytes(8)
