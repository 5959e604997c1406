"""A request without what its sender may not write."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelprogress_collector.receivers.limits import DEFAULT_LIMITS
from otelprogress_collector.receivers.narrowing import without_groups
from tests.collector.receivers.messages import REQUESTS, Group, Log, in_json, protobuf

sizes = st.lists(st.integers(0, 400), min_size=1, max_size=5)
positions = st.sets(st.integers(0, 4))


def groups(several) -> list[Group]:
    return [Group([Log(body="x" * size)], [("n", number)]) for number, size in enumerate(several)]


@given(sizes, positions)
def test_the_other_groups_stay_as_they_were(several, refused):
    body = protobuf("logs", *groups(several))
    left = without_groups("logs", body, "protobuf", tuple(refused), DEFAULT_LIMITS)
    whole = REQUESTS["logs"].FromString(body).resource_logs
    kept = [one for number, one in enumerate(whole) if number not in refused]
    assert (left is None) == (not kept and bool(refused))
    if left is not None:
        assert list(REQUESTS["logs"].FromString(left).resource_logs) == kept


@given(sizes, positions)
def test_the_other_groups_stay_as_they_were_in_json(several, refused):
    body = in_json("logs", *groups(several))
    left = without_groups("logs", body, "json", tuple(refused), DEFAULT_LIMITS)
    whole = json.loads(body)["resourceLogs"]
    kept = [one for number, one in enumerate(whole) if number not in refused]
    assert (left is None) == (not kept and bool(refused))
    if left is not None:
        assert json.loads(left) == {"resourceLogs": kept}


@pytest.mark.parametrize("body", [b"", b"anything at all"])
def test_where_nothing_was_refused_not_a_byte_is_looked_at(body):
    assert without_groups("logs", body, "protobuf", (), DEFAULT_LIMITS) is body
