"""The clients: `AsyncClient`, its blocking twin `Client`, and `watch()`.

Without an address they speak to all processes of this user on this machine that left a runtime file, and to the
collector: the one that `OTELPROGRESS_COLLECTOR` names, and those that left a runtime file too.

It is long because it is one face with long docstrings, and finds what a name means in all feeds together; what is done with
one feed stands in `watching` and `command_client`, how several are read as one in `watch` and `merging`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import weakref
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Literal, Self, Unpack

import msgspec

from otelprogress.exceptions import (
    AmbiguousOperation,
    FeedDenied,
    FeedUnavailable,
    InvalidValue,
    UnknownOperation,
)
from otelprogress.feed.blocking_client import Client
from otelprogress.feed.command_client import (
    Commanded,
    CommandOptions,
    command_for,
    is_accepted,
    send_command,
    went_without_a_word,
)
from otelprogress.feed.digest_watch import Digest, DigestWatch
from otelprogress.feed.discovery import FeedTarget, all_feeds, target_at
from otelprogress.feed.merging import TRUE_OUTCOMES, first_hand
from otelprogress.feed.news import UNTIL, News, Until, news_reason, standing_reason
from otelprogress.feed.watch import Watch
from otelprogress.feed.watching import WatchOptions, snapshot
from otelprogress.model.digest_budget import DEFAULT_MAX_TOKENS
from otelprogress.model.events import OperationView, State
from otelprogress.protocol.messages import Command, CommandAnswer, CommandStatus, Filter, Level

__all__ = [
    "AsyncClient",
    "Client",
    "Commanded",
    "Digest",
    "DigestWatch",
    "News",
    "Until",
    "Watch",
    "watch",
]

_Views = list[OperationView]
_Targets = list[FeedTarget]
_Found = list[tuple[FeedTarget, OperationView]]
"""Aliases, because inside the class `list` is a method."""

_LOG = logging.getLogger("otelprogress.feed")
_EVERYTHING: Final = Filter(roots=False, ended_within_s=1e9)
_LATELY: Final = Filter(roots=False)
"""Where all is asked for, to look through it here: a collector keeps what ended for weeks."""
_LIST_TIMEOUT_S: Final = 5.0
_FIND_AT_LEAST_S: Final = 1.0
"""What a wait or a command gives feeds to say what they know, however short it is."""
_LAST_WORD_S: Final = 1.0
"""What a host has to say what became of a command, once its operation was called lost: it may not be the one asked."""
_TRY_ELSEWHERE: Final[frozenset[CommandAnswer]] = frozenset({"no_worker", "not_found"})
"""Another feed may reach the process: the collector's may have no link to it, or not know the operation yet."""
_LEVELS: Final = ("ticks", "milestones", "terminal")


