"""The program as an operation: imported, and begun, while it runs already."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Final, NamedTuple

from otelprogress.cli.running.arguments import Arguments
from otelprogress.cli.running.ending import Ending
from otelprogress.cli.running.program import Program
from otelprogress.cli.running.trace_ids import TraceIds
from otelprogress.feed import runtime_folder

if TYPE_CHECKING:
    from otelprogress.run import Operation

CONTROLS: Final = ("cancel", "pause")
SHUTDOWN_TIMEOUT_S: Final = 1.3
"""Of the two seconds that may pass between the program's end and ours."""
VISIBLE_WITHIN_S: Final = 5.0


class NotVisible(Exception):
    """Nobody could see the operation: says why."""


class Visible(NamedTuple):
    """Where an operation can be found."""

    run_id: str
    handle: str
    """Here; a collector may number otherwise."""


def observe(arguments: Arguments, ids: TraceIds, started_unix_ns: int) -> Operation | None:
    """Open the feed, say where children find it, and begin the operation.

    Returns:
        `None` under `OTELPROGRESS_DISABLED`.

    Raises:
        ProgressError: a setting that cannot be meant, or no port to be had.
    """
    from otelprogress import active, runtime
    from otelprogress.operation import plan_of
    from otelprogress.run import begin

    name = arguments.operation_name
    says_service = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    try:
        runtime.configure(
            service_name=None if says_service else name,
            view="off",  # the terminal is the program's
            integrations=(),
            shutdown_timeout_s=SHUTDOWN_TIMEOUT_S,
        )
    finally:
        runtime_folder.withdraw()
    instrumentation = active.instrumentation()
    if instrumentation is None:
        return None
    plan = plan_of(
        name,
        label=arguments.label or None,
        controls=CONTROLS,
        attributes={"process.executable.name": os.path.basename(arguments.command[0]) or name},  # noqa: PTH119
        ids=(ids.trace_id, ids.span_id),
        start_unix_ns=started_unix_ns,
    )
    return begin(instrumentation, plan, title=arguments.title)


def visible(operation: Operation) -> Visible:
    """Wait until it can be found by others.

    Raises:
        NotVisible: it could not, within 5 s.
    """
    from otelprogress.runtime import current_runtime

    runtime = current_runtime()
    if runtime is None or (runtime.server is None and runtime.link is None and runtime.sender is None):
        raise NotVisible(
            "nobody could see it: the feed is off, and neither a collector nor an endpoint is named"
        )
    handle = runtime.host.view(operation.run_id, steps=False).handle
    if runtime.server is None and not runtime.flush(VISIBLE_WITHIN_S):
        raise NotVisible("nobody could see it: the feed is off, and what it reports to does not answer")
    return Visible(operation.run_id, handle)


class Obedience:
    """Lets a program obey what its operation is told, and what operations around that are, at once.

    A program has no items between which it could look up: a thread of ours does that for it, whenever it is rung.

    Args:
        operation: with its gate.
        program: that runs.
    """

    def __init__(self, operation: Operation, program: Program) -> None:
        self.reason = ""
        """Why it was cancelled; empty: nobody said."""
        self._operation = operation
        self._program = program
        self._bell = threading.Event()
        self._bell.set()  # a command may have come before
        with contextlib.suppress(Exception):  # a foreign provider's span
            operation.span.set_attribute("process.pid", program.pid)
        if operation.gate is not None:
            operation.gate.add_waker(self._bell.set)
            threading.Thread(target=self._run, name="otelprogress-obedience", daemon=True).start()

    def _run(self) -> None:
        from otelprogress.exceptions import OperationCancelled

        try:
            while True:
                self._bell.wait()
                self._bell.clear()
                self._look()
        except OperationCancelled as cancelled:
            # It was said that this is obeyed, before the program could end by it.
            self.reason = cancelled.reason
            self._program.obey("cancel")

    def _look(self) -> None:
        gate = self._operation.gate
        closed = None if gate is None else gate.closed_by()
        if closed is None:
            return
        if not closed.cancelled:
            self._program.obey("pause")
        self._operation.checkpoint()  # until the pause is over
        self._program.obey("resume")


def end(operation: Operation, ending: Ending, *, cancelled: str | None, interrupted: bool) -> None:
    """Say how it ended, and let that leave this process.

    Args:
        operation: which.
        ending: of the program.
        cancelled: why, if it was, by a command; `None`: it was not.
        interrupted: by a signal that this process got or a terminal sent.
    """
    from otelprogress import runtime

    with contextlib.suppress(Exception):
        if ending.trouble is None:
            operation.span.set_attribute("process.exit.code", ending.code)
    if cancelled is not None:
        operation.end_cancelled(cancelled or ending.text)
    elif not ending.code:
        operation.end()
    elif interrupted:
        operation.end_cancelled(ending.text)
    else:
        operation.end_failed_as(ending.error_type, ending.text)
    runtime.shutdown()
