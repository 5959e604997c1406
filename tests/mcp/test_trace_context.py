from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelprogress.mcp.source import Viewer
from otelprogress.mcp.trace_context import traceparent_of

GOOD = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_the_traceparent_of_a_call_names_its_trace():
    text = traceparent_of({"traceparent": GOOD, "progressToken": 1})
    assert text == GOOD
    assert Viewer(traceparent=text).trace_id == "0af7651916cd43dd8448eb211c80319c"


def test_a_later_version_is_read_as_this_one():
    assert traceparent_of({"traceparent": "01" + GOOD[2:] + "-more"}) == GOOD


@pytest.mark.parametrize(
    "said",
    [
        None,
        "",
        7,
        "nonsense",
        GOOD + "-more",
        "ff" + GOOD[2:],
        GOOD.upper(),
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
        GOOD + "\n00",
    ],
)
def test_what_is_no_traceparent_counts_as_none(said):
    assert traceparent_of({"traceparent": said}) == ""


def test_a_call_without_meta_has_none():
    assert traceparent_of(None) == ""
    assert Viewer().trace_id == ""


@given(st.text())
def test_no_text_fails_it(said):
    assert len(traceparent_of({"traceparent": said})) in (0, 55)
