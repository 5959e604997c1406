"""What the tools do. Every answer is a text: a digest, or a refusal in words."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from typing import Final, TypeAlias

from otelprogress.exceptions import AmbiguousOperation, FeedError, UnknownOperation
from otelprogress.mcp.arguments import (
    CancelArguments,
    GetArguments,
    ListArguments,
    RespondArguments,
    SignalArguments,
    StartArguments,
    WaitArguments,
)
from otelprogress.mcp.refusal import Refusal
from otelprogress.mcp.source import CONTROL, RESPOND, START, Following, Since, Source, Viewer, Wanted
from otelprogress.mcp.starting import Starter
from otelprogress.mcp.story import Story
from otelprogress.mcp.waits import Given, Places, starting_places
from otelprogress.model import digest
from otelprogress.model.digest_budget import DEFAULT_MAX_TOKENS, LeftOut
from otelprogress.model.events import FeedEvent, OperationView, State
from otelprogress.model.news import Reason
from otelprogress.model.news import why as loudest
from otelprogress.protocol.messages import Command, CommandStatus

Report: TypeAlias = Callable[[float, float, str], Awaitable[None]]
"""Tells the client how a wait goes: seconds waited, seconds at most, how the operation stands."""

REPORT_EVERY_S: Final = 4.0
"""Clients that count any word as life give up after five seconds and more of silence."""
APPLIED_WITHIN_S: Final = 2.0
"""How long an answer to a command waits for what became of it; most are applied by then, which spares a call."""
APPEARS_WITHIN_S: Final = 4.0
"""How long an answer to a start waits until the operation is heard of; clients with little patience give up after 5 s."""
MAX_CANDIDATES: Final = 10
MAX_MESSAGE_CHARS: Final = 400
"""Of what a host says of a command that it refuses."""
_LOG: Final = logging.getLogger("otelprogress.mcp")
_Arguments: TypeAlias = dict[str, str | bool | int | float | None]
_TRACE_ID: Final = re.compile(r"[0-9a-f]{32}")
_BAD: Final = frozenset({State.FAILED, State.LOST})
_FAILURES: Final[Mapping[str, str]] = {
    "not_found": "no such operation",
    "ended": "the operation has ended",
    "forbidden": "not allowed",
    "invalid": "the arguments do not fit",
    "unsupported": "the operation did not declare that",
    "stale": "the operation has changed since: look at it again first",
    "duplicate": "that command was given before",
    "ambiguous": "more than one operation is meant",
    "no_worker": "its process cannot be reached",
    "overloaded": "too many commands wait for their effect already: wait for those",
}
"""What a status means where the host says nothing more."""


async def no_report(waited_s: float, timeout_s: float, text: str) -> None:
    """For clients that did not ask for notifications."""


class Calls:
    """One method a tool.

    Args:
        source: of operations.
        starter: of the commands that an operator listed; `None`: none were.
        places: of waits.
        clock: monotonic, in seconds.
    """

    def __init__(
        self,
        source: Source,
        *,
        starter: Starter | None = None,
        places: Places | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.source = source
        self.starter = starter
        self.places = places if places is not None else Places()
        self.starts = starting_places()
        self._starting: set[asyncio.Task[str]] = set()
        self._given = Given(clock)

    async def list(self, viewer: Viewer, asked: ListArguments, report: Report = no_report) -> str:
        """`progress_list`."""
        trace_id = asked.trace.strip().lower()
        if trace_id and not _TRACE_ID.fullmatch(trace_id):
            raise Refusal("`trace` is a trace id: 32 hexadecimal digits")
        if asked.mine:
            if not viewer.trace_id:
                raise Refusal("`mine` needs a trace context: this call's _meta has no traceparent")
            if trace_id and trace_id != viewer.trace_id:
                raise Refusal("`mine` and `trace` name different traces: give one of them")
            trace_id = viewer.trace_id
        wanted = Wanted(status=asked.status, query=asked.query, trace_id=trace_id, limit=asked.limit)
        listing = await self.source.search(viewer, wanted)
        return self._full(viewer, listing.views, listing.position, more=listing.more)

    async def get(self, viewer: Viewer, asked: GetArguments, report: Report = no_report) -> str:
        """`progress_get`."""
        view = await self._find(viewer, asked.id)
        since = await self.source.since(viewer, asked.since, (view.id,))
        views = [view]
        if asked.detail:
            below = await self.source.search(viewer, Wanted(subtree=view.id, limit=50))
            views += [each for each in below.views if each.id != view.id]
        if since.before is None or asked.detail:
            # What failed is looked into next: where its trace is.
            detail = asked.detail or view.state in _BAD
            return self._full(viewer, views, since.position, max_tokens=asked.max_tokens, detail=detail)
        story = Story(views, since, "change", elapsed_s=self._given.elapsed_s(viewer.key, asked.since))
        return self._told(viewer, story, story.reason or "changed", asked.max_tokens)

    async def wait(self, viewer: Viewer, asked: WaitArguments, report: Report = no_report) -> str:
        """`progress_wait`."""
        found = {view.id: view for view in [await self._find(viewer, text) for text in asked.ids]}
        with (
            self.places.take(viewer.key),
            closing(self.source.follow(viewer, tuple(found))) as following,
        ):
            since = await self.source.since(viewer, asked.since, tuple(found))
            story = Story(
                list(found.values()),
                since,
                asked.until,
                asked_since=bool(asked.since),
                elapsed_s=self._given.elapsed_s(viewer.key, asked.since),
            )
            why = await _wait(story, following, asked.timeout_s, report)
            return self._told(viewer, story, why, asked.max_tokens)

    async def cancel(self, viewer: Viewer, asked: CancelArguments, report: Report = no_report) -> str:
        """`progress_cancel`."""
        arguments: _Arguments = {"reason": asked.reason} if asked.reason else {}
        return await self._command(viewer, CONTROL, asked.id, "cancel", arguments, report=report)

    async def signal(self, viewer: Viewer, asked: SignalArguments, report: Report = no_report) -> str:
        """`progress_signal`."""
        if asked.action == "input":
            raise Refusal("answer a question with progress_respond")
        if asked.action == "cancel":
            # A client may let this tool through unasked, because it destroys nothing.
            raise Refusal("cancel with progress_cancel")
        return await self._command(viewer, CONTROL, asked.id, asked.action, {}, report=report)

    async def respond(self, viewer: Viewer, asked: RespondArguments, report: Report = no_report) -> str:
        """`progress_respond`."""
        arguments: _Arguments = {}
        if isinstance(asked.content, dict):
            arguments |= {f"content.{field}": value for field, value in asked.content.items()}
        else:
            arguments["content"] = asked.content
        return await self._command(
            viewer,
            RESPOND,
            asked.id,
            "input",
            arguments,
            report=report,
            input_id=asked.input_id,
            then_wait_s=asked.then_wait_s,
        )

    async def start(self, viewer: Viewer, asked: StartArguments, report: Report = no_report) -> str:
        """`progress_start`."""
        if self.starter is None:
            raise Refusal("no command can be started here: its operator listed none")
        _require(viewer, START)
        if viewer.may_not_start:
            raise Refusal(f"forbidden: {viewer.may_not_start}")
        with ExitStack() as place:
            place.enter_context(self.starts.take(viewer.key))
            starting = asyncio.create_task(
                self.starter.start(asked.name, asked.arguments, traceparent=viewer.traceparent)
            )
            self._starting.add(starting)
            starting.add_done_callback(self._starting.discard)
            try:
                await asyncio.wait([starting])
            except asyncio.CancelledError:
                # Whoever asked may leave. What it started counts as its own until it is known whether that runs.
                starting.add_done_callback(_Left(place.pop_all()))
                raise
            label = starting.result()
            try:
                return await self._appeared(viewer, label)
            except Refusal as refused:
                return f"started as {label}; {refused}\n"
            except FeedError as error:
                return f"started as {label}; not reachable: {digest.quoted(str(error), MAX_MESSAGE_CHARS)}\n"
            except Exception:
                # Whoever is told of a failure starts it once more: it runs.
                _LOG.exception("what was started as %s cannot be looked at, which is a bug", label)
                return f"started as {label}; internal error: the server's log has it\n"

    async def _appeared(self, viewer: Viewer, label: str) -> str:
        """What is known of an operation that was started, once it is heard of."""
        with closing(self.source.follow(viewer, None)) as following:
            deadline_s = asyncio.get_running_loop().time() + APPEARS_WITHIN_S
            while True:
                try:
                    view = await self.source.find(viewer, label)
                except (UnknownOperation, AmbiguousOperation):
                    left_s = deadline_s - asyncio.get_running_loop().time()
                    if left_s <= 0:
                        return (
                            f"started as {label}; nothing was heard of it yet: progress_wait with this id\n"
                        )
                    await following.wait(min(left_s, 0.5))
                    await following.take()
                else:
                    since = await self.source.since(viewer, "", (view.id,))
                    return self._full(viewer, [view], since.position, reason="started")

    async def _find(self, viewer: Viewer, text: str) -> OperationView:
        try:
            return await self.source.find(viewer, text)
        except AmbiguousOperation as several:
            shown = ", ".join(
                name if digest.is_safe_word(name) else digest.quoted(name)
                for name in several.candidates[:MAX_CANDIDATES]
            )
            more = len(several.candidates) - MAX_CANDIDATES
            raise Refusal(
                f"ambiguous: {digest.quoted(text)} can be {shown}{f' and {more} more' if more > 0 else ''}"
            ) from None
        except UnknownOperation:
            raise Refusal(
                f"not_found: no operation has the handle, id or label {digest.quoted(text)}; see progress_list"
            ) from None
        except FeedError as error:
            raise Refusal(f"not reachable: {digest.quoted(str(error), MAX_MESSAGE_CHARS)}") from None

    async def _command(
        self,
        viewer: Viewer,
        scope: str,
        operation: str,
        action: str,
        arguments: _Arguments,
        *,
        report: Report,
        input_id: str | None = None,
        then_wait_s: float = 0.0,
    ) -> str:
        _require(viewer, scope)
        view = await self._find(viewer, operation)
        if not view.live:
            # Its process may be gone by now, and with it whoever would say so.
            raise Refusal(f"ended: {digest.called(view)} has ended: {view.state.value}")
        if input_id is not None:
            open_id = view.input_id or ""
            arguments["input_id"] = input_id if input_id not in ("", "-") else open_id
        command = Command(
            command_id=secrets.token_hex(8),
            operation=view.id,
            action=action,
            arguments=arguments,
        )
        with ExitStack() as held:
            following = held.enter_context(closing(self.source.follow(viewer, (view.id,))))
            if then_wait_s:
                try:
                    held.enter_context(self.places.take(viewer.key))
                except Refusal:
                    # Whoever waits elsewhere can command all the same; only what follows is not waited for.
                    then_wait_s = 0.0
            here = await self.source.since(viewer, "", (view.id,))
            try:
                status = await self.source.command(viewer, command)
            except FeedError as error:
                raise Refusal(f"not reachable: {digest.quoted(str(error), MAX_MESSAGE_CHARS)}") from None
            if status.status not in ("accepted", "duplicate"):
                raise _refusal(status)
            # The viewer knows the operation: it is told what the command changed.
            story = Story([view], Since(here.position, before={view.id: view}), "attention")
            why: Reason | None = None
            try:
                if then_wait_s:
                    why = await _wait(story, following, then_wait_s, report)
                else:
                    await _heard_of(command.command_id, story, following, APPLIED_WITHIN_S)
            except Refusal:
                # It may not look any more, or the host ends. Whoever is told of a failure commands once more.
                pass
            if story.outcome_of(command.command_id) is None:
                story.add_own(_accepted(command, view))
            return self._told(viewer, story, why or story.reason or "changed", DEFAULT_MAX_TOKENS)

    def _full(
        self,
        viewer: Viewer,
        views: Sequence[OperationView],
        position: str,
        *,
        reason: Reason | None = None,
        more: int = 0,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        detail: bool = False,
    ) -> str:
        self._given.give(viewer.key, position)
        return digest.render(
            views,
            position=position,
            why=reason or loudest((), None, views),
            max_tokens=max_tokens,
            left_out=LeftOut(operations=more),
            detail=detail,
        )

    def _told(self, viewer: Viewer, story: Story, why: Reason, max_tokens: int) -> str:
        text = story.text(why, max_tokens=max_tokens)
        self._given.give(viewer.key, story.position)
        return text


async def _wait(story: Story, following: Following, timeout_s: float, report: Report) -> Reason:
    """Why it is time to speak: there is a reason to, or the time is over."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    until_s = began_s + timeout_s
    report_at_s = began_s + REPORT_EVERY_S
    while story.reason is None and (now_s := loop.time()) < until_s:
        if now_s >= report_at_s:
            # Also where nothing happened: whoever may not look any more, or has left, is not waited for.
            story.take(await following.take())
            await report(now_s - began_s, timeout_s, story.glance())
            report_at_s = loop.time() + REPORT_EVERY_S
        elif await following.wait(min(until_s, report_at_s) - now_s):
            story.take(await following.take())
    # Counts move without an event.
    story.take(await following.take())
    story.waited_s = loop.time() - began_s
    return story.reason or "timeout"


