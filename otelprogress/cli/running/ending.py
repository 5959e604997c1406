"""How a program ended, as the shell and as OpenTelemetry say it."""

from __future__ import annotations

import os
import signal
from typing import Final, NamedTuple

NOT_RUN: Final = 125
"""`otelprogress run` itself could not: as `env` and `timeout` say it."""
NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127
_BY_SIGNAL: Final = 128


class Ending(NamedTuple):
    """The end of a program that ran, or of one that could not be started."""

    code: int
    """As `$?` has it: 128 + n after signal n."""
    signal: int | None = None
    """What killed it; `None`: it exited."""
    trouble: str | None = None
    """Why it could not be started; `None`: it was."""

    @property
    def text(self) -> str:
        """For people: `exit 3`, `killed by SIGKILL`."""
        if self.trouble is not None:
            return self.trouble
        return f"exit {self.code}" if self.signal is None else f"killed by {signal_name(self.signal)}"

    @property
    def error_type(self) -> str:
        """Of low cardinality: `exit_3`, `SIGKILL`."""
        return f"exit_{self.code}" if self.signal is None else signal_name(self.signal)


def of_status(status: int) -> Ending:
    """What `waitpid` said."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return Ending(_BY_SIGNAL + number, number)
    return Ending(os.WEXITSTATUS(status))


def of_error(program: str, error: OSError) -> Ending:
    """What kept it from starting: 127 where there is no such program, else 126, as shells have it."""
    if not program or (isinstance(error, FileNotFoundError) and not os.path.lexists(program)):
        return Ending(NOT_FOUND, trouble=f"{program}: command not found")
    return Ending(NOT_EXECUTABLE, trouble=f"{program}: {error.strerror or error}")


def signal_name(number: int) -> str:
    """`SIGTERM`; a number for those without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
