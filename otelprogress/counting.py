"""What counts for the step that an operation entered last. A part of `run.Operation`."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import TypeVar, overload

from otelprogress.imports import first_use
from otelprogress.step import Counts
from otelprogress.voice import Voice

T = TypeVar("T")


class Counting(Voice):
    """`Step`'s counts, asked of the operation."""

    __slots__ = ()

    def advance(self, n: float = 1) -> None:
        """`Step.advance` of the step entered last."""
        try:
            if n >= 0:
                self._step._completed += n
                return
        except Exception:  # noqa: S110 - whatever kind of object it is: the slow way says what is wrong
            pass
        self._step.advance(n)

    def count(self, /, **counts: float) -> None:
        """`Step.count` of the step entered last."""
        self._step.count(**counts)

    def set_total(self, total: float | None, *, unit: str | None = None) -> None:
        """`Step.set_total` of the step entered last."""
        self._step.set_total(total, unit=unit)

    @property
    def counts(self) -> Counts:
        """`Step.counts` of the step entered last."""
        return self._step.counts

    @overload
    def track(
        self,
        iterable: Iterable[T],
        name: str | None = None,
        *,
        total: float | None = None,
        unit: str | None = None,
        initial: float = 0,
    ) -> Iterator[T]: ...
    @overload
    def track(
        self,
        iterable: AsyncIterable[T],
        name: str | None = None,
        *,
        total: float | None = None,
        unit: str | None = None,
        initial: float = 0,
    ) -> AsyncIterator[T]: ...
    def track(
        self,
        iterable: Iterable[T] | AsyncIterable[T],
        name: str | None = None,
        *,
        total: float | None = None,
        unit: str | None = None,
        initial: float = 0,
    ) -> Iterator[T] | AsyncIterator[T]:
        """Iterate, counting for the step entered last; see `otelprogress.track`. A `name` makes a child operation."""
        first_use("otelprogress.track")
        from otelprogress.track import track_under

        return track_under(self._step, iterable, name, total=total, unit=unit, initial=initial)

    def poll(
        self,
        fn: Callable[[], float],
        *,
        total: float | None = None,
        unit: str | None = None,
        every_s: float = 1.0,
    ) -> None:
        """`Step.poll` of the step entered last."""
        self._step.poll(fn, total=total, unit=unit, every_s=every_s)
