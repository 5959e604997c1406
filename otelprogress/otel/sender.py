"""Sends progress over OTLP, without the stock exporters: they drop a batch once its time-out is over.

A `Sender` listens to the host, spools durable events, and delivers them from a daemon thread of its own: one
request in flight, the same bytes again on retryable answers only, in order. Ticks (at most one a second and
run) and `writer.alive` go in requests of their own and are never tried twice: the next one heals them. Spans of
the private TracerProvider and metrics of the private MeterProvider take the same way, each signal with its own
spool.

Nothing here makes the application wait: producers append to a bounded queue. What is lost is counted in
`stats()`, and said in one log line a minute. Without an endpoint there is no Sender. It is long because one thread owns
all deadlines: what each signal decides stands in `lane`, what waits in `spool` and `disk_spool`.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final

import msgspec

from otelprogress.imports import late
from otelprogress.model import semconv
from otelprogress.model.events import Event
from otelprogress.otel.lane import Lane, LaneStats
from otelprogress.otel.spool import Encode, MemorySpool, Spool
from otelprogress.otel.target import OtlpEndpoint, OtlpTarget, Signal
from otelprogress.otel.tick_board import Seen, TickBoard
from otelprogress.otel.transport import Answer, Transport, Verdict, open_transport

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from otelprogress.model.tree import Applied

_LOG = logging.getLogger("otelprogress.otel.sender")

_LINGER_S: Final = 0.010
"""After an idle period, so that what comes together leaves together. While a request is out nothing lingers."""
_METRICS_INTERVAL_S: Final = 60.0
_COMPLAIN_EVERY_S: Final = 60.0
_PATIENCE_S: Final = 5.0
"""A receiver that starts a moment later, and a process that lives for a moment, are worth no line."""
_MAX_DURABLE: Final = 32_768
_MAX_SPANS: Final = 4_096
_MAX_METRIC_REQUESTS: Final = 4
_ALIVE_SHARE: Final = 3
"""`writer.alive` goes each third of the lease (conventions.md)."""

_ABANDONED: Final[list[object]] = []
"""Connections inherited through a fork: closing them here could disturb the parent, so nobody does."""


class Sender:
    """See the module.

    Args:
        target: the endpoints; a signal without one is not sent.
        resource: attributes of this process's resource; a function is asked once, at the first request.
        version: of otelprogress.
        writer_id: of this process. With it and `lease_s`, `writer.alive` is sent each third of the lease as long
            as a run of this writer lives.
        lease_s: seconds; `None`: no `writer.alive`.
        only_own: leave out events of other writers, who send their own (`writer_id` is needed).
        metrics_interval_s: how often metrics are collected; `OTEL_METRIC_EXPORT_INTERVAL`.
        open_transport: makes the transport of one signal, on the sender's thread.
        open_spool: makes the spool of the durable events (endpoint, encode, limit of entries); `None`: in memory.
        drain: lets what was said so far arrive here, on the sender's thread; asked before spans go to a collector.
    """

    def __init__(
        self,
        target: OtlpTarget,
        *,
        resource: Mapping[str, Any] | Callable[[], Mapping[str, Any]],
        version: str,
        writer_id: str = "",
        lease_s: float | None = None,
        only_own: bool = False,
        metrics_interval_s: float = _METRICS_INTERVAL_S,
        open_transport: Callable[[Signal, Any], Transport] = open_transport,
        open_spool: Callable[[OtlpEndpoint, Encode, int], Spool] | None = None,
        drain: Callable[[], object] | None = None,
    ) -> None:
        self.target = target
        self.writer_id = writer_id
        self.events_by_application = False
        """Set by the binding while the application's own pipeline carries our durable events to the same place."""
        self._resource = resource
        self._version = version
        self._lease_s = lease_s
        self._only_own = only_own and bool(writer_id)
        self._metrics_interval_s = metrics_interval_s
        self._open_transport = open_transport
        self._open_spool = open_spool
        self._drain = drain
        self._collect_metrics: Callable[[], bytes | None] | None = None
        self._encoder: Any = None
        self._start_clean()

    def _start_clean(self) -> None:
        self._lock = threading.Lock()
        self._wakes: SimpleQueue[None] = SimpleQueue()  # its put is safe in finalizers and signal handlers
        self._awake = False
        self._thread: threading.Thread | None = None
        self._closing_at_s: float | None = None
        self._closing_seen = False
        self._closed = False
        self._flushes: list[threading.Event] = []
        self._board = TickBoard()
        self._next_alive_s = 0.0
        self._next_metrics_s = time.monotonic() + self._metrics_interval_s
        self._complained_at_s = time.monotonic() - _COMPLAIN_EVERY_S + _PATIENCE_S
        self._complained_of = 0
        self.internal_errors = 0
        """Errors of our own on the sender's thread: bugs."""
        lanes: list[Lane] = []
        if self.target.logs is not None:
            lanes.append(Lane("logs", self.target.logs, self._event_spool(self.target.logs)))
        if self.target.traces is not None:
            lanes.append(Lane("traces", self.target.traces, MemorySpool(_MAX_SPANS, _encode_spans)))
        if self.target.metrics is not None:
            lanes.append(
                Lane("metrics", self.target.metrics, MemorySpool(_MAX_METRIC_REQUESTS, _first_bytes))
            )
        self._lanes: dict[Signal, Lane] = {lane.signal: lane for lane in lanes}

    def _event_spool(self, endpoint: OtlpEndpoint) -> Spool:
        if self._open_spool is not None:
            return self._open_spool(endpoint, self._encode_events, _MAX_DURABLE)
        return MemorySpool(_MAX_DURABLE, self._encode_events)

    # --- what others call; nothing here waits or raises -------------------------------------------------

    def __call__(self, applied: Sequence[Applied]) -> None:
        """Listen to a host: `host.add_listener(sender)`."""
        for one in applied:
            self.submit(_with_ratio(one))

    def submit(self, event: Event) -> None:
        """Take one event. Durable: spooled. Tick: the latest of its run is kept. Others: left out."""
        lane = self._lanes.get("logs")
        if lane is None or lane.off_reason or self._closed:
            return
        if self._only_own and event.writer_id not in ("", self.writer_id):
            return
        seen = self._board.see(event)
        if seen is Seen.DURABLE:
            if self.events_by_application and event.writer_id == self.writer_id:
                return
            lane.spool.put(event)
            self._wake()
        elif seen is Seen.SOONER:  # than whatever the thread sleeps for
            self._wake()

    def take_interest(self, rates_hz: Mapping[str, float]) -> None:
        """Send ticks of these runs (`*`: of all) so often a second, up to ten times; of all others once.

        Every earlier interest is over with it; an empty one means that nobody watches.
        """
        self._board.take_interest(rates_hz)
        if len(self._board):
            self._wake()

    def deliver_leftovers(self) -> None:
        """Look, on the sender's thread, for what an earlier process of this application left in the spool's folder."""
        if any(lane.spool.place for lane in self._lanes.values()):
            self._wake()

    def submit_span(self, span: ReadableSpan) -> None:
        """Take one ended, sampled span of the private TracerProvider."""
        lane = self._lanes.get("traces")
        if lane is not None and not lane.off_reason and not self._closed:
            lane.spool.put(span)
            self._wake()

    def export(self, signal: Signal, body: bytes) -> None:
        """Take one request that is encoded already; for `metrics` only, the lanes of the others encode themselves."""
        lane = self._lanes.get(signal)
        if lane is not None and not lane.off_reason and not self._closed:
            lane.spool.put(body)
            self._wake()

    def collect_metrics_with(self, collect: Callable[[], bytes | None]) -> None:
        """Call `collect` on the sender's thread at each interval and at the end; it returns a request or `None`."""
        if "metrics" in self._lanes:
            self._collect_metrics = collect
            self._wake()

    def sends(self, signal: Signal) -> bool:
        """Whether that signal has an endpoint that takes it, as far as is known."""
        lane = self._lanes.get(signal)
        return lane is not None and not lane.off_reason and not self._closed

    def stats(self) -> dict[Signal, LaneStats]:
        """Counters by signal."""
        return {signal: lane.stats for signal, lane in self._lanes.items()}

    def report(self) -> list[str]:
        """One line per signal, for `doctor`."""
        lines = []
        for lane in self._lanes.values():
            state = f"off ({lane.off_reason})" if lane.off_reason else f"{lane.waiting} waiting"
            place = f" in {lane.spool.place}" if lane.spool.place else ""
            stats = lane.stats
            turned_away = (
                f", {stats.refused + stats.rejected} refused" if stats.refused + stats.rejected else ""
            )
            failure = f", last failure {lane.last_failure}" if lane.last_failure else ""
            lines.append(
                f"{lane.signal} to {lane.endpoint.authority} ({lane.endpoint.protocol}): "
                f"{stats.delivered} delivered, {state}{place}, {lane.lost()} lost{turned_away}{failure}",
            )
        return lines

    def troubles(self) -> list[str]:
        """Those lines of `report` that tell of a loss, or of a receiver that takes nothing now."""
        lanes = self._lanes.values()
        return [
            line
            for line, lane in zip(self.report(), lanes, strict=True)
            if lane.failing or lane.off_reason or lane.lost() or lane.stats.refused or lane.stats.rejected
        ]

    @property
    def failing(self) -> bool:
        """Whether an endpoint has refused a request for now more than once, or cannot be reached."""
        return any(lane.failing for lane in self._lanes.values())

    def flush(self, timeout_s: float) -> bool:
        """Wait until what was given so far is delivered or settled otherwise; `False`: not within `timeout_s`."""
        if self._closed or (self._thread is None and not any(lane.waiting for lane in self._lanes.values())):
            return True
        done = threading.Event()
        self._flushes.append(done)
        self._wake()
        return done.wait(timeout_s)

    def shutdown(self, timeout_s: float = 2.0) -> bool:
        """Deliver what can be delivered within `timeout_s`, then stop. Says in one line what was lost.

        An endpoint that is not there is asked once more and no longer waited for. A second call does nothing.

        Returns:
            Whether everything was delivered.
        """
        if self._closed:
            return True
        deadline_s = time.monotonic() + timeout_s
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            self._closing_at_s = deadline_s
            self._wakes.put(None)
            thread.join(timeout_s)
            if thread.is_alive():
                for lane in self._lanes.values():
                    if lane.transport is not None:
                        lane.transport.cancel()
        self._closed = True
        untold = max(0, self._lost() - self._complained_of)
        waiting = [lane for lane in self._lanes.values() if not lane.off_reason and lane.waiting]
        told = []
        for lane in self._lanes.values():
            if lane.off_reason:
                continue
            lost = lane.abandon()
            where = f"of {lane.signal} to {lane.endpoint.authority}" + (
                f" ({lane.last_failure})" if lane.last_failure else ""
            )
            if lost:
                told.append(f"{lost} {where}")
            if lane.waiting:
                told.append(f"{lane.waiting} {where}, kept for the next start in {lane.spool.place}")
        if untold:  # within the minute after the last line, or in a life too short for one
            reasons = dict.fromkeys(
                f"{lane.signal} to {lane.endpoint.authority}: {lane.last_failure}"
                for lane in self._lanes.values()
                if lane.last_failure and not lane.off_reason
            )
            told.append(f"{untold} lost earlier ({', '.join(reasons) or 'spool full'})")
        if told:
            _LOG.warning("otelprogress: not delivered before the exit: %s", ", ".join(told))
        return not waiting

    def reset_after_fork(self) -> None:
        """In a forked child: start anew with nothing spooled; the parent delivers what it had."""
        _ABANDONED.append([lane.transport for lane in self._lanes.values()])
        self._collect_metrics = None
        self._start_clean()

    # --- the sender's thread ------------------------------------------------------------------------------

    def _wake(self) -> None:
        if not self._awake:
            self._awake = True
            self._wakes.put(None)
        if self._thread is None:
            self._start_thread()

    def _start_thread(self) -> None:
        if not self._lock.acquire(blocking=False):
            return  # somebody is just doing it
        try:
            if self._thread is None and not self._closed:
                thread = threading.Thread(target=self._run, name="otelprogress-sender", daemon=True)
                thread.start()
                self._thread = thread
        except RuntimeError:  # the interpreter is leaving: no new threads
            self._closed = True
        finally:
            self._lock.release()

    def _run(self) -> None:
        _suppress_instrumentation()
        while True:
            try:
                if not self._turn():
                    return
            except Exception:
                self.internal_errors += 1
                time.sleep(_LINGER_S)  # a bug must not become a busy loop

    def _turn(self) -> bool:
        """Wait for work, then do it; `False`: the end."""
        self._wait()
        closing = self._closing_at_s is not None
        if closing and not self._closing_seen:
            self._closing_seen = True
            for lane in self._lanes.values():
                lane.not_before_s = 0.0  # one more try now, whatever pause was going on
        now_s = time.monotonic()
        self._collect_if_due(now_s, closing=closing)
        self._let_events_catch_up()
        for lane in self._lanes.values():
            lane.spool.tend(now_s)
            if not self._waits_for_events(lane):
                self._pump(lane)
        self._send_ticks_if_due()
        self._answer_flushes()
        self._complain()
        closing_at_s = self._closing_at_s
        # Asked to close in the middle of this turn: the next one begins with a last look at everything.
        if not closing or closing_at_s is None:
            return True
        if time.monotonic() < closing_at_s and not all(lane.done for lane in self._lanes.values()):
            return True
        for lane in self._lanes.values():
            if lane.transport is not None:
                lane.transport.close()
        return False

    def _let_events_catch_up(self) -> None:
        traces = self._lanes.get("traces")
        if self._drain is not None and traces is not None and traces.endpoint.collector and traces.waiting:
            self._drain()

    def _waits_for_events(self, lane: Lane) -> bool:
        """Whether spans have to wait for events: a collector takes a span for all that its operation has said.

        Only while there is time: at the exit both are tried.
        """
        events = self._lanes.get("logs")
        return (
            lane.signal == "traces"
            and lane.endpoint.collector
            and events is not None
            and events.endpoint.collector
            and not events.done
            and not self._closing()
        )

    def _closing(self) -> bool:
        return self._closing_at_s is not None

    def _wait(self) -> None:
        now_s = time.monotonic()
        pause_s = self._next_due_s(now_s) - now_s
        if self._closing_at_s is not None:
            time.sleep(min(max(pause_s, 0.0), 0.1, max(self._closing_at_s - now_s, 0.0)))
            return
        if pause_s > 0:
            try:
                self._wakes.get(timeout=pause_s)
            except Empty:
                return
            if not (self._closing() or self._flushes):
                time.sleep(_LINGER_S)
        with contextlib.suppress(Empty):
            while True:
                self._wakes.get_nowait()
        # In this order: what was put before is seen by the turn that follows, what is put later rings again.
        self._awake = False

    def _next_due_s(self, now_s: float) -> float:
        due_s = now_s + 3600.0
        for lane in self._lanes.values():
            if not lane.done and not self._waits_for_events(lane):
                due_s = min(due_s, lane.not_before_s)
        if self._collect_metrics is not None:
            due_s = min(due_s, self._next_metrics_s)
        # Each condition below is that of the one who acts on it: what is due and left undone is a busy loop.
        if self._closing():
            return due_s
        if self.sends("logs"):
            # While the receiver is away ticks wait on the board, the latest of each run.
            patience_s = self._lanes["logs"].not_before_s
            ticks_due_s = self._board.due_at_s()
            if ticks_due_s is not None:
                due_s = min(due_s, max(ticks_due_s, patience_s))
            if self._lease_s is not None and self._board.live:
                due_s = min(due_s, max(self._next_alive_s, patience_s))
        if self._lost() > self._complained_of:  # to be said, also where nothing more is to be sent
            due_s = min(due_s, self._complained_at_s + _COMPLAIN_EVERY_S)
        return due_s

    def _pump(self, lane: Lane) -> None:
        """Send what the lane has until it is empty, has to pause, or the exit's deadline is over."""
        while not lane.done:
            now_s = time.monotonic()
            closing_at_s = self._closing_at_s
            if now_s < lane.not_before_s or (closing_at_s is not None and now_s >= closing_at_s):
                return
            body = lane.next_body()
            if body is None:
                return
            answer = self._attempt(lane, body)
            now_s = time.monotonic()
            closing_at_s = self._closing_at_s
            lane.settle(answer, now_s, closing_left_s=None if closing_at_s is None else closing_at_s - now_s)
            _say_if_off(lane)

    def _attempt(self, lane: Lane, body: bytes) -> Answer:
        timeout_s = lane.endpoint.timeout_s
        if self._closing_at_s is not None:
            timeout_s = max(0.05, min(timeout_s, self._closing_at_s - time.monotonic()))
        try:
            if lane.transport is None:
                with late:
                    lane.transport = self._open_transport(lane.signal, lane.endpoint)
            return lane.transport.send(body, timeout_s)
        except Exception as error:
            self.internal_errors += 1
            return Answer(Verdict.RETRY, type(error).__name__, reached=False)

    def _send_ticks_if_due(self) -> None:
        lane = self._lanes.get("logs")
        if lane is None or lane.off_reason or self._closing():
            return
        now_s = time.monotonic()
        if now_s < lane.not_before_s:
            return
        self._send_once(lane, self._board.take(now_s))
        if self._lease_s is not None and self._board.live and now_s >= self._next_alive_s:
            self._next_alive_s = now_s + self._lease_s / _ALIVE_SHARE
            alive = Event(
                kind=semconv.WRITER_ALIVE,
                run_id="",
                time_unix_ns=time.time_ns(),
                writer_id=self.writer_id,
                lease_s=self._lease_s,
            )
            self._send_once(lane, [alive])

    def _send_once(self, lane: Lane, events: list[Event]) -> None:
        while events and not lane.off_reason:
            body, count = self._encode_events(events)
            del events[:count]
            answer = self._attempt(lane, body)
            if answer.verdict is Verdict.UNSUPPORTED:
                lane.settle(answer, time.monotonic())
                _say_if_off(lane)
            elif answer.verdict is Verdict.RETRY:
                lane.last_failure = answer.reason
                lane.hold(answer, time.monotonic())
                return  # these ticks are lost, the next ones heal them

    def _collect_if_due(self, now_s: float, *, closing: bool) -> None:
        collect = self._collect_metrics
        if collect is None or not (closing or now_s >= self._next_metrics_s):
            return
        self._next_metrics_s = now_s + self._metrics_interval_s
        if closing:
            self._collect_metrics = None  # the last time
        body = collect()
        if body:
            self._lanes["metrics"].spool.put(body)

    def _answer_flushes(self) -> None:
        if self._flushes and all(lane.done for lane in self._lanes.values()):
            flushes, self._flushes = self._flushes, []
            for flush in flushes:
                flush.set()

    def _complain(self) -> None:
        """At most one line a minute about what is lost or not getting through."""
        failing = [lane for lane in self._lanes.values() if lane.failing]
        lost = self._lost()
        self._complained_of = min(self._complained_of, lost)
        if not failing and lost == self._complained_of:
            return
        now_s = time.monotonic()
        if now_s < self._complained_at_s + _COMPLAIN_EVERY_S or self._closing_at_s is not None:
            return
        self._complained_at_s = now_s
        newly_lost, self._complained_of = lost - self._complained_of, lost
        told = ", ".join(
            f"{lane.signal} to {lane.endpoint.authority}: {lane.last_failure}, {lane.waiting} waiting"
            for lane in self._lanes.values()
            if lane.last_failure and (lane in failing or newly_lost)
        )
        _LOG.warning(
            "otelprogress: telemetry is not getting through: %s; %d lost", told or "spool full", newly_lost
        )

    def _lost(self) -> int:
        """Entries that did not arrive and never will; those of a signal that is off were said to be so, once."""
        return sum(
            lane.lost() + lane.stats.refused + lane.stats.rejected
            for lane in self._lanes.values()
            if not lane.off_reason
        )

    def _encode_events(self, events: list[Event]) -> tuple[bytes, int]:
        if self._encoder is None:
            with late:
                from otelprogress.otel.otlp_encode import LogEncoder

            resource = self._resource
            try:
                attributes = resource() if callable(resource) else resource
            except Exception:
                self.internal_errors += 1
                attributes = {}  # better nameless than lost
            self._encoder = LogEncoder(attributes, self._version)
        encoded: tuple[bytes, int] = self._encoder.encode(events)
        return encoded


