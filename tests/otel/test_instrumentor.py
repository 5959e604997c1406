from __future__ import annotations

import sys
from importlib.metadata import entry_points
from types import ModuleType

import pytest

from otelprogress.otel.instrumentor import ProgressInstrumentor


@pytest.fixture
def runtime(monkeypatch):
    calls = []
    fake = ModuleType("otelprogress.runtime")
    fake.configure_from_environment = lambda: calls.append("configured")
    fake.shutdown = lambda: calls.append("shut down")
    monkeypatch.setitem(sys.modules, "otelprogress.runtime", fake)
    fake.calls = calls
    return fake


@pytest.fixture
def instrumentor():
    one = ProgressInstrumentor()
    yield one
    one._is_instrumented_by_opentelemetry = False


def test_the_entry_point_leads_here():
    [found] = [one for one in entry_points(group="opentelemetry_instrumentor") if one.name == "otelprogress"]
    assert found.load() is ProgressInstrumentor


def test_it_configures_from_the_environment_and_undoes_it(runtime, instrumentor):
    instrumentor.instrument()
    instrumentor.uninstrument()
    assert runtime.calls == ["configured", "shut down"]


def test_it_depends_on_no_library(instrumentor):
    assert list(instrumentor.instrumentation_dependencies()) == []


def test_a_wrong_setting_does_not_stop_the_other_instrumentations(runtime, instrumentor, caplog):
    def refuse():
        raise ValueError("OTELPROGRESS_RULES: rule 1 is empty")

    runtime.configure_from_environment = refuse
    instrumentor.instrument(raise_exception_on_conflict=True)
    assert "OTELPROGRESS_RULES" in caplog.text
