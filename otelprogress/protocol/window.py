"""Flow control of one subscription: how much may be on its way that the client did not acknowledge."""

from __future__ import annotations

from collections import deque


class Window:
    """Counts data frames; of those that are unacknowledged it holds only their sizes.

    Args:
        window_bytes: unacknowledged bytes after which nothing more is sent; 0: no limit.
    """

    __slots__ = ("_acknowledged", "_outstanding", "is_blocked", "outstanding_bytes", "sent", "window_bytes")

    def __init__(self, window_bytes: int) -> None:
        self.window_bytes = window_bytes
        self.sent = 0
        """Frames sent so far."""
        self.outstanding_bytes = 0
        self.is_blocked = False
        """Whether the next frame waits for an `ack`: until it comes time changes nothing."""
        self._acknowledged = 0
        self._outstanding: deque[int] = deque()
        """Sizes of the frames that were not acknowledged, oldest first."""

    def is_full(self) -> bool:
        """Whether nothing more may be sent; remembered in `is_blocked`."""
        self.is_blocked = bool(self.window_bytes) and self.outstanding_bytes >= self.window_bytes
        return self.is_blocked

    def has_room(self, size: int) -> bool:
        """Whether a frame of `size` bytes may be sent: if it fits, or nothing is on its way; remembered in `is_blocked`."""
        if not self.window_bytes or not self.outstanding_bytes:
            return True
        self.is_blocked = self.outstanding_bytes + size > self.window_bytes
        return not self.is_blocked

    def count(self, frame: bytes) -> None:
        """A frame is sent."""
        self.sent += 1
        if self.window_bytes:
            self._outstanding.append(len(frame))
            self.outstanding_bytes += len(frame)

    def acknowledge(self, frames: int) -> int | None:
        """Take an `ack`; how many frames are newly acknowledged, `None`: it names one that was never sent."""
        if frames > self.sent:
            return None
        self.is_blocked = False
        newly = frames - self._acknowledged
        if newly <= 0:
            return 0
        self._acknowledged = frames
        if self.window_bytes:
            for _ in range(newly):
                self.outstanding_bytes -= self._outstanding.popleft()
        return newly
