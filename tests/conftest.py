"""What every test gets: a runtime folder of its own, so that no test sees another's processes or history."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]


@pytest.fixture(autouse=True)
def private_runtime_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith(("OTELPROGRESS_", "OTEL_"))]:
        monkeypatch.delenv(name)
    folder = tmp_path_factory.mktemp("runtime")
    monkeypatch.setenv("OTELPROGRESS_RUNTIME_DIR", str(folder))
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
    return folder
