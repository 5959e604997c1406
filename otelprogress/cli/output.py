"""Lines for the standard output: text that cannot steer a terminal, and JSON that cannot either."""

from __future__ import annotations

import json
import os
import re
import sys
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
