"""`otelprogress doctor`: why do I see nothing?"""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

import typer

from otelprogress.cli.exit_codes import ExitCode
from otelprogress.cli.findings import BAD, COLLECTOR, FEED, OK
from otelprogress.cli.output import json_line, say


def doctor(
    *, as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False
) -> None:
    """Answer the question: why do I see nothing?

    Says where feeds are looked for, which answer, and what in the environment keeps a program silent.

    Every line is "ok", "note" or "BAD", with what to do next. Exits with 4 where no feed answers and with 1 where
    something is bad.
    """
    from otelprogress.cli import examination

    findings = asyncio.run(examination.examine(time.time()))
    for finding in findings:
        if as_json:
            say(json_line(finding))
        else:
            say(f"{finding.verdict:<4} {finding.subject:<12} {finding.text}")
            if finding.advice:
                say(f"{'':<17} -> {finding.advice}")
    if any(finding.verdict == BAD for finding in findings):
        raise typer.Exit(ExitCode.FAILED)
    if not any(finding.subject in (FEED, COLLECTOR) and finding.verdict == OK for finding in findings):
        raise typer.Exit(ExitCode.NO_FEED)
