"""When the log of a store is no longer the one that its cursors were made for. Pure but for the random bytes.

The database says which log it holds; the mark beside it (`mark.py`) says what was acknowledged last, and of which
log. Where the two disagree, something was lost or put back, and the log gets a new name.
"""

from __future__ import annotations

import secrets
from typing import Final

import msgspec

from otelprogress_collector.store.interface import Durability
from otelprogress_collector.store.mark import EPOCH_CHARS, Mark

CURSOR_SECRET_BYTES: Final = 32


def new_epoch() -> str:
    """A name that no other log has."""
    return secrets.token_hex(EPOCH_CHARS // 2)


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What was there when a store was opened."""

    is_new: bool
    """There was no database, or it had no tables."""
    epoch: str | None
    """As the database says; `None`: it says nothing, or what it says is not what was written."""
    head: int
    """The offset of the newest row that is what was written."""
    inode: int
    """Of the database file."""
    mark: Mark | None
    """`None`: there is none, or it is damaged."""
    restored_from: str | None
    """The database is a copy that `backup` made, of the log with this epoch."""
    boot_id: str | None
    """Of the start that wrote the log; `None`: unknown."""
    boot_id_now: str | None
    written_as: Durability
    """The durability the log was written with."""
    damage: tuple[str, ...] = ()
    """What verification found and dropped."""


def reasons_for_new_epoch(found: Found) -> list[str]:
    """Why cursors of the old log must not be taken any more; empty: they may, or there was no log."""
    reasons = list(found.damage)
    mark = found.mark
    if found.is_new:
        if mark is not None:
            reasons.append(f"the store was made anew, though rows up to {mark.head} were acknowledged here")
        return reasons
    if found.restored_from is not None:
        return [*reasons, f"it was restored from a backup of the log {found.restored_from}"]
    if found.epoch is None:
        return [*reasons, "the store does not say which log it holds"]
    if mark is None:
        reasons.append(
            "the mark beside the database is missing or damaged: what was acknowledged is not known"
        )
    elif mark.epoch != found.epoch or mark.inode != found.inode:
        reasons.append("the database is not the file that was last written here")
    elif mark.head > found.head:
        reasons.append(f"the log ends at {found.head}, but rows up to {mark.head} were acknowledged")
    if found.written_as != "fsync" and (found.boot_id is None or found.boot_id != found.boot_id_now):
        reasons.append(
            f"the machine was started anew, which may cost the tail with durability `{found.written_as}`"
        )
    return reasons
