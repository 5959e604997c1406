"""The worker link to a collector: it registers, says that it lives, hears who watches, and never gives up."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from otelprogress.exceptions import InvalidValue
from otelprogress.feed.host import Host
from otelprogress.feed.link import LinkClient
from otelprogress.feed.link_route import CollectorRoute
from otelprogress.feed.tls import client_tls
from tests.collector.exporters.certificates import Authority
from tests.feed.collector_end import TOKEN, CollectorEnd
from tests.feed.fakes import ended, noted, progressed, run_id, started
from tests.feed.serving import real_host
from tests.forking import forked
from tests.waiting import eventually


@pytest.fixture
def collector() -> Iterator[CollectorEnd]:
    with CollectorEnd() as collector:
        yield collector


@contextlib.contextmanager
def linked(url: str, *, token: str = TOKEN, **options: Any) -> Iterator[tuple[Host, LinkClient]]:
    host = real_host()
    link = LinkClient(
        host,
        CollectorRoute(url, lambda: token),
        writer_id="writer-1",
        **({"backoff_s": (0.01, 0.05)} | options),
    )
    link.attach()
    try:
        yield host, link
    finally:
        link.close(2.0)


def tell(host: Host, *events: Any) -> None:
    """As the feed's or the sampler's thread does: the link itself drains no host here."""
    for event in events:
        host.submit(event)
    host.drain()


def test_a_writer_registers_once_it_has_something_to_say_and_not_before(collector: CollectorEnd):
    threads = threading.active_count()
    with linked(collector.url, service="etl") as (host, link):
        assert threading.active_count() == threads
        tell(host, started(writer_id="somebody else's"))
        assert threading.active_count() == threads
        assert link.report().endswith("not needed yet")
        tell(host, started(run=2))
        one = collector.one()
        assert one.writer == "writer-1"
        assert one.register["resource"] == {"process.pid": os.getpid(), "service.name": "etl"}
        assert eventually(lambda: link.connected)
        assert link.report() == f"the collector at {collector.url}: connected"


def test_no_event_travels_over_it_and_none_is_kept_for_it(collector: CollectorEnd):
    with linked(collector.url) as (host, link):
        tell(host, started(), progressed(4), noted(2))
        one = collector.one()
        tell(host, *(noted(n) for n in range(3, 100)), ended(100))
        assert link.flush(10, acknowledged=True)
        link.close(2.0)
        assert one.ended.wait(10)
        assert one.kinds() == ["bye"]
    assert link.dropped == 0


def test_it_drains_no_host_that_others_drain(collector: CollectorEnd):
    with linked(collector.url) as (host, _):
        tell(host, started())
        collector.one()
        host.submit(noted(2))
        eventually(lambda: collector.one())
        assert host.pending == 1


def test_it_says_that_it_lives_as_often_as_it_is_told(collector: CollectorEnd):
    with linked(collector.url, alive_every_s=0.05) as (host, _):
        tell(host, started())
        one = collector.one()
        assert eventually(lambda: len(one.frames) >= 3)
        assert set(one.kinds()) == {"alive"}


def test_who_watches_is_passed_on_and_is_nobody_once_the_link_is_lost(collector: CollectorEnd):
    heard: list[Mapping[str, float]] = []
    with linked(collector.url, on_interest=heard.append) as (host, _):
        tell(host, started())
        one = collector.one()
        one.say("interest", run="*", rate_hz=5.0)
        one.say("interest", run=run_id(), rate_hz=10.0)
        assert eventually(lambda: heard and heard[-1] == {"*": 5.0, run_id(): 10.0})
        one.say("interest", run="*", rate_hz=1.0)
        assert eventually(lambda: heard[-1] == {run_id(): 10.0})
        collector.cut(one)
        assert eventually(lambda: heard[-1] == {})


def test_after_a_cut_it_is_back_before_the_collectors_grace_is_over(collector: CollectorEnd):
    with linked(collector.url, backoff_s=(5.0, 5.0)) as (host, link):
        tell(host, started())
        one = collector.one()
        eventually(lambda: link.connected)
        link._opened_at_s -= 10  # it stood for a while
        collector.cut(one)
        assert eventually(lambda: len(collector.registered) == 2)


def test_a_collector_that_was_away_is_found_again_whatever_it_answered_meanwhile():
    collector = CollectorEnd()
    collector.start()
    with linked(collector.url) as (host, link):
        tell(host, started())
        collector.one()
        collector.stop()
        eventually(lambda: link.stats.failed_attempts >= 3)
        assert "nobody listens" in link.report()
        collector.refuse_with = HTTPStatus.SERVICE_UNAVAILABLE
        collector.start()
        eventually(lambda: collector.attempts >= 3)
        collector.refuse_with = None
        assert collector.one().writer == "writer-1"
        assert eventually(lambda: link.report().endswith(": connected"))
        assert not link.given_up
    collector.stop()


def test_a_refusal_is_said_once_and_tried_again_with_the_token_as_it_is_then(collector: CollectorEnd, caplog):
    tokens = ["expired"]
    host = real_host()
    link = LinkClient(
        host, CollectorRoute(collector.url, lambda: tokens[-1]), writer_id="w", backoff_s=(0.01, 0.02)
    )
    link.attach()
    tell(host, started(writer_id="w"))
    eventually(lambda: collector.attempts >= 4)
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(lines) == 1
    assert "401" in lines[0]
    assert "expired" not in lines[0]
    tokens.append(TOKEN)
    assert collector.one().writer == "w"
    link.close(2.0)


def test_a_token_file_that_is_not_there_is_waited_for(collector: CollectorEnd):
    found: list[str] = []

    def token() -> str:
        if not found:
            raise InvalidValue("OTELPROGRESS_TOKEN_FILE=/nowhere: no such file")
        return found[0]

    host = real_host()
    link = LinkClient(host, CollectorRoute(collector.url, token), writer_id="w", backoff_s=(0.01, 0.02))
    link.attach()
    tell(host, started(writer_id="w"))
    eventually(lambda: "no such file" in link.report())
    found.append(TOKEN)
    assert collector.one()
    link.close(2.0)


def test_a_collector_that_goes_away_for_a_while_says_for_how_long(collector: CollectorEnd):
    with linked(collector.url) as (host, link):
        tell(host, started())
        one = collector.one()
        eventually(lambda: link.connected)
        link._opened_at_s -= 10
        one.say("drain", reconnect_after_s=[30.0, 40.0])
        one.connection.close(1012)
        assert eventually(lambda: not link.connected and "it restarts" in link.report())
        assert 25 < link._retry_at_s - time.monotonic() <= 40
        assert len(collector.registered) == 1


@pytest.mark.parametrize(
    "frame",
    ['{"type":"greeting"}', '{"type":"command","command_id":"c","run":"r","action":"rewind","later":1}'],
)
def test_what_a_later_collector_says_ends_nothing(collector: CollectorEnd, frame: str):
    heard: list[Mapping[str, float]] = []
    with linked(collector.url, on_interest=heard.append) as (host, _):
        tell(host, started())
        one = collector.one()
        one.connection.send(frame)
        one.say("interest", run="*", rate_hz=2.0)
        assert eventually(lambda: heard and heard[-1] == {"*": 2.0})
        assert len(collector.registered) == 1


def test_a_collector_that_accepts_and_never_answers_costs_no_time_at_the_exit():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with linked(f"http://127.0.0.1:{silent.getsockname()[1]}") as (host, link):
            tell(host, started())
            eventually(lambda: link._wire is not None)
            link.close(30.0)
            assert not any(each.name == "otelprogress-link" for each in threading.enumerate())


@pytest.mark.parametrize("away", ["idle", "unreachable"])
def test_a_link_with_nothing_to_do_spins_for_nothing(collector: CollectorEnd, away: str):
    with linked(collector.url, backoff_s=(0.5, 10.0)) as (host, link):
        turns = 0
        turn = link._turn

        def counted() -> None:
            nonlocal turns
            turns += 1
            turn()

        link._turn = counted  # type: ignore[method-assign]
        tell(host, started())
        eventually(lambda: link.connected)
        if away == "unreachable":
            collector.stop()
            eventually(lambda: link.stats.failed_attempts >= 1)
        before = turns
        time.sleep(0.5)
        assert turns - before <= 10


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def server_tls(authority: Authority) -> ssl.SSLContext:
    pair = authority.issue("collector")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    return context


def test_over_tls_frames_go_both_ways_and_a_cut_is_seen(authority: Authority):
    heard: list[Mapping[str, float]] = []
    with CollectorEnd(tls=server_tls(authority)) as collector:
        host = real_host()
        route = CollectorRoute(
            collector.url,
            lambda: TOKEN,
            tls=lambda: client_tls({"OTEL_EXPORTER_OTLP_CERTIFICATE": authority.cert}),
        )
        link = LinkClient(
            host, route, writer_id="w", backoff_s=(0.01, 0.05), alive_every_s=0.02, on_interest=heard.append
        )
        link.attach()
        tell(host, started(writer_id="w"))
        one = collector.one()
        for number in range(200):  # many frames in one TLS record, and several records at once
            one.say("interest", run=f"run-{number}", rate_hz=2.0)
        assert eventually(lambda: heard and len(heard[-1]) == 200)
        assert eventually(lambda: len(one.frames) >= 3)
        collector.cut(one)
        assert eventually(lambda: len(collector.registered) == 2)
        link.close(2.0)
        assert eventually(lambda: "bye" in collector.registered[1].kinds())


def test_a_collector_whose_certificate_nobody_vouches_for_gets_no_token(authority: Authority):
    with CollectorEnd(tls=server_tls(authority)) as collector, linked(collector.url) as (host, link):
        tell(host, started())
        assert eventually(lambda: "certificate verify failed" in link.report())
        assert "is not trusted, OTEL_EXPORTER_OTLP_CERTIFICATE" in link.report()
        assert "nobody listens" not in link.report()
        assert collector.attempts == 0


def test_a_certificate_that_is_not_there_is_named_and_waited_for():
    with pytest.raises(InvalidValue, match="OTEL_EXPORTER_OTLP_CERTIFICATE"):
        client_tls({"OTEL_EXPORTER_OTLP_CERTIFICATE": "/nowhere.pem"})


def test_the_killed_process_is_seen_to_end_while_its_forked_child_lives(collector: CollectorEnd):
    program = (
        "import os, sys, time\n"
        "from tests.feed.test_collector_link import linked, tell\nfrom tests.feed.fakes import started\n"
        "with linked(sys.argv[1]) as (host, link):\n"
        "    tell(host, started())\n"
        "    while not link.connected: time.sleep(0.01)\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        print(os.getpid(), flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, collector.url], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            one = collector.one()
            process.send_signal(signal.SIGKILL)
            assert one.ended.wait(15)
            assert "bye" not in one.kinds()
            os.kill(child, 0)
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_forked_child_lets_go_of_its_parents_link_and_the_parent_keeps_it(collector: CollectorEnd):
    with linked(collector.url) as (host, link):
        tell(host, started())
        one = collector.one()

        def leave() -> bool:
            link.abandon()
            link.close()
            return True

        os.waitpid(forked(leave), 0)
        one.say("interest", run="*", rate_hz=2.0)
        assert eventually(lambda: link._interest == {"*": 2.0})
        assert not one.ended.is_set()
