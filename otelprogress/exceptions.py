"""Every exception that leaves otelprogress, as one tree.

::

    ProgressError                      base of everything below
    ├── UsageError                     the caller's mistake: what, and what to do instead
    │   ├── UnknownOperation           no operation of that name, label or handle
    │   ├── AmbiguousOperation         several match; `candidates` lists them
    │   ├── UnknownStep                no step of that name or index
    │   └── InvalidValue               a number, name or setting that cannot be meant
    ├── IllegalTransition              a move the transition table does not have; names both states
    ├── InvalidRecord                  the sender's mistake: a record or span that cannot be mapped
    ├── FeedError                      the feed cannot be reached or refused us
    │   ├── FeedUnavailable            nobody listens there (it may come back: clients retry)
    │   ├── FeedDenied                 token missing, wrong or expired: retrying does not help
    │   ├── LocalProtocolError         we were about to break the protocol: a bug of this side
    │   └── RemoteProtocolError        the other side broke the protocol
    └── WaitTimeout                    what was waited for did not come within the time-out

    OperationCancelled (BaseException) raised in instrumented code when its operation was cancelled
"""

from __future__ import annotations

from collections.abc import Sequence


class ProgressError(Exception):
    """Base of all errors of otelprogress. Instrumented code never sees one unless strict mode is on."""


class UsageError(ProgressError):
    """The caller's mistake. The message says what was wrong and what to do instead."""


class UnknownOperation(UsageError):
    """No operation has that handle, id, label or unique prefix."""


class AmbiguousOperation(UsageError):
    """Several operations match where one was meant.

    Attributes:
        candidates: their handles.
    """

    def __init__(self, message: str, candidates: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.candidates = tuple(candidates)


class UnknownStep(UsageError):
    """No step has that name or index."""


class InvalidValue(UsageError):
    """A number, a name or a setting that cannot be meant (negative, NaN, too long, of the wrong type)."""


class IllegalTransition(ProgressError):
    """A move that the transition table does not have.

    Attributes:
        current: the state the operation or step is in.
        requested: the state that was asked for.
    """

    def __init__(self, subject: str, current: str, requested: str) -> None:
        super().__init__(f"{subject} is {current!r} and cannot become {requested!r}")
        self.subject = subject
        self.current = current
        self.requested = requested

    def __reduce__(self) -> tuple[type[IllegalTransition], tuple[str, str, str]]:
        """Pickle by the three parts, not by the rendered message."""
        return type(self), (self.subject, self.current, self.requested)


class InvalidRecord(ProgressError):
    """A log record, span or event whose sender broke the conventions; the message names the attribute."""


class FeedError(ProgressError):
    """The feed could not be used."""


class FeedUnavailable(FeedError):
    """Nobody listens at that address."""


class FeedDenied(FeedError):
    """The token is missing, wrong, expired or lacks a scope. Retrying with the same token does not help."""


class LocalProtocolError(FeedError):
    """This side was about to break the feed protocol: a bug here."""


class RemoteProtocolError(FeedError):
    """The other side broke the feed protocol.

    Attributes:
        code: the WebSocket close code that answers it (`protocol.close_codes`).
    """

    def __init__(self, message: str, code: int = 4400) -> None:
        super().__init__(message)
        self.code = code


class WaitTimeout(ProgressError):
    """What was waited for did not come within the time-out. The operation goes on."""


class InputTimeout(ProgressError):
    """Nobody answered a question in time, or nobody can, and it has no default."""


class WorkerCancelled(ProgressError):
    """An operation was cancelled in another process, and `propagate()` brings that back through its pool.

    An `Exception`, because a pool of `multiprocessing` loses the result, and its worker, to anything else. An operation
    that it leaves is cancelled, as by `OperationCancelled`.

    Attributes:
        reason: what the canceller gave; empty when nothing was given.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class OperationCancelled(BaseException):
    """Raised inside instrumented code when its operation was cancelled.

    A `BaseException`, as `asyncio.CancelledError` is, so that `except Exception: continue` cannot swallow it.

    Attributes:
        reason: what the canceller gave; empty when nothing was given.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
