"""`docs/cli.md`, made from the commands themselves: `python -m otelprogress.cli.reference > docs/cli.md`."""

from __future__ import annotations

import re
import sys
from typing import Any, Final

import typer

from otelprogress.cli.exit_codes import ExitCode
from otelprogress.cli.main import app

WIDTH: Final = 100
_EXIT_CODES: Final = {
    ExitCode.OK: "ok; the operation succeeded; what it was told is applied, with `--no-wait` accepted",
    ExitCode.FAILED: "the operation failed or was lost; what it was told is refused; `doctor` found something bad",
    ExitCode.USAGE: "the command line was wrong, or an answer is none",
    ExitCode.NOT_FOUND: "no operation is meant, or several are (they are listed)",
    ExitCode.NO_FEED: "no feed answers, or the operation's process cannot be told anything",
    ExitCode.DENIED: "the token is missing, wrong or expired, or lacks the right",
    ExitCode.CANCELLED: "the operation was cancelled",
    ExitCode.TIMEOUT: "`--timeout` is over; the operation goes on, and what it was told may still be applied",
    ExitCode.NOT_RUN: "`run` could not run its program",
    ExitCode.NOT_EXECUTABLE: "`run`: its program cannot be executed",
    ExitCode.COMMAND_NOT_FOUND: "`run`: there is no such program",
    ExitCode.INTERRUPTED: "Ctrl-C",
    ExitCode.TERMINATED: "`watch` was ended by SIGTERM",
}


def reference() -> str:
    """The page, in Markdown."""
    group: Any = typer.main.get_command(app)
    parts = [
        "# Command line",
        "",
        "Made from the commands by `python -m otelprogress.cli.reference`; a test keeps the two equal.",
        "",
        *_section("otelprogress", group, None, 2),
    ]
    parent = _context("otelprogress", group, None)
    for name in group.list_commands(parent):
        parts += _section(f"otelprogress {name}", group.commands[name], parent, 2)
    parts += ["## Exit codes", "", "| code | means |", "|---|---|"]
    parts += [f"| {code.value} | {meaning} |" for code, meaning in _EXIT_CODES.items()]
    return "\n".join(parts) + "\n"


def _section(title: str, command: Any, parent: Any, depth: int) -> list[str]:
    context = _context(title.rpartition(" ")[2], command, parent)
    text = re.sub(r"[ \t]+\n", "\n", command.get_help(context).rstrip() + "\n").rstrip()
    return [f"{'#' * depth} {title}", "", "```text", text, "```", ""]


def _context(name: str, command: Any, parent: Any) -> Any:
    return command.context_class(
        command,
        info_name=name,
        parent=parent,
        terminal_width=WIDTH,
        max_content_width=WIDTH,
        help_option_names=["-h", "--help"],
    )


if __name__ == "__main__":
    sys.stdout.write(reference())
