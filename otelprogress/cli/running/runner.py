"""One run: the program is started first, what observes it is imported meanwhile.

Detached, or where only the SDK can say whether the trace is sampled, it is the other way round.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NoReturn

from otelprogress.cli.running import ending, trace_ids
from otelprogress.cli.running.arguments import Arguments
from otelprogress.cli.running.ending import Ending
from otelprogress.cli.running.program import Program, start
from otelprogress.cli.running.signals import Signals, die_of
from otelprogress.cli.running.terminal import Terminal, controlling_terminal
from otelprogress.feed import runtime_folder

if TYPE_CHECKING:
    from otelprogress.cli.running.label_lock import LabelLock
    from otelprogress.cli.running.observation import Visible
    from otelprogress.run import Operation

_LINK: Final = "OTELPROGRESS_LINK"
_CONTROLLED: Final = "OTELPROGRESS_CONTROLLED"


def run(arguments: Arguments) -> NoReturn:
    """Run it, and end as it ended."""
    lock = _lock(arguments.label) if arguments.label else None
    if arguments.detach:
        from otelprogress.cli.running.detached import run_detached

        leave(run_detached(arguments, lock))
    this = Run(arguments, lock, terminal=controlling_terminal())
    found = this.run()
    if found.trouble is not None:
        remark(f"otelprogress: {found.trouble}")
    if found.signal == signal.SIGINT and (this.had_terminal or signal.SIGINT in this.signals.received):
        if this.had_terminal and this.terminal is not None:
            # Ctrl-C would have reached this whole group, a script around us too, were the program not in its own.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.killpg(this.terminal.group, signal.SIGINT)
        die_of(signal.SIGINT)
    leave(found.code)


def _lock(label: str) -> LabelLock | None:
    from otelprogress.cli.running.label_lock import LabelTaken, lock_label

    try:
        return lock_label(label)
    except LabelTaken as taken:
        remark(f"otelprogress: {taken}")
        leave(ending.NOT_RUN)


def leave(code: int) -> NoReturn:
    """End with that code at once: whatever a library would still do at exit, or wait for, is done or given up."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()
    os._exit(code)


def remark(line: str) -> None:
    """One line for people, on the standard error, where there is one."""
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode("utf-8", "backslashreplace"))


class Run:
    """One program from its start to its end.

    Args:
        arguments: what to run.
        lock: on its label; `None`: it has none.
        terminal: `None`: there is none, as for a detached one.
        streams: of the program, as for `subprocess`; those of this process by default.
    """

    def __init__(
        self, arguments: Arguments, lock: LabelLock | None, *, terminal: Terminal | None, **streams: Any
    ) -> None:
        self.terminal = terminal
        self.signals = Signals()
        self.had_terminal = False
        self._arguments = arguments
        self._lock = lock
        self._streams = streams
        self._ids = trace_ids.settle()
        self._started_unix_ns = time.time_ns()
        self._operation: Operation | None = None

    def run(self) -> Ending:
        """Run it here: the program first, unless the SDK has to be asked first."""
        alone = not trace_ids.sampler_decides()
        if not alone:
            self._observe()
        program = self._start(alone=alone)
        if alone:
            self._observe()
        return self._finish(program)

    def run_observed(self, tell: Callable[[Visible, int], None]) -> Ending:
        """Begin the operation, start the program once others can see it, and `tell` where, with the program's pid.

        Raises:
            ProgressError, NotVisible: others could not; nothing was started.
        """
        from otelprogress.cli.running import observation

        self._operation = observation.observe(self._arguments, self._ids, self._started_unix_ns)
        if self._operation is None:  # disabled
            found = observation.Visible(self._ids.run_id, "")
        else:
            found = observation.visible(self._operation)
        program = self._start(alone=False)
        if isinstance(program, Program):
            tell(found, program.pid)
        return self._finish(program)

    def _observe(self) -> None:
        """Whatever goes wrong here is no reason to disturb the program."""
        try:
            from otelprogress.cli.running import observation

            self._operation = observation.observe(self._arguments, self._ids, self._started_unix_ns)
        except Exception as error:
            remark(f"otelprogress: {self._arguments.operation_name} runs unseen: {error}")

    def _start(self, *, alone: bool) -> Program | Ending:
        command = self._arguments.command
        ids = self._ids
        if self._operation is not None:
            context = self._operation.span.get_span_context()
            ids = ids._replace(
                trace_id=context.trace_id, span_id=context.span_id, flags=int(context.trace_flags)
            )
        observed = not _disabled()
        environment = ids.carried(os.environ) | {_CONTROLLED: "1"} if observed else dict(os.environ)
        if (
            observed
            and alone
            and not _has_parent_feed(environment)
            and (path := runtime_folder.announce()) is not None
        ):
            environment[_LINK] = str(path)
        try:
            process = start(command, environment, terminal=self.terminal, alone=alone, **self._streams)
        except OSError as error:
            return ending.of_error(command[0], error)
        program = Program(process, terminal=self.terminal, grace_s=self._arguments.grace_s)
        self.signals.lead_to(program)
        _fill_closed_streams()
        return program

    def _finish(self, program: Program | Ending) -> Ending:
        """Wait for the program, say how it ended, and let that leave this process."""
        operation = self._operation
        if isinstance(program, Ending):
            found, cancelled, interrupted = program, None, False
        else:
            obedience = None
            if operation is not None:
                from otelprogress.cli.running.observation import Obedience

                obedience = Obedience(operation, program)
            found = program.wait()
            cancelled = obedience.reason if obedience is not None and program.cancelled else None
            self.had_terminal = program.had_terminal
            interrupted = found.signal == signal.SIGINT or self.signals.asked_to_end
        if operation is not None:
            from otelprogress.cli.running import observation

            observation.end(operation, found, cancelled=cancelled, interrupted=interrupted)
        if self._lock is not None:
            with contextlib.suppress(OSError):
                self._lock.release()
        return found


def _disabled() -> bool:
    if not os.environ.get("OTELPROGRESS_DISABLED"):
        return False
    from otelprogress.config import is_disabled
    from otelprogress.exceptions import ProgressError

    try:
        return is_disabled()
    except ProgressError:  # `observe` says so
        return False


def _has_parent_feed(environment: dict[str, str]) -> bool:
    """Whether children report where this process does: its parent is there, as far as a file's name can tell."""
    path = environment.get(_LINK)
    if not path or not os.path.exists(path):  # noqa: PTH110 - pathlib is slower to import than this is long
        return False
    try:
        os.kill(int(os.path.basename(path).partition("-")[0]), 0)  # noqa: PTH119
    except ProcessLookupError:
        return False
    except (OSError, ValueError):  # of another user; or named by somebody else
        return True
    return True


def _fill_closed_streams() -> None:
    """What this process opens from now on must not become its standard output."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free one: that
