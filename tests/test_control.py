from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

import otelprogress as progress
from otelprogress import active, control
from otelprogress.control import Control
from otelprogress.exceptions import OperationCancelled
from otelprogress.protocol.messages import LinkCommand
from otelprogress.remote_gate import RemoteGate
from tests.recording import recording


class Work:
    """An operation that answers as it is told, and keeps what it was asked for."""

    def __init__(self, answer: str = "accepted") -> None:
        self.answers = answer
        self.asked: list[tuple[Any, ...]] = []

    def obey(self, action: str, order: Any) -> str:
        self.asked.append((action, order))
        return self.answers

    def answer(self, input_id: str | None, content: object, order: Any) -> str:
        self.asked.append((input_id, content, order))
        return self.answers


def controlling(**live: Any) -> tuple[Control, SimpleNamespace]:
    ins = SimpleNamespace(live=live, remote_gates={})
    return Control(ins), ins  # type: ignore[arg-type]


def command(command_id: str = "c1", run: str = "r1", action: str = "cancel", **fields: Any) -> LinkCommand:
    return LinkCommand(command_id=command_id, run=run, action=action, **fields)


def test_a_command_is_obeyed_once_however_often_and_by_whatever_way_it_comes():
    work = Work()
    taker, _ = controlling(r1=work)
    assert taker.take(command(actor="ada", arguments={"reason": "x"})).status == "accepted"
    assert [taker.take(command()).status for _ in range(3)] == ["duplicate"] * 3
    ((action, order),) = work.asked
    assert (action, order.command_id, order.actor, order.reason) == ("cancel", "c1", "ada", "x")


