"""A request without the resources that its sender may not write, for the backends. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from otelprogress_collector.receivers.frames import Frames
from otelprogress_collector.receivers.intake import Encoding, Signal
from otelprogress_collector.receivers.json_shapes import GROUPS
from otelprogress_collector.receivers.limits import Limits

_MEMBERS: Final[dict[Signal, str]] = {
    "traces": "resourceSpans",
    "logs": "resourceLogs",
    "metrics": "resourceMetrics",
}
_GROUP_TAG: Final = b"\x0a"


def without_groups(
    signal: Signal, body: bytes, encoding: Encoding, refused: tuple[int, ...], limits: Limits
) -> bytes | None:
    """The request as it may be forwarded: untouched when nothing was refused; `None` when nothing is left.

    Args:
        signal: what it is.
        body: a request that was decoded before.
        encoding: of the body.
        refused: positions of groups by resource, as `Intake.refused_groups` has them.
        limits: that it was decoded with.
    """
    if not refused:
        return body
    gone = frozenset(refused)
    if encoding == "json":
        (groups,) = msgspec.structs.astuple(GROUPS[signal].request(body))
        kept = [group for position, group in enumerate(groups) if position not in gone]
        return msgspec.json.encode({_MEMBERS[signal]: kept}) if kept else None
    left = [
        body[group.place[0] : group.place[1]]
        for position, group in enumerate(Frames(body, limits).groups())
        if position not in gone
    ]
    return b"".join(_GROUP_TAG + _length(raw) + raw for raw in left) if left else None


def _length(raw: bytes) -> bytes:
    """The length of a message as a varint."""
    number = len(raw)
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
