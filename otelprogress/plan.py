"""What is known about an operation before it begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from opentelemetry.trace import SpanKind

if TYPE_CHECKING:
    from opentelemetry.trace import Link

AttributeScalar = str | bool | int | float


class Plan(NamedTuple):
    """What is said about an operation when it begins; see `operation()` for the meaning of each."""

    name: str
    label: str | None = None
    steps: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    controls: tuple[str, ...] = ()
    attempt: int | None = None
    weight: float | None = None
    expected_children: int | None = None
    stall_after_s: float | None = None
    total: float | None = None
    unit: str | None = None
    initial: float = 0
    attributes: Mapping[str, AttributeScalar] = MappingProxyType({})
    kind: SpanKind = SpanKind.INTERNAL
    links: Sequence[Link] = ()
    ids: tuple[int, int] | None = None
    """Trace and span id that were settled before; the former counts for roots only. `None`: new ones."""
    start_unix_ns: int | None = None
    """When it began; `None`: when it is said to begin."""
