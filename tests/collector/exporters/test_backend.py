from __future__ import annotations

import pytest

from otelprogress.exceptions import InvalidValue
from otelprogress_collector.exporters.backend import BackendConfig, parse_backend, parse_backends


def test_a_url_is_enough():
    config = parse_backend({"url": "http://jaeger:4318"})
    assert config == BackendConfig(name="jaeger-4318", url="http://jaeger:4318")
    assert config.protocol == "http/protobuf"
    assert config.signals == ("logs", "traces", "metrics")
    assert config.url_of("traces") == "http://jaeger:4318/v1/traces"


def test_everything_can_be_said_in_text(tmp_path):
    for name in ("ca", "cert", "key"):
        (tmp_path / name).write_text("pem")
    config = parse_backend(
        {
            "name": "vendor",
            "url": " https://otlp.vendor.example/otlp/ ",
            "protocol": "http/protobuf",
            "headers": "api-key=abc,X-Scope=team%20a",
            "ca_file": str(tmp_path / "ca"),
            "cert_file": str(tmp_path / "cert"),
            "key_file": str(tmp_path / "key"),
            "gzip": "true",
            "timeout_s": "2.5",
            "signals": "traces, logs",
            "queue_max_bytes": "64MiB",
            "queue_max_age_s": "",
            "in_flight": "4",
            "max_merged_bytes": "0",
            "ticks": "yes",
            "proxy_from_env": "on",
        }
    )
    assert config == BackendConfig(
        name="vendor",
        url="https://otlp.vendor.example/otlp/",
        headers=(("api-key", "abc"), ("x-scope", "team a")),
        ca_file=str(tmp_path / "ca"),
        cert_file=str(tmp_path / "cert"),
        key_file=str(tmp_path / "key"),
        gzip=True,
        timeout_s=2.5,
        signals=("logs", "traces"),
        queue_max_bytes=64 * 1024 * 1024,
        queue_max_age_s=None,
        in_flight=4,
        max_merged_bytes=0,
        ticks=True,
        proxy_from_env=True,
    )
    assert config.secure
    assert config.url_of("logs") == "https://otlp.vendor.example/otlp/v1/logs"


def test_so_can_values_as_yaml_makes_them():
    config = parse_backend(
        {
            "url": "http://a:1",
            "headers": {"Authorization": "Bearer t"},
            "gzip": True,
            "timeout_s": 3,
            "signals": ["metrics"],
            "queue_max_bytes": 1_000_000,
            "queue_max_age_s": None,
        }
    )
    assert config.headers == (("authorization", "Bearer t"),)
    assert (config.timeout_s, config.signals, config.queue_max_age_s) == (3.0, ("metrics",), None)


@pytest.mark.parametrize("url", ["http://tempo:4317", "tempo:4317", "https://tempo:4317/"])
def test_port_4317_means_grpc(url):
    config = parse_backend({"url": url})
    assert config.protocol == "grpc"
    assert config.authority == "tempo:4317"
    assert config.secure == url.startswith("https")


