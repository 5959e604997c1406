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
