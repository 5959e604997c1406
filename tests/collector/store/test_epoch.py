"""When a log is no longer the one that cursors were made for."""

from __future__ import annotations

import msgspec
import pytest

from otelprogress_collector.store.epoch import Found, new_epoch, reasons_for_new_epoch
from otelprogress_collector.store.mark import EPOCH_CHARS, Mark

EPOCH = "0123456789abcdef"
SOUND = Found(
    is_new=False,
    epoch=EPOCH,
    head=10,
    inode=7,
    mark=Mark(EPOCH, 10, 7),
    restored_from=None,
    boot_id="boot",
    boot_id_now="boot",
    written_as="disk",
)


def reasons(**differs) -> str:
    return "; ".join(reasons_for_new_epoch(msgspec.structs.replace(SOUND, **differs)))


def test_a_log_that_is_as_it_was_left_stays():
    assert reasons() == ""


def test_rows_that_were_written_but_not_yet_marked_change_nothing():
    assert reasons(head=11) == ""


def test_a_new_store_needs_no_reason():
    assert reasons(is_new=True, epoch=None, mark=None) == ""


@pytest.mark.parametrize(
    ("differs", "why"),
    [
        ({"head": 9}, "ends at 9, but rows up to 10 were acknowledged"),
        ({"mark": None}, "mark beside the database is missing or damaged"),
        ({"inode": 8}, "not the file that was last written here"),
        ({"mark": Mark(new_epoch(), 10, 7)}, "not the file that was last written here"),
        ({"epoch": None}, "does not say which log it holds"),
        ({"restored_from": "another"}, "restored from a backup of the log another"),
        ({"damage": ("the journal was cut",)}, "the journal was cut"),
        ({"is_new": True, "epoch": None}, "made anew, though rows up to 10 were acknowledged"),
        ({"boot_id_now": "later"}, "started anew"),
        ({"boot_id": None, "boot_id_now": None}, "started anew"),
    ],
)
def test_what_ends_a_log(differs, why):
    assert why in reasons(**differs)


def test_a_log_written_with_fsync_outlives_the_machine():
    assert reasons(boot_id_now="later", written_as="fsync") == ""


def test_names_of_logs_differ_and_fit_the_mark():
    assert len({new_epoch() for _ in range(100)}) == 100
    assert len(new_epoch()) == EPOCH_CHARS
