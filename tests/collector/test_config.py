"""The settings: where they come from, and what is wrong with them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from otelprogress.exceptions import InvalidValue
from otelprogress_collector.config import _OF_A_SERVICE, ENV_PREFIX, Config, load

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    import os

    for name in [name for name in os.environ if name.upper().startswith(ENV_PREFIX)]:
        monkeypatch.delenv(name)


def a_file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "collector.toml"
    path.write_text(text)
    return str(path)


def test_the_command_line_goes_before_the_environment_before_the_file_before_the_default(
    tmp_path, monkeypatch
):
    path = a_file(tmp_path, "http_port = 1\ngrpc_port = 2\nring_events = 3")
    monkeypatch.setenv("OTELPROGRESS_COLLECTOR_GRPC_PORT", "20")
    monkeypatch.setenv("OTELPROGRESS_COLLECTOR_HTTP_PORT", "10")
    settings = load(path, {"http_port": 100, "host": None})
    assert (settings.http_port, settings.grpc_port, settings.ring_events) == (100, 20, 3)
    assert settings.host == "127.0.0.1"


def test_lists_in_the_environment_are_separated_by_commas(monkeypatch):
    monkeypatch.setenv("OTELPROGRESS_COLLECTOR_EXPORT_OTLP", "http://a:4317, http://b:4318")
    assert load(None, {}).export_otlp == ("http://a:4317", "http://b:4318")


def test_an_empty_variable_says_nothing(monkeypatch):
    monkeypatch.setenv("OTELPROGRESS_COLLECTOR_HTTP_PORT", "")
    assert load(None, {}).http_port == 4318


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("http_prot = 1", "http_prot: no such setting"),
        ('http_port = "many"', "http_port"),
        ("http_port = 70000", "http_port"),
        ("durability = 'paper'", "durability"),
        ("http_port = 4000\ngrpc_port = 4000", "two ports"),
        ("tls_cert_file = 'x'", "tls_key_file"),
        ("tls_client_ca_file = 'x'", "tls_cert_file"),
        ("host = '0.0.0.0'", "certificate"),
        ("host = '0.0.0.0'\nno_auth = true", "no_auth"),
        ("[[jwt]]\nissuer = 'x'", "jwt.0.audiences"),
        ("self_otlp = 'http://localhost:4318'", "this collector"),
        ("retention_age_s = -1", "retention_age_s"),
        ("x = ", "no TOML"),
    ],
)
def test_what_cannot_be_meant_is_named(tmp_path, text, named):
    with pytest.raises(InvalidValue, match=re.escape(named)):
        load(a_file(tmp_path, text), {})


def test_an_unknown_setting_is_named_with_the_nearest_one_wherever_it_stands(tmp_path, monkeypatch):
    with pytest.raises(InvalidValue, match=r"^http_prot: no such setting; did you mean http_port\?$"):
        load(a_file(tmp_path, "http_prot = 1"), {})
    monkeypatch.setenv("OTELPROGRESS_COLLECTOR_HTTP_PROT", "1")
    monkeypatch.setenv("OTELPROGRESS_COLLECTOR_ZZZZ", "1")
    monkeypatch.setenv("OTELPROGRESS_COLLECTOR_QQQQ", "")
    with pytest.raises(InvalidValue) as refused:
        load(None, {})
    assert str(refused.value) == (
        "OTELPROGRESS_COLLECTOR_HTTP_PROT: no such setting; did you mean OTELPROGRESS_COLLECTOR_HTTP_PORT?; "
        "OTELPROGRESS_COLLECTOR_ZZZZ: no such setting"
    )


def test_every_setting_may_stand_in_the_environment():
    assert not [name for name in Config.model_fields if _OF_A_SERVICE.fullmatch(name.upper())]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTELPROGRESS_COLLECTOR", "http://127.0.0.1:4318"),
        ("OTELPROGRESS_COLLECTOR_PORT", "tcp://10.0.0.1:4318"),
        ("OTELPROGRESS_COLLECTOR_PORT_4318_TCP", "tcp://10.0.0.1:4318"),
        ("OTELPROGRESS_COLLECTOR_PORT_4318_TCP_ADDR", "10.0.0.1"),
        ("OTELPROGRESS_COLLECTOR_SERVICE_HOST", "10.0.0.1"),
        ("OTELPROGRESS_COLLECTOR_SERVICE_PORT_OTLP_HTTP", "4318"),
        ("otelprogress_collector_log_level", "info"),
        ("OTELPROGRESS_COLLECTOR_JWT", "[]"),
    ],
)
def test_what_is_there_for_others_or_well_written_is_no_unknown_setting(monkeypatch, name, value):
    """The SDK's own variable, and what Kubernetes sets for a service called `otelprogress-collector`."""
    monkeypatch.setenv(name, value)
    assert load(None, {}) == Config()


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(InvalidValue, match="nowhere"):
        load("/nowhere/collector.toml", {})


def test_another_address_than_loopback_may_be_meant(tmp_path):
    assert load(a_file(tmp_path, "host = '0.0.0.0'\ninsecure = true"), {}).host == "0.0.0.0"


def test_the_example_in_deploy_can_be_meant():
    assert load(str(ROOT / "deploy/collector.toml"), {}).exporters[0]["name"] == "jaeger"


def test_the_documentation_has_every_setting_with_its_default_and_its_meaning():
    page = (ROOT / "docs/collector.md").read_text().partition("## Settings")[2]
    documented = dict(re.findall(r"^\| `([a-z_]+)` \| (.+) \|$", page, re.MULTILINE))
    expected = {}
    for name, field in Config.model_fields.items():
        default = field.default
        shown = (
            "–"
            if default in ("", (), None)
            else f"`{str(default).lower() if isinstance(default, bool) else default}`"
        )
        expected[name] = f"{shown} | {field.description}"
    assert documented == expected
