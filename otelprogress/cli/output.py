"""Lines for the standard output: text that cannot steer a terminal, and JSON that cannot either."""

from __future__ import annotations

import asyncio
import json
import os
import re
import select
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

import msgspec

# JSON encoders escape C0 only; a terminal also obeys DEL and C1, and a reader believes bidirectional overrides.
_ESCAPED_TOO: Final = re.compile(
    "[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def json_line(value: Any) -> str:
    """The value as one line of JSON; whatever is not plainly printable is escaped."""
    text = msgspec.json.encode(value).decode("utf-8")
    return _ESCAPED_TOO.sub(lambda match: json.dumps(match.group())[1:-1], text)


def say(line: str) -> None:
    """One line for the reader of the output, at once: a pipe's reader must not wait for a full buffer."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


_LOOK_EVERY_S: Final = 0.3


def reader_left() -> bool:
    """Whether nobody can read the standard output any more; `False` also where the system cannot tell."""
    try:
        descriptor = sys.stdout.fileno()
        poll = select.poll()
    except (AttributeError, OSError, ValueError):  # no descriptor, or no poll on this system
        return False
    poll.register(descriptor, 0)  # errors and hang-ups are told without being asked for
    return any(flags & (select.POLLERR | select.POLLHUP) for _, flags in poll.poll(0))


async def while_read(work: Coroutine[Any, Any, None]) -> None:
    """Do what prints now and then, as long as somebody reads: `| head -1` must not wait for a second line.

    Raises:
        BrokenPipeError: the reader left.
    """
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait([task], timeout=_LOOK_EVERY_S)
            if not task.done() and reader_left():
                raise BrokenPipeError
        task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def remark(line: str) -> None:
    """One line for the person at the terminal, beside the output."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def prepare_streams() -> None:
    """A terminal that cannot show a character gets its number instead of an error; a closed stream, nothing."""
    sys.stdout = sys.stdout or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - open until the exit
    sys.stderr = sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - open until the exit
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
