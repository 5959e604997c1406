"""What every test gets: a runtime folder of its own, so that no test sees another's processes or history."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it puts in the background so, and our children would inherit it: no Ctrl-C would end them.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def private_runtime_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith(("OTELPROGRESS_", "OTEL_"))]:
        monkeypatch.delenv(name)
    folder = tmp_path_factory.mktemp("runtime")
    monkeypatch.setenv("OTELPROGRESS_RUNTIME_DIR", str(folder))
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
    return folder
