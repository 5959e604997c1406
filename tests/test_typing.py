"""What a type checker makes of the public face: users' mistakes are found, users' code is not complained about."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[1]

RIGHT = """
    import asyncio
    from collections.abc import AsyncIterator, Generator, Iterator
    from typing import assert_type

    import otelprogress as progress
    from otelprogress import Operation, Step

    @progress.operation
    def bare(day: str, *, limit: int = 3) -> int:
        return limit

    @progress.operation("nightly load", title="{day}", steps={"extract": 1, "load": 2.5}, controls=["cancel"])
    def with_arguments(day: str) -> list[int]:
        return [1]

    @progress.operation("pages", result=True)
    async def coroutine(tenant: str) -> bytes:
        return b""

    @progress.operation
    def generator() -> Generator[int, None, str]:
        yield 1
        return "done"

    assert_type(bare("monday", limit=2), int)
    assert_type(with_arguments("monday"), list[int])
    assert_type(asyncio.run(coroutine("acme")), bytes)
    assert_type(generator(), Generator[int, None, str])

    async def pages() -> AsyncIterator[bytes]:
        yield b""

    async def consume() -> None:
        async for page in progress.track(pages(), total=3, unit="page"):
            assert_type(page, bytes)
        async with progress.operation("x") as operation:
            assert_type(operation, Operation)
            await operation.acheckpoint()
            async for page in operation.track(pages()):
                assert_type(page, bytes)

    for row in progress.track([1, 2], "rows"):
        assert_type(row, int)
    assert_type(progress.track("abc"), Iterator[str])
    with progress.operation("x", steps=["a", "b"]) as operation, progress.step("a") as step:
        assert_type(operation, Operation)
        assert_type(step, Step)
        for text in step.track(("a", "b"), unit="word"):
            assert_type(text, str)
        step.count(rejected=1)
        step.counts["rejected"] + 1
    assert_type(progress.current_operation(), Operation)
    tracker = progress.ProgressTracker()
    tracker.start_operation("job-7", ["fetch"])
    tracker.update_progress("job-7", 0, completed=3)
    progress.configure(view="off", feed=False)
"""

WRONG = """
    import otelprogress as progress

    @progress.operation
    def load(day: str) -> int:
        return 1

    load(3)  # wrong
    for row in progress.track(3):  # wrong
        pass
    progress.track([1], unti="row")  # wrong
    progress.note("x", level=3)  # wrong
    progress.operation("x", adopt="outer")  # wrong
    progress.configure(feeed=True)  # wrong
    progress.current_operation().cancel(3)  # wrong
"""


def check(tmp_path: Path, program: str) -> tuple[str, list[int]]:
    file = tmp_path / "program.py"
    file.write_text(textwrap.dedent(program))
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--no-error-summary",
            "--config-file=",
            f"--cache-dir={tmp_path}/cache",
            str(file),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith(str(file)) and ": error:" in line]
    return done.stdout + done.stderr, sorted({int(line.split(":")[1]) for line in lines})


def test_users_code_is_not_complained_about_and_mistakes_are_found(tmp_path):
    said, errors = check(tmp_path, RIGHT)
    assert errors == [], said
    said, errors = check(tmp_path, WRONG)
    wrong = [n for n, line in enumerate(textwrap.dedent(WRONG).splitlines(), 1) if line.endswith("# wrong")]
    assert errors == wrong, said
