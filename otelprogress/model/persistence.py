"""The state of runs as bytes, so that a host may be killed and go on where it was.

A dump holds one run and names others: its parent by id, and which of the parent's sums it counts in. It holds no
ids of children, so a parent of ten thousand stays small. Dumps of different runs may be of different moments, for
what only ticks changed is written down later: sums over live children are made anew where they disagree.

Layout: a byte of version, the CRC-32 of the rest (big-endian), MessagePack of a `RunDump` in which what has its
default is left out. A field may be added with a default; one that changes its meaning needs another version.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from sys import intern
from typing import Any, Final, NamedTuple
from zlib import crc32

import msgspec

from otelprogress.exceptions import InvalidRecord
from otelprogress.model.carriers import Carrier
from otelprogress.model.events import State
from otelprogress.model.state import Extra, Family, Plan, RunState, Share, StepRecord, Writer
from otelprogress.model.writers import key_of

VERSION: Final = 1
_HEADER_BYTES: Final = 5
_RUN_ID: Final = re.compile(rb"[0-9a-f]{32}-[0-9a-f]{16}")
_ROUNDING: Final = 1e-9
"""Sums that differ by less, relatively, differ by the order in which they were added up."""


class WriterDump(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A writer without its runs."""

    id: str = ""
    service: str = ""
    process_id: int | None = None
    lease_s: float | None = None
    heard_ns: int = 0


