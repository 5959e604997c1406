"""Metrics of operations, as Prometheus reads them."""

from __future__ import annotations

from otelprogress.model.events import State
from otelprogress.model.tree import OperationTree
from otelprogress_collector.api.metrics import render
from otelprogress_collector.api.operation_metrics import MAX_NAMES, OTHER, OperationMetrics
from tests.model.saying import T0, Saying


def text_of(*stories: Saying | list) -> str:
    metrics, tree = OperationMetrics(), OperationTree()
    for events in stories:
        for event in events:
            metrics(tree.apply(event, T0))
    return render(metrics.samples()).decode()


def test_starts_ends_and_durations_are_counted_by_name_and_outcome():
    good, bad = Saying(1), Saying(2)
    text = text_of(
        [good.started(), good.step("load", 1), good.step_ended("load", 3), good.ended(4)],
        [bad.started(), bad.ended(100, State.FAILED)],
    )
    assert 'otelprogress_operation_started_total{operation_name="nightly load"} 2' in text
    assert 'otelprogress_operation_ended_total{operation_name="nightly load",outcome="failed"} 1' in text
    assert (
        'otelprogress_operation_duration_seconds_bucket{operation_name="nightly load",outcome="succeeded",le="5"} 1'
        in text
    )
    assert (
        'otelprogress_operation_duration_seconds_sum{operation_name="nightly load",outcome="failed"} 100'
        in text
    )
    assert (
        'otelprogress_step_duration_seconds_count{operation_name="nightly load",step_name="load",state="succeeded"} 1'
        in text
    )


def test_an_operation_that_was_lost_has_no_duration():
    run = Saying()
    text = text_of([run.started(), run.lost(50)])
    assert 'outcome="lost"} 1' in text
    assert "duration_seconds_bucket" not in text


def test_names_without_end_count_as_other():
    stories = [[Saying(n, name=f"job {n}").started()] for n in range(1, MAX_NAMES + 4)]
    assert f'otelprogress_operation_started_total{{operation_name="{OTHER}"}} 3' in text_of(*stories)


def test_ticks_count_nothing():
    run = Saying()
    assert text_of([run.started(), run.tick(1, 2, 3)]).count("_total{") == 1
