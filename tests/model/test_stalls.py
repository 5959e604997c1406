"""What has not counted yet is judged by how long it took before; `test_tree` has what counts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otelprogress.model.estimate import Baseline, stall_after_history_s
from otelprogress.model.events import State
from otelprogress.model.stalls import StallWatch
from otelprogress.model.tree import OperationTree
from tests.model.saying import T0, S, Saying, run_id


class History:
    """Durations of earlier runs; counts who asks. With `late` the first answer to each question is `None`."""

    def __init__(self, *, late: bool = False, **high_s: float) -> None:
        self.known = {name: Baseline(high / 2, high / 4, high, 3) for name, high in high_s.items()}
        self.asked: list[str] = []
        self._late = late

    def __call__(self, tenant: str, name: str, step_name: str) -> Baseline | None:
        key = step_name or "operation"
        self.asked.append(key)
        return None if self._late and self.asked.count(key) == 1 else self.known.get(key)


class Host:
    """A tree with a history and a clock that goes from deadline to deadline, as a host's does."""

    def __init__(self, history: History | None) -> None:
        self.history = history
        self.tree = OperationTree(baselines=history)

    def hear(self, *events):
        for event in events:
            self.tree.apply(event, event.time_unix_ns)

    def stalls_until(self, at: float) -> list[tuple[str, float]]:
        """Which runs stall until then, and when, in whole seconds."""
        found = []
        end_ns = T0 + round(at * S)
        while (next_ns := self.tree.next_deadline_unix_ns()) is not None and next_ns <= end_ns:
            stalled = [one for one in self.tree.advance(next_ns) if one.source.stalled]
            found += [(one.event.operation.id, round((next_ns - T0) / S)) for one in stalled]
        return found

    def view(self, number: int = 1):
        return self.tree.view(run_id(number), T0)


def test_the_limit_is_five_times_the_upper_quartile_of_three_durations_at_least():
    assert stall_after_history_s(Baseline(10, 8, 20, 3)) == 100
    assert stall_after_history_s(Baseline(1, 1, 2, 3)) == 30
    assert stall_after_history_s(Baseline(10, 8, 20, 2)) is None
    assert stall_after_history_s(Baseline(10, 8, 20)) is None
    assert stall_after_history_s(None) is None


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("began", [0, 10, 29])
@pytest.mark.parametrize("high_s", [7.0, 20.0])
def test_a_step_that_does_not_count_stalls_by_how_long_it_took_before(late, began, high_s):
    host, run = Host(History(load=high_s, late=late)), Saying()
    host.hear(run.started(), run.step("load", began))
    assert host.stalls_until(1_000) == [(run.id, began + 5 * high_s)]
    assert host.view().stalled_since_unix_ns == T0 + began * S


def test_an_operation_without_steps_stalls_by_how_long_it_took_before():
    host, run = Host(History(operation=100.0, load=1.0)), Saying()
    host.hear(run.started())
    assert host.stalls_until(1_000) == [(run.id, 500)]


def test_nothing_is_concluded_for_a_run_that_is_between_two_steps():
    host, run = Host(History(operation=10.0, extract=10.0)), Saying()
    host.hear(run.started(steps=("extract", "load")))
    assert host.stalls_until(500) == []
    host.hear(run.step("extract", 500), run.step_ended("extract", 501))
    assert host.stalls_until(1_000) == []


def test_what_history_does_not_know_stalls_by_an_explicit_value_only():
    host, silent, declared = Host(History()), Saying(1), Saying(2)
    host.hear(silent.started(), silent.step("load", 0), declared.started(stall_after_s=5.0))
    assert host.stalls_until(100_000) == [(declared.id, 5)]


@pytest.mark.parametrize("explicit_s", [3.0, 5_000.0])
def test_an_explicit_value_goes_before_history(explicit_s):
    host, run = Host(History(load=20.0)), Saying()
    host.hear(run.started(stall_after_s=explicit_s), run.step("load", 0))
    assert host.stalls_until(10_000) == [(run.id, explicit_s)]


def test_a_run_that_counts_keeps_its_own_interval():
    host, run = Host(History(load=1_000.0)), Saying()
    host.hear(run.started(), run.step("load", 0))
    assert host.stalls_until(100) == []
    host.hear(run.tick(100, 1, step_name="load"), run.tick(101, 2, step_name="load"))
    # Its first interval was 100 s; the next are short, and the usual one with them.
    for at in range(102, 160):
        host.hear(run.tick(at, at, step_name="load"))
    assert host.stalls_until(1_000) == [(run.id, 189)]


