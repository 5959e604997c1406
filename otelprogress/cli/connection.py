"""Where commands get operations from: the feeds of running processes, and the history of those that ended."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from otelprogress.exceptions import InvalidValue

if TYPE_CHECKING:
    from otelprogress.feed.client import AsyncClient
    from otelprogress.feed.discovery import FeedTarget
    from otelprogress.feed.history import History


def open_client(url: str | None, token_file: Path | None) -> AsyncClient:
    """A client of that feed, or of all local processes.

    Args:
        url: `None`: all local processes.
        token_file: where the token is; `None`: none, or the one of the runtime file.

    Raises:
        InvalidValue: the token file cannot be read, or the URL is none.
    """
    from otelprogress.feed.client import AsyncClient

    return AsyncClient(url, read_token(token_file))


def open_client_of(url: str, token: str) -> AsyncClient:
    """A client of the one process whose runtime file says so."""
    from otelprogress.feed.client import AsyncClient

    return AsyncClient(url, token)


async def facts_of(url: str, token: str) -> dict[str, str]:
    """What the process behind a feed says of itself when it is greeted.

    Raises:
        FeedError: it does not answer, or not as a feed does.
        OSError, EOFError, WebSocketException: the connection broke.
    """
    from otelprogress.feed.discovery import target_at
    from otelprogress.feed.watching import open_connection
    from otelprogress.protocol.session import ClientSession

    connection = await open_connection(target_at(url, token))
    try:
        session = ClientSession(client="otelprogress doctor")
        for frame in session.outgoing():
            await connection.send(frame, text=True)
        while session.welcome is None:
            session.receive(await connection.recv(decode=False))
        return dict(session.welcome.server)
    finally:
        await connection.close()


async def link_answers(target: FeedTarget) -> None:
    """Open the worker link of a collector as a worker does, and leave it again.

    Raises:
        FeedError: it refuses this token, or is no collector's.
        OSError, EOFError, WebSocketException: the connection broke.
    """
    import msgspec
    from websockets.exceptions import ConnectionClosed

    from otelprogress.feed.admission import FEED_PATH, WORKER_PATH
    from otelprogress.feed.watching import denial, open_connection
    from otelprogress.protocol.link_session import LinkSender

    url = target.url.removesuffix(FEED_PATH) + WORKER_PATH
    connection = await open_connection(msgspec.structs.replace(target, url=url))
    try:
        session = LinkSender(f"doctor-{secrets.token_hex(4)}")
        await connection.send(session.connection_opened(), text=True)
        while not session.welcomed:
            session.receive(await connection.recv(decode=False))
        await connection.send(session.bye("it was only looked whether it opens"), text=True)
    except ConnectionClosed as closed:
        if closed.rcvd is not None:
            raise denial(closed.rcvd.code, closed.rcvd.reason) from closed
        raise
    finally:
        await connection.close()


def open_history() -> History:
    """This user's history; reading it makes no file."""
    from otelprogress.feed.history import History

    return History()


def read_token(token_file: Path | None) -> str | None:
    """The token in that file, without the line end.

    Raises:
        InvalidValue: the file cannot be read, or is empty.
    """
    if token_file is None:
        return None
    try:
        token = token_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidValue(f"--token-file {token_file}: {error}") from error
    if not token:
        raise InvalidValue(f"--token-file {token_file} is empty")
    return token
