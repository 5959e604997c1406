"""Runs that were forgotten, remembered by their ids: a late repetition does not bring one back."""

from __future__ import annotations

from typing import Final

KEPT: Final = 8192
"""Ids remembered, of either kind."""


class Evicted:
    """Runs that left the tree. One that was lost may be heard again; its revisions then go on."""

    def __init__(self) -> None:
        self._ended: dict[str, None] = {}
        self._lost: dict[str, int] = {}

    def remember(self, run_id: str, lost_revision: int | None) -> None:
        """Remember a run.

        Args:
            run_id: it is in the tree no more.
            lost_revision: its last one where it was lost; `None`: it is over for good.
        """
        if lost_revision is None:
            self._ended[run_id] = None
            if len(self._ended) > KEPT:
                del self._ended[next(iter(self._ended))]
        else:
            self._lost[run_id] = lost_revision
            if len(self._lost) > KEPT:
                del self._lost[next(iter(self._lost))]

    def is_over(self, run_id: str) -> bool:
        """Whether nothing more can be heard of a run."""
        return run_id in self._ended

    def revision(self, run_id: str) -> int:
        """The last revision of a run that was lost; 0: of any other."""
        return self._lost.get(run_id, 0)

    def heard_again(self, run_id: str) -> int:
        """A run is in the tree (again): the revision it goes on from."""
        return self._lost.pop(run_id, 0)
