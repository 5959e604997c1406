"""What `otelprogress run` was asked for, read without Typer, which takes longer to import than a shell to start."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

DEFAULT_GRACE_S: Final = 10.0
_VALUED: Final = {
    "--id": "label",
    "--name": "name",
    "--title": "title",
    "--log": "log",
    "--grace": "grace_s",
}


class Arguments(NamedTuple):
    """One command line."""

    command: tuple[str, ...]
    """The program and its arguments; at least the program."""
    name: str | None = None
    """`None`: the program's base name."""
    title: str | None = None
    label: str | None = None
    detach: bool = False
    log: str | None = None
    """Where a detached program's output goes; `None`: nowhere."""
    grace_s: float = DEFAULT_GRACE_S
    """From SIGTERM to SIGKILL when it is cancelled, seconds."""

    @property
    def operation_name(self) -> str:
        """Of low cardinality."""
        return self.name or self.command[0].rstrip("/").rpartition("/")[2] or "command"

    def problem(self) -> str | None:
        """What is wrong with it, naming the option; `None`: nothing."""
        if not (math.isfinite(self.grace_s) and self.grace_s >= 0):
            return f"--grace {self.grace_s}: a number of seconds, at least 0"
        if self.log is not None and not self.detach:
            return "--log FILE goes with --detach: otherwise the output is the shell's to redirect"
        return None


def read(words: Sequence[str]) -> Arguments | None:
    """The arguments that these words, after `run`, say; `None`: not plainly well-formed, which Typer explains."""
    said: dict[str, Any] = {}
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        if word == "--detach":
            said["detach"] = True
            continue
        option, equals, value = word.partition("=")
        if option not in _VALUED or not (equals or rest):
            return None
        said[_VALUED[option]] = value if equals else rest.pop(0)
    if not rest:
        return None
    try:
        if "grace_s" in said:
            said["grace_s"] = float(said["grace_s"])
    except ValueError:
        return None
    arguments = Arguments(tuple(rest), **said)
    return None if arguments.problem() else arguments
