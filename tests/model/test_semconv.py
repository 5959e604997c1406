from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from otelprogress.model import semconv
from otelprogress.model.events import Event, State, StepState
from otelprogress.model.fields import FLOATS, INTEGERS, JSON_TEXTS, TEXT_LISTS, TEXTS
from otelprogress.model.mapping import KNOWN_EVENTS, event_from_log

FOLDER = Path(__file__).parents[2] / "docs" / "semconv"
GROUPS = yaml.safe_load((FOLDER / "registry.yaml").read_text(encoding="utf-8"))["groups"]
ATTRIBUTES = {
    attribute["id"]: attribute
    for group in GROUPS
    for attribute in group.get("attributes", [])
    if "id" in attribute
}
EVENTS = {group["name"]: group for group in GROUPS if group["type"] == "event"}
METRICS = {group["metric_name"]: group for group in GROUPS if group["type"] == "metric"}
OTEL_OWN = {
    "error.type",
    "exception.type",
    "exception.message",
    "exception.stacktrace",
    "service.name",
    "process.pid",
}
CONSTANTS = {
    name: value
    for name, value in vars(semconv).items()
    if name.isupper() and isinstance(value, str) and name not in {"SCOPE_NAME", "PREFIX"}
}


def constants(*, events: bool = False, metrics: bool = False) -> set[str]:
    return {
        value.removesuffix(".")
        for name, value in CONSTANTS.items()
        if (value in KNOWN_EVENTS) == events
        and name.startswith("METRIC_") == metrics
        and value not in OTEL_OWN
    }


def test_the_registry_has_exactly_the_attributes_of_the_module() -> None:
    assert set(ATTRIBUTES) == constants()


def test_the_registry_has_exactly_the_events_of_the_module() -> None:
    assert set(EVENTS) == constants(events=True) == set(KNOWN_EVENTS)


def test_the_registry_has_exactly_the_metrics_of_the_module() -> None:
    assert set(METRICS) == constants(metrics=True)


def test_the_registry_says_which_events_are_durable() -> None:
    def delivered(how: str) -> set[str]:
        return {name for name, group in EVENTS.items() if group["annotations"]["delivery"] == how}

    assert delivered("durable") == semconv.DURABLE_EVENTS
    assert delivered("conflated") == semconv.CONFLATED_EVENTS
    assert delivered("span") == {semconv.STEPS_FOLDED}


def test_the_types_are_those_that_the_mapping_reads_and_writes() -> None:
    written = (
        {text.attribute: "string" for text in TEXTS}
        | {attribute: "double" for _, attribute in FLOATS}
        | {attribute: "int" for _, attribute in INTEGERS}
        | {attribute: "string" for _, attribute, _ in JSON_TEXTS}
        | {attribute: "string[]" for _, attribute, _ in TEXT_LISTS}
        | {
            semconv.OPERATION_STEP_WEIGHTS: "double[]",
            semconv.OPERATION_STALLED: "boolean",
            semconv.OPERATION_STATE: "string",
            semconv.STEP_STATE: "string",
            semconv.COUNTER_PREFIX.rstrip("."): "template[double]",
            semconv.ATTRIBUTE_PREFIX.rstrip("."): "template[string]",
        }
    )
    said = {
        name: one["type"] if isinstance(one["type"], str) else "string" for name, one in ATTRIBUTES.items()
    }
    assert said == {name: kind for name, kind in written.items() if name not in OTEL_OWN}


@pytest.mark.parametrize(
    ("attribute", "members"), [(semconv.OPERATION_STATE, State), (semconv.STEP_STATE, StepState)]
)
def test_the_members_of_an_enumeration_are_those_of_the_model(attribute: str, members: type) -> None:
    assert [member["value"] for member in ATTRIBUTES[attribute]["type"]["members"]] == [
        one.value for one in members
    ]


def test_every_reference_leads_to_an_attribute_and_everything_is_explained() -> None:
    for group in GROUPS:
        assert group["brief"].endswith("."), group["id"]
        assert group.get("extends", "otelprogress.common") == "otelprogress.common"
        for attribute in group.get("attributes", []):
            if "ref" in attribute:
                assert attribute["ref"] in ATTRIBUTES or attribute["ref"] in OTEL_OWN
                assert "requirement_level" in attribute
            else:
                assert attribute["brief"].endswith("."), attribute["id"]
                assert attribute["stability"] == "development"
                assert attribute["examples"]
    assert len({group["id"] for group in GROUPS}) == len(GROUPS)


def test_every_attribute_stands_on_some_event() -> None:
    used = {
        attribute["ref"]
        for group in GROUPS
        for attribute in group.get("attributes", [])
        if "ref" in attribute
    }
    assert used >= set(ATTRIBUTES)


def test_the_limits_that_are_said_are_those_that_are_kept() -> None:
    for attribute, limit in (
        (semconv.OPERATION_TITLE, semconv.MAX_TITLE_CHARS),
        (semconv.MESSAGE, semconv.MAX_MESSAGE_CHARS),
        (semconv.RESULT, semconv.MAX_RESULT_BYTES),
        ("otelprogress.counter", semconv.MAX_COUNTERS),
    ):
        assert f"At most {limit}" in ATTRIBUTES[attribute]["note"]


# --- the page for other languages ------------------------------------------------------------------------------


def value_of(any_value: dict[str, object]) -> object:
    ((kind, value),) = any_value.items()
    return int(str(value)) if kind == "intValue" else value


def attributes_of(pairs: list[dict]) -> dict[str, object]:
    return {pair["key"]: value_of(pair["value"]) for pair in pairs}


def test_the_records_of_the_page_are_understood() -> None:
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    (resource_logs,) = json.loads(block)["resourceLogs"]
    resource = attributes_of(resource_logs["resource"]["attributes"])
    events: list[Event] = [
        event_from_log(
            record["eventName"],
            attributes_of(record["attributes"]),
            trace_id=int(record["traceId"], 16),
            span_id=int(record["spanId"], 16),
            time_unix_ns=int(record["timeUnixNano"]),
            resource=resource,
            severity_number=record["severityNumber"],
        )
        for record in resource_logs["scopeLogs"][0]["logRecords"]
    ]
    started, progressed, ended = events
    assert (started.name, started.parent_span_id, started.service, started.process_id) == (
        "invoices",
        "",
        "billing",
        4711,
    )
    assert (progressed.completed, progressed.total, progressed.unit) == (120, 900, "{invoice}")
    assert (ended.state, ended.completed) == (State.SUCCEEDED, 900)


def test_every_name_on_the_page_exists() -> None:
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    for name in set(re.findall(r"otelprogress\.[a-z_]+\.[a-z_]+", page)):
        assert name in ATTRIBUTES or name in EVENTS, name