def test_a_count_that_was_said_and_did_not_move_leaves_it_to_history():
    host, run = Host(History(load=20.0)), Saying()
    host.hear(run.started(), run.step("load", 0), run.tick(1, 0, 100, step_name="load"))
    [(stalled, at)] = host.stalls_until(1_000)
    assert (stalled, at) in {(run.id, 100), (run.id, 101)}


def test_a_shorter_step_after_a_long_one_is_not_seen_late():
    host, run = Host(History(extract=10_000.0, load=2.0)), Saying()
    host.hear(run.started(), run.step("extract", 0))
    assert host.stalls_until(995) == []
    host.hear(run.step_ended("extract", 995), run.step("load", 995))
    assert host.stalls_until(5_000) == [(run.id, 1_025)]


def test_what_ended_a_stall_by_history_ends_it_visibly():
    host, run = Host(History(load=2.0, check=2.0)), Saying()
    host.hear(run.started(), run.step("load", 0))
    host.stalls_until(100)
    assert host.view().stalled
    host.hear(run.step_ended("load", 100), run.step("check", 100))
    assert not host.view().stalled
    assert host.stalls_until(1_000) == [(run.id, 130)]


@pytest.mark.parametrize("state", [State.WAITING, State.PAUSED])
def test_waiting_and_paused_never_stall_by_history_either(state):
    host, run = Host(History(load=2.0)), Saying()
    host.hear(run.started(), run.step("load", 0), run.state(state, 1))
    assert host.stalls_until(10_000) == []
    host.hear(run.state(State.RUNNING, 10_000))
    assert host.stalls_until(20_000) == [(run.id, 10_030)]


def test_a_parent_with_live_children_leaves_it_to_them():
    host, parent, child = Host(History(operation=2.0)), Saying(1), Saying(2, parent=1)
    host.hear(parent.started(), child.started(1))
    assert host.stalls_until(1_000) == [(child.id, 31)]


def test_a_restored_run_is_judged_by_history_after_the_quiet_time():
    host, run = Host(History(load=2.0)), Saying()
    host.hear(run.started(), run.step("load", 0))
    dump = host.tree.dump(run.id)
    later = Host(History(load=2.0))
    later.tree.restore([dump], T0 + 100 * S, quiet_s=45.0)
    assert later.stalls_until(1_000) == [(run.id, 145)]


def test_no_event_of_a_run_that_is_watched_asks_for_history():
    history = History(load=1_000.0)
    host, run = Host(history), Saying()
    host.hear(run.started(), run.step("load", 0))
    asked = history.asked.count("load")
    for at in range(1, 25):
        host.hear(run.note("still at it", at), run.tick(at, step_name="load"))
    assert history.asked.count("load") == asked


def test_a_silent_run_costs_a_look_every_half_minute():
    history = History(load=1_000.0)
    host, run = Host(history), Saying()
    host.hear(run.started(), run.step("load", 0))
    before = history.asked.count("load")
    host.stalls_until(3_000)
    assert history.asked.count("load") - before <= 2 * 3_000 / 30


def test_without_history_a_run_that_does_not_count_is_not_looked_at_at_all():
    host, run = Host(None), Saying()
    host.hear(run.started(), run.step("load", 0))
    assert host.tree.next_deadline_unix_ns() is None
    assert StallWatch().next_unix_ns() is None


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.1, 400)), min_size=1, max_size=8),
    st.fixed_dictionaries({name: st.floats(0.1, 500) for name in "abc"}),
)
def test_whatever_came_before_a_silent_step_stalls_exactly_when_its_own_limit_is_over(parts, high_s):
    host, run = Host(History(**high_s)), Saying()
    host.hear(run.started())
    at, expected, found = 0.0, [], []
    for name, lasts_s in [*parts, ("a", 5_000.0)]:
        host.hear(run.step(name, at))
        limit_s = max(30.0, 5 * high_s[name])
        if limit_s < lasts_s - 0.5:
            expected.append(at + limit_s)
        found += host.stalls_until(at + lasts_s)
        at += lasts_s
        host.hear(run.step_ended(name, at))
    seen = [at for _, at in found]
    assert all(any(abs(one - at) <= 1 for at in seen) for one in expected)
    assert len(expected) <= len(seen) <= len(parts) + 1
