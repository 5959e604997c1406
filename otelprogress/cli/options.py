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
        help="The feed to read, as ws://HOST:PORT. Default: every process of yours on this machine.",
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        envvar="OTELPROGRESS_TOKEN_FILE",
        help="The file that holds the feed's token. Local processes need none.",
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
