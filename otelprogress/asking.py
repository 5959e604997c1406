"""Asking whoever watches: `request_input()` and its async form. Between `commands` and `run.Operation`.

The question is an event; the operation is `waiting` until it is answered, cancelled, or its time is over.
"""

# ruff: noqa: TC004 - `load` fetches these names when the first operation begins

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from otelprogress import active
from otelprogress.commands import ASKING, Commanded, Order
from otelprogress.exceptions import InputTimeout, InvalidValue, UsageError
from otelprogress.gate import on_event_loop
from otelprogress.imports import fetch
from otelprogress.model import semconv

if TYPE_CHECKING:
    from otelprogress.active import Instrumentation
    from otelprogress.gate import Gate
    from otelprogress.model.events import State
    from otelprogress.model.input_schema import Answer, check_schema, checked
    from otelprogress.step import Step

NO_DEFAULT: Final[Any] = object()
"""`default` was not given: a question whose time is over raises."""
MAX_OPEN_QUESTIONS: Final = 64


def load() -> None:
    """Import what only operations need."""
    fetch(
        globals(),
        {
            "otelprogress.model.events": ("State",),
            "otelprogress.model.input_schema": ("check_schema", "checked"),
        },
    )


class _Question:
    __slots__ = ("answer", "answered", "input_id", "order", "schema", "wake")

    def __init__(self, input_id: str, schema: Mapping[str, Any], wake: Callable[[], object]) -> None:
        self.input_id = input_id
        self.schema = schema
        self.answered = False
        self.answer: Answer | None = None
        self.order = Order()
        self.wake = wake


