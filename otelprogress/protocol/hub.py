"""The hub: one state, one log and one list of changes, shared by all subscriptions of a host.

No queue and no set exists per client. A subscription is two positions: an offset in the log of durable events
(`Ring`), and a change number in the list of runs ordered by their last change, from which ticks are taken. A
frame that several equal subscriptions need is made once.

Not thread-safe: its host calls it, and the sessions that pull from it, under one lock or from one thread. It is long
because it is the one owner of positions; what needs none stands in `journal`, `filters` and `cursor`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple
from weakref import WeakValueDictionary

from otelprogress.exceptions import AmbiguousOperation, UnknownOperation
from otelprogress.model import semconv
from otelprogress.model.events import Event, FeedEvent, OperationView, State
from otelprogress.model.handles import MAX_CANDIDATES
from otelprogress.model.news import wants_attention
from otelprogress.protocol.cursor import CursorKey, seal
from otelprogress.protocol.encoding import encode, encode_event, encode_operation
from otelprogress.protocol.filters import Facts, Matcher, facts_of
from otelprogress.protocol.journal import Entry, Ring
from otelprogress.protocol.messages import Filter, Left, Level, Limits

if TYPE_CHECKING:
    from otelprogress.model.tree import Applied, OperationTree

TICK_KIND: Final = semconv.OPERATION_PROGRESSED.removeprefix(semconv.PREFIX)
_MEMO_BYTES: Final = 8 * 1024 * 1024
_MEMO_ENTRIES: Final = 4096
_EVENT_SHARE: Final = 4
"""One event or operation may take a quarter of a frame before its longest parts are left out."""
_EVICT_EVERY_NS: Final = 30_000_000_000
"""How often runs that ended long ago are looked for."""
_SNAPSHOT_MEMO_NS: Final = 1_000_000_000
"""Clients that join within the same second share the encoded state: its times are that exact."""


class _Run:
    """What the hub knows of one run beside the tree."""

    __slots__ = ("change", "facts", "offset", "run_id", "serial", "stale", "ticking")

    def __init__(self, run_id: str, serial: int) -> None:
        self.run_id = run_id
        self.serial = serial
        self.change = 0
        self.offset = 0
        """The log's head when it last changed."""
        self.ticking = False
        """Its last change was no durable event: subscriptions learn of it by a tick."""
        self.stale = False
        """A child changed it: it needs a revision of its own before it is shown."""
        self.facts: Facts | None = None


class Pull(NamedTuple):
    """What a subscription sends next from the log."""

    frames: tuple[bytes, ...]
    position: int
    """Its position once they are sent."""
    passed: int
    """Entries passed over since the last frame (all, when there is none)."""


class TickPosition(NamedTuple):
    """Where a subscription stands in the list of changes.

    A pass that does not fit into one frame goes on by the runs' serial numbers, so that runs that change all
    the time cannot keep others from their turn.
    """

    since: int
    serial: int = 0
    """The last run sent in an unfinished pass; 0: no pass is under way."""
    upto: int = 0
    """The number of the last change when that pass began."""


