"""Commands at a host: judged, passed on to the worker, and followed until it is known what became of them.

One for each host, in the process and in the collector. It does no I/O and reads no clock; what is to be sent to workers
and published in the log waits in it until its host takes it away. Not thread-safe: used under the lock of the hub.

`accepted` never means applied. That is said by a durable `control.applied` or `control.refused` of the worker's, of the
operation itself or of one below it, or by the host where no worker says it: `expired` (it had its time), `worker_lost`,
`ended`. Every accepted command gets such a word within its deadline and a grace, as long as the host lives: what waits is in
memory only. After a restart the log says what became of the others, and what is cancelled or paused; one that was accepted
and not yet passed on is forgotten, and gets no word unless it is sent again. A refusal of the host's own says that
nobody had said anything by then, not that nothing happened: what the worker says afterwards, of a command that it had
obeyed before its link broke, stands in the log behind it, and is what duplicates are told from then on.

A command is known by its id and tenant; whoever sends it again is told what became of the first one, and it is never
passed on twice as two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from otelprogress.exceptions import AmbiguousOperation, InvalidValue, UnknownOperation
from otelprogress.model import semconv
from otelprogress.model.events import Event, OperationView, State
from otelprogress.model.redaction import redacted
from otelprogress.protocol.command_judging import (
    CANCEL,
    DEFAULT_DEADLINE_S,
    INPUT,
    PAUSE,
    RESUME,
    SCOPE_CONTROL,
    SCOPE_RESPOND,
    Asker,
    answer,
    check,
    judged,
)
from otelprogress.protocol.command_recalling import order_of, recall, word_of
from otelprogress.protocol.command_standing import Standing
from otelprogress.protocol.command_waiting import (
    GRACE_NS,
    RESEND_NS,
    Key,
    Known,
    Pending,
    Remembered,
    Waiting,
)
from otelprogress.protocol.messages import Command, CommandStatus, LinkCommand

if TYPE_CHECKING:
    from otelprogress.model.tree import Applied
    from otelprogress.protocol.filters import Matcher
    from otelprogress.protocol.hub import Hub

CASCADING: Final = frozenset({CANCEL, PAUSE, RESUME})
"""What reaches the operations below too, in other processes as well."""

MAX_PENDING: Final = 16_384
"""Commands that wait for their effect, of all tenants; of one tenant, of one of its actors, and of one operation:"""
MAX_PENDING_OF_TENANT: Final = 2048
MAX_PENDING_OF_ACTOR: Final = 1024
MAX_PENDING_OF_RUN: Final = 256

Reachable = Callable[[str, str], bool]
"""(writer id, tenant) -> whether commands can be brought to that writer now."""


class Delivery(msgspec.Struct, frozen=True):
    """One thing to send to a worker."""

    writer_id: str
    tenant: str
    command: LinkCommand


class CommandDesk:
    """See the module.

    Args:
        hub: whose operations are commanded.
        reachable: which writers can be told something.
    """

    def __init__(self, hub: Hub, reachable: Reachable) -> None:
        self._hub = hub
        self._reachable = reachable
        self._pending = Waiting()
        self._known = Remembered()
        self._standing = Standing()
        self._deliveries: list[Delivery] = []
        self._events: list[Event] = []
        recall(hub, self._known, self._standing)

    # --- what a host asks -------------------------------------------------------------------------------------

    def submit(self, command: Command, asker: Asker, matcher: Matcher, now_unix_ns: int) -> CommandStatus:
        """Judge a command and, where it is accepted, have it passed on.

        Args:
            command: as it was sent.
            asker: who sends it, with what rights.
            matcher: what that one may see: everything else is as if it were not there.
            now_unix_ns: the host's clock.
        """
        key = (asker.tenant, command.command_id)
        scope = SCOPE_RESPOND if command.action == INPUT else SCOPE_CONTROL
        if scope not in asker.scopes:
            return answer(command, "forbidden", f"the token lacks the scope {scope}")
        if (again := self._duplicate(command, key, matcher)) is not None:
            return again
        try:
            check(command)
            run_id = self._hub.resolve(command.operation, matcher)
        except InvalidValue as wrong:
            return answer(command, "invalid", str(wrong))
        except UnknownOperation as unknown:
            return answer(command, "not_found", str(unknown))
        except AmbiguousOperation as ambiguous:
            return answer(command, "ambiguous", str(ambiguous))
        view = self._hub.tree.view(run_id, now_unix_ns)
        if view is None:
            return answer(command, "not_found", f"no operation {command.operation!r}")
        refused = self._judged(command, view)
        if refused is not None:
            return refused
        if not self._spared(command, view) and (whose := self._too_many(view, asker)):
            text = f"too many commands{whose} wait for their effect already: wait for those"
            return answer(command, "overloaded", text)
        self._accept(command, asker, view, now_unix_ns)
        return answer(command, "accepted")

    def _duplicate(self, command: Command, key: tuple[str, str], matcher: Matcher) -> CommandStatus | None:
        """What to answer where a command of that id was accepted before; `None`: none was."""
        before = self._known.get(key)
        if before is None:
            pending = self._pending.get(key)
            if pending is None:
                return None
            before = Known(pending.run_id, "what became of it is not known yet", action=pending.action)
        facts = self._hub.facts(before.run_id)
        another = before.action not in ("", command.action)
        if another or (facts is not None and not matcher(facts)):
            return answer(command, "invalid", "another command has this `command_id`: take a new one")
        return answer(command, "duplicate", f"accepted before; {before.word}")

    def _judged(self, command: Command, view: OperationView) -> CommandStatus | None:
        """Why a command is not accepted; `None`: it is."""
        refused = judged(command, view, durable_revision=self._hub.tree.durable_revisions(view.id)[0])
        if refused is not None:
            return refused
        if not self._reachable(view.writer_id, view.tenant):
            return answer(
                command,
                "no_worker",
                "its process is not connected now: it may have ended, or has no worker link (OTELPROGRESS_COLLECTOR, or "
                "a parent's feed)",
            )
        return None

    def _spared(self, command: Command, view: OperationView) -> bool:
        """Whether it goes past the bounds: the first cancel of an operation, as far as there is room at all."""
        return (
            command.action == CANCEL
            and len(self._pending) < 2 * MAX_PENDING
            and not any(each.action == CANCEL for each in self._pending.of_run(view.id))
        )

    def _too_many(self, view: OperationView, asker: Asker) -> str:
        """Of whom too many commands wait already; empty: of nobody."""
        of_run, of_tenant, of_actor = self._pending.counts(view.id, asker.tenant, asker.actor)
        if of_run >= MAX_PENDING_OF_RUN:
            return f" of {view.handle}"
        if of_actor >= MAX_PENDING_OF_ACTOR:
            return " of yours"
        if of_tenant >= MAX_PENDING_OF_TENANT:
            return " of your tenant"
        return " here" if len(self._pending) >= MAX_PENDING else ""

    def _accept(self, command: Command, asker: Asker, view: OperationView, now_unix_ns: int) -> None:
        deadline_s = DEFAULT_DEADLINE_S if command.deadline_s is None else command.deadline_s
        arguments = command.arguments
        if command.action == INPUT and view.input_id is not None:
            # By the time it arrives another question may be open, which it was not meant for.
            arguments = {**arguments, "input_id": view.input_id}
        passed_on = LinkCommand(
            command_id=command.command_id,
            run=view.id,
            action=command.action,
            arguments=arguments,
            actor=asker.actor,
            valid_s=deadline_s,
        )
        pending = Pending(passed_on, asker.tenant, now_unix_ns, now_unix_ns + int(deadline_s * 1e9))
        self._owe(pending, view.writer_id, passed_on, now_unix_ns)
        if command.action in CASCADING:
            below = msgspec.structs.replace(passed_on, below=True)
            for parent_id, writer_id in self._edges_below(view.id):
                self._owe(pending, writer_id, msgspec.structs.replace(below, run=parent_id), now_unix_ns)
            self._standing.accepted(view.id, below)
            self._supersede(pending)
        self._pending.add(pending)

    def _supersede(self, newer: Pending) -> None:
        """What is below shall not be told of a pause behind the resume that took it back, nor the other way round."""
        for older in self._pending.of_run(newer.run_id):
            if older.action != newer.action and {older.action, newer.action} == {PAUSE, RESUME}:
                for key in [key for key, command in older.owed.items() if command.below]:
                    del older.owed[key]
                self._drop_where_done(older)

    def _owe(self, pending: Pending, writer_id: str, command: LinkCommand, now_unix_ns: int) -> None:
        pending.owed[writer_id, command.run] = command
        self._deliver(pending, writer_id, command, now_unix_ns)

    def _deliver(self, pending: Pending, writer_id: str, command: LinkCommand, now_unix_ns: int) -> None:
        if self._reachable(writer_id, pending.tenant):
            passed_on = _with_time_left(command, pending, now_unix_ns)
            self._deliveries.append(Delivery(writer_id, pending.tenant, passed_on))

    def _edges_below(self, run_id: str) -> Iterator[tuple[str, str]]:
        """(run, writer) where below a run another process goes on: each writer is told once for each such run."""
        tree = self._hub.tree
        told: set[tuple[str, str]] = set()
        waiting = [run_id]
        while waiting:
            parent_id = waiting.pop()
            parent = tree.identity(parent_id)
            for child_id in tree.children(parent_id):
                child = tree.identity(child_id)
                if child is None or not child.live:
                    continue
                waiting.append(child_id)
                edge = (parent_id, child.writer_id)
                if parent is not None and child.writer_id != parent.writer_id and edge not in told:
                    told.add(edge)
                    yield edge

    # --- what workers say -------------------------------------------------------------------------------------

    def received(self, writer_id: str, tenant: str, status: CommandStatus) -> None:
        """A worker says what it did with a command that it was sent; it need not say it for each."""
        pending = self._pending.get((tenant, status.command_id))
        if pending is None:
            return
        mine = [key for key in pending.owed if key[0] == writer_id]
        refused_by_owner = any(not pending.owed[key].below for key in mine)
        for key in mine:
            del pending.owed[key]
        if status.status not in ("accepted", "duplicate") and refused_by_owner and not pending.in_force:
            self._refuse(pending, status.message or status.status)
        self._drop_where_done(pending)

    def connected(self, writer_id: str, tenant: str, now_unix_ns: int) -> None:
        """A worker is there (again): what it has not confirmed is sent once more, and what stands above its runs."""
        for run_id in self._hub.tree.runs_of_writer(writer_id, tenant) if self._standing else ():
            self._began(run_id, tenant, now_unix_ns, again=True)
        for pending in self._pending.of_tenant(tenant):
            for (owed_to, _), command in pending.owed.items():
                if owed_to == writer_id:
                    self._deliveries.append(
                        Delivery(writer_id, tenant, _with_time_left(command, pending, now_unix_ns))
                    )

    def applied(self, applied: Sequence[Applied], now_unix_ns: int) -> None:
        """Look at what the hub has just applied: ends of commands, ends of runs, and what begins below a command."""
        for each in applied:
            event, kind = each.source, each.source.kind
            if kind in _SETTLED and event.control_id is not None:
                self._settle(event)
            elif kind == semconv.CONTROL_APPLIED and event.control_action == RESUME:
                # By its own code: whatever paused it is over.
                if any(order.action == PAUSE for order in self._standing.of(event.run_id)):
                    self._took_effect(order_of(event, event.run_id, RESUME), event.tenant)
            elif kind == semconv.OPERATION_ENDED:
                self._ended(
                    event.run_id, lost=each.event.operation.state is State.LOST, now_unix_ns=now_unix_ns
                )
            elif kind == semconv.OPERATION_STARTED and self._standing:
                self._began(event.run_id, event.tenant, now_unix_ns)

    def _settle(self, event: Event) -> None:
        key = (event.tenant, event.control_id or "")
        word = word_of(event.kind.removeprefix(semconv.PREFIX), event.control_refusal)
        pending, known = self._pending.get(key), self._known.get(key)
        run_id = pending.run_id if pending is not None else event.run_id if known is None else known.run_id
        if known is not None and pending is None and self._is_below(run_id, event.run_id):
            run_id = event.run_id  # since a restart only the word of one below it was heard
        # What the host itself says it remembers when it decides so. Of a command that was accepted before a restart the
        # word of the worker may come before it is sent again.
        if (
            word is None
            or not self._is_below(event.run_id, run_id)
            or (pending is None and not event.writer_id)
        ):
            return
        if event.run_id == run_id:
            self._settle_finally(event, key, word)
        elif event.kind == semconv.CONTROL_APPLIED:
            # Of one below, whose code came by first: it is in the log, so that nobody says `expired`. Its own process
            # may not even have heard of it yet.
            if known is None or not known.by_owner:
                self._known.put(key, Known(run_id, word, action=event.control_action or ""))
            if pending is not None:
                pending.settled = True
                self._drop_where_done(pending)

    def _settle_finally(self, event: Event, key: Key, word: str) -> None:
        """The operation that was commanded says what became of it: that counts for more than whatever was said before."""
        pending, before = self._pending.get(key), self._known.get(key)
        self._known.put(key, Known(event.run_id, word, by_owner=True, action=event.control_action or ""))
        action = event.control_action or ("" if pending is None else pending.action)
        if event.kind == semconv.CONTROL_REFUSED:
            self._pending.drop(key)
            self._standing.withdraw(event.run_id, action, key[1])
            if action == RESUME:
                self._pause_again(event.run_id, event.tenant)
            return
        if pending is not None:
            pending.settled = pending.in_force = True
            for owed in [owed for owed, command in pending.owed.items() if not command.below]:
                del pending.owed[owed]
        if action in CASCADING and (pending is not None or before is not None or action == CANCEL):
            # Else, of before a restart, it may as well be that one below stood still, which says so no more once it goes on.
            self._took_effect(order_of(event, event.run_id, action), event.tenant)
        if pending is not None:
            self._drop_where_done(pending)

    def _took_effect(self, order: LinkCommand, tenant: str) -> None:
        """What is below has no deadline any more: it obeys as long as the operation itself does."""
        self._standing.took_effect(order.run, order)
        self._tell_below(order, tenant)

    def _tell_below(self, order: LinkCommand, tenant: str) -> None:
        for parent_id, writer_id in self._edges_below(order.run):
            if self._reachable(writer_id, tenant):
                self._deliveries.append(
                    Delivery(writer_id, tenant, msgspec.structs.replace(order, run=parent_id))
                )

    def _resumes(self, run_id: str) -> bool:
        return any(each.action == RESUME and not each.settled for each in self._pending.of_run(run_id))

    def _pause_again(self, run_id: str, tenant: str) -> None:
        """A resume came to nothing that those below may have obeyed: they stand still as the operation itself does."""
        for order in self._standing.of(run_id):
            if order.action == PAUSE and order.valid_s is None:
                self._tell_below(msgspec.structs.replace(order, command_id="", run=run_id), tenant)

    def _drop_where_done(self, pending: Pending) -> None:
        if pending.settled and not pending.owed:
            self._pending.drop(pending.key)

    def _is_below(self, run_id: str, above_id: str) -> bool:
        return run_id == above_id or above_id in self._hub.tree.ancestors(run_id)

    def _ended(self, run_id: str, *, lost: bool, now_unix_ns: int) -> None:
        self._standing.ended(run_id)
        for pending in self._pending.of_run(run_id):
            if pending.settled:
                continue  # what is below it and has not confirmed it goes on, perhaps
            if lost:
                self._refuse(pending, "worker_lost")
            else:
                # Its own word, said before its end, may come another way.
                pending.refusal = "ended"
                pending.expires_unix_ns = min(pending.expires_unix_ns, now_unix_ns)
                self._pending.reschedule(pending)

    def _began(self, run_id: str, tenant: str, now_unix_ns: int, *, again: bool = False) -> None:
        """A run is there in another process, below one that was cancelled or paused; `again`: it may have heard so."""
        tree = self._hub.tree
        child = tree.identity(run_id)
        if child is None or child.parent_id is None or not child.live or child.tenant != tenant:
            return
        parent = tree.identity(child.parent_id)
        if parent is None or parent.writer_id == child.writer_id:
            return
        for above in (child.parent_id, *tree.ancestors(child.parent_id)):
            for command in self._standing.of(above):
                if command.action == RESUME and not again:
                    continue  # it never stood still
                if (
                    command.action == PAUSE
                    and (again or command.valid_s is not None)
                    and self._resumes(above)
                ):
                    continue  # it would come behind its resume
                passed_on = msgspec.structs.replace(command, run=child.parent_id)
                pending = self._pending.get((tenant, command.command_id))
                if pending is not None:
                    passed_on = _with_time_left(passed_on, pending, now_unix_ns)
                self._deliveries.append(Delivery(child.writer_id, tenant, passed_on))

    # --- time --------------------------------------------------------------------------------------------------

    def advance(self, now_unix_ns: int) -> None:
        """Refuse what nobody has said anything of, a grace after its deadline; send again what was not confirmed."""
        for pending in self._pending.take_due(now_unix_ns):
            if pending.expires_unix_ns + GRACE_NS <= now_unix_ns:
                if pending.settled:
                    self._pending.drop(pending.key)
                else:
                    self._refuse(pending, pending.refusal)
                continue
            if pending.settled:
                self._forget_what_ended(pending)
            pending.resent += 1
            pending.resend_unix_ns = now_unix_ns + (RESEND_NS << pending.resent)
            for (writer_id, _), command in pending.owed.items():
                self._deliver(pending, writer_id, command, now_unix_ns)

    def _forget_what_ended(self, pending: Pending) -> None:
        left = {(writer_id, run_id) for run_id, writer_id in self._edges_below(pending.run_id)}
        owner = self._hub.tree.identity(pending.run_id)
        for key in [key for key, command in pending.owed.items() if command.below and key not in left]:
            del pending.owed[key]
        if owner is None or not owner.live:
            for key in [key for key, command in pending.owed.items() if not command.below]:
                del pending.owed[key]
        self._drop_where_done(pending)

    def next_deadline_unix_ns(self) -> int | None:
        """When `advance` is next worth calling; `None`: nothing waits."""
        return self._pending.next_due_unix_ns()

    def _refuse(self, pending: Pending, refusal: str) -> None:
        self._standing.withdraw(pending.run_id, pending.action, pending.command_id)
        if pending.settled:
            return  # by one below it: the log has a word
        self._pending.drop(pending.key)
        self._known.put(pending.key, Known(pending.run_id, f"refused: {refusal}", action=pending.action))
        if pending.action == RESUME:
            self._pause_again(pending.run_id, pending.tenant)
        self._events.append(
            Event(
                kind=semconv.CONTROL_REFUSED,
                run_id=pending.run_id,
                # The host's clock stands in: the tree repairs a time before the start.
                time_unix_ns=pending.expires_unix_ns,
                tenant=pending.tenant,
                control_id=pending.command_id,
                control_action=pending.action,
                control_actor=pending.actor or None,
                control_reason=pending.reason,
                control_refusal=redacted(refusal, semconv.MAX_NAME_CHARS),
            )
        )

    # --- what waits for the host -------------------------------------------------------------------------------

    def take_deliveries(self) -> list[Delivery]:
        """What is to be sent to workers since the last call, in order."""
        taken, self._deliveries = self._deliveries, []
        return taken

    def take_events(self, now_unix_ns: int) -> list[Event]:
        """What is to be published since the last call: refusals of the host's own."""
        taken, self._events = self._events, []
        return [msgspec.structs.replace(event, time_unix_ns=now_unix_ns) for event in taken]


_SETTLED: Final = frozenset({semconv.CONTROL_APPLIED, semconv.CONTROL_REFUSED})


def _with_time_left(command: LinkCommand, pending: Pending, now_unix_ns: int) -> LinkCommand:
    if pending.in_force or command.valid_s is None:
        return msgspec.structs.replace(command, valid_s=None)
    return msgspec.structs.replace(command, valid_s=max(0.0, (pending.expires_unix_ns - now_unix_ns) / 1e9))
