"""What was heard of all operations that a client can reach, as one log with positions of its own. Pure.

Feeds number what happens each for itself, and a run can change from one to another. Here every event gets a number that
rises, whoever told it: as its revision, so that what came earlier is known, and as its place in the log.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator
from typing import Final, NamedTuple

import msgspec

from otelprogress.exceptions import AmbiguousOperation, UnknownOperation
from otelprogress.mcp.source import Since, Wanted, is_named
from otelprogress.model import semconv
from otelprogress.model.events import Eta, FeedEvent, OperationView, State
from otelprogress.protocol.position import read_position, short_position
from otelprogress.visualization.board import Board

CAPACITY: Final = 16_384
"""Events that can be gone back to."""
_DURABLE: Final = frozenset(name.removeprefix(semconv.PREFIX) for name in semconv.DURABLE_EVENTS)
_BAD: Final = frozenset({State.FAILED, State.LOST})
_SOON_NS: Final = 1_000_000_000


class _Entry(NamedTuple):
    offset: int
    event: FeedEvent
    before: OperationView | None
    """The run before it; `None`: it was not heard of."""


class Mirror:
    """See the module.

    Args:
        epoch: names this log; another one in each process.
    """

    def __init__(self, epoch: str) -> None:
        self._epoch = epoch
        self._board = Board()
        self._log: deque[_Entry] = deque(maxlen=CAPACITY)
        self._head = 0
        self._count = 0
        self._listeners: dict[Callable[[FeedEvent], None], None] = {}

    @property
    def position(self) -> str:
        """The newest one."""
        return short_position(self._epoch, self._head)

    def apply(self, event: FeedEvent) -> None:
        """Take what a feed told."""
        self._count += 1
        before = self._board.view(event.operation.id)
        view = msgspec.structs.replace(event.operation, revision=self._count)
        event = msgspec.structs.replace(event, operation=view, revision=self._count)
        self._board.apply(event)
        if not _is_news(event, before):
            return
        self._head += 1
        self._log.append(_Entry(self._head, event, before))
        for listener in tuple(self._listeners):
            listener(event)

    def listen(self, listener: Callable[[FeedEvent], None]) -> Callable[[], None]:
        """Tell a listener of every event of the log; returns what ends that."""
        self._listeners[listener] = None

        def leave() -> None:
            self._listeners.pop(listener, None)

        return leave

    def knows(self, run_id: str) -> bool:
        """Whether a run was heard of."""
        return self._board.view(run_id) is not None

    def view(self, run_id: str, now_unix_ns: int) -> OperationView | None:
        """One run as it stands; `None`: it was not heard of."""
        view = self._board.view(run_id)
        return None if view is None else _as_of(view, now_unix_ns)

    def resolve(self, text: str, now_unix_ns: int) -> OperationView:
        """What a handle, an id, a label or a unique prefix of one of them means.

        Raises:
            UnknownOperation: nothing that was heard of.
            AmbiguousOperation: several.
        """
        views = self._board.views(now_unix_ns)
        for matches in (
            [view for view in views if text in (view.id, view.handle)],
            [view for view in views if text and view.label == text],
            [view for view in views if text and _begins(view, text)],
        ):
            # Of several that are called so the one that lives is meant.
            found = [view for view in matches if view.live] or matches
            if len(found) == 1:
                return _as_of(found[0], now_unix_ns)
            if found:
                names = [view.handle for view in found]
                # Each process numbers its own.
                names = names if len(set(names)) == len(names) else [view.id for view in found]
                raise AmbiguousOperation(f"{text!r} means {len(names)} operations", sorted(names))
        raise UnknownOperation(f"no operation has the handle, id or label {text!r}, or one that starts so")

    def search(self, wanted: Wanted, now_unix_ns: int) -> list[OperationView]:
        """All that match, without their steps, live ones and then the newest first; `limit` is not looked at."""
        by_id = {view.id: view for view in self._board.views(now_unix_ns)}
        found = [
            msgspec.structs.replace(_as_of(view, now_unix_ns), steps=())
            for view in by_id.values()
            if matches(view, wanted)
            and (not wanted.subtree or wanted.subtree in _ancestors(view, by_id))
            and (wanted.query or wanted.subtree or view.parent_id not in by_id)
        ]
        return sorted(found, key=lambda view: (not view.live, -view.started_at_unix_ns))

    def since(self, position: str, run_ids: Collection[str], now_unix_ns: int) -> Since:
        """What happened to runs after a position."""
        offset = read_position(position, self._epoch)
        first = self._log[0].offset if self._log else self._head + 1
        if offset is None or not first - 1 <= offset <= self._head:
            return Since(self.position)
        events = []
        before: dict[str, OperationView | None] = {}
        for entry in self._log:
            run_id = entry.event.operation.id
            if entry.offset > offset and run_id in run_ids:
                events.append(entry.event)
                before.setdefault(run_id, entry.before)
        for run_id in run_ids:
            if run_id not in before:
                before[run_id] = self.view(run_id, now_unix_ns)
        return Since(self.position, events, {run_id: view for run_id, view in before.items() if view})


def matches(view: OperationView, wanted: Wanted) -> bool:
    """Whether an operation is wanted, but for its place in the tree."""
    fits = {
        "all": True,
        "live": view.live,
        "ended": not view.live,
        "failed": view.state in _BAD,
    }
    return (
        fits[wanted.status]
        and (not wanted.trace_id or view.trace_id == wanted.trace_id)
        and (not wanted.query or is_named(view, wanted.query))
    )


def _is_news(event: FeedEvent, before: OperationView | None) -> bool:
    if event.kind == "left":
        return False
    if before is None or event.kind in _DURABLE or event.gap is not None:
        return True
    # A snapshot after a reconnect, or one feed that takes over from another: it may tell what was missed.
    after = event.operation
    return event.kind == "snapshot" and (
        (before.state, before.stalled, before.input_id) != (after.state, after.stalled, after.input_id)
        or after.warnings > before.warnings
    )


def _begins(view: OperationView, text: str) -> bool:
    return any(name.startswith(text) for name in (view.handle, view.id, view.label or ""))


def _ancestors(view: OperationView, by_id: dict[str, OperationView]) -> Iterator[str]:
    seen = {view.id}
    while view.parent_id is not None and view.parent_id not in seen:
        yield view.parent_id
        seen.add(view.parent_id)
        parent = by_id.get(view.parent_id)
        if parent is None:
            return
        view = parent


def _as_of(view: OperationView, now_unix_ns: int) -> OperationView:
    """A view that was made a while ago, with its times as of now."""
    passed_ns = now_unix_ns - view.as_of_unix_ns
    if not view.live or passed_ns < _SOON_NS:
        return view
    eta = view.eta
    if eta is not None:
        passed_s = passed_ns / 1e9
        eta = Eta(max(0.0, eta.low_s - passed_s), max(0.0, eta.high_s - passed_s))
    return msgspec.structs.replace(view, as_of_unix_ns=now_unix_ns, eta=eta)
