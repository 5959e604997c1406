from __future__ import annotations

import pytest

from otelprogress.exceptions import InvalidValue
from otelprogress.otel.target import OtlpEndpoint, otlp_target, same_place


def test_without_an_endpoint_nothing_is_sent():
    assert otlp_target({}) is None
    assert otlp_target({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}) is None


def test_a_base_endpoint_gives_every_signal_its_path():
    target = otlp_target({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318/"})
    assert target.logs.url == "http://collector:4318/v1/logs"
    assert target.traces.url == "http://collector:4318/v1/traces"
    assert target.metrics.url == "http://collector:4318/v1/metrics"
    assert {target.logs.protocol, target.traces.protocol} == {"http/protobuf"}


def test_a_signals_own_endpoint_is_taken_as_it_stands():
    target = otlp_target({"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://logs/otlp"})
    assert target.logs.url == "http://logs/otlp"
    assert target.traces is None
    assert target.metrics is None


def test_the_grpc_port_means_grpc_unless_the_protocol_is_said():
    assert otlp_target({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}).logs.protocol == "grpc"
    said = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
    assert otlp_target(said).logs.url == "http://c:4317/v1/logs"
    said = {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://c:443", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    assert otlp_target(said).logs.authority == "c:443"
    assert otlp_target(said).logs.secure


def test_an_endpoint_given_to_us_goes_before_the_environments():
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://other",
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://third/x",
    }
    assert otlp_target(environ, endpoint="http://127.0.0.1:4318").logs.url == "http://127.0.0.1:4318/v1/logs"


def test_a_signal_whose_exporter_is_none_is_not_sent():
    target = otlp_target({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_METRICS_EXPORTER": "none"})
    assert target.metrics is None
    assert target.logs is not None


def test_headers_timeout_and_compression_are_read_per_signal_first():
    target = otlp_target(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c",
            "OTEL_EXPORTER_OTLP_HEADERS": "Api-Key=a%20b",
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "x=1",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "3",
            "OTEL_EXPORTER_OTLP_LOGS_COMPRESSION": "gzip",
        },
    )
    assert target.logs.headers == (("api-key", "a b"),)
    assert target.traces.headers == (("x", "1"),)
    assert target.logs.timeout_s == 3
    assert target.logs.gzip
    assert not target.traces.gzip


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "ftp://c"}, "ftp://c"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
            "http/json",
        ),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_EXPORTER_OTLP_TIMEOUT": "soon"}, "soon"),
    ],
)
def test_what_cannot_be_meant_is_named(environ, named):
    with pytest.raises(InvalidValue, match=named):
        otlp_target(environ)


@pytest.mark.parametrize(
    ("theirs", "same"),
    [
        ("http://localhost:4318/v1/logs", True),
        ("localhost:4317", True),
        ("http://127.0.0.1:4318", True),
        ("http://127.0.0.1:9999/v1/logs", False),
        ("http://elsewhere:4318/v1/logs", False),
    ],
)
def test_the_two_ports_of_one_collector_are_one_place(theirs, same):
    assert same_place(OtlpEndpoint("http://127.0.0.1:4318/v1/logs", "http/protobuf"), theirs) is same


COLLECTOR = "http://127.0.0.1:4318"


def test_the_collector_gets_what_no_endpoint_is_named_for():
    assert otlp_target({}, collector=COLLECTOR).logs.url == "http://127.0.0.1:4318/v1/logs"
    everything = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://else:4318"}
    assert otlp_target(everything, collector=COLLECTOR).logs.url == "http://else:4318/v1/logs"
    assert otlp_target({}, endpoint="http://mine", collector=COLLECTOR).logs.url == "http://mine/v1/logs"
    traces = otlp_target({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://traces/x"}, collector=COLLECTOR)
    assert traces.traces.url == "http://traces/x"
    assert traces.logs.url == "http://127.0.0.1:4318/v1/logs"
    assert traces.metrics.url == "http://127.0.0.1:4318/v1/metrics"


def test_the_collectors_port_says_its_protocol_whatever_others_speak():
    environ = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "http/json"}
    assert otlp_target(environ, collector=COLLECTOR).logs.protocol == "http/protobuf"
    assert otlp_target({}, collector="http://c:4317").logs.protocol == "grpc"


def test_a_token_goes_to_the_collector_alone_and_a_key_of_others_to_them_alone():
    def token() -> str:
        return "t"

    assert otlp_target({}, collector=COLLECTOR, token=token).logs.token is token
    mixed = otlp_target(
        {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://traces/x",
            "OTEL_EXPORTER_OTLP_HEADERS": "api-key=theirs",
        },
        collector=COLLECTOR,
        token=token,
    )
    assert mixed.traces.token is None
    assert mixed.traces.headers == (("api-key", "theirs"),)
    assert mixed.logs.token is token
    assert mixed.logs.headers == ()
    said = {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20mine"}
    alone = otlp_target(said, collector=COLLECTOR, token=token)
    assert alone.logs.headers == (("authorization", "Bearer mine"),)
    assert alone.logs.token is None
