from __future__ import annotations

import importlib.util

import pytest
from typer.testing import CliRunner

from otelprogress.cli.main import app


def test_without_its_data_set_the_demo_says_what_to_install_and_starts_nothing(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    asked = CliRunner().invoke(app, ["demo"])
    assert asked.exit_code == 2
    assert asked.stderr == "otelprogress: the demo needs its data set: pip install 'otelprogress[demo]'\n"
