from __future__ import annotations

from opentelemetry.sdk.resources import Resource

from otelprogress.otel.resources import make_resource


def test_what_we_say_goes_over_what_the_environment_says(monkeypatch):
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,host.name=h")
    attributes = make_resource({"service.name": "etl"}).attributes
    assert (attributes["service.name"], attributes["host.name"]) == ("etl", "h")
    assert "telemetry.sdk.version" in attributes


def test_while_the_interpreter_leaves_the_environment_is_enough(monkeypatch):
    def refuse(*_):
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    monkeypatch.setattr(Resource, "create", refuse)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "etl")
    attributes = make_resource({"host.name": "h"}).attributes
    assert attributes == {"service.name": "etl", "host.name": "h"}
