"""Handles of runs, `slug(name)-n`, and what people and agents type instead of an id."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from otelprogress.exceptions import AmbiguousOperation, UnknownOperation
from otelprogress.model.state import RunState
from otelprogress.model.text import slug

MAX_CANDIDATES = 10
"""How many handles an ambiguity lists."""


class Handles:
    """Gives handles and finds runs by them. Each tenant has its own: what others run is not to be counted from outside.

    Args:
        next_number: the next n for a slug, behind its tenant and a slash where there is one; `None` counts in memory,
            from 1.
    """

    def __init__(self, next_number: Callable[[str], int] | None) -> None:
        self._next_number = next_number or self._count
        self._numbers: dict[str, int] = {}
        self._by_handle: dict[tuple[str, str], str] = {}
        self._by_label: dict[tuple[str, str], dict[str, None]] = {}
        """Both by tenant too."""

    def give(self, run: RunState) -> None:
        """Give a run its handle, for good."""
        front = slug(run.name or (run.extra.label if run.extra and run.extra.label else ""))
        key = _key(run.tenant, front)
        handle = f"{front}-{self._next_number(key)}"
        while (run.tenant, handle) in self._by_handle:
            handle = f"{front}-{self._next_number(key)}"
        run.handle = handle
        self._by_handle[run.tenant, handle] = run.id
        self.label(run)

    def take_over(self, run: RunState) -> None:
        """A run came with the handle that it was given once: it keeps it, and nobody else gets it."""
        self._by_handle[run.tenant, run.handle] = run.id
        self.label(run)
        front, _, number = run.handle.rpartition("-")
        key = _key(run.tenant, front)
        self._numbers[key] = max(self._numbers.get(key, 0), int(number) if number.isdecimal() else 0)

    def label(self, run: RunState) -> None:
        """Make a run findable by its label."""
        if run.extra is not None and run.extra.label:
            self._by_label.setdefault((run.tenant, run.extra.label), {})[run.id] = None

    def forget(self, run: RunState) -> None:
        """The run left the tree."""
        self._by_handle.pop((run.tenant, run.handle), None)
        label = run.extra.label if run.extra is not None else None
        if label and (runs := self._by_label.get((run.tenant, label))) is not None:
            runs.pop(run.id, None)
            if not runs:
                del self._by_label[run.tenant, label]

    def resolve(self, text: str, runs: Mapping[str, RunState], tenant: str = "") -> str:
        """The run of a tenant that a handle, an id, a label or a unique prefix of one of them means.

        A label means its live run, or the one started last when none is live.

        Raises:
            UnknownOperation: nothing matches.
            AmbiguousOperation: several do; lists the candidates.
        """
        if (found := self._by_handle.get((tenant, text))) is not None:
            return found
        if text in runs and runs[text].spoken and runs[text].tenant == tenant:
            return text
        if (labelled := self._by_label.get((tenant, text))) is not None:
            live = [runs[run_id] for run_id in labelled if runs[run_id].live]
            if len(live) > 1:
                raise self._ambiguous(text, live)
            return (
                live[0] if live else max((runs[one] for one in labelled), key=lambda run: run.started_ns)
            ).id
        if not text:
            raise UnknownOperation(
                "no operation named: give a handle, an id, a label or the beginning of one"
            )
        matches = {
            run.id: run
            for run in runs.values()
            if run.spoken
            and run.tenant == tenant
            and (
                run.handle.startswith(text)
                or run.id.startswith(text)
                or (
                    run.extra is not None and run.extra.label is not None and run.extra.label.startswith(text)
                )
            )
        }
        if not matches:
            raise UnknownOperation(
                f"no operation has the handle, id or label {text!r}, or one that starts so"
            )
        if len(matches) > 1:
            raise self._ambiguous(text, matches.values())
        return next(iter(matches))

    def _ambiguous(self, text: str, runs: Iterable[RunState]) -> AmbiguousOperation:
        handles = sorted(run.handle for run in runs)
        shown = ", ".join(handles[:MAX_CANDIDATES]) + (", …" if len(handles) > MAX_CANDIDATES else "")
        return AmbiguousOperation(f"{text!r} means {len(handles)} operations: {shown}", handles)

    def _count(self, front: str) -> int:
        number = self._numbers.get(front, 0) + 1
        self._numbers[front] = number
        return number


def _key(tenant: str, front: str) -> str:
    """No slug has a slash, so that no two pairs are alike."""
    return f"{tenant}/{front}" if tenant else front
