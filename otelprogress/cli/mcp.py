"""`otelprogress mcp`: the MCP server for a language model's client on this machine."""

from __future__ import annotations

import asyncio
import logging
import signal
from pathlib import Path
from typing import Annotated

import typer

from otelprogress.cli import connection, options
from otelprogress.exceptions import InvalidValue


def mcp(
    *,
    commands: Annotated[
        Path | None,
        typer.Option(
            "--commands",
            metavar="FILE",
            help="Commands that a model may start, as tables [commands.NAME] in TOML (docs/mcp.md). Default: none.",
        ),
    ] = None,
    url: options.Url = None,
    token_file: options.TokenFile = None,
) -> None:
    """Serve MCP on standard input and output: language models follow operations, and steer them.

    Started by the client of the model, not by hand. Needs the extra: pip install 'otelprogress[mcp]'.
    """
    try:
        from otelprogress.mcp import stdio
    except ModuleNotFoundError as missing:
        raise InvalidValue(f"{missing.name} is missing: pip install 'otelprogress[mcp]'") from missing
    from importlib.metadata import version

    # Standard output is the client's; what goes wrong is said beside it.
    logging.basicConfig(level=logging.WARNING, format="otelprogress: %(message)s")
    serving = stdio.serve(
        connection.open_client(url, token_file),
        history=url is None,
        starter=stdio.starter_of(commands),
        version=version("otelprogress"),
    )
    # A thread waits for standard input and cannot be told to stop; there is nothing to tidy up.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    asyncio.run(serving)
