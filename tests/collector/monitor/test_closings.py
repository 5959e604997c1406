"""When the spans of lost runs are closed."""

from __future__ import annotations

from otelprogress_collector.monitor.closings import Closings


def test_a_proven_death_closes_its_span_at_once():
    closings = Closings()
    closings.lost("run", proven=True, now_s=10.0)
    assert closings.due(10.0) == ["run"]


def test_any_other_verdict_is_held_for_a_minute():
    closings = Closings()
    closings.lost("run", proven=False, now_s=10.0)
    assert closings.due(69.9) == []
    assert closings.due(70.0) == ["run"]
    assert closings.next_due_s() == 70.0


def test_a_run_that_is_heard_again_meanwhile_keeps_its_span():
    closings = Closings()
    closings.lost("run", proven=False, now_s=10.0)
    closings.spoke("run")
    assert closings.due(1000.0) == []
    assert not closings.concerned


def test_what_is_due_stays_due_until_it_is_closed():
    closings = Closings()
    closings.lost("run", proven=True, now_s=0.0)
    assert closings.due(1.0) == closings.due(2.0) == ["run"]
    closings.close("run")
    assert closings.due(3.0) == []


def test_a_span_is_closed_once_also_across_starts():
    closings = Closings(["run"])
    closings.lost("run", proven=True, now_s=0.0)
    assert closings.due(1.0) == []
    assert closings.concerned


def test_the_oldest_closed_spans_are_forgotten_first(monkeypatch):
    monkeypatch.setattr("otelprogress_collector.monitor.closings.MAX_REMEMBERED", 2)
    closings = Closings()
    for run in ("first", "second", "third"):
        closings.close(run)
    assert list(closings.closed) == ["second", "third"]
