from __future__ import annotations

from typing import Any

import pytest

from otelprogress.protocol.command_standing import Standing
from otelprogress.protocol.messages import LinkCommand


def order(action: str, command_id: str = "c1", **fields: Any) -> LinkCommand:
    return LinkCommand(command_id=command_id, run="r", action=action, below=True, **fields)


def stands(standing: Standing) -> list[tuple[str, str, float | None]]:
    return [(each.action, each.command_id, each.valid_s) for each in standing.of("r")]


@pytest.mark.parametrize("action", ["cancel", "pause"])
def test_what_was_obeyed_has_no_deadline_any_more(action: str):
    standing = Standing()
    standing.accepted("r", order(action, valid_s=5.0))
    assert stands(standing) == [(action, "c1", 5.0)]
    standing.took_effect("r", order(action))
    assert stands(standing) == [(action, "c1", None)]


def test_a_younger_one_replaces_only_what_was_not_obeyed_yet():
    standing = Standing()
    for command_id in ("c1", "c2"):
        standing.accepted("r", order("pause", command_id, valid_s=5.0))
    assert stands(standing) == [("pause", "c2", 5.0)]
    standing.took_effect("r", order("pause", "c2"))
    standing.accepted("r", order("pause", "c3", valid_s=5.0))
    assert stands(standing) == [("pause", "c2", None)]


def test_a_resume_lifts_a_pause_once_it_was_obeyed_and_stays_for_those_who_were_away():
    standing = Standing()
    standing.took_effect("r", order("pause"))
    standing.accepted("r", order("resume", "c2", valid_s=5.0))
    assert stands(standing) == [("pause", "c1", None)]
    standing.took_effect("r", order("resume", "c2"))
    assert stands(standing) == [("resume", "", None)]
    standing.took_effect("r", order("pause", "c3"))
    assert stands(standing) == [("pause", "c3", None)]


def test_what_is_withdrawn_or_has_ended_leaves_nothing():
    standing = Standing()
    standing.accepted("r", order("pause", valid_s=5.0))
    standing.withdraw("r", "pause", "c2")
    assert len(standing) == 1
    standing.withdraw("r", "pause", "c1")
    assert len(standing) == 0
    standing.took_effect("r", order("cancel"))
    standing.ended("r")
    assert len(standing) == 0
