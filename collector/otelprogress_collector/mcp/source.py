"""The collector's operations as the MCP tools want them: over its host's hub, under the caller's tenant and services."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from otelprogress.mcp.refusal import Refusal
from otelprogress.mcp.source import Heard, Listing, Since, Status, Taken, Viewer, Wanted, is_named
from otelprogress.model.events import OUTCOMES, FeedEvent, OperationView, State
from otelprogress.protocol.command_judging import Asker
from otelprogress.protocol.digests import changes_since
from otelprogress.protocol.filters import Matcher
from otelprogress.protocol.messages import Command, CommandStatus, Filter
from otelprogress.protocol.position import read_position, short_position
from otelprogress_collector.auth.principal import Authority, Principal

if TYPE_CHECKING:
    from otelprogress.model.tree import Applied
    from otelprogress_collector.host import CollectorHost

_MAX_NAME_CHARS: Final = 256
_MAX_LOOKED_AT: Final = 10_000
"""Operations that one query looks at, in slices."""
_SLICE: Final = 128
_STATES: Final[Mapping[Status, tuple[State, ...]]] = {
    "all": (),
    "live": tuple(state for state in State if state not in OUTCOMES),
    "ended": tuple(OUTCOMES),
    "failed": (State.FAILED, State.LOST),
}


class Commanding(Protocol):
    """The part of `commanding.Commanding` that the tools use."""

    def submit(self, command: Command, asker: Asker, matcher: Matcher, now_unix_ns: int) -> CommandStatus:
        """Judge a command and pass it on. Only while the host is readable."""


class CollectorViewer(Viewer, frozen=True, kw_only=True):
    """A caller whose token was judged."""

    principal: Principal

    @property
    def may_not_start(self) -> str:
        """See `Viewer`: what is started reports with the collector's own token, under no tenant."""
        if self.principal.tenant or self.principal.predicate is not None:
            return (
                "what is started here belongs to no tenant, and this token sees one tenant or some services only: "
                "it could not see what it starts"
            )
        return ""


class HubSource:
    """`otelprogress.mcp.source.Source` of a collector; every viewer is a `CollectorViewer`.

    Args:
        host: has the hub.
        authority: says what was revoked.
        commanding: takes commands.
    """

    def __init__(self, host: CollectorHost, authority: Authority, commanding: Commanding) -> None:
        self.host = host
        self._authority = authority
        self._commanding = commanding
        self._of_runs: dict[str, dict[HubFollowing, None]] = {}
        self._of_all: dict[HubFollowing, None] = {}
        self._unlisten: Callable[[], None] | None = None

    def start(self) -> None:
        """Begin to hear what the host applies."""
        self._unlisten = self.host.on_applied(self._on_applied)

    def stop(self) -> None:
        """Have those who wait answer: the collector ends."""
        if self._unlisten is not None:
            self._unlisten()
        for following in {*self._of_all, *(each for waiting in self._of_runs.values() for each in waiting)}:
            following.end()

    @property
    def position(self) -> str:
        """The newest one. Only while the host is readable."""
        return short_position(self.host.hub.epoch, self.host.hub.head)

    async def find(self, viewer: Viewer, text: str) -> OperationView:
        """See `Source`."""
        await self.host.readable()
        view = self.view(self.host.hub.resolve(text[:_MAX_NAME_CHARS], matcher_of(viewer)))
        assert view is not None, "what was found a moment ago is there"
        return view

    async def search(self, viewer: Viewer, wanted: Wanted) -> Listing:
        """See `Source`."""
        await self.host.readable()
        hub = self.host.hub
        matcher = matcher_of(
            viewer,
            Filter(
                trace_id=(wanted.trace_id,) if wanted.trace_id else (),
                subtree=wanted.subtree or None,
                state=_STATES[wanted.status],
                roots=not (wanted.query or wanted.subtree),
                limit=_MAX_LOOKED_AT,
            ),
        )
        run_ids, more = hub.matching(matcher, self.host.clock.time_unix_ns(), _MAX_LOOKED_AT)
        run_ids = [run_id for run_id in run_ids if run_id != wanted.subtree]
        if wanted.query:
            run_ids = await self._named(run_ids, wanted.query)
        views = [
            view
            for run_id in run_ids[: wanted.limit]
            if hub.matches(matcher, run_id) and (view := self.view(run_id, steps=False)) is not None
        ]
        return Listing(views, more + max(0, len(run_ids) - wanted.limit), self.position)

    async def _named(self, run_ids: Sequence[str], query: str) -> list[str]:
        named = []
        for number, run_id in enumerate(run_ids, 1):
            if (view := self.view(run_id, steps=False)) is not None and is_named(view, query):
                named.append(run_id)
            if number % _SLICE == 0:
                await asyncio.sleep(0)
                await self.host.readable()
        return named

    async def since(self, viewer: Viewer, position: str, run_ids: Collection[str]) -> Since:
        """See `Source`."""
        await self.host.readable()
        hub = self.host.hub
        offset = read_position(position, hub.epoch)
        if offset is None or not hub.ring.can_resume(offset):
            return Since(self.position)
        events, before, left_out = changes_since(
            hub, matcher_of(viewer), offset, self.host.clock.time_unix_ns(), run_ids
        )
        return Since(self.position, events, before, left_out)

    def follow(self, viewer: Viewer, run_ids: Collection[str] | None) -> HubFollowing:
        """See `Source`."""
        following = HubFollowing(self, viewer, run_ids)
        if run_ids is None:
            self._of_all[following] = None
        else:
            for run_id in run_ids:
                self._of_runs.setdefault(run_id, {})[following] = None
        return following

    def forget(self, following: HubFollowing) -> None:
        """What a following does at its end."""
        self._of_all.pop(following, None)
        for run_id in following.run_ids or ():
            waiting = self._of_runs.get(run_id, {})
            waiting.pop(following, None)
            if not waiting:
                self._of_runs.pop(run_id, None)

    async def command(self, viewer: Viewer, command: Command) -> CommandStatus:
        """See `Source`."""
        principal = _known(viewer).principal
        await self.host.readable()
        self.check(viewer)
        return self._commanding.submit(
            command,
            Asker(actor=principal.actor, scopes=principal.scopes, tenant=principal.tenant),
            matcher_of(viewer),
            self.host.clock.time_unix_ns(),
        )

    def view(self, run_id: str, *, steps: bool = True) -> OperationView | None:
        """A run as it stands. Only while the host is readable."""
        return self.host.hub.view(run_id, self.host.clock.time_unix_ns(), steps=steps)

    def check(self, viewer: Viewer) -> None:
        """Look again at one who was let in before.

        Raises:
            Refusal: it may not look any more, or is gone.
        """
        known = _known(viewer)
        expires_at_s = known.principal.expires_at_unix_s
        if expires_at_s is not None and self.host.clock.time_unix_ns() / 1e9 >= expires_at_s:
            raise Refusal("forbidden: the token expired")
        if self._authority.revoked(known.principal):
            raise Refusal("forbidden: the token was revoked")
        if known.gone():
            raise Refusal("nobody listens any more")

    def _on_applied(self, applied: Sequence[Applied]) -> None:
        for item in applied:
            if not item.durable:
                continue
            for following in self._of_runs.get(item.event.operation.id, ()):
                following.hear(item.event)
            for following in self._of_all:
                following.hear(item.event)