class Hub:
    """Publishes events and answers what a position has not seen yet.

    Args:
        tree: the state; may already hold runs (a host that restarted).
        epoch: names this log; another one after anything that may have lost entries.
        cursor_key: seals cursors; shared by hosts that share the log.
        ring_events: how many durable events are kept.
        limits: of frames; the rest is the sessions' business.
    """

    def __init__(
        self,
        tree: OperationTree,
        *,
        epoch: str,
        cursor_key: CursorKey,
        ring_events: int = 65_536,
        limits: Limits | None = None,
    ) -> None:
        self.tree = tree
        self.epoch = epoch
        self.cursor_key = cursor_key
        self.limits = limits if limits is not None else Limits()
        self.ring = Ring(ring_events)
        self.changes = 0
        """The number of the last change of any run."""
        self.evicted_at = 0
        """The offset of the last entry about a run that was forgotten; 0: none was."""
        self._runs: OrderedDict[str, _Run] = OrderedDict()
        self._serials = 0
        self._max_event_bytes = self.limits.server_frame_bytes // _EVENT_SHARE
        self._matchers: WeakValueDictionary[bytes, Matcher] = WeakValueDictionary()
        self._memo: dict[object, object] = {}
        self._memo_bytes = 0
        self._evict_at_unix_ns: int | None = 0 if len(tree) else None
        owed = tree.take_owed()
        for run_id in tree.run_ids():
            # Whether its children moved it after it was last shown is not known.
            run = self._touch(run_id)
            run.stale = next(iter(tree.children(run_id)), None) is not None
            run.ticking = run_id in owed
            # Asked for later it would be what the next event makes of it, and nobody would see it leave.
            self._facts(run)

    def restore_ring(self, head: int, entries: Iterable[Entry]) -> None:
        """Go on with a log that was kept beside the tree's runs, before anything is published.

        Args:
            head: the offset of its newest entry.
            entries: the newest of it without holes, oldest first.

        Raises:
            ValueError: something was published already, or there are more entries than the head says.
        """
        ring = self.ring
        ring.restore(head, entries)
        # What was forgotten before the oldest entry is not known: to a cursor from then anything may have been.
        self.evicted_at = ring.first - 1
        for offset, entry in ring.read(ring.first - 1):
            facts = entry.after
            if entry.evicted:
                self.evicted_at = offset
                self.tree.remember_evicted(facts.id, entry.revision if facts.state is State.LOST else None)
            elif (run := self._runs.get(facts.id)) is not None:
                # What the next event is compared with is what subscriptions were told last.
                run.facts = facts
        for run in self._runs.values():
            run.offset = head

    @property
    def head(self) -> int:
        """The offset of the newest durable event; 0: none yet."""
        return self.ring.head

    # --- writing -----------------------------------------------------------------------------------
    def publish(self, event: Event, now_unix_ns: int) -> list[Applied]:
        """Take one event of a writer.

        Returns:
            What it caused, already in the log; empty for a duplicate.

        Raises:
            InvalidRecord: the writer's mistake.
        """
        applied = self.tree.apply(event, now_unix_ns)
        self._record(applied)
        if self._evict_at_unix_ns is None:
            self._evict_at_unix_ns = now_unix_ns + _EVICT_EVERY_NS
        elif len(self.tree) > self.tree.limits.max_runs:
            self._evict(now_unix_ns)
        return applied

    def advance(self, now_unix_ns: int) -> list[Applied]:
        """What the passing of time causes: stalls, waits that are over, runs that are forgotten."""
        applied = self.tree.advance(now_unix_ns)
        self._record(applied)
        if self._evict_at_unix_ns is not None and now_unix_ns >= self._evict_at_unix_ns:
            self._evict(now_unix_ns)
            self._evict_at_unix_ns = now_unix_ns + _EVICT_EVERY_NS if len(self.tree) else None
        return applied

    def next_deadline_unix_ns(self) -> int | None:
        """When `advance` is next worth calling; `None`: not before another event."""
        deadlines = (self.tree.next_deadline_unix_ns(), self._evict_at_unix_ns)
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def _evict(self, now_unix_ns: int) -> None:
        for run_id in self.tree.evict(now_unix_ns):
            run = self._runs.pop(run_id, None)
            if run is not None and run.facts is not None:
                revision = self.tree.evicted_revision(run_id)
                self.evicted_at = self.ring.append(Entry(b"", revision, run.facts, run.facts, evicted=True))

    def _record(self, applied: list[Applied]) -> None:
        for item in applied:
            event = item.event
            run_id = event.operation.id
            ancestors = tuple(self.tree.ancestors(run_id))
            run = self._runs.get(run_id)
            if item.durable:
                before = run.facts if run is not None else None
                after = facts_of(event.operation, ancestors)
                if before == after:
                    after = before
                encoded = encode_event(event, self._max_event_bytes)
                self.ring.append(
                    Entry(
                        encoded,
                        event.revision,
                        after,
                        before,
                        terminal=item.terminal,
                        attention=wants_attention(event),
                    )
                )
                run = self._touch(run_id)
                run.facts = after
                # The event carries the whole state: no tick is owed any more.
                run.ticking = run.stale = False
            else:
                run = self._touch(run_id)
                run.ticking = True
                run.stale = False
                if run.facts is None:
                    run.facts = facts_of(event.operation, ancestors)
            for ancestor_id in ancestors:
                ancestor = self._touch(ancestor_id)
                ancestor.ticking = ancestor.stale = True

    def _touch(self, run_id: str) -> _Run:
        run = self._runs.get(run_id)
        if run is None:
            self._serials += 1
            run = self._runs[run_id] = _Run(run_id, self._serials)
        else:
            self._runs.move_to_end(run_id)
        self.changes += 1
        run.change = self.changes
        run.offset = self.ring.head
        return run

    # --- reading state -----------------------------------------------------------------------------
    def view(self, run_id: str, now_unix_ns: int, *, steps: bool = False) -> OperationView | None:
        """One run as it stands, under a revision that nobody was shown another state with; `None`: unknown."""
        run = self._runs.get(run_id)
        if run is None:
            return None
        self._freshen(run, now_unix_ns)
        return self.tree.view(run_id, now_unix_ns, steps=steps)

    def query(self, wanted: Filter, now_unix_ns: int, limit: int = 1000) -> list[OperationView]:
        """The runs that match, of all tenants, with their steps; live ones and then the newest first."""
        tenants = {facts.tenant for run in self._runs.values() if (facts := self._facts(run)) is not None}
        found: list[OperationView] = []
        for tenant in sorted(tenants):
            run_ids, _ = self.matching(Matcher(wanted, tenant=tenant), now_unix_ns, limit - len(found))
            views = (self.view(run_id, now_unix_ns, steps=True) for run_id in run_ids)
            found += [view for view in views if view is not None]
        return found

    def resolve(self, text: str, matcher: Matcher) -> str:
        """The id of the run that a handle, an id, a label or a unique prefix of one of them means, among those that match.

        What does not match is as if it were not there, in the words of a refusal too.

        Raises:
            UnknownOperation: nothing matches.
            AmbiguousOperation: several do; lists the candidates.
        """
        try:
            # Found at once where it is unique; what else is there may make it look ambiguous, or be what it names.
            run_id = self.tree.resolve(text, matcher.tenant)
        except (UnknownOperation, AmbiguousOperation):
            pass
        else:
            if (run := self._runs.get(run_id)) is not None and self._matches(run, matcher):
                return run_id
        labelled: list[Facts] = []
        begun: list[Facts] = []
        for run in self._runs.values():
            facts = self._facts(run)
            if facts is None:
                continue
            if facts.label == text and text and matcher(facts):
                labelled.append(facts)
            elif text and _begins(facts, text) and matcher(facts):
                begun.append(facts)
        found = [facts for facts in labelled if facts.live] or labelled[-1:] or begun
        if not found:
            raise UnknownOperation(
                f"no operation has the handle, id or label {text!r}, or one that starts so"
            )
        if len(found) > 1:
            handles = sorted(facts.handle for facts in found)
            shown = ", ".join(handles[:MAX_CANDIDATES]) + (", …" if len(handles) > MAX_CANDIDATES else "")
            raise AmbiguousOperation(f"{text!r} means {len(handles)} operations: {shown}", handles)
        return found[0].id

    def change_of(self, run_id: str) -> int:
        """The number of the last change of a run, or of something below it; 0: it is not known."""
        run = self._runs.get(run_id)
        return 0 if run is None else run.change

    def facts(self, run_id: str) -> Facts | None:
        """What filters look at, of one run as it was last shown; `None`: unknown."""
        run = self._runs.get(run_id)
        return None if run is None else self._facts(run)

    def matching(
        self, matcher: Matcher, now_unix_ns: int, limit: int, *, changed_since: int | None = None
    ) -> tuple[list[str], int]:
        """Run ids that match now, live ones and then the newest first, and how many more there are.

        Args:
            matcher: tenant, predicate and filter.
            now_unix_ns: for `ended_within_s`.
            limit: of the answer; the filter's own limit counts too.
            changed_since: only what changed at or after this offset, however long ago it ended.
        """
        wanted = matcher.filter
        oldest_end = now_unix_ns - int(wanted.ended_within_s * 1e9)
        found: list[tuple[bool, int, str]] = []
        for run in reversed(self._runs.values()):
            if changed_since is not None and run.offset < changed_since:
                break
            facts = self._facts(run)
            if facts is None or not matcher(facts):
                continue
            if (
                facts.live
                or changed_since is not None
                or (facts.ended_at_unix_ns or now_unix_ns) >= oldest_end
            ):
                found.append((facts.live, run.serial, run.run_id))
        found.sort(reverse=True)
        if wanted.after is not None:
            pages = [index for index, (_, _, run_id) in enumerate(found) if run_id == wanted.after]
            found = found[pages[0] + 1 :] if pages else []
        size = max(0, min(limit, wanted.limit))
        return [run_id for _, _, run_id in found[:size]], max(0, len(found) - size)

    def matches(self, matcher: Matcher, run_id: str) -> bool:
        """Whether a run is known and meant."""
        run = self._runs.get(run_id)
        facts = None if run is None else self._facts(run)
        return facts is not None and matcher(facts)

    def operation_part(self, run_id: str, now_unix_ns: int) -> tuple[bytes, int, int] | None:
        """A run encoded for a `snapshot`, its revision, and the log's offset when it last changed."""
        run = self._runs.get(run_id)
        if run is None:
            return None
        self._freshen(run, now_unix_ns)
        key = ("operation", run_id, run.change, now_unix_ns // _SNAPSHOT_MEMO_NS)
        part = self._memo.get(key)
        if part is None:
            view = self.tree.view(run_id, now_unix_ns, steps=True)
            if view is None:
                return None
            encoded = encode_operation(view, self._max_event_bytes)
            part = self._remember(key, (encoded, view.revision), len(encoded))
        assert isinstance(part, tuple)
        return part[0], part[1], run.offset

    def _matches(self, run: _Run, matcher: Matcher) -> bool:
        facts = self._facts(run)
        return facts is not None and matcher(facts)

    def _freshen(self, run: _Run, now_unix_ns: int) -> None:
        if run.stale:
            self.tree.touch(run.run_id, now_unix_ns)
            run.stale = False

    def _facts(self, run: _Run) -> Facts | None:
        if run.facts is None:
            view = self.tree.identity(run.run_id)
            if view is None:
                return None
            run.facts = facts_of(view, tuple(self.tree.ancestors(run.run_id)))
        return run.facts

    def shared(self, matcher: Matcher) -> Matcher:
        """The one of all equal matchers that subscriptions keep: a thousand who ask for the same look at one."""
        return self._matchers.setdefault(matcher.key, matcher)

    # --- reading by position -------------------------------------------------------------------------
    def cursor(self, matcher: Matcher, position: int) -> str:
        """The sealed form of a position, for one filter."""
        return seal(self.cursor_key, epoch=self.epoch, offset=position, scope=matcher.key)

    def pull(
        self,
        subscription_id: str,
        matcher: Matcher,
        level: Level,
        position: int,
        *,
        frame_bytes: int,
        covered: Mapping[str, int] | None = None,
    ) -> Pull:
        """The next frame of durable events after a position (with a `left`, where a run leaves).

        Args:
            subscription_id: goes into the frame.
            matcher: an event is sent when its run matches before or after it.
            level: what else it must be.
            position: within retention (`ring.can_resume`).
            frame_bytes: the limit of one frame; one event is sent even if it alone is longer.
            covered: events of these runs up to these revisions are left out: a snapshot showed their state.
        """
        if position == self.ring.head:
            return Pull((), position, 0)
        if covered is not None:
            return self._pull(
                subscription_id, matcher, level, position, frame_bytes=frame_bytes, covered=covered
            )
        key = ("pull", subscription_id, matcher.key, level, position, self.ring.head, frame_bytes)
        pull = self._memo.get(key)
        if pull is None:
            pull = self._pull(subscription_id, matcher, level, position, frame_bytes=frame_bytes, covered={})
            self._remember(key, pull, sum(map(len, pull.frames)))
        assert isinstance(pull, Pull)
        return pull

    def _pull(
        self,
        subscription_id: str,
        matcher: Matcher,
        level: Level,
        position: int,
        *,
        frame_bytes: int,
        covered: Mapping[str, int],
    ) -> Pull:
        parts: list[bytes] = []
        room = frame_bytes - _envelope_bytes(subscription_id)
        passed = 0
        for offset, entry in self.ring.read(position):
            now_in = matcher(entry.after)
            was_in = (
                now_in if entry.before is entry.after else entry.before is not None and matcher(entry.before)
            )
            left = was_in and (not now_in or entry.evicted)
            sent = (
                (was_in or now_in)
                and not entry.evicted
                and (level != "terminal" or entry.terminal)
                and covered.get(entry.after.id, 0) < entry.revision
            )
            if sent:
                if parts and len(entry.encoded) + 1 > room:
                    break
                parts.append(entry.encoded)
                room -= len(entry.encoded) + 1
            if left:
                # The events before it are told to be seen up to the entry before: if only they arrive, the
                # client resumes there, drops the event that it knows by its revision, and still gets `left`.
                frames = [self._events(subscription_id, matcher, offset - 1, parts)] if parts else []
                frames.append(
                    encode(
                        Left(
                            id=subscription_id,
                            operation=entry.after.id,
                            reason="evicted" if entry.evicted else "filter",
                            cursor=self.cursor(matcher, offset),
                        )
                    )
                )
                return Pull(tuple(frames), offset, 0)
            position = offset
            passed = 0 if sent else passed + 1
            if passed >= self.limits.bookmark_filtered:
                break
        if not parts:
            return Pull((), position, passed)
        return Pull((self._events(subscription_id, matcher, position, parts),), position, 0)

    def has_ticks(self, at: TickPosition) -> bool:
        """Whether anything changed after a position in the list of changes."""
        return bool(at.serial) or at.since < self.changes

    def pull_ticks(
        self,
        subscription_id: str,
        matcher: Matcher,
        at: TickPosition,
        *,
        position: int,
        now_unix_ns: int,
        frame_bytes: int,
    ) -> tuple[bytes | None, TickPosition]:
        """The newest state of what changed without a durable event, oldest change first; `None`: nothing that matches.

        Only for a subscription whose durable position is the head: so its revisions rise.
        """
        key = ("ticks", subscription_id, matcher.key, at, position, self.changes, frame_bytes)
        known = self._memo.get(key)
        if known is None:
            frame, then = self._pull_ticks(
                subscription_id,
                matcher,
                at,
                position=position,
                now_unix_ns=now_unix_ns,
                frame_bytes=frame_bytes,
            )
            known = self._remember(key, (frame, then), len(frame or b""))
        assert isinstance(known, tuple)
        return known[0], known[1]

    def _pull_ticks(
        self,
        subscription_id: str,
        matcher: Matcher,
        at: TickPosition,
        *,
        position: int,
        now_unix_ns: int,
        frame_bytes: int,
    ) -> tuple[bytes | None, TickPosition]:
        upto = at.upto if at.serial else self.changes
        parts: list[bytes] = []
        room = frame_bytes - _envelope_bytes(subscription_id)
        then = TickPosition(upto)
        last = at.serial
        changed = [run for run in self._changed_after(at.since) if run.ticking and run.serial > at.serial]
        for run in sorted(changed, key=_serial):
            facts = self._facts(run)
            if facts is not None and matcher(facts) and (part := self._tick(run, now_unix_ns)) is not None:
                if parts and len(part) + 1 > room:
                    then = TickPosition(at.since, last, upto)
                    break
                parts.append(part)
                room -= len(part) + 1
            last = run.serial
        return (self._events(subscription_id, matcher, position, parts) if parts else None), then

    def _changed_after(self, change: int) -> Iterator[_Run]:
        for run in reversed(self._runs.values()):
            if run.change <= change:
                return
            yield run

    def ticked(self, matcher: Matcher, since: int) -> list[str]:
        """The runs that match and changed without a durable event after the change `since`, oldest change first."""
        found = [
            run.run_id for run in self._changed_after(since) if run.ticking and self._matches(run, matcher)
        ]
        found.reverse()
        return found

    def _tick(self, run: _Run, now_unix_ns: int) -> bytes | None:
        key = ("tick", run.run_id, run.change)
        part = self._memo.get(key)
        if part is None:
            self._freshen(run, now_unix_ns)
            view = self.tree.view(run.run_id, now_unix_ns)
            if view is None:
                return None
            durable, terminal = self.tree.durable_revisions(run.run_id)
            event = FeedEvent(
                kind=TICK_KIND,
                operation=view,
                revision=view.revision,
                previous_durable=durable,
                previous_terminal=terminal,
                time_unix_ns=view.updated_at_unix_ns,
            )
            encoded = encode_event(event, self._max_event_bytes)
            part = self._remember(key, encoded, len(encoded))
        assert isinstance(part, bytes)
        return part

    # --- shared bytes --------------------------------------------------------------------------------
    def _events(self, subscription_id: str, matcher: Matcher, position: int, parts: list[bytes]) -> bytes:
        head = b'{"type":"events","id":%b,"cursor":"%b","events":[' % (
            encode(subscription_id),
            self.cursor(matcher, position).encode(),
        )
        return b"".join((head, b",".join(parts), b"]}"))

    def remembered(self, key: tuple[object, ...], make: Callable[[], bytes]) -> bytes:
        """A frame that equal subscriptions need at the same time: made once, found by a key that says all it depends on."""
        frame = self._memo.get(key)
        if frame is None:
            frame = make()
            self._remember(key, frame, len(frame))
        assert isinstance(frame, bytes)
        return frame

    def _remember(self, key: object, value: object, size: int) -> object:
        # Forgetting everything at once is enough: what is shared is shared within moments.
        if self._memo_bytes + size > _MEMO_BYTES or len(self._memo) >= _MEMO_ENTRIES:
            self._memo.clear()
            self._memo_bytes = 0
        self._memo[key] = value
        self._memo_bytes += size
        return value


def _begins(facts: Facts, text: str) -> bool:
    return (
        facts.handle.startswith(text)
        or facts.id.startswith(text)
        or (facts.label is not None and facts.label.startswith(text))
    )


def _serial(run: _Run) -> int:
    return run.serial


def _envelope_bytes(subscription_id: str) -> int:
    return 128 + len(encode(subscription_id))
