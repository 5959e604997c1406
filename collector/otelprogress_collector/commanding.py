"""Commands at the collector: from feed, REST and MCP, over the worker links to the processes.

What is decided stands in `protocol.command_desk`; this joins it to the host and the links. A command is passed on once
it is accepted, and looked at again with everything that the host has made durable: its effect is an event like others.
What waits for its effect is forgotten by a restart: of what was passed on the worker still says what became of it; of what
was not, nobody does, unless it is sent again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol

from otelprogress.protocol.command_desk import CommandDesk
from otelprogress.protocol.command_judging import Asker
from otelprogress.protocol.messages import Command, CommandStatus, LinkCommand

if TYPE_CHECKING:
    from otelprogress.model.tree import Applied
    from otelprogress.protocol.filters import Matcher
    from otelprogress_collector.host import CollectorHost

_LOG: Final = logging.getLogger("otelprogress_collector.commands")


class Links(Protocol):
    """The part of `monitor.WorkerLinks` that commands go by."""

    def connected_now(self, writer_id: str, tenant: str) -> bool:
        """Whether that writer can be told something."""

    def command(self, writer_id: str, tenant: str, command: LinkCommand) -> None:
        """Send a command, as far as the writer is connected."""


class Commanding:
    """See the module. Everything on the host's loop.

    Args:
        host: whose operations are commanded.
        links: to the workers; tell it `connected` and `received`.
    """

    def __init__(self, host: CollectorHost, links: Links) -> None:
        self._host = host
        self._links = links
        self._desk = CommandDesk(host.hub, links.connected_now)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due_unix_ns: int | None = None
        self._forget = host.on_applied(self._applied)
        self.accepted = 0
        """Commands since the start."""
        self.refused = 0
        """Commands that were not accepted, duplicates included."""

    def close(self) -> None:
        """Pass nothing on any more."""
        self._forget()
        if self._timer is not None:
            self._timer.cancel()

    def submit(self, command: Command, asker: Asker, matcher: Matcher, now_unix_ns: int) -> CommandStatus:
        """See `CommandDesk.submit`. Readers wait for `host.readable()` before they call it."""
        status = self._desk.submit(command, asker, matcher, now_unix_ns)
        if status.status == "accepted":
            self.accepted += 1
        else:
            self.refused += 1
        _LOG.info(
            "command %s: %s of %s by %s: %s",
            *map(_shown, (command.command_id, command.action, command.operation, asker.actor)),
            status.status,
        )
        self._tend()
        return status

    def connected(self, writer_id: str, tenant: str) -> None:
        """A worker has connected (again)."""
        self._desk.connected(writer_id, tenant, self._host.clock.time_unix_ns())
        self._tend()

    def received(self, writer_id: str, tenant: str, status: CommandStatus) -> None:
        """A worker says what it did with a command."""
        self._desk.received(writer_id, tenant, status)
        self._tend()

    def _applied(self, applied: Sequence[Applied]) -> None:
        self._desk.applied(applied, self._host.clock.time_unix_ns())
        self._tend()

    def _tend(self) -> None:
        """Pass on what was accepted, publish what came of nothing, and look again when the next time is over."""
        desk, now_unix_ns = self._desk, self._host.clock.time_unix_ns()
        desk.advance(now_unix_ns)
        for delivery in desk.take_deliveries():
            self._links.command(delivery.writer_id, delivery.tenant, delivery.command)
        for event in desk.take_events(now_unix_ns):
            self._host.submit(event)
        self._look_again(desk.next_deadline_unix_ns(), now_unix_ns)

    def _look_again(self, due_unix_ns: int | None, now_unix_ns: int) -> None:
        if due_unix_ns == self._timer_due_unix_ns:
            return  # with most batches that were applied
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_due_unix_ns = due_unix_ns
        if due_unix_ns is not None:
            self._timer = asyncio.get_running_loop().call_later(
                max(0.0, (due_unix_ns - now_unix_ns) / 1e9), self._on_time
            )

    def _on_time(self) -> None:
        self._timer = self._timer_due_unix_ns = None
        self._tend()


def _shown(text: str) -> str:
    return repr(text[:64])
