"""`/metrics`: what was collected, in Prometheus' text format (version 0.0.4)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from starlette.types import Receive, Scope, Send

from otelprogress_collector.api.problem import Problem, respond

if TYPE_CHECKING:
    from otelprogress_collector.api.access import Access

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Sample = tuple[str, str, str, Mapping[str, str], float]
"""Name of the family, help, type (`counter`, `gauge`, `histogram`, …), labels, value.

Samples of one family follow one another. Of a histogram or a summary the series are told apart by a name that goes on
where the family's ends: `x_bucket`, `x_sum` and `x_count` are written under the help and type of `x`.
"""
Collect = Callable[[], Iterable[Sample]]

_NOT_IN_NAMES: Final = re.compile(r"[^a-zA-Z0-9_:]")
_NOT_IN_LABELS: Final = re.compile(r"[^a-zA-Z0-9_]")
_SERIES: Final = re.compile(r"_(?:bucket|sum|count)$")
_PARTED: Final = frozenset({"histogram", "summary"})


def render(samples: Iterable[Sample]) -> bytes:
    """The text of these samples, in their order; what has no name in the format is given one."""
    lines: list[str] = []
    begun: set[str] = set()
    for name, text, kind, labels, value in samples:
        series = _named(name, _NOT_IN_NAMES)
        family = _SERIES.sub("", series) if kind in _PARTED else series
        if family not in begun:
            begun.add(family)
            lines += (f"# HELP {family} {_escaped(text)}", f"# TYPE {family} {kind}")
        pairs = ",".join(
            f'{_named(key, _NOT_IN_LABELS)}="{_escaped(str(label), quotes=True)}"'
            for key, label in labels.items()
        )
        lines.append(f"{series}{{{pairs}}} {_number(value)}" if pairs else f"{series} {_number(value)}")
    return "".join(f"{line}\n" for line in lines).encode()


def _named(name: str, forbidden: re.Pattern[str]) -> str:
    clean = forbidden.sub("_", name)
    return f"_{clean}" if not clean or clean[0].isdigit() else clean


def _escaped(text: str, *, quotes: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    # A surrogate cannot be written; a carriage return would end the line for some readers.
    text = text.replace("\r", " ").encode(errors="replace").decode()
    return text.replace('"', '\\"') if quotes else text


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))


class Metrics:
    """The ASGI application of `/metrics`.

    Args:
        collect: asked for each request; must be quick.
        access: who may read; names of operations stand in the labels, so a token of one tenant or of some services is
            refused. `None`: everybody who gets there.
    """

    def __init__(self, collect: Collect, access: Access | None) -> None:
        self._collect = collect
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one scrape."""
        try:
            if self._access is not None:
                principal = await self._access.reader(scope)
                if principal.tenant or principal.services:
                    raise Problem(
                        HTTPStatus.FORBIDDEN, "metrics are of all tenants: this token may read one's only"
                    )
        except Problem as refused:
            await refused.answer(send)
        else:
            await respond(send, render(self._collect()), media_type=MEDIA_TYPE)
