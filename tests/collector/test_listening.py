"""What the event loop's errors come to: one line now and then where no connection can be taken, all else as always."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from typing import Any

import pytest

from otelprogress_collector.listening import LoopErrors


class Loop:
    """Remembers what was left to its own handler."""

    def __init__(self) -> None:
        self.left: list[dict[str, Any]] = []

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.left.append(context)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def refused(number: int) -> dict[str, Any]:
    return {
        "message": "socket.accept() out of system resource",
        "exception": OSError(number, "Too many open files"),
        "socket": object(),
    }


def test_that_no_connection_can_be_taken_is_said_now_and_then(caplog: pytest.LogCaptureFixture):
    loop, clock = Loop(), Clock()
    say = LoopErrors(clock)
    for now_s in (0.0, 0.1, 5.0, 10.0, 10.1):
        clock.now_s = now_s
        for number in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            say(loop, refused(number))
    assert loop.left == []
    assert len(caplog.records) == 2
    assert "Too many open files" in caplog.text
    assert "LimitNOFILE" in caplog.text
    assert "Traceback" not in caplog.text


def test_everything_else_is_left_to_the_loop():
    loop = Loop()
    say = LoopErrors()
    others: list[dict[str, Any]] = [
        {"message": "Task exception was never retrieved", "exception": ValueError("a bug")},
        {"message": "Exception in callback f()", "exception": OSError(errno.EMFILE, "elsewhere")},
        {"message": "of a socket", "exception": OSError(errno.EBADF, "bad"), "socket": object()},
        {"message": "no exception at all"},
    ]
    for context in others:
        say(loop, context)
    assert loop.left == others


async def test_a_port_that_closes_while_it_could_not_take_connections_says_nothing(
    caplog: pytest.LogCaptureFixture,
):
    """As asyncio says it: this fails where it comes to call it otherwise."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(LoopErrors())
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            loop.call_soon(loop._start_serving, asyncio.Protocol, listener)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    finally:
        loop.set_exception_handler(None)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
