"""What the collector says of itself on `/metrics`: names with units, no ids, no secrets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otelprogress_collector.exporters.courier_report import CourierReport
    from otelprogress_collector.host import CollectorHost
    from otelprogress_collector.maintenance import Maintenance
    from otelprogress_collector.monitor.monitor import Monitor
    from otelprogress_collector.store.interface import Store

Line = tuple[str, str, str, Mapping[str, str], float]
"""As `api.metrics.Sample`."""
_P = "otelprogress_collector_"


def host_lines(host: CollectorHost) -> Iterator[Line]:
    """Requests, events, commits, and what is known."""
    stats, tree = host.stats, host.hub.tree
    yield _P + "requests_total", "OTLP requests with progress in them.", "counter", {}, stats.requests
    yield _P + "events_total", "Events that were taken in.", "counter", {}, stats.events
    for reason, count in (
        ("invalid", stats.invalid),
        ("duplicate", tree.stats.duplicates),
        ("stale", tree.stats.stale),
        ("after_end", tree.stats.after_end),
        ("illegal", tree.stats.illegal),
    ):
        yield (
            _P + "events_ignored_total",
            "Events that changed nothing.",
            "counter",
            {"reason": reason},
            count,
        )
    for reason, count in (("overloaded", stats.overloaded), ("store", stats.refused)):
        yield _P + "requests_refused_total", "Requests to come again.", "counter", {"reason": reason}, count
    yield _P + "commits_total", "Batches given to the store.", "counter", {}, stats.commits
    yield _P + "commit_failures_total", "Batches the store refused.", "counter", {}, stats.commit_failures
    yield _P + "failures_total", "Bugs that were survived.", "counter", {}, stats.failures
    yield _P + "pending_bytes", "Requests that wait to be stored.", "gauge", {}, host.pending_bytes
    yield _P + "writable", "Whether the store takes anything.", "gauge", {}, float(host.writable)
    yield _P + "operations", "Operations in the state, ended ones included.", "gauge", {}, len(tree)
    yield _P + "journal_offset", "The offset of the newest durable event.", "gauge", {}, host.hub.head
    yield (
        _P + "incomplete_total",
        "Operations with a hole in what they said.",
        "counter",
        {},
        tree.stats.incomplete,
    )


def monitor_lines(monitor: Monitor) -> Iterator[Line]:
    """Who was lost, and what became of their spans."""
    stats = monitor.stats
    yield _P + "workers", "Open worker links.", "gauge", {}, len(monitor.links.connected)
    yield _P + "lost_operations_total", "Operations called lost.", "counter", {}, stats.lost_runs
    yield (
        _P + "leases_expired_total",
        "Writers not heard within their lease.",
        "counter",
        {},
        stats.leases_expired,
    )
    yield _P + "spans_closed_total", "Spans ended for processes that died.", "counter", {}, stats.spans_closed
    yield (
        _P + "true_spans_late_total",
        "True spans after their closing ones.",
        "counter",
        {},
        stats.true_spans_late,
    )


def store_lines(store: Store, maintenance: Maintenance) -> Iterator[Line]:
    """What is kept."""
    yield _P + "store_bytes", "What the store takes.", "gauge", {}, store.size_bytes()
    yield (
        _P + "journal_trimmed_total",
        "Journal entries beyond retention.",
        "counter",
        {},
        maintenance.stats.trimmed,
    )
    yield (
        _P + "journal_damaged",
        "Offset of the first damaged entry; 0: none.",
        "gauge",
        {},
        (maintenance.stats.damaged_at),
    )


def exporter_lines(reports: Iterable[CourierReport], unreadable: int) -> Iterator[Line]:
    """Each backend and signal, and the records that could not be read for redaction."""
    yield (
        _P + "export_unreadable_total",
        "Records that could not be redacted and go nowhere.",
        "counter",
        {},
        unreadable,
    )
    found = list(reports)
    for name, text, kind, value in (
        ("export_queued", "Requests that wait for a backend.", "gauge", lambda one: one.queued),
        ("export_queued_bytes", "Bytes that wait for a backend.", "gauge", lambda one: one.queued_bytes),
        (
            "export_oldest_age_seconds",
            "How long the oldest waits.",
            "gauge",
            lambda one: one.oldest_age_s or 0.0,
        ),
        ("export_delivered_total", "Requests a backend took.", "counter", lambda one: one.delivered),
        ("export_retries_total", "Attempts answered with later.", "counter", lambda one: one.retries),
        ("export_refused_total", "Requests a backend will never take.", "counter", lambda one: one.refused),
        ("export_rejected_total", "Records a backend left out.", "counter", lambda one: one.rejected),
        (
            "export_dropped_total",
            "Requests lost here: too many, too old.",
            "counter",
            lambda one: one.dropped,
        ),
        (
            "export_off",
            "Whether the backend does not take the signal.",
            "gauge",
            lambda one: bool(one.off_reason),
        ),
    ):
        for report in found:
            yield (
                _P + name,
                text,
                kind,
                {"backend": report.backend, "signal": report.signal},
                float(value(report)),
            )
