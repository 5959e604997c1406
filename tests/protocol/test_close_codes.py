"""Close codes say whether coming back helps."""

from __future__ import annotations

import pytest

from otelprogress.protocol.close_codes import MEANINGS, CloseCode, retryable


@pytest.mark.parametrize("code", [4400, 4401, 4403, 4408, 4429, 4499, 1000, 1002, 1009])
def test_what_would_end_the_same_way_is_not_retried(code: int):
    assert not retryable(code)


@pytest.mark.parametrize("code", [4500, 4501, 4503, 4508, 4510, 4999, 1001, 1006, 1012, 1013])
def test_what_passes_is_retried(code: int):
    assert retryable(code)


def test_every_code_has_a_meaning():
    assert set(MEANINGS) == set(CloseCode)