def _say_if_off(lane: Lane) -> None:
    """After an answer, which is the only thing that switches a lane off: one line, once."""
    if lane.off_reason:
        _LOG.warning(
            "otelprogress: %s does not take %s (%s): no more of them are sent",
            lane.endpoint.authority,
            lane.signal,
            lane.off_reason,
        )


def _with_ratio(applied: Applied) -> Event:
    """What the writer said, and how far its run is by the host's reckoning: only a host knows steps and children."""
    event, view = applied.source, applied.event.operation
    if event.ratio is not None or view.ratio is None or event.run_id != view.id:
        return event
    return msgspec.structs.replace(event, ratio=view.ratio, ratio_source=view.ratio_source)


def _encode_spans(spans: list[Any]) -> tuple[bytes, int]:
    with late:
        from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    return encode_spans(spans).SerializeToString(), len(spans)


def _first_bytes(bodies: list[Any]) -> tuple[bytes, int]:
    return bodies[0], 1


def _suppress_instrumentation() -> None:
    """Our own requests must not become spans, which would be sent, which would become spans."""
    from opentelemetry import context
    from opentelemetry.context import _SUPPRESS_HTTP_INSTRUMENTATION_KEY, _SUPPRESS_INSTRUMENTATION_KEY

    suppressed = context.set_value(_SUPPRESS_INSTRUMENTATION_KEY, value=True)
    # Never detached: this is the sender's thread, from its first line to its last.
    context.attach(context.set_value(_SUPPRESS_HTTP_INSTRUMENTATION_KEY, value=True, context=suppressed))
