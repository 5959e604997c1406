"""What a command says to the shell. The table stands in the help of `otelprogress`."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from otelprogress.cli.running import ending
from otelprogress.exceptions import (
    AmbiguousOperation,
    FeedDenied,
    FeedError,
    ProgressError,
    UnknownOperation,
    UsageError,
    WaitTimeout,
)
from otelprogress.model.events import State

if TYPE_CHECKING:
    from otelprogress.protocol.messages import CommandAnswer


class ExitCode(IntEnum):
    """The exit codes of every command."""

    OK = 0
    FAILED = 1
    """The operation failed or was lost, or refused what it was told; or the command itself could not do its work."""
    USAGE = 2
    NOT_FOUND = 3
    """No operation is meant, or several are."""
    NO_FEED = 4
    DENIED = 5
    CANCELLED = 6
    TIMEOUT = 124
    NOT_RUN = ending.NOT_RUN
    NOT_EXECUTABLE = ending.NOT_EXECUTABLE
    COMMAND_NOT_FOUND = ending.NOT_FOUND
    INTERRUPTED = 130
    TERMINATED = 143
    """SIGTERM, after the terminal was given back."""


def of_error(error: ProgressError) -> ExitCode:
    """The code of an error that ends a command."""
    match error:
        case UnknownOperation() | AmbiguousOperation():
            return ExitCode.NOT_FOUND
        case UsageError():
            return ExitCode.USAGE
        case FeedDenied():
            return ExitCode.DENIED
        case FeedError():
            return ExitCode.NO_FEED
        case WaitTimeout():
            return ExitCode.TIMEOUT
        case _:
            return ExitCode.FAILED


def of_state(state: State) -> ExitCode:
    """The code of an operation's outcome; one that lives is no failure."""
    match state:
        case State.FAILED | State.LOST:
            return ExitCode.FAILED
        case State.CANCELLED:
            return ExitCode.CANCELLED
        case _:
            return ExitCode.OK


def of_answer(answer: CommandAnswer) -> ExitCode:
    """The code of a host's answer to a command."""
    match answer:
        case "accepted" | "duplicate":
            return ExitCode.OK
        case "invalid":
            return ExitCode.USAGE
        case "not_found" | "ambiguous":
            return ExitCode.NOT_FOUND
        case "no_worker":
            return ExitCode.NO_FEED
        case "forbidden":
            return ExitCode.DENIED
        case "ended" | "stale" | "unsupported" | "overloaded":
            return ExitCode.FAILED
