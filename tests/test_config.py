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


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318"),
        (" https://gateway.example/otel/ ", "https://gateway.example/otel"),
        ("collector:4318", "http://collector:4318"),
        ("http://[::1]:4318", "http://[::1]:4318"),
    ],
)
def test_a_collector_may_be_written_as_people_do(written, meant):
    assert resolve(environ={"OTELPROGRESS_COLLECTOR": written}).collector == meant
    assert resolve(collector=written, environ={"OTELPROGRESS_COLLECTOR": "http://other"}).collector == meant


@pytest.mark.parametrize(
    "written", ["ws://c:4318", "http://", "http://c:0", "http://c:high", "http://u:p@c:4318", "http://c?x=1"]
)
def test_what_is_no_collector_is_refused_by_name(written):
    with pytest.raises(InvalidValue, match="OTELPROGRESS_COLLECTOR="):
        resolve(environ={"OTELPROGRESS_COLLECTOR": written})
    with pytest.raises(InvalidValue, match="collector="):
        resolve(collector=written, environ={})


def test_a_spool_is_in_memory_unless_a_folder_is_named():
    assert resolve(environ={}).spool_dir is None
    assert resolve(environ={"OTELPROGRESS_SPOOL_DIR": "/var/spool/x"}).spool_dir == "/var/spool/x"
    assert resolve(spool_dir="mine", environ={"OTELPROGRESS_SPOOL_DIR": "/var/spool/x"}).spool_dir == "mine"


def test_everything_can_be_switched_off():
    assert is_disabled({"OTELPROGRESS_DISABLED": "1"})
    assert not is_disabled({"OTELPROGRESS_DISABLED": "0"})
    assert not is_disabled({})
