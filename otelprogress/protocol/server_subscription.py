"""One subscription on the server's side: two positions, a window, and what of its snapshot is still to be sent."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from otelprogress.protocol.cursor import CursorFault, unseal
from otelprogress.protocol.encoding import encode
from otelprogress.protocol.hub import Hub, Pull, TickPosition
from otelprogress.protocol.messages import Bookmark, Gap, GapReason, SnapshotEnd, Subscribed
from otelprogress.protocol.window import Window

if TYPE_CHECKING:
    from otelprogress.protocol.filters import Matcher
    from otelprogress.protocol.messages import Limits, Subscribe

_MIN_FRAME_BYTES: Final = 1024
"""Even the smallest window lets frames of this size through, one at a time."""


class ServerSubscription:
    """Pulls its frames from the hub.

    Its memory does not depend on how much happens: while a snapshot is under way it holds the ids of at most
    `limits.operations` runs, and of unacknowledged frames only their sizes, which the window bounds.
    """

    def __init__(self, hub: Hub, request: Subscribe, matcher: Matcher, limits: Limits, now_s: float) -> None:
        # One object for all equal ids: looked up with every frame.
        self.id = sys.intern(request.id)
        self._hub = hub
        self._matcher = matcher
        self.level = request.level
        self.hasty = request.level == "ticks"
        """Whether its next deadline may be less than a second ahead all of a sudden."""
        self._limits = limits
        self._window = Window(request.window_bytes)
        self._frame_bytes = limits.server_frame_bytes
        if request.window_bytes:
            self._frame_bytes = max(_MIN_FRAME_BYTES, min(self._frame_bytes, request.window_bytes))
        rate_hz = min(request.max_rate_hz or limits.max_rate_hz, limits.max_rate_hz)
        self._tick_interval_s = 1.0 / rate_hz
        self._next_tick_s = now_s
        self._position = 0
        self._ticks = TickPosition(0)
        self._passed = 0
        self._told_position = -1
        self._told_at_s = now_s
        self._joining = False
        self._snapshot: list[str] | None = None
        """Run ids still to be shown, the next one last; `None`: not read yet."""
        self._snapshot_since: int | None = None
        self._snapshot_more = 0
        self._covered: dict[str, int] = {}
        """Runs that a later part of the snapshot showed in a newer state than its position."""
        self._covered_to = 0
        self.opening = self._open(request.cursor)
        """The frames that answer `subscribe`, before anything the window bounds."""

    def _open(self, cursor: str | None) -> list[bytes]:
        if cursor is None:
            self._join(None)
            return [encode(Subscribed(id=self.id, mode="snapshot"))]
        hub = self._hub
        offset = unseal(hub.cursor_key, cursor, epoch=hub.epoch, scope=self._matcher.key)
        if isinstance(offset, int) and hub.ring.can_resume(offset):
            self._position = offset
            self._told_position = offset
            # The cursor does not say which ticks arrived: all that are owed to anybody are sent, and the client
            # drops those whose revision it knows.
            self._ticks = TickPosition(0)
            return [encode(Subscribed(id=self.id, mode="resumed"))]
        reason: GapReason
        since: int | None = None
        if offset is CursorFault.INVALID:
            reason = "invalid"
        elif offset is CursorFault.EPOCH or offset > hub.head:
            # A position of ours beyond the head: the log went back without a word.
            reason = "epoch"
        else:
            reason, since = "expired", offset
        gap = self._gap(reason, cursor, since)
        self._window.count(gap)
        return [encode(Subscribed(id=self.id, mode="snapshot")), gap]

    def _gap(self, reason: GapReason, cursor: str | None, since: int | None) -> bytes:
        # Where runs can leave, or were forgotten meanwhile, only the whole state tells which ones did.
        whole = self._matcher.volatile or (since is not None and self._hub.evicted_at > since)
        self._join(None if whole else since)
        return encode(Gap(id=self.id, reason=reason, from_=cursor))

    def _join(self, since: int | None) -> None:
        """Fix the position; the state is read after it, and what follows the position is streamed."""
        hub = self._hub
        self._position = hub.head
        # A snapshot of what changed since a cursor cannot know of ticks that never arrived before it.
        self._ticks = TickPosition(hub.changes if since is None else 0)
        self._covered = {}
        self._passed = 0
        self._joining = True
        self._snapshot = None
        self._snapshot_since = since

    @property
    def tick_interest(self) -> tuple[Matcher, float] | None:
        """What it wants ticks of, and how often a second; `None`: of nothing."""
        return (self._matcher, 1.0 / self._tick_interval_s) if self.level == "ticks" else None

    def acknowledge(self, frames: int) -> int | None:
        """Take an `ack`; how many frames are newly acknowledged, `None`: it names one that was never sent."""
        return self._window.acknowledge(frames)

    def frames(self, now_s: float, now_unix_ns: int, budget_bytes: int) -> list[bytes]:
        """What can be sent now: the rest of the snapshot, durable events, then ticks, then a bookmark.

        Args:
            now_s: a monotonic clock.
            now_unix_ns: the host's clock.
            budget_bytes: stop after the frame that reaches it.
        """
        if not (self.opening or self._joining or self._window.window_bytes or self._covered) and (
            self.level != "ticks" or not self._hub.has_ticks(self._ticks)
        ):
            # Most of the time most subscriptions are a step behind the head, and take it with others.
            try:
                pull = self._pull()
            except LookupError:
                pass  # out of retention: the long way tells it
            else:
                if pull.frames and pull.position == self._hub.ring.head:
                    self._position = self._told_position = pull.position
                    self._passed = pull.passed
                    self._told_at_s = now_s
                    self._window.sent += len(pull.frames)
                    return list(pull.frames)
        out = self.opening
        self.opening = []
        spent = sum(map(len, out))
        while spent < budget_bytes:
            unit = self._next(now_s, now_unix_ns)
            if not unit:
                break
            for frame in unit:
                self._window.count(frame)
                spent += len(frame)
            self._told_at_s = now_s
            out += unit
        return out

    def next_deadline_s(self) -> float | None:
        """When `frames` may have something although nothing was published; `None`: never."""
        if self._window.is_blocked:
            return None
        bookmark_s = tick_s = None
        if self._told_position != self._position:
            bookmark_s = self._told_at_s + self._limits.bookmark_idle_s
        if self.level == "ticks" and not self._joining and self._hub.has_ticks(self._ticks):
            tick_s = self._next_tick_s
        if bookmark_s is None or tick_s is None:
            return tick_s if bookmark_s is None else bookmark_s
        return min(bookmark_s, tick_s)

    def _next(self, now_s: float, now_unix_ns: int) -> list[bytes]:
        if self._window.is_full():
            return []
        if self._joining:
            return self._snapshot_frame(now_unix_ns)
        while True:
            if not self._hub.ring.can_resume(self._position):
                cursor = self._hub.cursor(self._matcher, self._position)
                return [self._gap("evicted", cursor, self._position)]
            pull = self._pull()
            if pull.frames:
                if not self._window.has_room(sum(map(len, pull.frames))):
                    return []
                self._move(pull)
                self._told_position = self._position
                return list(pull.frames)
            if pull.position == self._position:
                break
            self._move(pull)
            if self._passed >= self._limits.bookmark_filtered:
                return self._bookmark()
        if self.level == "ticks" and now_s >= self._next_tick_s and self._hub.has_ticks(self._ticks):
            frame, then = self._hub.pull_ticks(
                self.id,
                self._matcher,
                self._ticks,
                position=self._position,
                now_unix_ns=now_unix_ns,
                frame_bytes=self._frame_bytes,
            )
            if frame is not None and not self._window.has_room(len(frame)):
                return []
            self._ticks = then
            if frame is not None:
                if not then.serial:
                    # On a common grid, so that equal subscriptions need the same frame at the same time.
                    self._next_tick_s = (now_s // self._tick_interval_s + 1) * self._tick_interval_s
                self._told_position, self._passed = self._position, 0
                return [frame]
        if self._told_position != self._position and now_s - self._told_at_s >= self._limits.bookmark_idle_s:
            return self._bookmark()
        return []

    def _pull(self) -> Pull:
        covered = self._covered if self._covered and self._position < self._covered_to else None
        return self._hub.pull(
            self.id,
            self._matcher,
            self.level,
            self._position,
            frame_bytes=self._frame_bytes,
            covered=covered,
        )

    def _move(self, pull: Pull) -> None:
        self._position = pull.position
        self._passed = pull.passed if pull.frames else self._passed + pull.passed
        if self._position >= self._covered_to:
            self._covered = {}

    def _bookmark(self) -> list[bytes]:
        self._told_position, self._passed = self._position, 0
        return [encode(Bookmark(id=self.id, cursor=self._hub.cursor(self._matcher, self._position)))]

    def _snapshot_frame(self, now_unix_ns: int) -> list[bytes]:
        hub = self._hub
        if self._snapshot is None:
            found, self._snapshot_more = hub.matching(
                self._matcher, now_unix_ns, self._limits.operations, changed_since=self._snapshot_since
            )
            found.reverse()
            self._snapshot = found
        head = b'{"type":"snapshot","id":%b,"operations":[' % encode(self.id)
        room = self._frame_bytes - len(head) - 2
        window = self._window
        if window.window_bytes and window.outstanding_bytes:
            room = min(room, window.window_bytes - window.outstanding_bytes - len(head) - 2)
        parts: list[bytes] = []
        while self._snapshot:
            part = hub.operation_part(self._snapshot[-1], now_unix_ns)
            if part is not None:
                encoded, revision, changed_at = part
                if len(encoded) + 1 > room and (parts or window.outstanding_bytes):
                    break
                parts.append(encoded)
                room -= len(encoded) + 1
                if changed_at > self._position:
                    self._covered[self._snapshot[-1]] = revision
                    self._covered_to = hub.head
            self._snapshot.pop()
        if parts:
            return [b"".join((head, b",".join(parts), b"]}"))]
        if self._snapshot:
            window.is_blocked = True
            return []
        self._joining = False
        self._snapshot = None
        self._told_position = self._position
        whole = (
            self._snapshot_since is None and not self._snapshot_more and self._matcher.filter.after is None
        )
        return [
            encode(
                SnapshotEnd(
                    id=self.id,
                    cursor=hub.cursor(self._matcher, self._position),
                    complete=whole,
                    more=self._snapshot_more,
                )
            )
        ]
