"""The README is executed: each Python block that can run, runs, alone and as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
LISTENING_BLOCKS = re.findall(r"^```python no-run\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("code", BLOCKS, ids=[block.splitlines()[-1][:30] for block in BLOCKS])
def test_a_block_of_the_readme_runs_as_it_stands(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_blocks_that_listen_for_ever_at_least_compile_and_name_what_exists() -> None:
    import otelprogress

    assert LISTENING_BLOCKS
    for code in LISTENING_BLOCKS:
        inside = "async def main():\n" + "\n".join(f"    {line}" for line in code.splitlines())
        compile(inside, "README.md", "exec")
        for name in re.findall(r"progress\.(\w+)", code):
            assert hasattr(otelprogress, name), name


def test_every_file_that_the_readme_links_to_is_there() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []
