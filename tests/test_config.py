from __future__ import annotations

import pytest

from otelprogress.config import DEFAULT_PORT, is_disabled, resolve
from otelprogress.exceptions import InvalidValue


def test_an_argument_goes_before_our_variable_and_ours_before_opentelemetrys():
    environ = {"OTEL_SERVICE_NAME": "otel", "OTELPROGRESS_VIEW": "lines", "OTELPROGRESS_LEASE_S": "30"}
    assert resolve(environ=environ).service_name == "otel"
    assert resolve(service_name="mine", environ=environ).service_name == "mine"
    assert resolve(environ=environ).view == "lines"
    assert resolve(view="bars", environ=environ).view == "bars"
    assert resolve(environ=environ).lease_s == 30
    assert resolve(lease_s=9, environ=environ).lease_s == 9
    assert resolve(environ={"OTEL_RESOURCE_ATTRIBUTES": "a=b,service.name=etl"}).service_name == "etl"


def test_without_anything_said_there_is_a_feed_on_loopback():
    settings = resolve(environ={})
    assert (settings.feed, settings.bind, settings.port, settings.view) == (
        True,
        "127.0.0.1",
        DEFAULT_PORT,
        "auto",
    )
    assert (settings.lease_s, settings.history, settings.shutdown_timeout_s, settings.strict) == (
        90,
        True,
        2,
        False,
    )


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (False, (False, "127.0.0.1", DEFAULT_PORT)),
        ("off", (False, "127.0.0.1", DEFAULT_PORT)),
        ("on", (True, "127.0.0.1", DEFAULT_PORT)),
        ("127.0.0.1:0", (True, "127.0.0.1", 0)),
        ("[::1]:4400", (True, "::1", 4400)),
        (":4400", (True, "127.0.0.1", 4400)),
    ],
)
def test_the_feed_is_on_off_or_an_address(said, wanted):
    settings = resolve(feed=said, environ={})
    assert (settings.feed, settings.bind, settings.port) == wanted
    if isinstance(said, str):
        settings = resolve(environ={"OTELPROGRESS_FEED": said})
        assert (settings.feed, settings.bind, settings.port) == wanted


@pytest.mark.parametrize(
    ("arguments", "environ", "named"),
    [
        ({"feed": "here"}, {}, "feed='here'"),
        ({}, {"OTELPROGRESS_FEED": "127.0.0.1:99999"}, "OTELPROGRESS_FEED='127.0.0.1:99999'"),
        ({"view": "3d"}, {}, "view='3d'"),
        ({}, {"OTELPROGRESS_VIEW": "3d"}, "OTELPROGRESS_VIEW='3d'"),
        ({"lease_s": -1}, {}, "lease_s=-1"),
        ({}, {"OTELPROGRESS_LEASE_S": "soon"}, "OTELPROGRESS_LEASE_S='soon'"),
        ({"shutdown_timeout_s": float("nan")}, {}, "shutdown_timeout_s=nan"),
        ({"notes_from_logging": "LOUD"}, {}, "notes_from_logging='LOUD'"),
        ({}, {"OTELPROGRESS_STRICT": "maybe"}, "OTELPROGRESS_STRICT='maybe'"),
    ],
)
def test_an_error_names_the_setting_and_the_value(arguments, environ, named):
    with pytest.raises(InvalidValue) as refused:
        resolve(**arguments, environ=environ)
    assert named in str(refused.value)


def test_the_collector_is_the_endpoint_only_where_none_is_set():
    collector = {"OTELPROGRESS_COLLECTOR": "http://127.0.0.1:4318"}
    assert resolve(environ=collector).endpoint == "http://127.0.0.1:4318"
    assert resolve(environ={**collector, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://else:4318"}).endpoint is None
    assert resolve(endpoint="http://mine:4318", environ=collector).endpoint == "http://mine:4318"


def test_everything_can_be_switched_off():
    assert is_disabled({"OTELPROGRESS_DISABLED": "1"})
    assert not is_disabled({"OTELPROGRESS_DISABLED": "0"})
    assert not is_disabled({})
