"""Commands over links that break, to processes that die, in any order: what the host promises of each of them.

The host's desk and the processes' `Control` are the real ones; between them stand links that lose what is on its way when
they break, and double frames. Events come another way, late, but all of them, as long as their process lives.
"""

from __future__ import annotations

import math
from collections import Counter
from types import SimpleNamespace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from otelprogress import control
from otelprogress.commands import Order
from otelprogress.control import Control
from otelprogress.model import semconv
from otelprogress.model.events import State
from otelprogress.protocol.command_waiting import GRACE_NS
from otelprogress.protocol.messages import CommandStatus, LinkCommand
from tests.protocol.command_kit import Bureau
from tests.protocol.feed_kit import NS, rid

DEADLINE_S = 10.0
WRITERS = ("w1", "w2", "w3")
CHILD = "w3"
"""Whose operation runs below that of `w1`."""
ACTIONS = ("snapshot", "cancel")


class Work:
    """An operation that takes commands, and obeys them when its code comes by."""

    def __init__(self) -> None:
        self.waiting: list[tuple[str, Order]] = []

    def obey(self, action: str, order: Order) -> str:
        self.waiting.append((action, order))
        return "accepted"


class Above(Work):
    """What stands in a process for the operation around its own."""

    def __init__(self) -> None:
        super().__init__()
        self.until_s: dict[str, float] = {}

    def obey(self, action: str, order: Order) -> str:
        self.until_s[order.command_id] = order.until_s
        return super().obey(action, order)

    def prolong(self, _action: str, order: Order) -> None:
        self.until_s[order.command_id] = max(self.until_s[order.command_id], order.until_s)


