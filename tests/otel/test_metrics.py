from __future__ import annotations

from types import SimpleNamespace

import pytest
from opentelemetry import metrics as metrics_api
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otelprogress.model import semconv
from otelprogress.model.events import State
from otelprogress.otel.metrics import ProgressMetrics
from otelprogress.otel.sender import Sender
from otelprogress.otel.target import otlp_target
from tests.otel.events import TRACE_ID, ended, event, started, step_ended, step_started, ticked
from tests.otel.otlp_server import HttpReceiver


@pytest.fixture
def reader():
    made = InMemoryMetricReader()
    provider = MeterProvider([made], shutdown_on_exit=False)
    metrics_api.set_meter_provider(provider)
    yield made
    provider.shutdown()


def recorded(metrics: ProgressMetrics, *events) -> None:
    metrics([SimpleNamespace(source=one) for one in events])
    assert metrics.errors == 0


def points(reader, name: str) -> list:
    data = reader.get_metrics_data()
    return [
        point
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        if scope.scope.name == "otelprogress"
        for metric in scope.metrics
        if metric.name == name
        for point in metric.data.data_points
    ]


def test_an_operations_duration_is_told_by_name_outcome_and_error(reader):
    recorded(ProgressMetrics(), started(), ended(state=State.FAILED, error_type="ValueError"))
    [point] = points(reader, semconv.METRIC_OPERATION_DURATION)
    assert point.sum == 1000.0
    assert point.attributes == {
        semconv.OPERATION_NAME: "import flights",
        semconv.OPERATION_STATE: "failed",
        semconv.ERROR_TYPE: "ValueError",
    }


def test_a_value_links_to_its_trace(reader):
    recorded(ProgressMetrics(), started(), ended())
    [point] = points(reader, semconv.METRIC_OPERATION_DURATION)
    [exemplar] = point.exemplars
    assert (exemplar.trace_id, exemplar.span_id) == (TRACE_ID, 1)


def test_a_steps_duration_is_told_by_step(reader):
    recorded(ProgressMetrics(), started(), step_started(0), step_ended(0))
    [point] = points(reader, semconv.METRIC_STEP_DURATION)
    assert point.sum == 0.5
    assert point.attributes[semconv.STEP_NAME] == "step 0"


def test_active_operations_go_up_and_down(reader):
    metrics = ProgressMetrics()
    recorded(metrics, started(1), started(1), started(2))
    assert [point.value for point in points(reader, semconv.METRIC_OPERATION_ACTIVE)] == [2]
    recorded(metrics, ended(1), ended(1))
    assert [point.value for point in points(reader, semconv.METRIC_OPERATION_ACTIVE)] == [1]


def test_items_are_counted_once_whatever_is_repeated(reader):
    said = {"unit": "{row}", "step_name": "load", "step_index": 0}
    recorded(
        ProgressMetrics(),
        started(),
        ticked(30.0, initial=10.0, **said),
        ticked(50.0, initial=10.0, **said),
        ticked(50.0, initial=10.0, **said),
        ticked(40.0, initial=10.0, **said),
        step_ended(0, completed=60.0, initial=10.0, unit="{row}"),
    )
    assert sum(point.value for point in points(reader, semconv.METRIC_ITEMS)) == 50.0


def test_a_stall_is_counted_when_it_begins(reader):
    metrics = ProgressMetrics()
    stalled = event(semconv.OPERATION_STATE_CHANGED, stalled=True)
    recorded(
        metrics, started(), stalled, stalled, event(semconv.OPERATION_STATE_CHANGED, stalled=False), stalled
    )
    assert [point.value for point in points(reader, semconv.METRIC_OPERATION_STALLED)] == [2]


def test_no_dimension_is_an_id_or_a_title(reader):
    recorded(
        ProgressMetrics(),
        started(title="import of monday", label="job-7"),
        step_started(0),
        step_ended(0),
        ended(),
    )
    for name in (
        semconv.METRIC_OPERATION_DURATION,
        semconv.METRIC_STEP_DURATION,
        semconv.METRIC_OPERATION_ACTIVE,
    ):
        for point in points(reader, name):
            assert not {"import of monday", "job-7"} & {str(value) for value in point.attributes.values()}
            assert semconv.WRITER_ID not in point.attributes


def test_what_was_never_started_here_is_not_recorded(reader):
    recorded(ProgressMetrics(), ended(), step_ended(0), ticked(1.0))
    assert reader.get_metrics_data() is None


def test_without_a_provider_nothing_is_made():
    metrics = ProgressMetrics()
    recorded(metrics, started(), ended())
    assert metrics._private is None


def test_a_provider_that_comes_later_gets_what_comes_later():
    metrics = ProgressMetrics()
    recorded(metrics, started(1))
    late = InMemoryMetricReader()
    provider = MeterProvider([late], shutdown_on_exit=False)
    metrics_api.set_meter_provider(provider)
    recorded(metrics, started(2))
    assert [point.value for point in points(late, semconv.METRIC_OPERATION_ACTIVE)] == [1]
    provider.shutdown()


def test_with_an_endpoint_and_no_provider_metrics_leave_through_the_sender():
    with HttpReceiver() as receiver:
        sender = Sender(
            otlp_target({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}),
            resource={},
            version="1",
        )
        metrics = ProgressMetrics(sender=sender, resource={"service.name": "etl"})
        recorded(metrics, started(), ended())
        metrics.shutdown()  # in either order
        assert sender.shutdown(15)
        [request] = [one for one in receiver.received if one.path == "/v1/metrics"]
        [group] = ExportMetricsServiceRequest.FromString(request.body).resource_metrics
        names = {metric.name for scope in group.scope_metrics for metric in scope.metrics}
        assert names >= {semconv.METRIC_OPERATION_DURATION, semconv.METRIC_OPERATION_ACTIVE}


def test_a_forked_child_counts_none_of_its_parents_runs(reader):
    metrics = ProgressMetrics()
    recorded(metrics, started())
    metrics.reset_after_fork()
    recorded(metrics, ended())
    assert points(reader, semconv.METRIC_OPERATION_DURATION) == []


def test_too_many_runs_are_forgotten_oldest_first(reader, monkeypatch):
    monkeypatch.setattr("otelprogress.otel.metrics._MAX_RUNS", 2)
    metrics = ProgressMetrics()
    recorded(metrics, started(1), started(2), started(3))
    assert [point.value for point in points(reader, semconv.METRIC_OPERATION_ACTIVE)] == [2]