class HubFollowing:
    """`otelprogress.mcp.source.Following` of a collector."""

    def __init__(self, source: HubSource, viewer: Viewer, run_ids: Collection[str] | None) -> None:
        self.run_ids = None if run_ids is None else tuple(run_ids)
        self._source = source
        self._viewer = viewer
        self._matcher = matcher_of(viewer)
        self._heard = Heard()
        self._ended = False
        self._awake = asyncio.Event()

    def hear(self, event: FeedEvent) -> None:
        """Note an event."""
        # Whose rights count is asked once more with what is told: they cannot change, but nothing is cheaper than this.
        if self._source.host.hub.matches(self._matcher, event.operation.id):
            self._heard.add(event)
            self._awake.set()

    def end(self) -> None:
        """Wait no more: the collector ends."""
        self._ended = True
        self._awake.set()

    async def wait(self, timeout_s: float) -> bool:
        """See `Following`."""
        try:
            async with asyncio.timeout(max(0.0, timeout_s)):
                await self._awake.wait()
        except TimeoutError:
            return False
        return True

    async def take(self) -> Taken:
        """See `Following`."""
        source = self._source
        await source.host.readable()
        source.check(self._viewer)
        if self._ended:
            raise Refusal("the collector ends or restarts: ask again in a few seconds, positions stay good")
        self._awake.clear()
        events, left_out = self._heard.take()
        views = [
            view
            for run_id in self.run_ids or ()
            if source.host.hub.matches(self._matcher, run_id) and (view := source.view(run_id)) is not None
        ]
        return Taken(source.position, events, views, left_out)

    def close(self) -> None:
        """See `Following`."""
        self._source.forget(self)


def matcher_of(viewer: Viewer, wanted: Filter | None = None) -> Matcher:
    """What a viewer may see, and wants to."""
    principal = _known(viewer).principal
    return Matcher(wanted or Filter(roots=False), tenant=principal.tenant, predicate=principal.predicate)


def _known(viewer: Viewer) -> CollectorViewer:
    assert isinstance(viewer, CollectorViewer), "viewers of the collector have a principal"
    return viewer
