from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otelprogress.exceptions import InvalidRecord
from otelprogress.model import semconv
from otelprogress.model.events import Event, State
from otelprogress.model.mapping import KNOWN_EVENTS, event_from_log, event_to_attributes, sanitized
from tests.model.event_strategies import any_text, events, scalars

ATTRIBUTE_NAMES = sorted(
    value
    for name, value in vars(semconv).items()
    if name.isupper()
    and isinstance(value, str)
    and value.startswith(semconv.PREFIX)
    and not name.startswith("METRIC_")
)


def read(name: str, attributes: dict[str, object], **more: object) -> Event:
    return event_from_log(name, attributes, **({"trace_id": 1, "span_id": 2, "time_unix_ns": 3} | more))


@given(events)
@settings(max_examples=80, deadline=None)
def test_an_event_survives_the_way_over_a_log_record(said: Event) -> None:
    said = sanitized(said)
    resource = {semconv.SERVICE_NAME: said.service, semconv.PROCESS_PID: said.process_id}
    back = event_from_log(
        said.kind,
        event_to_attributes(said),
        trace_id=int(said.trace_id, 16),
        span_id=int(said.span_id, 16),
        time_unix_ns=said.time_unix_ns,
        resource={key: value for key, value in resource.items() if value is not None},
        sampled=said.sampled,
        tenant=said.tenant,
        source=said.source,
    )
    assert back == said


@given(events)
@settings(max_examples=40, deadline=None)
def test_every_attribute_is_of_a_type_that_otlp_has(said: Event) -> None:
    for key, value in event_to_attributes(sanitized(said)).items():
        assert key.startswith(("otelprogress.", "error.", "exception."))
        assert isinstance(value, (str, bool, int, float)) or all(
            isinstance(item, (str, float)) for item in value
        )


@given(
    st.sampled_from(sorted(KNOWN_EVENTS)),
    st.dictionaries(
        st.sampled_from(ATTRIBUTE_NAMES) | any_text.map(lambda text: "otelprogress.counter." + text),
        scalars | st.lists(scalars, max_size=3) | st.none() | st.binary(max_size=3),
        max_size=8,
    ),
)
@settings(max_examples=100, deadline=None)
def test_any_attributes_are_an_event_or_a_named_mistake(name: str, attributes: dict[str, object]) -> None:
    try:
        event = read(name, attributes)
    except InvalidRecord as error:
        event, complaint = None, str(error)
    assert "otelprogress." in complaint if event is None else sanitized(event) is event


def test_a_record_of_another_language_is_understood() -> None:
    event = read(
        "otelprogress.operation.progressed",
        {
            "otelprogress.items.completed": 12,
            "otelprogress.items.total": 100.0,
            "otelprogress.step.index": 2.0,
            "other": object(),
        },
        resource={"service.name": "billing", "process.pid": 77},
    )
    assert (event.completed, event.total, event.step_index, event.service, event.process_id) == (
        12.0,
        100.0,
        2,
        "billing",
        77,
    )
    assert (event.run_id, event.sequence, event.writer_id) == (f"{1:032x}-{2:016x}", None, "")


def test_what_is_not_said_is_none_and_not_zero() -> None:
    event = read(semconv.OPERATION_STARTED, {})
    assert (event.name, event.steps, event.completed, event.parent_span_id, event.state) == (
        None,
        None,
        None,
        None,
        None,
    )


@pytest.mark.parametrize(("severity", "level"), [(0, None), (9, None), (13, "warning"), (17, "error")])
def test_the_severity_of_a_note_is_its_level(severity: int, level: str | None) -> None:
    assert read(semconv.OPERATION_NOTED, {}, severity_number=severity).level == level
    assert (
        read(semconv.OPERATION_NOTED, {semconv.MESSAGE_LEVEL: "info"}, severity_number=severity).level
        == "info"
    )


def test_an_exception_names_the_error_where_nothing_else_does() -> None:
    event = read(
        semconv.OPERATION_ENDED, {"otelprogress.operation.state": "failed", "exception.type": "KeyError"}
    )
    assert (event.state, event.error_type) == (State.FAILED, "KeyError")
    event = read(semconv.OPERATION_ENDED, {"error.type": "timeout", "exception.type": "KeyError"})
    assert event.error_type == "timeout"


@pytest.mark.parametrize(
    ("name", "attributes", "complaint"),
    [
        ("otelprogress.operation.exploded", {}, "unknown event 'otelprogress.operation.exploded'"),
        (
            semconv.OPERATION_ENDED,
            {semconv.OPERATION_STATE: "done"},
            "otelprogress.operation.state must be one of running",
        ),
        (semconv.STEP_ENDED, {semconv.STEP_STATE: 1}, "otelprogress.step.state must be a string"),
        (
            semconv.OPERATION_PROGRESSED,
            {semconv.ITEMS_COMPLETED: "12"},
            "otelprogress.items.completed must be a number",
        ),
        (
            semconv.OPERATION_PROGRESSED,
            {"otelprogress.counter.bad": "x"},
            "otelprogress.counter.bad must be a number",
        ),
        (
            semconv.OPERATION_STARTED,
            {semconv.OPERATION_STEPS: "a,b"},
            "otelprogress.operation.steps must be a list",
        ),
    ],
)
def test_a_record_that_cannot_be_meant_is_refused_by_the_attribute(
    name: str, attributes: dict, complaint: str
) -> None:
    with pytest.raises(InvalidRecord) as caught:
        read(name, attributes)
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    "ids",
    [
        {"trace_id": 0},
        {"span_id": 0},
        {"trace_id": 1 << 128},
        {"time_unix_ns": -1},
        {"time_unix_ns": 1 << 63},
    ],
)
def test_ids_and_times_that_cannot_be_are_refused(ids: dict[str, int]) -> None:
    with pytest.raises(InvalidRecord, match=r"otelprogress\.operation\.started"):
        read(semconv.OPERATION_STARTED, {}, **ids)


def test_a_writer_that_is_alive_needs_no_span() -> None:
    event = read(
        semconv.WRITER_ALIVE, {semconv.WRITER_ID: "w", semconv.WRITER_LEASE: 90}, trace_id=0, span_id=0
    )
    assert (event.run_id, event.writer_id, event.lease_s) == ("", "w", 90.0)


def test_the_caller_s_attributes_travel_under_a_prefix_and_secrets_do_not() -> None:
    said = sanitized(
        Event(
            kind=semconv.OPERATION_STARTED,
            run_id=f"{1:032x}-{2:016x}",
            time_unix_ns=3,
            attributes={"tenant": "acme", "api_key": "x"},
        ),
    )
    attributes = event_to_attributes(said)
    assert attributes["otelprogress.attribute.tenant"] == "acme"
    assert not any("api_key" in key for key in attributes)
    back = read(said.kind, attributes | {"otelprogress.attribute.password": "x", "customer": "y"})
    assert back.attributes == {"tenant": "acme"}


def test_no_more_than_eight_counters_are_read() -> None:
    event = read(semconv.OPERATION_PROGRESSED, {f"otelprogress.counter.c{n}": n for n in range(20)})
    assert event.counters is not None
    assert len(event.counters) == 8
