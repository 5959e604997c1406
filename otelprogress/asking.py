"""Asking whoever watches: `request_input()` and its async form. Between `commands` and `run.Operation`.

The question is an event; the operation is `waiting` until it is answered, cancelled, or its time is over.
"""

# ruff: noqa: TC004 - `load` fetches these names when the first operation begins

from __future__ import annotations

import itertools
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
    from json import dumps, loads

    from otelprogress.active import Instrumentation
    from otelprogress.gate import Gate
    from otelprogress.model.events import State
    from otelprogress.model.fields import json_in
    from otelprogress.model.input_schema import Answer, check_schema, checked
    from otelprogress.step import Step

NO_DEFAULT: Final[Any] = object()
"""`default` was not given: a question whose time is over raises."""
MAX_OPEN_QUESTIONS: Final = 64
_WORDS: Final = frozenset({"title", "description", "default"})


def load() -> None:
    """Import what only operations need."""
    fetch(
        globals(),
        {
            "json": ("dumps", "loads"),
            "otelprogress.model.events": ("State",),
            "otelprogress.model.fields": ("json_in",),
            "otelprogress.model.input_schema": ("check_schema", "checked"),
        },
    )


class _Question:
    __slots__ = ("answer", "answered", "input_id", "order", "said", "schema", "until_s", "wake")

    def __init__(
        self, input_id: str, schema: Mapping[str, Any], until_s: float | None, wake: Callable[[], object]
    ) -> None:
        self.input_id = input_id
        self.schema = schema
        self.until_s = until_s
        """By `time.monotonic`; `None`: for ever."""
        self.answered = False
        self.answer: Answer | None = None
        self.order: Order | None = None
        """Who answered; taken away once that is said."""
        self.wake = wake
        self.said: dict[str, Any] = {}
        """Of its event, for when it has to be said again."""


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
                primitives; `None`: any text, number or truth value. At most 4,096 bytes of JSON, and nothing to choose or to
                fill in that looks like a secret: those who answer get it redacted.
            timeout_s: seconds; `None`: until it is answered or cancelled.
            default: what comes back when the time is over, or when nobody can answer.

        Returns:
            The answer, checked against `schema`: a primitive, or a dict for an object.

        Raises:
            InputTimeout: nobody answered in time, or nobody can, and there is no default.
            OperationCancelled: it was cancelled while it waited.
            InvalidValue: a schema that is not flat or cannot be passed on, or a time that cannot be meant (in strict mode; else it is counted, and
                any primitive counts, at any time).
        """
        if not self._may_ask(default):
            return self._unanswered(prompt, default)
        if on_event_loop():
            active.misuse("request_input() would stop the event loop: await arequest_input()", UsageError)
            return self._unanswered(prompt, default)
        # Waited on with no lock held: whoever rings may hold a gate's, which looking around takes too.
        bell = threading.Event()
        question = self._ask(prompt, schema, timeout_s, default, bell.set)
        try:
            while True:
                bell.clear()
                if not self._waits(question):
                    break
                left_s = None if question.until_s is None else question.until_s - time.monotonic()
                if left_s is not None and left_s <= 0:
                    break
                bell.wait(None if left_s is None else min(left_s, threading.TIMEOUT_MAX))
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
        left_s = None if question.until_s is None else question.until_s - time.monotonic()
        try:
            async with asyncio.timeout(left_s):
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
        asked_by, until_s = self._understood(schema, timeout_s, default)
        question = _Question(f"in{next(self._input_ids)}", asked_by, until_s, wake)
        if self.gate is not None:
            self.gate.add_waker(wake)
        self._questions[question.input_id] = question
        self._say_question(question, prompt, default)
        if not question.said:  # it could not be, which is counted: nobody will answer
            question.until_s = time.monotonic()
        return question

    def _understood(
        self, schema: Mapping[str, Any] | None, timeout_s: float | None, default: Any
    ) -> tuple[Mapping[str, Any], float | None]:
        """What can be asked by, and until when it waits, by `time.monotonic`."""
        asked_by: Mapping[str, Any] = {}
        until_s: float | None = None
        try:
            if schema is not None:
                check_schema(schema)
                _check_passed_on(schema)
                asked_by = dict(schema)
            if default is not NO_DEFAULT and default is not None:
                checked(asked_by, default)
            if timeout_s is not None:
                if not 0 <= timeout_s <= threading.TIMEOUT_MAX:
                    raise InvalidValue(f"it cannot wait for {timeout_s!r} s")
                until_s = time.monotonic() + timeout_s
        except (InvalidValue, TypeError) as wrong:
            active.misuse(f"request_input() of operation {self.name!r}: {wrong}", InvalidValue)
        return asked_by, until_s

    @active.contained
    def _say_question(self, question: _Question, prompt: str, default: Any) -> None:
        now_unix_ns = time.time_ns()
        left_s = None if question.until_s is None else question.until_s - time.monotonic()
        question.said = {
            "input_id": question.input_id,
            "input_prompt": _as_text(prompt),
            "input_schema": _as_json(question.schema) if question.schema else None,
            "input_default": None if default is NO_DEFAULT else dumps(default, default=str),
            "input_deadline_unix_ns": None if left_s is None else now_unix_ns + int(left_s * 1e9),
        }
        self._ensure_begun()
        with self._event_lock:
            self._state = State.WAITING
        self._say(semconv.INPUT_REQUESTED, time_unix_ns=now_unix_ns, **question.said)

    def _waits(self, question: _Question) -> bool:
        if question.answered or self.ended:
            return False
        closed = None if self.gate is None else self.gate.closed_by()
        if closed is not None and closed.signalled and not closed.cancelled:
            closed.check_signals()
            return not question.answered
        return closed is None or not closed.cancelled or self.was_told(closed)

    @active.contained
    def _asked(self, question: _Question) -> None:
        """The wait is over, one way or another."""
        if self.gate is not None:
            self.gate.remove_waker(question.wake)
        with self._event_lock:
            self._questions.pop(question.input_id, None)
            others = [each for each in self._questions.values() if not each.answered]
            if not self._questions and self._state is State.WAITING:
                self._state = State.PAUSED if self._stands() else None
            paused = self._state is State.PAUSED
        self._say_answered(question)
        if self.ended:
            return
        if others:
            # Hosts know of one question: of what is still asked, the newest, which the last word may not have been.
            self._say(semconv.INPUT_REQUESTED, **others[-1].said)
        elif not self._questions:
            self._say(semconv.OPERATION_STATE_CHANGED, state=State.RUNNING)
            if paused:  # that took the question away
                self._say(semconv.OPERATION_STATE_CHANGED, state=State.PAUSED)

    def _stands(self) -> bool:
        """Whether another of its threads stands still, paused."""
        return self._gate is not None and self._gate.paused and self._gate.stands

    def _unpaused(self) -> State | None:
        return State.WAITING if self._questions else None

    def _say_answered(self, question: _Question) -> None:
        with self._event_lock:
            order, question.order = question.order, None
        if order is not None and order.command_id:
            self._said(ASKING, order)

    def _settle_orders(self, *, cancelled: bool) -> None:
        for question in list(self._questions.values()):
            self._say_answered(question)  # its thread has not come to it
        super()._settle_orders(cancelled=cancelled)

    def _wake_questions(self) -> None:
        """It has ended: nobody will answer any more."""
        for question in list(self._questions.values()):
            question.wake()

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
            if self._ends:
                return "ended"
            # Where none is named, the one that is shown.
            open_ids = [each.input_id for each in self._questions.values() if not each.answered]
            named = input_id or next(reversed(open_ids), "")
            if named not in open_ids:
                return "it is answered already, or was not asked" if input_id else "it asks nothing now"
            if time.monotonic() >= order.until_s:
                return "expired"
            question = self._questions[named]
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


def _as_json(schema: Mapping[str, Any]) -> str:
    return dumps(schema, ensure_ascii=False, separators=(",", ":"))


def _check_passed_on(schema: Mapping[str, Any]) -> None:
    """Refuse a schema that hosts would keep otherwise or not at all: no answer would pass both them and this process.

    Raises:
        InvalidValue: with what is wrong.
    """
    text = _as_json(schema)
    kept = json_in(text, semconv.MAX_INPUT_SCHEMA_CHARS, schema=True)
    if kept is None:
        raise InvalidValue(f"the schema has more than {semconv.MAX_INPUT_SCHEMA_CHARS} bytes, or is no JSON")
    if _without_words(loads(kept)) != _without_words(loads(text)):
        raise InvalidValue(
            "a field or a choice of the schema looks like a secret, which nobody would be shown"
        )


def _without_words(schema: Mapping[str, Any]) -> dict[str, Any]:
    """What answers are checked by: all but what is only shown, which may be redacted."""
    bare = {key: value for key, value in schema.items() if key not in _WORDS}
    if "properties" in bare:
        bare["properties"] = {name: _without_words(field) for name, field in bare["properties"].items()}
    return bare