async def _heard_of(command_id: str, story: Story, following: Following, timeout_s: float) -> None:
    """Until it was heard what became of a command, or the time is over."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + timeout_s
    while story.outcome_of(command_id) is None:
        left_s = until_s - loop.time()
        if left_s <= 0 or not await following.wait(left_s):
            return
        story.take(await following.take())


class _Left:
    """Gives the place of a start back that nobody waits for any more."""

    def __init__(self, place: ExitStack) -> None:
        self._place = place

    def __call__(self, started: asyncio.Task[str]) -> None:
        self._place.close()
        if not started.cancelled():
            started.exception()  # nobody is there to be told


def _accepted(command: Command, view: OperationView) -> FeedEvent:
    return FeedEvent(
        kind="control.accepted",
        operation=view,
        revision=view.revision,
        time_unix_ns=view.as_of_unix_ns,
        control_id=command.command_id,
        control_action=command.action,
    )


def _refusal(status: CommandStatus) -> Refusal:
    # What the host says names what the program calls things: its controls, choices and fields.
    said = digest.quoted(status.message, MAX_MESSAGE_CHARS) if status.message else None
    return Refusal(f"{status.status}: {said or _FAILURES.get(status.status, 'refused')}")


def _require(viewer: Viewer, scope: str) -> None:
    if scope not in viewer.scopes:
        raise Refusal(f"forbidden: the token lacks the scope {scope}")
