from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelprogress.protocol.position import read_position, short_position


@given(st.text(max_size=40), st.integers(0, 10**18 - 1))
def test_a_position_is_read_as_it_was_written(epoch: str, offset: int) -> None:
    text = short_position(epoch, offset)
    assert read_position(text, epoch) == read_position(f"@{text}", epoch) == offset


def test_a_position_of_another_log_is_none() -> None:
    epochs = [f"epoch {n}" for n in range(200)]
    mistaken = [epoch for epoch in epochs if read_position(short_position("here", 7), epoch) is not None]
    assert len(mistaken) <= 2


@pytest.mark.parametrize(
    "text", ["", "@", "k58", "kq", "kq-1", "kq1.5", "KQ58", "kq58 why: ended", "kq" + "9" * 19, "kq٣"]
)
def test_what_is_no_position_is_none(text: str) -> None:
    assert read_position(text, "e1") is None


@given(st.text())
def test_whatever_a_model_makes_up_is_no_exception(text: str) -> None:
    offset = read_position(text, "e1")
    assert offset is None or offset >= 0
