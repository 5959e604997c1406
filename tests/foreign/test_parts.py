"""A part that is not installed: a skip for a person, a failure in continuous integration."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.foreign.parts import installed


def test_a_part_that_is_there_is_given_back(tmp_path: Path):
    assert installed(tmp_path) == tmp_path


def test_a_missing_part_is_a_skip_that_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="node is missing: run `make test-backends`"):
        installed(tmp_path / "node")
    with pytest.raises(pytest.skip.Exception, match="node is missing: run `make this`"):
        installed(tmp_path / "node", by="make this")


def test_a_missing_part_is_a_failure_in_continuous_integration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="node is missing: run `make test-backends`"):
        installed(tmp_path / "node")