class PlanDump(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A plan without its index by name, which is made again when somebody asks for a name."""

    steps: list[StepRecord]
    open: list[int] = []
    declared: bool = False
    folded: int = 0
    current: int = -1
    current_by_tick: bool = False
    weight: float = 0.0
    done: float = 0.0
    finished: int = 0
    soft: int = 0


class FamilyDump(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """How many children a run has, not which."""

    total: int = 0
    live: int = 0
    idle: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    lost: int = 0
    share: Share | None = None


class RunDump(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """`RunState` without references. The fields are those of it but for the first four and where noted."""

    id: str
    start: int = 0
    """The start of the host in which it was dumped: what ticks consumed of the revisions since is not known."""
    ended_at_unix_ns: int | None = None
    """When its end came, by the host's clock; `None`: it lives."""
    parent_id: str | None = None
    writer: WriterDump
    tenant: str = ""
    name: str = ""
    title: str = ""
    handle: str = ""
    spoken: bool = False
    state: State = State.RUNNING
    state_ns: int = 0
    state_by_tick: bool = False
    revision: int = 0
    durable_revision: int = 0
    terminal_revision: int = 0
    started_ns: int = 0
    ended_ns: int | None = None
    heard_ns: int = 0
    moved_ns: int = 0
    idle_since_ns: int | None = None
    idle_ns: int = 0
    stalled_since_ns: int | None = None
    plan: PlanDump | None = None
    counts: StepRecord | None = None
    said_ratio: float | None = None
    said_source: str | None = None
    ratio: float | None = None
    raw_ratio: float | None = None
    ratio_source: str | None = None
    weight: float = 1.0
    awaited_parent: str | None = None
    parent_span_id: str = ""
    sampled: bool = True
    share: int = 0
    """`Share.number` of the one of its parent that it counts in."""
    contribution: float = 0.0
    counted_as: State | None = None
    counted_idle: bool = False
    family: FamilyDump | None = None
    extra: Extra | None = None
    carrier: Carrier | None = None
    sequence: int = 0
    log_seen: bool = False
    incomplete: bool = False


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(RunDump).decode


def dump_run(run: RunState, *, ended_at_unix_ns: int | None = None, start: int = 0) -> bytes:
    """One run as it stands, some 0.5 to 1 KB, without its children.

    Args:
        run: not changed.
        ended_at_unix_ns: when its end came, by the host's clock; `None` while it lives.
        start: which start of the host this is.
    """
    writer, plan, family = run.writer, run.plan, run.family
    wire = RunDump(
        id=run.id,
        start=start,
        ended_at_unix_ns=ended_at_unix_ns,
        parent_id=None if run.parent is None else run.parent.id,
        writer=WriterDump(writer.id, writer.service, writer.process_id, writer.lease_s, writer.heard_ns),
        tenant=run.tenant,
        name=run.name,
        title=run.title,
        handle=run.handle,
        spoken=run.spoken,
        state=run.state,
        state_ns=run.state_ns,
        state_by_tick=run.state_by_tick,
        revision=run.revision,
        durable_revision=run.durable_revision,
        terminal_revision=run.terminal_revision,
        started_ns=run.started_ns,
        ended_ns=run.ended_ns,
        heard_ns=run.heard_ns,
        moved_ns=run.moved_ns,
        idle_since_ns=run.idle_since_ns,
        idle_ns=run.idle_ns,
        stalled_since_ns=run.stalled_since_ns,
        plan=None if plan is None else _plan_dump(plan),
        counts=run.counts,
        said_ratio=run.said_ratio,
        said_source=run.said_source,
        ratio=run.ratio,
        raw_ratio=run.raw_ratio,
        ratio_source=run.ratio_source,
        weight=run.weight,
        awaited_parent=run.awaited_parent,
        parent_span_id=run.parent_span_id,
        sampled=run.sampled,
        share=0 if run.share is None else run.share.number,
        contribution=run.contribution,
        counted_as=run.counted_as,
        counted_idle=run.counted_idle,
        family=None if family is None else _family_dump(family),
        extra=run.extra,
        carrier=run.carrier,
        sequence=run.sequence,
        log_seen=run.log_seen,
        incomplete=run.incomplete,
    )
    try:
        body = _encode(wire)
    except (OverflowError, UnicodeEncodeError):
        # Events that wait may hold numbers and texts from bad input that no encoding has.
        body = _encode(_encodable(msgspec.to_builtins(wire, builtin_types=(bytes,))))
    return b"%c%b%b" % (VERSION, crc32(body).to_bytes(4, "big"), body)


def load_run(encoded: bytes) -> RunDump:
    """What `dump_run` made of one run.

    Raises:
        InvalidRecord: not what was dumped, or by a version that is not known; names the run where it can be read.
    """
    if len(encoded) <= _HEADER_BYTES:
        raise InvalidRecord(f"the dump of {_named(encoded)} has only {len(encoded)} bytes")
    if encoded[0] != VERSION:
        raise InvalidRecord(
            f"the dump of {_named(encoded)} has the format {encoded[0]}; this version reads {VERSION} only"
        )
    body = memoryview(encoded)[_HEADER_BYTES:]
    if crc32(body) != int.from_bytes(encoded[1:_HEADER_BYTES], "big"):
        raise InvalidRecord(f"the dump of {_named(encoded)} is not what was written: its checksum is wrong")
    try:
        return _decode(body)
    except msgspec.MsgspecError as error:
        raise InvalidRecord(f"the dump of {_named(encoded)} cannot be read: {error}") from error


class Restored(NamedTuple):
    """Runs as they were dumped, put together again."""

    runs: dict[str, RunState]
    """In the order of the dumps."""
    ended: dict[str, int]
    """Host's time at which the end of each ended run came, oldest first."""
    raised: list[str]
    """Those whose revision was raised: ticks may have moved them since their dump."""
    start: int


def restore_runs(
    dumps: Iterable[bytes], now_unix_ns: int, *, start: int | None, revision_stride: int
) -> Restored:
    """Put dumped runs together again.

    Args:
        dumps: each run once, children before or after their parents.
        now_unix_ns: the host's clock: from here on writers have to be heard.
        start: number of this start of the host, higher than any before; `None`: one above what the dumps say.
        revision_stride: how many revisions of one run may have been shown since its dump, within one start.

    Raises:
        InvalidRecord: a dump cannot be read.
        ValueError: `start` is not higher than that of a dump.
    """
    writers: dict[str, Writer] = {}
    runs: dict[str, RunState] = {}
    ended: dict[str, int] = {}
    children: list[tuple[RunState, str, int]] = []
    raised: list[tuple[RunState, int]] = []
    last = 0
    for encoded in dumps:
        dump = load_run(encoded)
        run = runs[dump.id] = _run(dump, _writer(dump.writer, intern(dump.tenant), writers))
        last = max(last, dump.start)
        if dump.parent_id is not None:
            children.append((run, dump.parent_id, dump.share))
        if not run.spoken:
            continue
        if not run.live:
            ended[run.id] = now_unix_ns if dump.ended_at_unix_ns is None else dump.ended_at_unix_ns
        if run.live or run.family is not None:
            raised.append((run, dump.start))
    if start is None:
        start = last + 1
    elif start <= last:
        raise ValueError(f"start {start} is not above {last}, in which a run was dumped")
    for run, dumped_in in raised:
        # Ticks, and looks at a parent, gave revisions that were shown and not dumped.
        run.revision += revision_stride * (start - dumped_in)
    for writer in writers.values():
        writer.heard_ns = now_unix_ns  # nobody listened before
    _link(children, runs)
    _cut_circles(runs)
    _settle_sums(runs)
    by_time = dict(sorted(ended.items(), key=lambda item: item[1]))
    return Restored(runs, by_time, [run.id for run, _ in raised], start)


def _run(dump: RunDump, writer: Writer) -> RunState:
    plan, family = dump.plan, dump.family
    return RunState(
        id=dump.id,
        writer=writer,
        tenant=intern(dump.tenant),
        name=intern(dump.name),
        title=dump.title,
        handle=dump.handle,
        spoken=dump.spoken,
        state=dump.state,
        state_ns=dump.state_ns,
        state_by_tick=dump.state_by_tick,
        revision=dump.revision,
        durable_revision=dump.durable_revision,
        terminal_revision=dump.terminal_revision,
        started_ns=dump.started_ns,
        ended_ns=dump.ended_ns,
        heard_ns=dump.heard_ns,
        moved_ns=dump.moved_ns,
        idle_since_ns=dump.idle_since_ns,
        idle_ns=dump.idle_ns,
        stalled_since_ns=dump.stalled_since_ns,
        plan=None if plan is None else _plan(plan),
        counts=None if dump.counts is None else _interned(dump.counts),
        said_ratio=dump.said_ratio,
        said_source=dump.said_source,
        ratio=dump.ratio,
        raw_ratio=dump.raw_ratio,
        ratio_source=None if dump.ratio_source is None else intern(dump.ratio_source),
        weight=dump.weight,
        awaited_parent=dump.awaited_parent,
        parent_span_id=dump.parent_span_id,
        sampled=dump.sampled,
        contribution=dump.contribution,
        counted_as=dump.counted_as,
        counted_idle=dump.counted_idle,
        family=None if family is None else _family(family),
        extra=dump.extra,
        carrier=dump.carrier,
        sequence=dump.sequence,
        log_seen=dump.log_seen,
        incomplete=dump.incomplete,
    )


def _writer(dump: WriterDump, tenant: str, writers: dict[str, Writer]) -> Writer:
    """The writer of a run, one object for all its runs, as the newest of their dumps has it."""
    key = key_of(Writer(dump.id, dump.service, dump.process_id, tenant=tenant))
    writer = writers.get(key)
    if writer is None:
        writer = writers[key] = Writer(
            dump.id, dump.service, dump.process_id, dump.lease_s, dump.heard_ns, tenant=tenant
        )
    elif dump.heard_ns > writer.heard_ns:
        writer.service, writer.process_id = dump.service, dump.process_id
        writer.lease_s, writer.heard_ns = dump.lease_s, dump.heard_ns
    return writer


def _link(children: list[tuple[RunState, str, int]], runs: dict[str, RunState]) -> None:
    """Put each run below its parent; one whose parent is gone, or does not count it, becomes a root."""
    shares: dict[str, dict[int, Share]] = {}
    for run, parent_id, number in children:
        parent = runs.get(parent_id)
        if parent is None or parent.family is None:
            continue
        known = shares.get(parent_id)
        if known is None:
            known = shares[parent_id] = {share.number: share for share in _shares(parent)}
        if (share := known.get(number)) is not None:
            run.parent, run.share = parent, share
            parent.family.ids[run.id] = None


def _cut_circles(runs: dict[str, RunState]) -> None:
    """Whatever the dumps say, the way upwards ends somewhere."""
    ends: set[str] = set()
    for run in runs.values():
        path: dict[str, RunState] = {}
        above: RunState | None = run
        while above is not None and above.id not in ends:
            if above.id in path:
                below = next(each for each in path.values() if each.parent is above)
                if above.family is not None:
                    above.family.ids.pop(below.id, None)
                below.parent = below.share = None
                break
            path[above.id] = above
            above = above.parent
        ends.update(path)


def _settle_sums(runs: dict[str, RunState]) -> None:
    """Make the sums over live children agree with the children, whose dumps may be older or newer."""
    for run in runs.values():
        family = run.family
        if family is None:
            continue
        sums = {share.number: [0.0, 0.0] for share in _shares(run)}
        idle = 0
        for child_id in family.ids:
            child = runs[child_id]
            if child.counted_as is None and child.share is not None:
                of_share = sums[child.share.number]
                of_share[0] += child.contribution
                of_share[1] += child.weight * (1.0 - child.contribution)
                idle += child.counted_idle
        family.idle = idle
        for share in _shares(run):
            ratio, undone = sums[share.number]
            done = share.weight - undone
            if abs(share.live_ratio - ratio) > _ROUNDING * (1.0 + ratio):
                share.live_ratio = ratio
            if abs(share.done - done) > _ROUNDING * (1.0 + share.weight):
                share.done = done


def _shares(run: RunState) -> list[Share]:
    found = [] if run.family is None or run.family.share is None else [run.family.share]
    if run.plan is not None:
        found += [record.share for record in run.plan.steps if record.share is not None]
    return found


def _plan_dump(plan: Plan) -> PlanDump:
    return PlanDump(
        plan.steps,
        plan.open,
        plan.declared,
        plan.folded,
        plan.current,
        plan.current_by_tick,
        plan.weight,
        plan.done,
        plan.finished,
        plan.soft,
    )


def _plan(dump: PlanDump) -> Plan:
    return Plan(
        [_interned(record) for record in dump.steps],
        None,
        dump.open,
        dump.declared,
        dump.folded,
        dump.current,
        dump.current_by_tick,
        dump.weight,
        dump.done,
        dump.finished,
        dump.soft,
    )


def _family_dump(family: Family) -> FamilyDump:
    return FamilyDump(
        family.total,
        family.live,
        family.idle,
        family.succeeded,
        family.failed,
        family.cancelled,
        family.lost,
        family.share,
    )


def _family(dump: FamilyDump) -> Family:
    return Family(
        {},
        dump.total,
        dump.live,
        dump.idle,
        dump.succeeded,
        dump.failed,
        dump.cancelled,
        dump.lost,
        dump.share,
    )


def _interned(record: StepRecord) -> StepRecord:
    """Names of steps and units are shared by many runs."""
    record.name = intern(record.name)
    if record.unit is not None:
        record.unit = intern(record.unit)
    return record


def _named(encoded: bytes) -> str:
    found = _RUN_ID.search(encoded, 0, 128)
    return "a run" if found is None else f"run {found[0].decode()}"


def _encodable(value: Any) -> Any:
    """Plain values with what MessagePack does not have replaced by the nearest that it has."""
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encodable(item) for item in value]
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, int):
        return value if isinstance(value, bool) else max(-(2**63), min(value, 2**64 - 1))
    return value