class AsyncClient:
    """Reads feeds: what runs, what happens, until something happens.

    Args:
        url: `ws://HOST:PORT`, as a runtime file has it; `None`: all local processes, also those that start later, and
            the collector.
        token: `None`: the one of the runtime file with that address, else of `$OTELPROGRESS_TOKEN_FILE`.
        backoff_s: the first and the last upper bound of the random wait before connecting again.
        resume: `False`: every connection begins anew, without a cursor. For tests that show what resuming is for.
        open_timeout_s: for connecting, and for the answer to the greeting.
        rng: of the jitter; `None`: unseeded.

    Attributes:
        unanswered: feeds that did not answer the last question, though their process is there (it is stopped, or very
            busy), or though they are the collector's.

    Raises:
        InvalidValue: the address or the token file is none.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        backoff_s: tuple[float, float] = (0.5, 20.0),
        resume: bool = True,
        open_timeout_s: float = _LIST_TIMEOUT_S,
        rng: random.Random | None = None,
    ) -> None:
        if not 0 < backoff_s[0] <= backoff_s[1]:
            raise InvalidValue(f"backoff_s is (first, last) in seconds, both positive, not {backoff_s!r}")
        self._target = target_at(url, token) if url is not None else None
        self._backoff_s = backoff_s
        self._resume = resume
        self._open_timeout_s = open_timeout_s
        self._rng = rng
        self._watches: weakref.WeakSet[Watch | DigestWatch] = weakref.WeakSet()
        self.unanswered: tuple[FeedTarget, ...] = ()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every watch that is still open. The client can be used again."""
        for each in tuple(self._watches):
            await each.aclose()

    def watch(
        self,
        name: str | None = None,
        *,
        run: str | tuple[str, ...] = (),
        label: str | tuple[str, ...] = (),
        trace_id: str | tuple[str, ...] = (),
        service: str | tuple[str, ...] = (),
        state: str | tuple[str, ...] = (),
        attributes: Mapping[str, str | bool | int | float] | None = None,
        subtree: str | None = None,
        roots: bool | None = None,
        level: Level = "milestones",
        max_rate_hz: float | None = None,
        cursor: str | None = None,
    ) -> Watch:
        """Follow what happens.

        Args:
            name: a glob of `*` and `?` over the operation's name; `None`: any.
            run: ids or handles; of these and the next, any member matches.
            label: labels; all clauses must hold.
            trace_id: 32 hex digits each.
            service: values of `service.name`.
            state: `running`, `waiting`, …; an operation that leaves them gives an event of kind `left`.
            attributes: each must be equal.
            subtree: a run id: it and everything below it.
            roots: `True` only operations without a parent, `False` all; `None`: roots, unless a clause names
                particular operations.
            level: `ticks`: everything; `milestones`: all durable events; `terminal`: only ends.
            max_rate_hz: of ticks, per feed; `None`: the feed's.
            cursor: `Watch.cursor` of an earlier watch with the same clauses; `None`: begin with a snapshot.

        Raises:
            InvalidValue: an unknown level, or no cursor of a watch.
        """
        wanted = Filter(
            run=_several(run),
            label=_several(label),
            trace_id=_several(trace_id),
            service=_several(service),
            state=_several(state),
            name=name,
            attributes=dict(attributes or {}),
            subtree=subtree,
            roots=roots,
        )
        return self._watch(self._target, wanted, level=level, max_rate_hz=max_rate_hz, cursor=cursor)

    def _watch(
        self,
        target: FeedTarget | _Targets | None,
        wanted: Filter,
        *,
        level: Level = "milestones",
        max_rate_hz: float | None = None,
        cursor: str | None = None,
        begins_with: tuple[FeedTarget, OperationView] | None = None,
    ) -> Watch:
        if level not in _LEVELS:
            raise InvalidValue(f"level is one of {', '.join(_LEVELS)}, not {level!r}")
        options = WatchOptions(
            filter=wanted,
            level=level,
            max_rate_hz=max_rate_hz,
            backoff_s=self._backoff_s,
            resume=self._resume,
            open_timeout_s=self._open_timeout_s,
        )
        watching = Watch(target, options, cursor=cursor or None, rng=self._rng, begins_with=begins_with)
        self._watches.add(watching)
        return watching

    def digests(
        self,
        name: str | None = None,
        *,
        run: str | tuple[str, ...] = (),
        label: str | tuple[str, ...] = (),
        trace_id: str | tuple[str, ...] = (),
        service: str | tuple[str, ...] = (),
        state: str | tuple[str, ...] = (),
        attributes: Mapping[str, str | bool | int | float] | None = None,
        subtree: str | None = None,
        roots: bool | None = None,
        level: Level = "milestones",
        max_rate_hz: float | None = None,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        cursor: str | None = None,
    ) -> DigestWatch:
        """Follow what happens as text for language models, made by the feed.

        It is about one feed: the one that was named, else the only one there is, else the collector's. `otelprogress tail --digest`
        is about all of them.

        Args:
            name: this and the other clauses as for `watch`.
            run: ids or handles.
            label: labels.
            trace_id: 32 hex digits each.
            service: values of `service.name`.
            state: `running`, `waiting`, …
            attributes: each must be equal.
            subtree: a run id: it and everything below it.
            roots: `True` only operations without a parent, `False` all; `None`: roots, unless a clause names
                particular operations.
            level: `ticks`: counts are news too; `milestones`: all durable events are; `terminal`: only ends.
            max_rate_hz: how often it speaks of what can wait; `None`: every 10 s. What wants attention comes at once.
            max_tokens: the budget of one digest, 50 to 10,000.
            cursor: of an earlier digest with the same clauses, or the position that a digest begins with; `None`: begin with
                the full state.

        Raises:
            InvalidValue: an unknown level.
        """
        if level not in _LEVELS:
            raise InvalidValue(f"level is one of {', '.join(_LEVELS)}, not {level!r}")
        options = WatchOptions(
            filter=Filter(
                run=_several(run),
                label=_several(label),
                trace_id=_several(trace_id),
                service=_several(service),
                state=_several(state),
                name=name,
                attributes=dict(attributes or {}),
                subtree=subtree,
                roots=roots,
            ),
            level=level,
            max_rate_hz=max_rate_hz,
            render="digest",
            max_tokens=max_tokens,
            backoff_s=self._backoff_s,
            resume=self._resume,
            open_timeout_s=self._open_timeout_s,
        )
        watching = DigestWatch(self._one_target, options, cursor=cursor or None, rng=self._rng)
        self._watches.add(watching)
        return watching

    async def _one_target(self) -> FeedTarget:
        targets = await self._targets()
        chosen = [each for each in targets if each.is_collector] if len(targets) > 1 else targets
        if not targets:
            raise FeedUnavailable(
                "no process of yours has a feed open; `otelprogress doctor` says where was looked"
            )
        if len(chosen) != 1:
            names = ", ".join(each.name for each in (chosen or targets)[:5])
            raise InvalidValue(f"a digest is of one feed, and there are several: name one of {names}")
        return chosen[0]

    async def list(
        self,
        name: str | None = None,
        *,
        roots: bool = True,
        live: bool | None = None,
        service: str | tuple[str, ...] = (),
        ended_within_s: float = 600.0,
    ) -> _Views:
        """What runs or ended a short while ago, oldest start first, with steps.

        Args:
            name: a glob over the name; `None`: any.
            roots: only operations without a parent.
            live: `True` only those without an outcome, `False` only those with one, `None` both.
            service: of these services only.
            ended_within_s: how long ago it may have ended; a process keeps what ended ten minutes ago.

        Returns:
            Of all feeds, each run once: as the collector has it, where it knows it, but for an end that its process or
            the history of this machine knows and the collector was not told of. Feeds that do not answer are left out,
            and are in `unanswered`.

        Raises:
            FeedUnavailable: the feed that was named does not answer.
            FeedDenied: it does not let us in.
        """
        wanted = Filter(name=name, roots=roots, service=_several(service), ended_within_s=ended_within_s)
        found, _ = await self._ask(await self._targets(), wanted, self._open_timeout_s)
        views = [view for _, view in await self._with_recorded_ends(_each_once(found))]
        return sorted(
            (view for view in views if live in (None, view.live)), key=lambda view: view.started_at_unix_ns
        )

    async def get(self, operation: str) -> OperationView:
        """One operation, with its steps.

        Args:
            operation: handle, id, label or unique prefix.

        Raises:
            UnknownOperation: no feed knows it.
            AmbiguousOperation: several are meant; `candidates` has their handles.
            FeedUnavailable: the feed that was named does not answer, no process has one, or none answers.
        """
        _, view = await self._find(operation, self._open_timeout_s)
        return view

    async def wait(
        self,
        operation: str,
        until: Until = "attention",
        timeout_s: float | None = 45.0,
        *,
        cursor: str | None = None,
    ) -> News:
        """Wait until something happens to one operation.

        Args:
            operation: handle, id, label or unique prefix.
            until: `end`: it has an outcome; `attention`: also a warning, a question, a stall, a command
                that was refused; `step`: also a step that started or ended, the end of a stall; `change`: any milestone.
            timeout_s: then the answer is `reason="timeout"`; `None`: never. Local processes that do not answer are
                given half of it, and a second at least.
            cursor: of earlier news: what happened since then counts too. `None`: only what happens from now on,
                and what stands already: an outcome, an open question.

        Raises:
            UnknownOperation, AmbiguousOperation: as `get`.
            FeedUnavailable: no feed answers, or it went away for good and nobody knows the outcome.
            InvalidValue: `until` is none of the four.
        """
        if until not in UNTIL:
            raise InvalidValue(f"until is one of {', '.join(UNTIL)}, not {until!r}")
        loop = asyncio.get_running_loop()
        deadline_s = None if timeout_s is None else loop.time() + timeout_s
        target, view = await self._find(operation, self._find_s(timeout_s))
        if (reason := standing_reason(view, until, resumed=cursor is not None)) is not None:
            return News(reason=reason, operation=view, cursor=cursor or "")
        watching = self._watch(
            await self._followed(target),
            Filter(run=(view.id,), ended_within_s=1e9),
            cursor=cursor,
            begins_with=(target, view),
        )
        try:
            async with watching, asyncio.timeout_at(deadline_s):
                async for told in watching:
                    event = told
                    if told.operation.state is State.LOST and self._target is None:
                        (known,) = await asyncio.to_thread(_as_recorded, [told.operation])
                        event = msgspec.structs.replace(told, operation=known)
                    reason = news_reason(event, view, until, resumed=cursor is not None)
                    view = event.operation
                    if reason is not None:
                        return News(reason=reason, operation=view, event=event, cursor=watching.cursor)
        except TimeoutError:
            return News(reason="timeout", operation=view, cursor=watching.cursor)
        raise FeedUnavailable(f"the feed of {view.handle} went away, and its end is not known")

    async def command(
        self,
        operation: str,
        action: str,
        *,
        timeout_s: float = 10.0,
        **options: Unpack[CommandOptions],
    ) -> CommandStatus:
        """Ask an operation for something that it declared; returns the answer of its host.

        Args:
            operation: handle, id, label or unique prefix.
            action: `cancel`, `pause`, `resume`, `input`, or a signal of its own.
            timeout_s: for the answer, once it was found. Connections that are lost are made again meanwhile.
            **options: see `command_client.CommandOptions`.

        Returns:
            `accepted` (which never means applied), `duplicate`, or why not.

        Raises:
            UnknownOperation, AmbiguousOperation: as `get`.
            FeedUnavailable: no answer; whether it was taken is not known.
            FeedDenied: the feed does not let us in.
        """
        target, view = await self._find(operation, self._find_s(timeout_s))
        followed = await self._followed(target)
        command = command_for(view.id, action, options)
        return await self._send(followed if isinstance(followed, list) else [followed], command, timeout_s)

    def _find_s(self, timeout_s: float | None) -> float:
        """How long feeds may take to be asked for an operation, where something is to follow."""
        if timeout_s is None:
            return self._open_timeout_s
        return min(self._open_timeout_s, max(_FIND_AT_LEAST_S, timeout_s / 2))

    async def command_and_wait(
        self,
        operation: str,
        action: str,
        *,
        timeout_s: float = 30.0,
        **options: Unpack[CommandOptions],
    ) -> Commanded:
        """`command()`, and then wait until it was applied or refused, or the operation has ended.

        Args:
            operation: as `command()`.
            action: as `command()`.
            timeout_s: for all of it; then `Commanded.event` is `None`. Local processes that do not answer are given half
                of it, and a second at least.
            **options: as `command()`.

        Raises:
            UnknownOperation, AmbiguousOperation, FeedDenied: as `command()`.
            FeedUnavailable: as `command()`; also if its feed went away and nobody knows the outcome.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + timeout_s
        target, view = await self._find(operation, self._find_s(timeout_s))
        followed = await self._followed(target)
        command = command_for(view.id, action, options)
        targets = followed if isinstance(followed, list) else [followed]
        wanted = Filter(subtree=view.id, roots=False, ended_within_s=1e9)
        status: CommandStatus | None = None
        in_time = True
        async with self._watch(followed, wanted) as watching:
            try:
                async with asyncio.timeout_at(until_s) as limit:
                    async for event in watching:
                        if event.operation.id == view.id:
                            view = event.operation
                        if status is None:
                            # Not before the watch stands: the effect may come at once, and a snapshot does not tell it.
                            status = await self._send(targets, command, max(0.1, until_s - loop.time()))
                            if not is_accepted(status):
                                return Commanded(status=status, operation=view)
                        if event.control_id == command.command_id:
                            return Commanded(status=status, operation=view, event=event)
                        # One that was called lost may be heard again.
                        is_lost = view.state is State.LOST
                        limit.reschedule(min(until_s, loop.time() + _LAST_WORD_S) if is_lost else until_s)
            except TimeoutError:
                in_time = False
        if status is None:
            why = "does not answer" if any(not each.gone for each in targets) else "went away"
            raise FeedUnavailable(f"the feed of {view.handle} {why}: it was not commanded")
        if view.live and not in_time:
            return Commanded(status=status, operation=view)
        if view.live and self._target is None:
            (view,) = await asyncio.to_thread(_as_recorded, [view])
        if view.live:
            raise FeedUnavailable(
                f"the feed of {view.handle} went away; whether its {action} was applied is not known"
            )
        return went_without_a_word(status, view)

    async def _send(self, targets: Sequence[FeedTarget], command: Command, timeout_s: float) -> CommandStatus:
        """To the first of these feeds that reaches the operation's process."""
        status: CommandStatus | None = None
        unavailable: FeedUnavailable | None = None
        for target in targets:
            try:
                status = await send_command(
                    target, command, timeout_s=timeout_s / len(targets), rng=self._rng
                )
            except FeedUnavailable as failed:
                unavailable = failed
                continue
            if status.status not in _TRY_ELSEWHERE:
                return status
        if status is not None and status.status != "not_found":
            return status
        # It was found a moment ago: its feed is another one by now, or the one that knew it does not answer.
        raise unavailable or FeedUnavailable(
            f"{targets[0].name} does not know the operation any more; it was not told anything"
        )

    async def _targets(self) -> _Targets:
        return [self._target] if self._target is not None else await asyncio.to_thread(all_feeds)

    async def _followed(self, target: FeedTarget) -> FeedTarget | _Targets:
        """Where to hear about an operation that was found there: with a collector, at all feeds that may know it."""
        if self._target is not None:
            return target
        others = [each for each in await self._targets() if each.key != target.key]
        if target.is_collector:
            # Its process tells of it where the collector cannot be reached.
            return [target, *(each for each in others if not each.is_collector)]
        collectors = [each for each in others if each.is_collector]
        return [target, *collectors] if collectors else target

    async def _ask(
        self, targets: Sequence[FeedTarget], wanted: Filter, timeout_s: float
    ) -> tuple[_Found, _Targets]:
        """What matches at these feeds, and those of them that answered."""
        answers = await asyncio.gather(*(self._snapshot(target, wanted, timeout_s) for target in targets))
        pairs = list(zip(targets, answers, strict=True))
        # One that is gone has ended a moment ago: nothing is missing.
        self.unanswered = tuple(target for target, views in pairs if views is None and not target.gone)
        found = [(target, view) for target, views in pairs for view in views or ()]
        return found, [target for target, views in pairs if views is not None]

    async def _snapshot(self, target: FeedTarget, wanted: Filter, timeout_s: float) -> _Views | None:
        """What matches at a feed; `None`: it does not answer, and is not the one that was named."""
        try:
            return await snapshot(target, wanted, timeout_s=timeout_s)
        except FeedUnavailable:
            if self._target is not None:
                raise
            return None
        except FeedDenied as denied:
            if self._target is not None or not target.is_collector:
                raise
            _LOG.warning("%s is left out: %s", target.name, denied)
            return None

    async def _find(self, text: str, timeout_s: float) -> tuple[FeedTarget, OperationView]:
        targets = await self._targets()
        if not targets:
            raise FeedUnavailable(
                "no process of yours has a feed open; `otelprogress doctor` says where was looked"
            )
        unanswered: tuple[FeedTarget, ...] = ()
        for clause in ({"run": (text,)}, {"label": (text,)}, {}):
            wanted = msgspec.structs.replace(_EVERYTHING if clause else _LATELY, **clause)
            found, targets = await self._ask(targets, wanted, timeout_s)
            # Those that did not answer are not asked again: a stopped process costs one time-out, not three.
            unanswered = self.unanswered = (*unanswered, *self.unanswered)
            if not clause:
                found = [
                    (target, view)
                    for target, view in found
                    if text and (view.id.startswith(text) or view.handle.startswith(text))
                ]
            if found:
                found = await self._with_recorded_ends(found)
                chosen = await self._as_collector_has_it(_only(text, found), targets, timeout_s)
                self.unanswered = unanswered
                return chosen
        silent = ", ".join(target.name for target in unanswered)
        if not targets and silent:
            raise FeedUnavailable(f"no feed answers: {silent}")
        raise UnknownOperation(
            f"no operation {text!r}; `otelprogress list` shows what is there"
            + (f" (no answer from {silent})" if silent else "")
        )

    async def _as_collector_has_it(
        self, chosen: tuple[FeedTarget, OperationView], targets: Sequence[FeedTarget], timeout_s: float
    ) -> tuple[FeedTarget, OperationView]:
        """A process's operation may be known to the collector too, where its handle is another one."""
        collectors = [each for each in targets if each.is_collector]
        if chosen[0].is_collector or not collectors:
            return chosen
        wanted = msgspec.structs.replace(_EVERYTHING, run=(chosen[1].id,))
        known, _ = await self._ask(collectors, wanted, timeout_s)
        return _each_once([chosen, *await self._with_recorded_ends(known)])[0]

    async def _with_recorded_ends(self, found: _Found) -> _Found:
        """What the collector takes for live or lost may have ended here while it was away: that was written down."""
        doubtful = [
            at
            for at, (target, view) in enumerate(found)
            if target.is_collector and view.state not in TRUE_OUTCOMES
        ]
        if not doubtful or self._target is not None:
            return found
        views = await asyncio.to_thread(_as_recorded, [found[at][1] for at in doubtful])
        found = [*found]
        for at, view in zip(doubtful, views, strict=True):
            found[at] = found[at][0], view
        return found


