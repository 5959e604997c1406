"""The OpenTelemetry SDK for Python as it is, with no code of ours in its process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.foreign.invoices import check_invoices

HERE = Path(__file__).parent


@pytest.mark.parametrize("identity", ["writer", "anonymous"])
@pytest.mark.parametrize("encoding", ["http", "grpc"])
async def test_its_log_events_are_an_operation_with_steps_children_and_outcomes(
    tmp_path: Path, encoding: str, identity: str
):
    command = [sys.executable, HERE / "invoices_program.py", encoding, identity]
    await check_invoices(tmp_path, command, grpc=encoding == "grpc")
