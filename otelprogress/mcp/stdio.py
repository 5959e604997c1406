"""`otelprogress mcp`: the MCP server over standard input and output, for the client that started it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mcp.server.stdio import stdio_server

from otelprogress.exceptions import InvalidValue
from otelprogress.mcp.calls import Calls
from otelprogress.mcp.feeds import FeedsSource
from otelprogress.mcp.server import Context, build_server
from otelprogress.mcp.source import Viewer
from otelprogress.mcp.starting import Starter, read_commands
from otelprogress.mcp.trace_context import traceparent_of

if TYPE_CHECKING:
    from otelprogress.feed.client import AsyncClient


async def serve(client: AsyncClient, *, history: bool, starter: Starter | None, version: str) -> None:
    """Serve until standard input ends.

    Args:
        client: reaches the feeds.
        history: whether what ended before is looked up in this user's history.
        starter: of the commands that the user listed; `None`: none were.
        version: told to the client.
    """
    async with FeedsSource(client, history=history) as source:
        server = build_server(Calls(source, starter=starter), _viewer_of, version=version)
        async with stdio_server() as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())


def starter_of(path: Path | None) -> Starter | None:
    """The commands of a file.

    Args:
        path: TOML with a table `[commands.NAME]` for each; `None`: none.

    Raises:
        InvalidValue: the file cannot be read, or one of them cannot be meant.
    """
    if path is None:
        return None
    import tomllib

    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidValue(f"--commands {path}: {error}") from error
    commands = said.get("commands")
    if set(said) != {"commands"} or not isinstance(commands, dict) or not commands:
        raise InvalidValue(f"--commands {path}: it has tables [commands.NAME], and nothing else")
    return Starter(read_commands(commands))


def _viewer_of(context: Context) -> Viewer:
    return Viewer(traceparent=traceparent_of(context.meta))