def test_threads_that_bring_the_same_command_at_once_bring_it_once():
    work = Work()
    taker, _ = controlling(r1=work)
    together = threading.Barrier(8)

    def bring() -> None:
        together.wait(30)
        for number in range(50):
            taker.take(command(f"c{number}"))

    threads = [threading.Thread(target=bring) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(order.command_id for _, order in work.asked) == sorted(f"c{number}" for number in range(50))


def test_an_operation_that_is_slow_to_take_a_command_holds_up_no_other():
    """What it says of the command runs through the application's processors."""
    begun, go_on = threading.Event(), threading.Event()

    class Slow(Work):
        def obey(self, action: str, order: Any) -> str:
            begun.set()
            go_on.wait(30)
            return super().obey(action, order)

    slow, quick = Slow("unsupported"), Work()
    taker, _ = controlling(r1=slow, r2=quick)
    answers: list[str] = []
    first = threading.Thread(target=lambda: answers.append(taker.take(command()).status))
    first.start()
    assert begun.wait(30)
    others: list[str] = []

    def bring_others() -> None:
        others.extend(taker.take(each).status for each in (command("c2", "r2"), command()))

    beside = threading.Thread(target=bring_others)
    beside.start()
    beside.join(10)
    assert others == ["accepted", "duplicate"]
    go_on.set()
    first.join(30)
    assert answers == ["unsupported"]
    assert taker.take(command()).status == "unsupported"
    assert len(slow.asked) == 1


def test_whoever_sends_a_refused_command_again_hears_the_refusal_again():
    taker, _ = controlling(r1=Work("unsupported"))
    assert [taker.take(command()).status for _ in range(2)] == ["unsupported"] * 2


def test_what_is_wrong_with_an_answer_comes_back_in_words():
    work = Work("the answer is a number")
    taker, _ = controlling(r1=work)
    status = taker.take(command(action="input", arguments={"input_id": "in1", "content.rate": "x"}))
    assert (status.status, status.message) == ("invalid", "the answer is a number")
    assert work.asked[0][:2] == ("in1", {"rate": "x"})


def test_what_does_not_live_here_is_not_found_and_may_come_yet():
    taker, ins = controlling()
    assert taker.take(command()).status == "not_found"
    ins.live["r1"] = Work()
    assert taker.take(command()).status == "accepted"


def test_its_time_runs_from_its_arrival(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(control, "time", SimpleNamespace(monotonic=lambda: 100.0))
    work = Work()
    taker, _ = controlling(r1=work)
    taker.take(command(valid_s=7.5))
    taker.take(command("c2"))
    assert [order.until_s for _, order in work.asked] == [107.5, float("inf")]


def test_an_operation_that_fails_on_it_takes_nobody_else_along():
    class Broken:
        def obey(self, *_: object) -> str:
            raise RuntimeError("boom")

    taker, _ = controlling(r1=Broken())
    status = taker.take(command())
    assert (status.status, status.message) == ("invalid", "it failed in otelprogress")
    assert taker.take(command()).status == "invalid"


def test_only_the_last_answers_are_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(control, "MAX_REMEMBERED", 2)
    work = Work()
    taker, _ = controlling(r1=work)
    for number in range(5):
        taker.take(command(f"c{number}"))
    assert len(taker._answered) == 2


def test_a_command_from_above_is_one_for_each_run_that_it_means():
    taker, ins = controlling()
    ins.remote_gates = {"a": RemoteGate(), "b": RemoteGate()}
    for run in ("a", "b"):
        assert taker.take(command(run=run, below=True)).status == "accepted"
        assert taker.take(command(run=run, below=True)).status == "duplicate"
    assert all(gate.cancelled for gate in ins.remote_gates.values())
    assert taker.take(command(run="c", below=True)).status == "not_found"


def test_a_doubled_pause_that_comes_behind_its_resume_stops_nothing():
    taker, ins = controlling()
    ins.remote_gates["a"] = RemoteGate()
    for command_id, action in (
        ("c1", "pause"),
        ("c2", "resume"),
        ("c1", "pause"),
        ("c2", "resume"),
        ("c1", "pause"),
    ):
        taker.take(command(command_id, "a", action, below=True))
    assert not ins.remote_gates["a"].paused


@pytest.mark.parametrize("action", ["cancel", "pause"])
def test_one_that_stands_above_and_comes_again_for_what_begins_has_new_time(action: str):
    """A pause may last for hours: what begins below it then must not go on because the first word of it is old."""
    taker, ins = controlling()
    gate = ins.remote_gates["a"] = RemoteGate()
    taker.take(command("c1", "a", action, below=True, valid_s=0.0))
    assert gate.closed_by() is None, "nobody came by in its time"
    assert taker.take(command("c1", "a", action, below=True, valid_s=60.0)).status == "duplicate"
    assert gate.closed_by() is gate
    assert len(gate._orders.get(action, ())) == 0, "what it says of it was said"


@pytest.mark.parametrize("action", ["cancel", "pause"])
def test_one_that_was_obeyed_above_has_no_deadline_any_more(action: str):
    taker, ins = controlling()
    gate = ins.remote_gates["a"] = RemoteGate()
    taker.take(command("c1", "a", action, below=True, valid_s=0.0))
    taker.take(command("c1", "a", action, below=True))
    assert gate.closed_by() is gate
    assert (gate._pause_until_s if action == "pause" else gate._cancel_until_s) == float("inf")


@pytest.mark.parametrize("action", ["cancel", "pause"])
def test_one_that_stands_above_closes_a_gate_anew_that_was_dropped_meanwhile(action: str):
    taker, ins = controlling()
    ins.remote_gates["a"] = RemoteGate()
    taker.take(command("c1", "a", action, below=True))
    gate = ins.remote_gates["a"] = RemoteGate()
    assert taker.take(command("c1", "a", action, below=True)).status == "duplicate"
    assert gate.closed_by() is gate


def test_how_things_stand_above_is_obeyed_each_time_though_no_command_said_so():
    taker, ins = controlling()
    gate = ins.remote_gates["a"] = RemoteGate()
    for action, paused in (("pause", True), ("resume", False), ("pause", True), ("resume", False)):
        assert taker.take(command("", "a", action, below=True)).status == "accepted"
        assert gate.paused is paused


def test_a_real_operation_obeys_and_its_answers_are_the_hosts():
    with recording(), progress.operation("work", controls=["cancel"]) as operation:
        taker = Control(active.current)
        assert taker.take(command(run=operation.run_id)).status == "accepted"
        assert taker.take(command("c2", operation.run_id, "pause")).status == "unsupported"
        answered = taker.take(command("c3", operation.run_id, "input", arguments={"content": 1}))
        assert (answered.status, answered.message) == ("invalid", "it asks nothing now")
        with pytest.raises(OperationCancelled):
            operation.checkpoint()
        run_id = operation.run_id
    assert taker.take(command("c4", run_id)).status == "not_found"