def test_a_query_of_the_url_is_kept_behind_the_path():
    config = parse_backend({"url": "http://a:1/base?tenant=x"})
    assert config.url_of("metrics") == "http://a:1/base/v1/metrics?tenant=x"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "needs a `url`"),
        ({"url": ""}, "needs a `url`"),
        ({"url": "ftp://host"}, "no http:// or https:// URL"),
        ({"url": "http://"}, "no http:// or https:// URL"),
        ({"url": "http://host:port"}, "no http:// or https:// URL"),
        ({"url": "http://host:99999"}, "no http:// or https:// URL"),
        ({"url": "http://a:1/#x"}, "fragment"),
        ({"url": "http://a:1/v1/traces"}, "leave that out"),
        ({"url": "http://a:4317/path"}, "has a path"),
        ({"url": "http://a:1", "protocol": "http/json"}, "use http/protobuf or grpc"),
        ({"url": "http://a:1", "name": "../../etc"}, "cannot be used"),
        ({"url": "http://a:1", "name": "Big"}, "cannot be used"),
        ({"url": "http://a:1", "name": "x" * 65}, "cannot be used"),
        ({"url": "http://a:1", "name": "a\n"}, "cannot be used"),
        ({"url": "http://a:1", "header": "a=b"}, "did you mean 'headers'"),
        ({"url": "http://a:1", "wings": 2}, "there are name, url"),
        ({"url": "http://a:1", "headers": "nonsense"}, "not to be understood"),
        ({"url": "http://a:1", "headers": 7}, "neither a mapping"),
        ({"url": "http://a:1", "headers": {"a b": "c"}}, "no name of a header"),
        ({"url": "http://a:1", "headers": {"content-type": "c"}}, "set by the collector itself"),
        ({"url": "http://a:4317", "headers": {"grpc-timeout": "c"}}, "set by the collector itself"),
        ({"url": "http://a:4317", "headers": {"x-bin": "c"}}, "not supported"),
        ({"url": "http://a:1", "headers": {"a": "b\r\nc: d"}}, "no printable ASCII"),
        ({"url": "http://a:1", "headers": {"a": 5}}, "no printable ASCII"),
        ({"url": "http://a:1", "timeout_s": 0}, "timeout_s is 0"),
        ({"url": "http://a:1", "timeout_s": "soon"}, "timeout_s is 'soon'"),
        ({"url": "http://a:1", "timeout_s": float("nan")}, "timeout_s is nan"),
        ({"url": "http://a:1", "timeout_s": True}, "timeout_s is True"),
        ({"url": "http://a:1", "timeout_s": ""}, "timeout_s is empty"),
        ({"url": "http://a:1", "queue_max_age_s": "inf"}, "queue_max_age_s is 'inf'"),
        ({"url": "http://a:1", "queue_max_bytes": 10}, "a whole number from 65536"),
        ({"url": "http://a:1", "queue_max_bytes": "1.5GiB"}, "a whole number from 65536"),
        ({"url": "http://a:1", "in_flight": 0}, "a whole number from 1 to 64"),
        ({"url": "http://a:1", "in_flight": True}, "a whole number from 1 to 64"),
        ({"url": "http://a:1", "max_merged_bytes": -1}, "a whole number from 0"),
        ({"url": "http://a:1", "gzip": "maybe"}, "true or false"),
        ({"url": "http://a:1", "signals": "profiles"}, "there are logs, traces, metrics"),
        ({"url": "http://a:1", "signals": []}, "there are logs, traces, metrics"),
        ({"url": "http://a:1", "signals": 5}, "neither a list nor text"),
        ({"url": "https://a:1", "ca_file": "/nowhere/ca.pem"}, "cannot be read: No such file"),
        ({"url": "https://a:1", "key_file": __file__}, "a key needs its certificate"),
        ({"url": "http://a:1", "ca_file": __file__}, "is not https://"),
    ],
)
def test_what_cannot_be_meant_is_named(values, said):
    with pytest.raises(InvalidValue) as caught:
        parse_backend(values)
    assert said in str(caught.value)


def test_errors_quote_no_secret():
    for values in (
        {"url": "http://user:hunter2@host:port"},
        {"url": "http://user:hunter2@host/v1/logs"},
        {"url": "http://a:1", "headers": {"authorization": "hunter2\n"}},
        {"url": "http://a:1", "headers": "hunter2"},
    ):
        with pytest.raises(InvalidValue) as caught:
            parse_backend(values)
        assert "hunter2" not in str(caught.value)


def test_nothing_shown_of_a_backend_has_its_secrets():
    config = parse_backend(
        {"url": "http://user:hunter2@a:1/path", "headers": {"authorization": "Bearer s3cret"}}
    )
    for shown in (repr(config), str(config), config.authority, config.name):
        assert "hunter2" not in shown
        assert "s3cret" not in shown
    assert config.name == "a-1"


def test_what_a_backend_says_is_quoted_in_one_line_without_what_is_secret():
    config = parse_backend(
        {"url": "http://user:p%40ss@a:1", "headers": {"authorization": "Bearer s3cret", "empty": ""}}
    )
    assert config.quoted("bad token s3cret\r\n\x1b]52;") == r"'bad token …\r\n\x1b]52;'"
    assert config.quoted("you sent Bearer s3cret and p%40ss, p@ss") == "'you sent … and …, …'"
    assert len(config.quoted("x" * 10_000)) < 250


def test_two_backends_of_one_name_are_refused():
    first, second = parse_backends([{"url": "http://a:1"}, {"url": "http://b:1"}])
    assert (first.name, second.name) == ("a-1", "b-1")
    with pytest.raises(InvalidValue, match="give each a `name` of its own"):
        parse_backends([{"url": "http://a:1"}, {"url": "http://a:1/other"}])