def _as_recorded(views: Sequence[OperationView]) -> _Views:
    """These runs, those that ended by what this user's history says as they are there."""
    from otelprogress.feed.history import History

    history = History()
    try:
        ended = history.outcomes([view.id for view in views])
    finally:
        history.close()
    return [
        # The history keeps no attributes.
        msgspec.structs.replace(first_hand(ended[view.id], view), attributes=view.attributes)
        if view.id in ended
        else view
        for view in views
    ]


def _each_once(found: _Found) -> _Found:
    """Each run once: as a collector has it, where one knows it."""
    by_id: dict[str, tuple[FeedTarget, OperationView]] = {}
    for target, view in found:
        known = by_id.setdefault(view.id, (target, view))
        if known[0].is_collector != target.is_collector:
            of_process, of_collector = (view, known[1]) if known[0].is_collector else (known[1], view)
            collector = known[0] if known[0].is_collector else target
            by_id[view.id] = collector, first_hand(of_process, of_collector)
    return list(by_id.values())


def _only(text: str, found: _Found) -> tuple[FeedTarget, OperationView]:
    """The one that is meant: the only one, or the only live one of them."""
    candidates = _each_once(found)
    if len(candidates) > 1:
        candidates = [each for each in candidates if each[1].live] or candidates
    if len(candidates) > 1:
        handles = [view.handle for _, view in candidates][:20]
        if len(set(handles)) < len(handles):  # each host numbers its own
            handles = [view.id for _, view in candidates][:20]
        raise AmbiguousOperation(f"{text!r} can be {', '.join(handles)}: give more of it, or the id", handles)
    return candidates[0]


def _several(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def watch(
    name: str | None = None,
    *,
    url: str | None = None,
    token: str | None = None,
    run: str | tuple[str, ...] = (),
    label: str | tuple[str, ...] = (),
    trace_id: str | tuple[str, ...] = (),
    service: str | tuple[str, ...] = (),
    state: str | tuple[str, ...] = (),
    attributes: Mapping[str, str | bool | int | float] | None = None,
    subtree: str | None = None,
    roots: bool | None = None,
    level: Literal["ticks", "milestones", "terminal"] = "milestones",
    max_rate_hz: float | None = None,
    cursor: str | None = None,
) -> Watch:
    """`AsyncClient(url, token).watch(…)` for the common case: `async for event in otelprogress.watch("nightly*")`."""
    return AsyncClient(url, token).watch(
        name,
        run=run,
        label=label,
        trace_id=trace_id,
        service=service,
        state=state,
        attributes=attributes,
        subtree=subtree,
        roots=roots,
        level=level,
        max_rate_hz=max_rate_hz,
        cursor=cursor,
    )
