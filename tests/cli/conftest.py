from __future__ import annotations

from collections.abc import Callable

import pytest
from typer.testing import CliRunner

from otelprogress.cli import connection
from otelprogress.cli.main import app
from tests.cli.fakes import FakeClient, FakeHistory


class Shell:
    """Runs commands against a fake client and a fake history."""

    def __init__(self) -> None:
        self.client = FakeClient()
        self.history = FakeHistory()
        self.opened: list[tuple[object, ...]] = []

    def __call__(self, *arguments: str):
        return CliRunner().invoke(app, list(arguments), prog_name="otelprogress")


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    shell = Shell()

    def open_client(url, token_file):
        connection.read_token(token_file)
        shell.opened.append((url, token_file))
        return shell.client

    monkeypatch.setattr(connection, "open_client", open_client)
    monkeypatch.setattr(connection, "open_history", lambda: shell.history)
    return shell