class Asking(Commanded):
    """Asks, and goes on with the answer. See `commands.Commanded` for the arguments."""

    __slots__ = ("_input_ids", "_questions")

    def __init__(
        self,
        ins: Instrumentation | None,
        name: str,
        root: Step,
        *,
        controls: tuple[str, ...],
        above: Gate | None,
    ) -> None:
        super().__init__(ins, name, root, controls=controls, above=above)
        self._questions: dict[str, _Question] = {}
        self._input_ids = itertools.count(1)

    def request_input(
        self,
        prompt: str,
        schema: Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
        default: Any = NO_DEFAULT,
    ) -> Any:
        """Ask, and block this thread until somebody answers (`otelprogress respond`, the feed, an agent).

        Args:
            prompt: one line, at most 1,024 characters; secrets are redacted.
            schema: a flat JSON schema: a primitive (`{"enum": ["halve", "stop"]}`, `{"type": "number"}`) or an object of
                primitives; `None`: any text, number or truth value.
            timeout_s: seconds; `None`: until it is answered or cancelled.
            default: what comes back when the time is over, or when nobody can answer.

        Returns:
            The answer, checked against `schema`: a primitive, or a dict for an object.

        Raises:
            InputTimeout: nobody answered in time, or nobody can, and there is no default.
            OperationCancelled: it was cancelled while it waited.
            InvalidValue: a schema that is not flat (in strict mode; else it is counted and any primitive counts).
        """
        if not self._may_ask(default):
            return self._unanswered(prompt, default)
        if on_event_loop():
            active.misuse("request_input() would stop the event loop: await arequest_input()", UsageError)
            return self._unanswered(prompt, default)
        bell = threading.Condition()

        def wake() -> None:
            with bell:
                bell.notify_all()

        question = self._ask(prompt, schema, timeout_s, default, wake)
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            while self._waits(question):
                with bell:
                    if self._waits(question):
                        left_s = None if until_s is None else until_s - time.monotonic()
                        if left_s is not None and left_s <= 0:
                            break
                        bell.wait(left_s)
        finally:
            self._asked(question)
        if not question.answered:
            self.checkpoint()
        return question.answer if question.answered else self._unanswered(prompt, default)

    async def arequest_input(
        self,
        prompt: str,
        schema: Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
        default: Any = NO_DEFAULT,
    ) -> Any:
        """`request_input()` for coroutines: the event loop goes on while this one waits. Same arguments and errors."""
        import asyncio

        if not self._may_ask(default):
            return self._unanswered(prompt, default)
        loop = asyncio.get_running_loop()
        bell = asyncio.Event()

        def wake() -> None:
            try:
                loop.call_soon_threadsafe(bell.set)
            except RuntimeError:  # that loop was closed: nobody waits any more
                return

        question = self._ask(prompt, schema, timeout_s, default, wake)
        try:
            async with asyncio.timeout(timeout_s):
                while self._waits(question):
                    await bell.wait()
                    bell.clear()
        except TimeoutError:
            await asyncio.sleep(0)  # an answer that came in this very moment counts
        finally:
            self._asked(question)
        if not question.answered:
            await self.acheckpoint()
        return question.answer if question.answered else self._unanswered(prompt, default)

    # --- the question -----------------------------------------------------------------------------------------

    def _may_ask(self, default: object) -> bool:
        if self.ended:
            active.misuse(f"request_input() after operation {self.name!r} ended")
            return False
        if ASKING not in self.controls:
            active.misuse(
                f"operation {self.name!r} asks without saying so: add controls=['input']", UsageError
            )
        if len(self._questions) >= MAX_OPEN_QUESTIONS:
            active.misuse(f"operation {self.name!r} asks more than {MAX_OPEN_QUESTIONS} things at once")
            return False
        return True

    def _unanswered(self, prompt: str, default: Any) -> Any:
        if default is NO_DEFAULT:
            raise InputTimeout(f"nobody answered {prompt!r}")
        return default

    def _ask(
        self,
        prompt: str,
        schema: Mapping[str, Any] | None,
        timeout_s: float | None,
        default: Any,
        wake: Callable[[], object],
    ) -> _Question:
        asked_by = dict(schema or {})
        try:
            check_schema(asked_by)
            if default is not NO_DEFAULT and default is not None:
                checked(asked_by, default)
        except InvalidValue as wrong:
            active.misuse(f"request_input() of operation {self.name!r}: {wrong}", InvalidValue)
            try:
                check_schema(asked_by)
            except InvalidValue:
                asked_by = {}
        question = _Question(f"in{next(self._input_ids)}", asked_by, wake)
        if self.gate is not None:
            self.gate.add_waker(wake)
        self._questions[question.input_id] = question
        self._say_question(question, prompt, timeout_s, default)
        return question

    @active.contained
    def _say_question(self, question: _Question, prompt: str, timeout_s: float | None, default: Any) -> None:
        self._ensure_begun()
        now_unix_ns = time.time_ns()
        with self._event_lock:
            self._state = State.WAITING
        self._say(
            semconv.INPUT_REQUESTED,
            time_unix_ns=now_unix_ns,
            input_id=question.input_id,
            input_prompt=_as_text(prompt),
            input_schema=json.dumps(question.schema) if question.schema else None,
            input_default=None if default is NO_DEFAULT else json.dumps(default, default=str),
            input_deadline_unix_ns=None if timeout_s is None else now_unix_ns + int(timeout_s * 1e9),
        )

    def _waits(self, question: _Question) -> bool:
        if question.answered or self.ended:
            return False
        closed = None if self.gate is None else self.gate.closed_by()
        if closed is not None and closed.signalled and not closed.cancelled:
            closed.check_signals()
            return not question.answered
        return closed is None or not closed.cancelled

    @active.contained
    def _asked(self, question: _Question) -> None:
        """The wait is over, one way or another."""
        if self.gate is not None:
            self.gate.remove_waker(question.wake)
        with self._event_lock:
            self._questions.pop(question.input_id, None)
            last = not self._questions
            if last and self._state is State.WAITING:
                self._state = None
        if self.ended:
            return
        if question.answered and question.order.command_id:
            self._said(ASKING, question.order)
        if last:
            self._say(semconv.OPERATION_STATE_CHANGED, state=State.RUNNING)

    # --- the answer, any thread ---------------------------------------------------------------------------------

    def answer(self, input_id: str | None, content: object, order: Order = Order()) -> str:  # noqa: B008 - a constant
        """Answer what it asks. The first answer that fits counts. Any thread.

        Args:
            input_id: which question; `None`: the only one that is open.
            content: a primitive, or a mapping for an object.
            order: who answers.

        Returns:
            `accepted`, or why not: `ended`, or what is wrong with it.
        """
        if self.ended:
            return "ended"
        with self._event_lock:
            open_ids = list(self._questions)
            if input_id is None and len(open_ids) == 1:
                input_id = open_ids[0]
            question = self._questions.get(input_id or "")
            if question is None or question.answered:
                return "it is answered already, or was not asked" if input_id else "it asks nothing now"
            if time.monotonic() >= order.until_s:
                return "expired"
            try:
                question.answer = checked(question.schema, content)
            except InvalidValue as wrong:
                return str(wrong)
            question.order = order
            question.answered = True
        question.wake()
        return "accepted"


def _as_text(prompt: object) -> str:
    from otelprogress.outcome import clean_message

    return clean_message(str(prompt))
