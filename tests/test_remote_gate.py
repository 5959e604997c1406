from __future__ import annotations

import signal
import threading
from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace

import otelprogress as progress
from otelprogress import active, run
from otelprogress.commands import Order
from otelprogress.exceptions import OperationCancelled
from otelprogress.remote_gate import MAX_ORDERS, RemoteGate
from tests.forking import exit_code, forked
from tests.recording import Recording, recording
from tests.waiting import eventually

TRACE_ID, SPAN_ID = 0x0AF7651916CD43DD8448EB211C80319C, 0x00F067AA0BA902B7


def above(span_id: int = SPAN_ID, *, controlled: bool = True) -> otel_context.Context:
    """Where a process stands that was started for an operation elsewhere."""
    span = trace.NonRecordingSpan(
        trace.SpanContext(TRACE_ID, span_id, is_remote=True, trace_flags=trace.TraceFlags(1))
    )
    context = trace.set_span_in_context(span, otel_context.Context())
    return otel_context.set_value(active.CONTROLLED, True, context) if controlled else context


@pytest.fixture
def inside():
    token = otel_context.attach(above())
    yield
    otel_context.detach(token)


def the_gate() -> RemoteGate:
    (gate,) = active.current.remote_gates.values()
    return gate


def words(said: Recording) -> list[tuple[Any, ...]]:
    return [(event.control_id, event.control_action, event.run_id) for event in said.of("control.applied")]


@pytest.mark.usefixtures("inside")
def test_what_stands_below_obeys_a_cancel_from_elsewhere_and_says_so():
    with recording() as said:
        with pytest.raises(OperationCancelled, match="enough"):
            with progress.operation("resize") as operation:
                the_gate().obey("cancel", Order("c1", "ada", "enough"))
                for _ in progress.track(range(5)):
                    pytest.fail("nothing more is handed out")
        assert words(said) == [("c1", "cancel", operation.run_id)]
        assert said.of("control.applied")[0].control_actor == "ada"


@pytest.mark.usefixtures("inside")
def test_two_operations_below_share_one_gate_and_one_word():
    with recording() as said, progress.operation("one") as one:
        assert list(active.current.remote_gates) == [f"{TRACE_ID:032x}-{SPAN_ID:016x}"]
        token = otel_context.attach(above())
        try:
            with progress.operation("two") as two:
                gate = the_gate()
                assert one.gate is two.gate is gate
                gate.obey("cancel", Order("c1"))
                for operation in (one, two):
                    with pytest.raises(OperationCancelled):
                        operation.checkpoint()
        finally:
            otel_context.detach(token)
    assert len(words(said)) == 1


@pytest.mark.usefixtures("inside")
def test_once_the_first_has_ended_another_speaks():
    with recording() as said:
        with progress.operation("one"):
            gate = the_gate()
        assert not gate.in_use
        gate.obey("cancel", Order("c1"))
        with progress.operation("two") as two:
            assert two.gate is gate
            with pytest.raises(OperationCancelled):
                two.checkpoint()
        assert words(said) == [("c1", "cancel", two.run_id)]


@pytest.mark.usefixtures("inside")
def test_with_nobody_left_nobody_speaks_and_nothing_is_kept():
    with recording() as said:
        with progress.operation("one"):
            gate = the_gate()
        for number in range(500):
            gate.obey("pause", Order(f"p{number}"))
            gate.obey("resume", Order(f"r{number}"))
        assert words(said) == []
        assert sum(map(len, gate._orders.values())) == 0
        for number in range(500):
            gate.obey("cancel", Order(f"c{number}"))
        assert len(gate._orders["cancel"]) == MAX_ORDERS


@pytest.mark.usefixtures("inside")
def test_a_pause_from_elsewhere_holds_what_is_below_until_its_resume():
    done: list[int] = []
    with recording() as said:
        ready = threading.Event()

        def work() -> None:
            token = otel_context.attach(above())
            with progress.operation("resize"):
                ready.set()
                for number in progress.track(range(3)):
                    done.append(number)
                    if number == 0:
                        the_gate().obey("pause", Order("c1"))
            otel_context.detach(token)

        thread = threading.Thread(target=work)
        thread.start()
        ready.wait(30)
        eventually(lambda: words(said))
        assert done == [0]
        the_gate().obey("resume", Order("c2"))
        thread.join(30)
        assert not thread.is_alive()
    assert done == [0, 1, 2]
    assert [command_id for command_id, *_ in words(said)] == ["c1", "c2"]


@pytest.mark.usefixtures("inside")
def test_a_command_from_elsewhere_whose_time_is_over_is_left_to_its_host():
    with recording() as said, progress.operation("resize") as operation:
        the_gate().obey("cancel", Order("c1", until_s=0.0))
        operation.checkpoint()
    assert said.of("control.applied") == said.of("control.refused") == []


def test_a_process_whose_parent_cannot_be_commanded_looks_up_at_nothing():
    with recording():
        token = otel_context.attach(above(controlled=False))
        try:
            with progress.operation("resize") as operation:
                assert operation.gate is None
        finally:
            otel_context.detach(token)
        assert active.current.remote_gates == {}


def test_gates_that_nobody_stands_below_are_forgotten_the_open_ones_first(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run, "MAX_REMOTE_GATES", 3)
    with recording():

        def begin(span_id: int) -> None:
            token = otel_context.attach(above(span_id))
            try:
                with progress.operation("resize"):
                    pass
            finally:
                otel_context.detach(token)

        for span_id in (1, 2, 3):
            begin(span_id)
        gates = active.current.remote_gates
        gates[f"{TRACE_ID:032x}-{1:016x}"].obey("pause", Order("c1"))
        begin(4)
        assert [int(each[33:], 16) for each in gates] == [1, 4]
        for gate in gates.values():
            gate.obey("cancel", Order("c2"))
        begin(5), begin(6)
        assert len(gates) <= 3


@pytest.mark.usefixtures("inside")
def test_a_forked_child_goes_on_whatever_the_threads_of_its_parent_held_of_it():
    held, go_on = threading.Event(), threading.Event()
    with recording(), progress.operation("resize") as operation:
        gate = the_gate()
        loop = progress.track(range(200_000))
        next(loop)

        def hold() -> None:
            with gate._condition, gate._lock:
                held.set()
                go_on.wait(30)

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait(30)
        gate.paused = True

        def go_on_in_child() -> bool:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)  # stuck, it dies
            signal.alarm(20)
            operation.leave_to_parent()
            gate.obey("resume", Order("c1"))
            return sum(1 for _ in loop) == 199_999

        child = forked(go_on_in_child)
        go_on.set()
        thread.join()
        gate.obey("resume", Order("c1"))
        assert exit_code(child) == 0
