from __future__ import annotations

from pathlib import Path

import pytest

from otelprogress.exceptions import InvalidValue
from otelprogress.feed import runtime_file
from otelprogress.feed.discovery import (
    Discovery,
    all_feeds,
    collector_token,
    feed_url,
    local_feeds,
    renewed,
    target_at,
)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("ws://127.0.0.1:4327", "ws://127.0.0.1:4327/v1/feed"),
        ("127.0.0.1:4327", "ws://127.0.0.1:4327/v1/feed"),
        ("http://127.0.0.1:4327/", "ws://127.0.0.1:4327/v1/feed"),
        ("https://feed.example/v1/feed?x=1", "wss://feed.example/v1/feed?x=1"),
        ("ws://user:secret@[::1]:1", "ws://[::1]:1/v1/feed"),
    ],
)
def test_addresses_may_be_written_as_people_do(written: str, meant: str):
    assert feed_url(written) == meant


@pytest.mark.parametrize("written", ["", "ftp://x", "ws://", "/v1/feed"])
def test_what_is_no_address_is_refused(written: str):
    with pytest.raises(InvalidValue, match="HOST:PORT"):
        feed_url(written)


def test_local_feeds_come_from_the_runtime_files_of_running_processes(private_runtime_folder: Path):
    assert local_feeds() == []
    runtime_file.write("ws://127.0.0.1:1", "one", service="etl")
    dead = runtime_file.write("ws://127.0.0.1:2", "two")
    dead.write_text(dead.read_text().replace('"pid":', '"pid":4194300,"was":'))
    (target,) = local_feeds()
    assert (target.url, target.token, target.service, target.gone) == (
        "ws://127.0.0.1:1/v1/feed",
        "one",
        "etl",
        False,
    )


def test_a_discovery_gives_each_feed_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("otelprogress.feed.discovery.LOOK_EVERY_S", 0.0)
    discovery = Discovery()
    assert discovery.appeared() == []
    runtime_file.write("ws://127.0.0.1:1", "one")
    assert [each.token for each in discovery.appeared()] == ["one"]
    # The same process opens a feed again, at the same address with another token.
    runtime_file.write("ws://127.0.0.1:1", "two")
    assert [each.token for each in discovery.appeared()] == ["two"]
    assert discovery.appeared() == []


def test_a_discovery_does_not_look_more_often_than_it_should():
    discovery = Discovery()
    discovery.appeared()
    runtime_file.write("ws://127.0.0.1:1", "one")
    assert discovery.appeared() == []


def test_the_token_of_an_address_is_the_argument_the_runtime_file_or_the_token_file(tmp_path: Path):
    token_file = tmp_path / "token"
    token_file.write_text("filed\n")
    environ = {"OTELPROGRESS_TOKEN_FILE": str(token_file)}
    assert target_at("ws://127.0.0.1:1", environ={}).token == ""
    assert target_at("ws://127.0.0.1:1", environ=environ).token == "filed"
    runtime_file.write("ws://127.0.0.1:1", "local")
    assert target_at("ws://127.0.0.1:1", environ=environ).token == "local"
    assert target_at("ws://127.0.0.1:1", "given", environ=environ).token == "given"
    assert target_at("ws://127.0.0.1:1", "given").pid > 0


def test_a_token_file_that_cannot_be_read_is_named():
    with pytest.raises(InvalidValue, match="OTELPROGRESS_TOKEN_FILE=/nowhere"):
        target_at("ws://127.0.0.1:1", environ={"OTELPROGRESS_TOKEN_FILE": "/nowhere"})


# --- a collector -----------------------------------------------------------------------------------------


def test_the_collector_that_is_named_is_one_of_the_feeds_and_is_there_once(private_runtime_folder: Path):
    environ = {"OTELPROGRESS_COLLECTOR": "http://localhost:4318"}
    (target,) = all_feeds(environ)
    assert (target.url, target.token, target.is_collector) == ("ws://localhost:4318/v1/feed", "", True)
    runtime_file.write("ws://127.0.0.1:4318", "local", kind="collector")
    runtime_file.write("ws://127.0.0.1:1", "process")
    feeds = all_feeds(environ)
    assert [(each.is_collector, each.token) for each in feeds] == [(False, "process"), (True, "local")]
    assert [each.token for each in all_feeds({})] == ["process", "local"]
    assert {each.key for each in all_feeds({}) if each.is_collector} == {feeds[1].key}


def test_a_collector_behind_a_gateway_keeps_its_prefix():
    (target,) = all_feeds({"OTELPROGRESS_COLLECTOR": "https://gateway.example/otel/"})
    assert target.url == "wss://gateway.example/otel/v1/feed"


def test_a_collector_that_restarted_is_the_same_feed_with_the_token_as_it_is_now():
    first = runtime_file.write("http://127.0.0.1:4318", "old", kind="collector")
    (before,) = all_feeds({})
    runtime_file.remove(first)
    assert renewed(before, {}) is before
    runtime_file.write("ws://127.0.0.1:4318", "new", kind="collector")
    (after,) = all_feeds({})
    assert after.key == before.key
    assert renewed(before, {}).token == "new"
    assert not before.gone


def test_the_token_of_a_collector_is_that_of_the_file_before_that_of_its_runtime_file(tmp_path: Path):
    file = tmp_path / "token"
    file.write_text("filed\n")
    assert collector_token("http://127.0.0.1:4318", None) == ""
    runtime_file.write("ws://127.0.0.1:4318", "local", kind="collector")
    assert collector_token("http://localhost:4318", None) == "local"
    assert collector_token("http://localhost:4319", None) == ""
    assert collector_token("http://localhost:4318", str(file)) == "filed"


@pytest.mark.parametrize("content", ["", "two words", "line\nbreak", "n\u00f6t ascii"])
def test_what_is_no_token_is_not_shown_to_anybody(tmp_path: Path, content: str):
    file = tmp_path / "token"
    file.write_text(content)
    with pytest.raises(InvalidValue, match="OTELPROGRESS_TOKEN_FILE="):
        collector_token("http://127.0.0.1:4318", str(file))


def test_a_token_file_that_cannot_be_read_hides_no_process(private_runtime_folder: Path):
    runtime_file.write("ws://127.0.0.1:1", "process")
    environ = {"OTELPROGRESS_COLLECTOR": "http://c:4318", "OTELPROGRESS_TOKEN_FILE": "/nowhere"}
    assert [each.token for each in all_feeds(environ)] == ["process", ""]


def test_the_names_of_this_machine_are_one_place_and_two_addresses_of_it_are_not():
    runtime_file.write("ws://localhost:1", "local")
    assert target_at("ws://127.0.0.1:1", environ={}).token == "local"
    assert target_at("ws://[::1]:1", environ={}).token == ""
