"""One subscription with `render: digest`: it speaks when there is news, and for what wants attention at once.

Two positions, as every subscription: what the reader was told, and what was looked at since. What it knows of the time before is read from
the log when it speaks.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from otelprogress.model import formats
from otelprogress.protocol.cursor import CursorFault, unseal
from otelprogress.protocol.digests import digest_from
from otelprogress.protocol.encoding import encode
from otelprogress.protocol.hub import Hub
from otelprogress.protocol.messages import Bookmark, DigestText, Gap, GapReason, Subscribed
from otelprogress.protocol.position import is_position, read_position
from otelprogress.protocol.window import Window

if TYPE_CHECKING:
    from otelprogress.protocol.filters import Matcher
    from otelprogress.protocol.messages import Limits, Subscribe

DIGEST_RATE_HZ: Final = 0.1
"""How often it speaks of what can wait, where the client does not say."""
ATTENTION_S: Final = 1.0
"""Not even what wants attention is told sooner than so long after the last digest: a thousand warnings are one."""
_SHARED_NS: Final = 1_000_000_000
"""Equal subscriptions that speak within the same second share the bytes: times in a digest are that exact."""


class DigestSubscription:
    """Speaks from the hub's log; see `ServerSubscription` for how a session uses it."""

    hasty: Final = True
    """News may make its next deadline less than a second ahead all of a sudden."""

    def __init__(self, hub: Hub, request: Subscribe, matcher: Matcher, limits: Limits, now_s: float) -> None:
        # One object for all equal ids: looked up with every frame.
        self.id = sys.intern(request.id)
        self._hub = hub
        self._matcher = matcher
        self.level = request.level
        self._limits = limits
        self._max_tokens = request.max_tokens
        self._window = Window(request.window_bytes)
        self._interval_s = 1.0 / min(request.max_rate_hz or DIGEST_RATE_HZ, limits.max_rate_hz)
        self._position: int | None = None
        """Everything up to it was told; `None`: nothing was, the full state is owed."""
        self._looked_at = 0
        """Up to there the log was looked at for news."""
        self._change = 0
        """Changes without a durable event were told up to this one."""
        self._has_news = self._is_urgent = self._is_last = False
        self._spoke_at_s: float | None = None
        self._told_position = -1
        self._told_at_s = now_s
        self.opening = self._open(request.cursor)
        """The frames that answer `subscribe`, before anything the window bounds."""

    def _open(self, cursor: str | None) -> list[bytes]:
        if cursor is None:
            return [encode(Subscribed(id=self.id, mode="snapshot"))]
        hub = self._hub
        offset = self._offset_of(cursor)
        if isinstance(offset, int) and hub.ring.can_resume(offset):
            self._position = self._looked_at = self._told_position = offset
            return [encode(Subscribed(id=self.id, mode="resumed"))]
        reason: GapReason = "expired"
        if offset is CursorFault.INVALID:
            reason = "invalid"
        elif offset is CursorFault.EPOCH or offset > hub.head:
            reason = "epoch"
        gap = encode(Gap(id=self.id, reason=reason, from_=cursor))
        self._window.count(gap)
        return [encode(Subscribed(id=self.id, mode="snapshot")), gap]

    def _offset_of(self, cursor: str) -> int | CursorFault:
        hub = self._hub
        if is_position(cursor):
            # What a digest begins with: it opens nothing that the filter and the grant do not.
            offset = read_position(cursor, hub.epoch)
            return CursorFault.EPOCH if offset is None else offset
        return unseal(hub.cursor_key, cursor, epoch=hub.epoch, scope=self._matcher.key)

    @property
    def tick_interest(self) -> tuple[Matcher, float] | None:
        """What it wants ticks of, and how often a second; `None`: of nothing."""
        return (self._matcher, 1.0 / self._interval_s) if self.level == "ticks" else None

    def hurry(self) -> None:
        """The feed ends: what there is to tell is told without waiting for its time."""
        self._is_last = True

    def acknowledge(self, frames: int) -> int | None:
        """Take an `ack`; how many frames are newly acknowledged, `None`: it names one that was never sent."""
        return self._window.acknowledge(frames)

    def frames(self, now_s: float, now_unix_ns: int, budget_bytes: int) -> list[bytes]:
        """What can be sent now: a digest, if one is due, or a bookmark.

        Args:
            now_s: a monotonic clock.
            now_unix_ns: the host's clock.
            budget_bytes: stop after the frame that reaches it.
        """
        out = self.opening
        self.opening = []
        spent = sum(map(len, out))
        while spent < budget_bytes:
            frame = self._next(now_s, now_unix_ns)
            if frame is None:
                break
            self._window.count(frame)
            spent += len(frame)
            self._told_at_s = now_s
            out.append(frame)
        return out

    def next_deadline_s(self) -> float | None:
        """When `frames` may have something although nothing was published; `None`: never."""
        if self._window.is_blocked:
            return None
        due_s = self._due_s()
        if due_s is None and self._told_position != self._position:
            due_s = self._told_at_s + self._limits.bookmark_idle_s
        return due_s

    def _due_s(self) -> float | None:
        """When the next digest is due, as far as the log was looked at; `None`: there is no news."""
        if self._position is None:
            return self._told_at_s
        if not (self._has_news or self._has_ticks()):
            return None
        if self._spoke_at_s is None or self._is_last:
            # It came back, or there is no later: what there is to tell is told at once.
            return self._told_at_s
        return self._spoke_at_s + (
            min(ATTENTION_S, self._interval_s) if self._is_urgent else self._interval_s
        )

    def _has_ticks(self) -> bool:
        return self.level == "ticks" and self._change < self._hub.changes

    def _next(self, now_s: float, now_unix_ns: int) -> bytes | None:
        if self._window.is_full():
            return None
        hub = self._hub
        if self._position is not None and not hub.ring.can_resume(self._position):
            gap = Gap(id=self.id, reason="evicted", from_=hub.cursor(self._matcher, self._position))
            self._position = None
            return encode(gap)
        self._look()
        due_s = self._due_s()
        if due_s is not None and now_s >= due_s:
            return self._speak(now_s, now_unix_ns)
        if (
            due_s is None
            and self._told_position != self._position
            and now_s - self._told_at_s >= self._limits.bookmark_idle_s
        ):
            assert self._position is not None
            self._told_position = self._position
            return encode(Bookmark(id=self.id, cursor=hub.cursor(self._matcher, self._position)))
        return None

    def _look(self) -> None:
        """Look for news in what was appended to the log; where there is none the position moves on."""
        hub, matcher = self._hub, self._matcher
        if self._position is None or self._looked_at == hub.head:
            return
        for _, entry in hub.ring.read(max(self._looked_at, self._position)):
            if (
                not entry.evicted
                and (self.level != "terminal" or entry.terminal)
                and (matcher(entry.after) or (entry.before is not None and matcher(entry.before)))
            ):
                self._has_news = True
                self._is_urgent = self._is_urgent or entry.attention
        self._looked_at = hub.head
        if not self._has_news:
            self._position = hub.head

    def _speak(self, now_s: float, now_unix_ns: int) -> bytes | None:
        hub = self._hub
        ticked: list[str] = []
        if self._position is not None and self._has_ticks():
            ticked = hub.ticked(self._matcher, self._change)
            if not ticked and not self._has_news:
                self._change = hub.changes
                return None
        elapsed_s = None if self._spoke_at_s is None else now_s - self._spoke_at_s
        frame = hub.remembered(
            (
                "digest",
                self.id,
                self._matcher.key,
                self.level,
                self._max_tokens,
                self._position,
                hub.head,
                self._change if self.level == "ticks" else None,
                hub.changes,
                None if elapsed_s is None else formats.duration(elapsed_s),
                now_unix_ns // _SHARED_NS,
            ),
            lambda: self._frame(ticked, elapsed_s, now_unix_ns),
        )
        if not self._window.has_room(len(frame)):
            return None
        self._position = self._looked_at = self._told_position = hub.head
        self._change = hub.changes
        self._has_news = self._is_urgent = False
        self._spoke_at_s = now_s
        return frame

    def _frame(self, ticked: list[str], elapsed_s: float | None, now_unix_ns: int) -> bytes:
        hub = self._hub
        made = digest_from(
            hub,
            self._matcher,
            self._position,
            now_unix_ns,
            also=ticked,
            level=self.level,
            max_tokens=self._max_tokens,
            elapsed_s=elapsed_s,
        )
        return encode(DigestText(id=self.id, cursor=hub.cursor(self._matcher, made.offset), text=made.text))
