"""Options that several commands share, so that they are spelled and explained once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="The feed to read, as ws://HOST:PORT. Default: every process of yours on this machine, and the collector "
        "(OTELPROGRESS_COLLECTOR, or one that runs here).",
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        help="The file that holds the token for --url. Default: what the feed's runtime file says, else the file that "
        "OTELPROGRESS_TOKEN_FILE names.",
    ),
]
Name = Annotated[
    str | None,
    typer.Option("--name", metavar="GLOB", help="Only operations with such a name: * any characters, ? one."),
]
OperationId = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="A handle (nightly_load-2), an id, a label, or the start of one of them."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
Reason = Annotated[
    str,
    typer.Option(
        "--reason", metavar="TEXT", help="Why; it stands in the audit: on the span and in the feed."
    ),
]
AppliedTimeout = Annotated[
    float,
    typer.Option(
        "--timeout",
        min=0.1,
        metavar="SECONDS",
        help="Wait so long for it to be applied or refused (exit code 124).",
    ),
]
NoWait = Annotated[
    bool, typer.Option("--no-wait", help="Leave once it is accepted, which never means applied.")
]
Deadline = Annotated[
    float | None,
    typer.Option(
        "--deadline",
        metavar="SECONDS",
        help="If it is not applied by then it never is: it is refused as expired. Default: 300.",
    ),
]
ExpectRevision = Annotated[
    int | None,
    typer.Option(
        "--expect-revision",
        metavar="N",
        help="Refuse it as stale if anything but ticks has happened since this revision, as show and tail tell it.",
    ),
]