class Process:
    """One worker, behind a link."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.work = Work()
        self.above = Above()
        gates = {rid(1): self.above} if number == 3 else {}
        self.control = Control(SimpleNamespace(live={rid(number): self.work}, remote_gates=gates))  # type: ignore[arg-type]
        self.alive = self.connected = True
        self.down: list[LinkCommand] = []
        self.up: list[CommandStatus] = []
        self.events: list[dict[str, Any]] = []


class Commands(RuleBasedStateMachine):
    ids = Bundle("ids")

    @initialize()
    def begin(self) -> None:
        self.bureau = Bureau()
        self.processes = {name: Process(number) for number, name in enumerate(WRITERS, 1)}
        for name, process in self.processes.items():
            parent = 1 if name == CHILD else None
            self.bureau.start(process.number, controls=ACTIONS, writer_id=name, parent=parent)
        self.accepted: dict[str, float] = {}
        """Command id → until when it may be without a word, by the clock of the host."""
        self.asked: dict[str, tuple[str, int]] = {}
        self.effects: Counter[str] = Counter()
        self.effects_below: Counter[str] = Counter()
        self.words: list[tuple[str, str, str]] = []
        """Who, which command, what."""
        self.clock = control.time
        control.time = SimpleNamespace(monotonic=lambda: self.bureau.now_s)  # type: ignore[assignment]

    def teardown(self) -> None:
        if hasattr(self, "clock"):
            try:
                self.settle()
            finally:
                control.time = self.clock

    def reach(self) -> None:
        self.bureau.away = {name for name, each in self.processes.items() if not each.connected}
        for delivery in self.bureau.desk.take_deliveries():
            process = self.processes[delivery.writer_id]
            if process.connected:
                process.down.append(delivery.command)
        for event in self.bureau.desk.take_events(self.bureau.now_ns):
            assert event.control_id is not None
            self.words.append(("host", event.control_id, event.control_refusal or ""))
            self.bureau.desk.applied(self.bureau.hub.publish(event, self.bureau.now_ns), self.bureau.now_ns)

    @rule(target=ids, action=st.sampled_from(ACTIONS), number=st.sampled_from([1, 2]))
    def submit(self, action: str, number: int) -> str:
        command_id = f"c{len(self.accepted)}-{self.bureau.now_s}-{len(self.words)}"
        return self.ask(command_id, action, number)

    @rule(command_id=ids, number=st.sampled_from([1, 2]))
    def submit_again(self, command_id: str, number: int) -> None:
        self.ask(command_id, self.asked[command_id][0], number)

    def ask(self, command_id: str, action: str, number: int) -> str:
        if command_id not in self.accepted:
            self.asked[command_id] = action, number
        answer = self.bureau.command(action, f"load-{number}", command_id, deadline_s=DEADLINE_S)
        if command_id in self.accepted:
            assert answer.status == "duplicate"
            worker = [what for who, which, what in self.words if which == command_id and who == "worker"]
            below = [what for who, which, what in self.words if which == command_id and who == "below"]
            host = [what for who, which, what in self.words if which == command_id and who == "host"]
            assert (
                answer.message.removeprefix("accepted before; ").removeprefix("refused: ")
                == ((worker or below or host or ["what became of it is not known yet"])[0])
            )
        elif answer.status == "accepted":
            self.accepted[command_id] = self.bureau.now_s + DEADLINE_S + GRACE_NS / NS
        else:
            assert answer.status in {"no_worker", "ended"}
        self.reach()
        return command_id

    @rule(name=st.sampled_from(WRITERS), times=st.integers(1, 2))
    def a_frame_arrives(self, name: str, times: int) -> None:
        process = self.processes[name]
        if process.down:
            command = process.down.pop(0)
            process.up += [process.control.take(command) for _ in range(times)]

    @rule(name=st.sampled_from(WRITERS), times=st.integers(1, 2))
    def an_answer_arrives(self, name: str, times: int) -> None:
        process = self.processes[name]
        if process.up:
            status = process.up.pop(0)
            for _ in range(times):
                self.bureau.desk.received(name, "", status)
        self.reach()

    @rule(name=st.sampled_from(WRITERS))
    def a_link_breaks(self, name: str) -> None:
        process = self.processes[name]
        process.connected = False
        process.down.clear()
        process.up.clear()
        self.reach()

    @rule(name=st.sampled_from(WRITERS))
    def a_link_comes_back(self, name: str) -> None:
        process = self.processes[name]
        if process.alive and not process.connected:
            process.connected = True
            self.reach()
            self.bureau.desk.connected(name, "", self.bureau.now_ns)
            self.reach()

    @rule(name=st.sampled_from(WRITERS))
    def the_code_comes_by(self, name: str) -> None:
        process = self.processes[name]
        for action, order in process.work.waiting if process.alive else ():
            over = self.bureau.now_s >= order.until_s
            if not over:
                self.effects[order.command_id] += 1
            process.events.append(
                {
                    "kind": semconv.CONTROL_REFUSED if over else semconv.CONTROL_APPLIED,
                    "control_id": order.command_id,
                    "control_action": action,
                    "control_refusal": "expired" if over else None,
                }
            )
        process.work.waiting.clear()
        for action, order in process.above.waiting if process.alive else ():
            if self.bureau.now_s < process.above.until_s[order.command_id]:
                self.effects_below[order.command_id] += 1
                process.events.append(
                    {
                        "kind": semconv.CONTROL_APPLIED,
                        "control_id": order.command_id,
                        "control_action": action,
                        "control_refusal": None,
                    }
                )
        process.above.waiting.clear()

    @rule(name=st.sampled_from(WRITERS))
    def an_event_arrives(self, name: str) -> None:
        process = self.processes[name]
        if process.events:
            event = process.events.pop(0)
            who = "below" if name == CHILD else "worker"
            self.words.append((who, event["control_id"], event["control_refusal"] or "applied"))
            self.bureau.say(process.number, writer_id=name, **event)
            self.reach()

    @precondition(lambda self: any(each.alive for each in self.processes.values()))
    @rule(name=st.sampled_from(WRITERS), lost=st.booleans())
    def a_process_ends(self, name: str, lost: bool) -> None:
        process = self.processes[name]
        if process.alive:
            process.alive = process.connected = False
            process.down.clear()
            process.up.clear()
            if lost:
                process.events.clear()
            else:
                while process.events:
                    self.an_event_arrives(name)
            self.reach()
            self.bureau.end(process.number, State.LOST if lost else State.SUCCEEDED)
            self.reach()

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 11.0]))
    def time_passes(self, seconds: float) -> None:
        self.bureau.now_s += seconds
        self.bureau.desk.advance(self.bureau.now_ns)
        self.reach()

    def must_be_owed(self, command_id: str) -> bool:
        """Whether the operation itself lives, has not heard of a command in its time, and nothing final was said of it."""
        work = self.processes["w1"]
        heard = command_id in {each for each, _ in work.control._answered}
        final = {which for who, which, _ in self.words if who in ("worker", "host")}
        until_s = self.accepted.get(command_id)
        return (
            work.alive
            and not heard
            and command_id not in final
            and until_s is not None
            and self.bureau.now_s < until_s - 0.001
        )

    def settle(self) -> None:
        self.reaches_all_below_what_obeyed()
        self.time_passes(DEADLINE_S + GRACE_NS / NS + 1.0)
        for name in WRITERS:
            while self.processes[name].events:
                self.an_event_arrives(name)
        self.promises()
        assert not self.bureau.desk._pending

    def reaches_all_below_what_obeyed(self) -> None:
        """While an operation lives that has said that it was cancelled, what is below it hears so, however late."""
        above, child = self.processes["w1"], self.processes[CHILD]
        if not (above.alive and child.alive):
            return
        self.a_link_breaks(CHILD)
        self.a_link_comes_back(CHILD)
        while child.down:
            self.a_frame_arrives(CHILD, 1)
        obeyed = [
            which
            for who, which, what in self.words
            if (who, what) == ("worker", "applied") and self.asked[which] == ("cancel", 1)
        ]
        if obeyed:
            assert math.inf in child.above.until_s.values(), "it holds below, too, without a deadline"

    @invariant()
    def promises(self) -> None:
        if not hasattr(self, "words"):
            return
        assert set(self.effects.values()) <= {1}, "applied at most once"
        assert max(Counter(which for who, which, _ in self.words if who == "host").values(), default=0) <= 1
        for said_by in ("worker", "below"):
            said = Counter(which for who, which, _ in self.words if who == said_by)
            assert max(said.values(), default=0) <= 1
        owed = {
            pending.command_id: pending.owed.keys() for pending in self.bureau.desk._pending.of_run(rid(1))
        }
        for which, (_, number) in self.asked.items():
            if number != 1 or not self.must_be_owed(which):
                continue
            assert ("w1", rid(1)) in owed.get(which, ()), "whoever has not heard of it is still owed it"
        told = {which for _, which, _ in self.words}
        assert told <= set(self.accepted), "nothing is said of what was not accepted"
        late = {which for which, until_s in self.accepted.items() if self.bureau.now_s > until_s + 0.001}
        assert late <= told, "every accepted command gets a word in its time"
        at_worker = [which for who, which, what in self.words if who == "worker" and what == "applied"]
        assert set(at_worker) <= set(self.effects), "what is called applied was"


TestCommands = Commands.TestCase
TestCommands.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
