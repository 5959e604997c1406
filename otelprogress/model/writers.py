"""The processes that report, each incarnation once, and which runs they are answerable for."""

from __future__ import annotations

from collections.abc import Iterator

from otelprogress.model.events import Event, State
from otelprogress.model.state import RunState, Writer

MAX_LEASE_S = 86_400.0


class Writers:
    """All writers with a live or a lost run."""

    def __init__(self) -> None:
        self._by_key: dict[str, Writer] = {}

    def of(self, event: Event) -> Writer:
        """The writer of an event, made when missing; foreign writers without id by service and process."""
        fresh = Writer(event.writer_id, event.service or "", event.process_id, tenant=event.tenant)
        writer = self._by_key.setdefault(key_of(fresh), fresh)
        if writer is not fresh:
            writer.service = writer.service or fresh.service
            writer.process_id = fresh.process_id if writer.process_id is None else writer.process_id
        if event.lease_s is not None and 0.0 < event.lease_s <= MAX_LEASE_S:
            writer.lease_s = event.lease_s
        return writer

    def hear(self, run: RunState, event: Event, now_ns: int) -> None:
        """A writer said something about a run; the first one with an id becomes the run's writer."""
        run.heard_ns = max(run.heard_ns, now_ns)
        if event.writer_id == run.writer.id:
            run.writer.heard_ns = max(run.writer.heard_ns, now_ns)
        if not run.writer.id and event.writer_id:
            run.writer.live.pop(run.id, None)
            run.writer.lost.pop(run.id, None)
            self._drop_idle(run.writer)
            run.writer = self.of(event)
            if run.spoken and run.live:
                self.enlist(run)
            elif run.spoken:
                self.discharge(run)

    def alive(self, event: Event, now_ns: int) -> Writer | None:
        """A writer lives, and with it all its live runs; `None`: it has none here."""
        writer = self._by_id(event.writer_id, event.tenant)
        if writer is not None:
            writer.heard_ns = max(writer.heard_ns, now_ns)
            if event.lease_s is not None and 0.0 < event.lease_s <= MAX_LEASE_S:
                writer.lease_s = event.lease_s
        return writer

    def enlist(self, run: RunState) -> None:
        """A live run joins its writer, which may have been dropped while it had no other."""
        run.writer = self._by_key.setdefault(key_of(run.writer), run.writer)
        run.writer.live[run.id] = None
        run.writer.lost.pop(run.id, None)

    def discharge(self, run: RunState) -> None:
        """A run ended. A writer can take back that a run is lost, so it keeps those."""
        writer = run.writer
        writer.live.pop(run.id, None)
        if run.state is State.LOST:
            self._by_key.setdefault(key_of(writer), writer).lost[run.id] = None
        else:
            writer.lost.pop(run.id, None)
        self._drop_idle(writer)

    def forget(self, run: RunState) -> None:
        """A run left the tree."""
        run.writer.lost.pop(run.id, None)
        self._drop_idle(run.writer)

    def live_runs(self, writer_id: str, tenant: str) -> Iterator[str]:
        """Ids of the live runs of a writer, in order of arrival."""
        writer = self._by_id(writer_id, tenant)
        return iter(()) if writer is None else iter(tuple(writer.live))

    def answerable(self) -> Iterator[Writer]:
        """Those with a live run, in order of arrival."""
        return (writer for writer in tuple(self._by_key.values()) if writer.live)

    def lease_s(self, writer_id: str, tenant: str) -> float | None:
        """The lease that a writer gave, seconds; `None`: none, or it has no run here."""
        writer = self._by_id(writer_id, tenant)
        return None if writer is None else writer.lease_s

    def _by_id(self, writer_id: str, tenant: str) -> Writer | None:
        return self._by_key.get(key_of(Writer(writer_id, tenant=tenant))) if writer_id else None

    def _drop_idle(self, writer: Writer) -> None:
        key = key_of(writer)
        if not writer.live and not writer.lost and self._by_key.get(key) is writer:
            del self._by_key[key]


def key_of(writer: Writer) -> str:
    """What tells the writers of a tenant apart: their id, of foreign ones without id service and process."""
    name = writer.id or f"{writer.service}/{writer.process_id or ''}"
    # The name of a tenant is printable: the first NUL ends it, whatever a writer calls itself.
    return f"{writer.tenant}\0{name}"
