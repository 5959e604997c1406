"""What stands in where no operation is current, and while nothing is configured."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from otelprogress.asking import NO_DEFAULT
from otelprogress.plan import Plan
from otelprogress.run import Operation
from otelprogress.step import ROOT_INDEX, Step

if TYPE_CHECKING:
    from otelprogress.commands import Handler
    from otelprogress.model.events import State


class NoOperation(Operation):
    """Stands in where no operation is current, and while nothing is configured: does nothing, never complains."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(None, Plan(name=""), "")
        self.ended = True

    def note(self, message: str, *, level: str = "info") -> None:
        """Nothing."""

    def _note(self, step: Step, message: str, level: str) -> None:
        return

    def note_from_elsewhere(self, message: str, *, level: str, time_unix_ns: int) -> None:
        """Nothing."""

    def show(self, message: str | None) -> None:
        """Nothing."""

    def on_signal(self, name: str, handler: Handler) -> None:
        """Nothing."""

    def request_input(
        self,
        prompt: str,
        schema: Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
        default: Any = NO_DEFAULT,
    ) -> Any:
        """The default: nobody is there who could answer. Without one `InputTimeout` is raised at once."""
        return self._unanswered(prompt, default)

    async def arequest_input(
        self,
        prompt: str,
        schema: Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
        default: Any = NO_DEFAULT,
    ) -> Any:
        """The default, as `request_input()`."""
        return self._unanswered(prompt, default)

    def set_result(self, value: object) -> None:
        """Nothing."""

    def step(
        self,
        name: str,
        *,
        total: float | None = None,
        unit: str | None = None,
        initial: float = 0,
    ) -> Step:
        """A step that does nothing."""
        return IdleStep(self)

    def advance(self, n: float = 1) -> None:
        """Nothing."""

    def count(self, /, **counts: float) -> None:
        """Nothing."""

    def set_total(self, total: float | None, *, unit: str | None = None) -> None:
        """Nothing."""

    def end(self, error: BaseException | None = None, *, message: str | None = None) -> None:
        """Nothing."""

    def _end(self, state: State, *, message: str | None = None, **fields: Any) -> None:
        return


class IdleStep(Step):
    """A step of no operation: it counts, for code that reads its own counts, and nobody is told."""

    __slots__ = ()

    def __init__(self, operation: Operation) -> None:
        super().__init__(operation, "", ROOT_INDEX)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return


NO_OPERATION: Final = NoOperation()
