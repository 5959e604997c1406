"""Commands at the feed of a process: to its own operations, and over the worker link to its children's.

What is decided stands in `protocol.command_desk`; this joins it to the host, whose lock it takes, and to those who obey.
Nobody who obeys is called with that lock held: an operation may be waiting for it with its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from otelprogress.protocol.command_desk import CommandDesk
from otelprogress.protocol.command_judging import Asker

if TYPE_CHECKING:
    from otelprogress.feed.host import Host
    from otelprogress.feed.worker_handler import WorkerLinks
    from otelprogress.model.tree import Applied
    from otelprogress.protocol.filters import Matcher
    from otelprogress.protocol.messages import Command, CommandStatus, LinkCommand

Obey = Callable[["LinkCommand"], "CommandStatus"]


class Commanding:
    """See the module. `submit` is called by sessions, `tend` by the server after each turn, on its loop.

    Args:
        host: whose operations are commanded.
        writer_id: of this process.
        obey: brings a command to an operation of this process.
        links: to child processes.
    """

    def __init__(self, host: Host, *, writer_id: str, obey: Obey, links: WorkerLinks) -> None:
        self._host = host
        self._writer_id = writer_id
        self._obey = obey
        self._links = links
        self._desk = CommandDesk(host.hub, self._reaches)
        links.on_connected = self._connected
        links.on_status = self._received
        host.add_listener(self._applied)

    def _reaches(self, writer_id: str, _tenant: str) -> bool:
        return writer_id == self._writer_id or self._links.connected(writer_id)

    def submit(self, command: Command, asker: Asker, matcher: Matcher, now_unix_ns: int) -> CommandStatus:
        """See `CommandDesk.submit`; the host's lock is held. What follows happens in `tend`."""
        return self._desk.submit(command, asker, matcher, now_unix_ns)

    def tend(self) -> None:
        """Pass on what was accepted, and publish what came of nothing."""
        host, desk = self._host, self._desk
        while True:
            with host.lock:
                now_unix_ns = host.clock.time_unix_ns()
                desk.advance(now_unix_ns)
                deliveries = desk.take_deliveries()
                events = desk.take_events(now_unix_ns)
            if not deliveries and not events:
                return
            for event in events:
                host.submit(event)
            for delivery in deliveries:
                if delivery.writer_id == self._writer_id:
                    self._received(self._writer_id, self._obey(delivery.command))
                else:
                    self._links.command(delivery.writer_id, delivery.command)

    def next_deadline_unix_ns(self) -> int | None:
        """When `tend` has something to do though nothing happened; `None`: never."""
        with self._host.lock:
            return self._desk.next_deadline_unix_ns()

    def _received(self, writer_id: str, status: CommandStatus) -> None:
        with self._host.lock:
            self._desk.received(writer_id, "", status)

    def _connected(self, writer_id: str) -> None:
        with self._host.lock:
            self._desk.connected(writer_id, "", self._host.clock.time_unix_ns())
        self.tend()

    def _applied(self, applied: Sequence[Applied]) -> None:
        with self._host.lock:
            self._desk.applied(applied, self._host.clock.time_unix_ns())
