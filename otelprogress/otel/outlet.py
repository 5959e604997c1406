"""Where the processors put their events: one outlet per process, opened by the runtime.

An application may add a `ProgressSpanProcessor` to its provider long before `configure()`, or without ever
calling it. So processors hold no host: they ask the outlet, which is closed until a runtime opens it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
from opentelemetry.context import Context

from otelprogress.model import semconv
from otelprogress.model.events import Event


class Outlet:
    """See the module."""

    __slots__ = ("enclosing", "lease_s", "process_id", "service", "submit", "writer_id")

    def __init__(self) -> None:
        self.close()

    def open(
        self,
        submit: Callable[[Event], object],
        *,
        writer_id: str = "",
        lease_s: float | None = None,
        service: str | None = None,
        process_id: int | None = None,
        enclosing: Callable[[Context | None], int | None] | None = None,
    ) -> None:
        """From now on events go to `submit`, signed with this writer.

        Args:
            submit: any thread, must neither wait nor raise: `Host.submit`.
            writer_id: of this process incarnation.
            lease_s: the writer promises to be heard at least this often; said by `operation.started`.
            service: `service.name` of the resource; `None`: not said.
            process_id: of this process; `None`: not said.
            enclosing: the span id of the operation that a context (`None`: the current one) stands in, however many
                ordinary spans are between; `None`: in none. Without it an operation below an ordinary span is a root.
        """
        self.writer_id = writer_id
        self.lease_s = lease_s
        self.service = service
        self.process_id = process_id
        self.enclosing: Callable[[Context | None], int | None] | None = enclosing
        self.submit: Callable[[Event], object] | None = submit

    def state(self) -> dict[str, Any]:
        """What is open now, for `restore`."""
        return {name: getattr(self, name) for name in self.__slots__}

    def restore(self, state: dict[str, Any]) -> None:
        """Open again what was open when `state` was taken, or close."""
        for name, value in state.items():
            setattr(self, name, value)

    def put(self, event: Event, *, sampled: bool) -> None:
        """Sign an event of a processor and hand it on; nothing happens while the outlet is closed."""
        submit = self.submit
        if submit is None:
            return
        submit(
            msgspec.structs.replace(
                event,
                writer_id=self.writer_id,
                lease_s=self.lease_s if event.kind == semconv.OPERATION_STARTED else None,
                service=self.service,
                process_id=self.process_id,
                sampled=sampled,
            ),
        )

    def close(self) -> None:
        """From now on processors are silent."""
        self.submit = None
        self.writer_id = ""
        self.lease_s = None
        self.service = None
        self.process_id = None
        self.enclosing = None


OUTLET: Final = Outlet()
"""The outlet of this process."""
