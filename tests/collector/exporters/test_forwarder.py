"""Forwarding as a whole, against real backends over HTTP and gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time

import grpc
import pytest

from otelprogress.exceptions import InvalidValue
from otelprogress_collector.exporters.backend import parse_backend
from otelprogress_collector.exporters.disk_queue import DiskQueue
from otelprogress_collector.exporters.forward_queue import QueueUnavailable
from otelprogress_collector.exporters.forwarder import Forwarder
from otelprogress_collector.store.interface import StoreUnavailable
from tests.collector.exporters.scripted import GONE, UNSUPPORTED, ScriptedSender
from tests.collector.exporters.test_merging import request_with
from tests.otel.otlp_server import GrpcReceiver, HttpReceiver, Reply, dead_url
from tests.waiting import aeventually, eventually

CANARY = "c4n4ry" + "Q7x9" * 6


def converted(signal_name: str, body: bytes) -> bytes:
    return b"converted " + signal_name.encode() + b" " + body


@pytest.fixture(params=["http", "grpc"])
def receiver(request):
    with (HttpReceiver if request.param == "http" else GrpcReceiver)() as one:
        yield one


@pytest.fixture
def http():
    with HttpReceiver() as one:
        yield one


def backend(url: str | object, **settings):
    if not isinstance(url, str):
        settings.setdefault("protocol", "grpc" if isinstance(url, GrpcReceiver) else "http/protobuf")
        url = url.url
    settings.setdefault("max_merged_bytes", 0)
    return parse_backend({"url": url, **settings})


@contextlib.asynccontextmanager
async def forwarding(*backends, data_dir, stop_s: float = 0.0, **settings):
    forwarder = Forwarder(backends, data_dir, to_protobuf=converted, **settings)
    await forwarder.start()
    try:
        yield forwarder
    finally:
        await forwarder.stop(stop_s)


def by_backend(forwarder, signal_name: str = "traces") -> dict:
    return {one.backend: one for one in forwarder.stats() if one.signal == signal_name}


def bodies(receiver) -> list[bytes]:
    return [one.body for one in receiver.received]


async def test_every_signal_arrives_byte_for_byte_at_every_backend(tmp_path, http):
    with GrpcReceiver() as second:
        async with forwarding(
            backend(http, name="a"), backend(second, name="b"), data_dir=tmp_path
        ) as forwarder:
            for name in ("traces", "logs", "metrics"):
                await forwarder.accept(name, bytes(range(256)) + name.encode(), "protobuf")
            await aeventually(lambda: len(http.received) == len(second.received) == 3)
            assert by_backend(forwarder)["a"].delivered_bytes == 262
        assert {one.path.split("/")[-1]: one.body for one in http.received} == {
            name: bytes(range(256)) + name.encode() for name in ("traces", "logs", "metrics")
        }
        assert sorted(bodies(http)) == sorted(bodies(second))


async def test_json_stays_json_over_http_and_is_converted_for_grpc(tmp_path, http):
    with GrpcReceiver() as second:
        async with forwarding(
            backend(http, name="a"), backend(second, name="b"), data_dir=tmp_path
        ) as forwarder:
            await forwarder.accept("logs", b'{"resourceLogs":[]}', "json")
            await aeventually(lambda: http.received and second.received)
    assert bodies(http) == [b'{"resourceLogs":[]}']
    assert http.received[0].headers["content-type"] == "application/json"
    assert bodies(second) == [b'converted logs {"resourceLogs":[]}']


async def test_requests_of_a_signal_arrive_in_order(tmp_path, receiver):
    sent = [b"%03d" % number for number in range(200)]
    async with forwarding(backend(receiver), data_dir=tmp_path, stop_s=30) as forwarder:
        for body in sent:
            await forwarder.accept("traces", body, "protobuf")
    assert bodies(receiver) == sent


async def test_neighbours_are_joined_once_a_backend_has_fallen_behind(tmp_path, receiver):
    sent = [request_with(f"span {number}") for number in range(500)]
    config = backend(receiver, max_merged_bytes=1 << 20)
    async with forwarding(config, data_dir=tmp_path, stop_s=30) as forwarder:
        for body in sent:
            await forwarder.accept("traces", body, "protobuf")
    assert [span.name for span in receiver.spans()] == [f"span {number}" for number in range(500)]
    assert b"".join(bodies(receiver)) == b"".join(sent)
    assert len(receiver.received) < 10


async def test_ticks_go_only_where_they_are_asked_for(tmp_path, http):
    with HttpReceiver() as second:
        async with forwarding(
            backend(http, name="a"), backend(second, name="b", ticks=True), data_dir=tmp_path, stop_s=10
        ) as forwarder:
            await forwarder.accept("logs", b"tick", "protobuf", conflated_only=True)
            await forwarder.accept("logs", b"durable", "protobuf")
    assert bodies(http) == [b"durable"]
    assert bodies(second) == [b"tick", b"durable"]


async def test_signals_go_only_where_they_are_wanted(tmp_path, http):
    async with forwarding(backend(http, signals="logs"), data_dir=tmp_path, stop_s=10) as forwarder:
        await forwarder.accept("traces", b"t", "protobuf")
        await forwarder.accept("logs", b"l", "protobuf")
        assert [one.signal for one in forwarder.stats()] == ["logs"]
    assert bodies(http) == [b"l"]


async def test_an_empty_request_is_not_forwarded(tmp_path, http):
    async with forwarding(backend(http), data_dir=tmp_path, stop_s=10) as forwarder:
        await forwarder.accept("traces", b"", "protobuf")
    assert http.received == []


async def test_a_closing_span_takes_the_way_of_the_traces(tmp_path, receiver):
    async with forwarding(backend(receiver), data_dir=tmp_path, stop_s=10) as forwarder:
        await forwarder.accept("traces", b"before", "protobuf")
        forwarder.submit_span(b"closing span")
    assert bodies(receiver) == [b"before", b"closing span"]


async def test_without_backends_everything_is_accepted(tmp_path):
    async with forwarding(data_dir=tmp_path) as forwarder:
        await forwarder.accept("traces", b"x", "protobuf")
        assert forwarder.stats() == []
    assert list(tmp_path.iterdir()) == []


# --- one backend delays nobody ---------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["dead", "hanging", "busy", "endless"])
async def test_a_bad_backend_delays_neither_the_accept_nor_the_good_one(tmp_path, http, bad):
    with HttpReceiver() as other:
        other.default = {
            "dead": Reply(),
            "hanging": Reply(hang=True),
            "busy": Reply(503),
            "endless": Reply(endless=True),
        }[bad]
        config = backend(dead_url() if bad == "dead" else other, name="bad", timeout_s=5)
        async with forwarding(config, backend(http, name="good"), data_dir=tmp_path) as forwarder:
            for number in range(100):
                await forwarder.accept("traces", b"%03d" % number, "protobuf")
            await aeventually(lambda: by_backend(forwarder)["good"].delivered == 100)
            assert by_backend(forwarder)["bad"].delivered < 100
        assert bodies(http) == [b"%03d" % number for number in range(100)]


async def test_a_busy_backend_gets_everything_in_order_once_it_has_time(tmp_path, receiver):
    receiver.default = Reply(grpc.StatusCode.UNAVAILABLE if isinstance(receiver, GrpcReceiver) else 503)
    async with forwarding(backend(receiver, name="a"), data_dir=tmp_path) as forwarder:
        for number in range(20):
            await forwarder.accept("logs", b"%02d" % number, "protobuf")
        await aeventually(lambda: by_backend(forwarder, "logs")["a"].retries >= 2)
        receiver.default = Reply()
        await aeventually(lambda: by_backend(forwarder, "logs")["a"].delivered == 20)
    assert list(dict.fromkeys(bodies(receiver))) == [b"%02d" % number for number in range(20)]
    assert bodies(receiver)[:3] == [b"00"] * 3


async def test_a_signal_that_is_not_taken_is_off_for_that_backend_and_that_signal_only(
    tmp_path, receiver, caplog
):
    receiver.script = [Reply(grpc.StatusCode.UNIMPLEMENTED if isinstance(receiver, GrpcReceiver) else 404)]
    with HttpReceiver() as second:
        async with forwarding(
            backend(receiver, name="picky"), backend(second, name="other"), data_dir=tmp_path, stop_s=10
        ) as forwarder:
            await forwarder.accept("metrics", b"m1", "protobuf")
            await aeventually(lambda: by_backend(forwarder, "metrics")["picky"].off_reason)
            await forwarder.accept("metrics", b"m2", "protobuf")
            await forwarder.accept("traces", b"t1", "protobuf")
            await aeventually(lambda: len(receiver.received) == 2 and len(second.received) == 3)
            assert by_backend(forwarder, "metrics")["picky"].withheld == 1
            [line] = [line for line in forwarder.report() if "off (" in line]
            assert line.startswith("metrics to picky")
    assert bodies(receiver) == [b"m1", b"t1"]
    assert caplog.text.count("no more of them are forwarded") == 1
    assert not list((tmp_path / "forward" / "picky" / "metrics").iterdir())


async def test_retry_after_is_waited_for(tmp_path, http):
    http.script = [Reply(429, headers=(("retry-after", "1"),))]
    async with forwarding(backend(http), data_dir=tmp_path) as forwarder:
        began_s = time.monotonic()
        await forwarder.accept("traces", b"x", "protobuf")
        await aeventually(lambda: len(http.received) == 2)
        assert time.monotonic() - began_s >= 1.0


# --- without secrets -------------------------------------------------------------------------------------------


async def test_secrets_stand_in_no_queue_and_reach_no_backend_when_that_is_asked_for(tmp_path, receiver):
    secret = request_with(f"load password={CANARY}")
    async with forwarding(backend(dead_url(), name="a"), data_dir=tmp_path, redact=True) as forwarder:
        await forwarder.accept("traces", secret, "protobuf")
        forwarder.submit_span(secret)
        [segment] = (tmp_path / "forward" / "a" / "traces").glob("*.segment")
        assert CANARY.encode() not in segment.read_bytes()
        assert segment.read_bytes().count(b"load password=[redacted]") == 2
    async with forwarding(
        backend(receiver, name="a"), data_dir=tmp_path, redact=True, stop_s=30
    ) as forwarder:
        await forwarder.accept("traces", request_with("as it was"), "protobuf")
    assert bodies(receiver) == [request_with("load password=[redacted]")] * 2 + [request_with("as it was")]


async def test_what_was_queued_before_goes_as_it_was_queued_and_that_is_said(tmp_path, http, caplog):
    secret = request_with(f"load password={CANARY}")
    async with forwarding(backend(dead_url(), name="a"), data_dir=tmp_path) as forwarder:
        await forwarder.accept("traces", secret, "protobuf")
    async with forwarding(backend(http, name="a"), data_dir=tmp_path, redact=True, stop_s=30):
        pass
    assert bodies(http) == [secret]
    assert "1 requests of traces for a were queued before this start" in caplog.text


async def test_what_cannot_be_redacted_is_forwarded_to_nobody_and_said(tmp_path, http, caplog):
    async with forwarding(backend(http), data_dir=tmp_path, redact=True, stop_s=10) as forwarder:
        await forwarder.accept("metrics", b"password", "json")
        await forwarder.accept("metrics", b'{"resourceMetrics":[]}', "json")
        assert forwarder.unreadable == 1
    assert bodies(http) == [b'{"resourceMetrics":[]}']
    assert "1 records could not be read to redact them" in caplog.text


# --- restarts --------------------------------------------------------------------------------------------------


async def test_what_waits_survives_a_restart_and_nothing_is_sent_twice(tmp_path, http):
    async with forwarding(backend(dead_url(), name="a"), data_dir=tmp_path) as forwarder:
        for number in range(50):
            await forwarder.accept("traces", b"%02d" % number, "protobuf")
    async with forwarding(backend(http, name="a"), data_dir=tmp_path, stop_s=30) as forwarder:
        await forwarder.accept("traces", b"new", "protobuf")
    async with forwarding(backend(http, name="a"), data_dir=tmp_path, stop_s=30) as forwarder:
        assert forwarder.stats()[0].queued == 0
    assert bodies(http) == [*(b"%02d" % number for number in range(50)), b"new"]


async def test_a_restart_in_the_middle_repeats_at_most_the_request_that_was_in_flight(tmp_path, receiver):
    sent = [b"%03d" % number for number in range(150)]
    hanging = Reply(hang=True)
    async with forwarding(backend(receiver, name="a"), data_dir=tmp_path) as forwarder:
        receiver.script = [Reply() for _ in range(40)] + [hanging]
        for body in sent:
            await forwarder.accept("traces", body, "protobuf")
        await aeventually(lambda: len(receiver.received) == 41)
    async with forwarding(backend(receiver, name="a"), data_dir=tmp_path, stop_s=30):
        pass
    assert bodies(receiver) == sent[:41] + sent[40:]


async def test_in_memory_only_what_goes_by_the_deadline_goes(tmp_path, http, caplog):
    async with forwarding(
        backend(http, name="a"), data_dir=None, durability="memory", stop_s=30
    ) as forwarder:
        await forwarder.accept("traces", b"x", "protobuf")
    assert bodies(http) == [b"x"]
    async with forwarding(backend(dead_url(), name="a"), data_dir=tmp_path, durability="memory") as forwarder:
        await forwarder.accept("traces", b"y", "protobuf")
    assert "1 requests of traces are lost with the stop" in caplog.text
    assert list(tmp_path.iterdir()) == []


async def test_leaving_does_not_wait_for_a_dead_or_hanging_backend(tmp_path, http):
    http.default = Reply(hang=True)
    configs = backend(dead_url(), name="dead"), backend(http, name="hanging", timeout_s=60)
    async with forwarding(*configs, data_dir=tmp_path) as forwarder:
        await forwarder.accept("traces", b"x", "protobuf")
        await aeventually(lambda: http.received)
        async with asyncio.timeout(20):
            await forwarder.stop(0.3)
    assert [left_on_disk(tmp_path, name).entries for name in ("dead", "hanging")] == [1, 1]


def left_on_disk(data_dir, name: str) -> DiskQueue:
    queue = DiskQueue(data_dir / "forward" / name / "traces", max_bytes=1 << 20)
    queue.open(0)
    queue.close()
    return queue


async def test_after_the_stop_nothing_is_accepted(tmp_path, http):
    async with forwarding(backend(http), data_dir=tmp_path) as forwarder:
        pass
    with pytest.raises(QueueUnavailable, match="starting or stopping"):
        await forwarder.accept("traces", b"x", "protobuf")
    with pytest.raises(StoreUnavailable):
        forwarder.submit_span(b"x")
    await forwarder.stop(1.0)


async def test_what_waits_for_a_backend_that_is_gone_is_kept_and_said(tmp_path, http, caplog):
    async with forwarding(backend(dead_url(), name="gone"), data_dir=tmp_path) as forwarder:
        await forwarder.accept("traces", b"x", "protobuf")
    async with forwarding(backend(http, name="here"), data_dir=tmp_path):
        pass
    assert "forward/gone/traces holds 26 bytes for a backend that is not configured" in caplog.text
    assert left_on_disk(tmp_path, "gone").entries == 1


async def test_a_second_collector_on_the_same_directory_is_refused(tmp_path, http):
    async with forwarding(backend(http), data_dir=tmp_path):
        second = Forwarder([backend(http)], tmp_path, to_protobuf=converted)
        with pytest.raises(QueueUnavailable, match="in use by another collector"):
            await second.start()
    async with forwarding(backend(http), data_dir=tmp_path):
        pass


async def test_a_start_that_fails_gives_everything_back(tmp_path, http):
    (tmp_path / "forward" / "b").mkdir(parents=True)
    (tmp_path / "forward" / "b" / "logs").write_text("no folder")
    configs = backend(http, name="a"), backend(http, name="b")
    forwarder = Forwarder(configs, tmp_path, to_protobuf=converted)
    with pytest.raises(QueueUnavailable, match="cannot be opened"):
        await forwarder.start()
    (tmp_path / "forward" / "b" / "logs").unlink()
    async with forwarding(*configs, data_dir=tmp_path, stop_s=10) as forwarder:
        await forwarder.accept("logs", b"x", "protobuf")
    assert bodies(http) == [b"x", b"x"]


def test_what_cannot_work_is_refused_at_once(tmp_path):
    with pytest.raises(InvalidValue, match="names of their own"):
        Forwarder([backend("http://a:1", name="x")] * 2, tmp_path, to_protobuf=converted)
    with pytest.raises(InvalidValue, match="needs a data directory"):
        Forwarder([backend("http://a:1")], None, to_protobuf=converted)


# --- a disk that fails -----------------------------------------------------------------------------------------


async def test_a_full_disk_refuses_and_queues_nowhere_and_recovers(tmp_path, http, monkeypatch):
    configs = backend(dead_url(), name="a"), backend(dead_url(), name="b")
    async with forwarding(*configs, data_dir=tmp_path) as forwarder:
        await forwarder.accept("traces", b"one", "protobuf")
        original = DiskQueue.append
        full = by_backend(forwarder)  # the second queue is on a full disk
        queue_b = next(
            one.queue for one in forwarder._couriers if one.config.name == "b" and one.signal == "traces"
        )

        def append(queue, *args):
            if queue is queue_b:
                raise QueueUnavailable("the queue takes nothing: No space left on device")
            return original(queue, *args)

        monkeypatch.setattr(DiskQueue, "append", append)
        with pytest.raises(QueueUnavailable, match="No space left"):
            await forwarder.accept("traces", b"two", "protobuf")
        with pytest.raises(QueueUnavailable, match="No space left"):
            forwarder.submit_span(b"three")
        assert {name: one.queued for name, one in by_backend(forwarder).items()} == {"a": 1, "b": 1}
        monkeypatch.undo()
        await forwarder.accept("traces", b"two", "protobuf")
        assert full["a"].queued == 1
    with HttpReceiver() as second:
        configs = backend(http, name="a"), backend(second, name="b")
        async with forwarding(*configs, data_dir=tmp_path, stop_s=30):
            pass
        assert bodies(http) == bodies(second) == [b"one", b"two"]


async def test_with_fsync_a_request_is_accepted_once_it_is_on_the_disk(tmp_path, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino) or real(descriptor)
    )
    configs = backend(dead_url(), name="a"), backend(dead_url(), name="b")
    async with forwarding(*configs, data_dir=tmp_path, durability="fsync") as forwarder:
        await asyncio.gather(
            *[forwarder.accept("traces", b"%d" % number, "protobuf") for number in range(20)]
        )
        files = list((tmp_path / "forward").glob("*/traces/*.segment"))
        assert {path.stat().st_ino for path in files} <= set(synced)
        assert len(synced) <= 8
        before = len(synced)
        forwarder.submit_span(b"closing")
        await aeventually(lambda: len(synced) > before)


async def test_with_fsync_a_broken_disk_refuses_and_nothing_stays_queued(tmp_path, monkeypatch):
    def broken(descriptor):
        raise OSError(5, "Input/output error")

    async with forwarding(backend(dead_url()), data_dir=tmp_path, durability="fsync") as forwarder:
        await forwarder.accept("traces", b"first", "protobuf")
        await aeventually(lambda: forwarder.stats()[1].retries)  # it is taken: the next ones wait
        monkeypatch.setattr(os, "fsync", broken)
        with pytest.raises(QueueUnavailable, match="not on the disk"):
            await forwarder.accept("traces", b"second", "protobuf")
        monkeypatch.undo()
        assert by_backend(forwarder)[forwarder.stats()[0].backend].queued == 1
        await forwarder.accept("traces", b"third", "protobuf")


# --- SIGKILL ---------------------------------------------------------------------------------------------------

_COLLECTOR = """
import asyncio, sys
from pathlib import Path
from otelprogress_collector.exporters.backend import parse_backend
from otelprogress_collector.exporters.forwarder import Forwarder

async def main():
    config = parse_backend({"url": sys.argv[1], "name": "a", "protocol": sys.argv[3], "max_merged_bytes": 0})
    forwarder = Forwarder([config], Path(sys.argv[2]), to_protobuf=lambda signal, body: body)
    await forwarder.start()
    number = 0
    while True:
        await forwarder.accept("traces", b"%06d" % number + b"x" * 2000, "protobuf")
        sys.stdout.write(f"{number}\\n")
        sys.stdout.flush()
        number += 1
        await asyncio.sleep(0.0005)

asyncio.run(main())
"""


async def test_after_sigkill_everything_accepted_arrives_and_at_most_one_twice(tmp_path, receiver):
    said = tmp_path / "said"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    protocol = "grpc" if isinstance(receiver, GrpcReceiver) else "http/protobuf"
    command = [sys.executable, "-c", _COLLECTOR, receiver.url, str(tmp_path), protocol]
    with said.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, env=environment)
        try:
            eventually(lambda: len(receiver.received) > 100 and said.read_bytes().count(b"\n") > 300)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    accepted = [int(line) for line in said.read_text().split("\n")[:-1]]
    async with forwarding(backend(receiver, name="a"), data_dir=tmp_path, stop_s=60) as forwarder:
        assert forwarder.stats()[1].damaged <= 1
    arrived = [int(one.body[:6]) for one in receiver.received]
    assert set(accepted) <= set(arrived)
    assert len(arrived) - len(set(arrived)) <= 1
    assert list(dict.fromkeys(arrived)) == sorted(set(arrived))


# --- nothing wakes what has nothing to do ----------------------------------------------------------------------


class CountingSelector(selectors.DefaultSelector):
    selects = 0

    def select(self, timeout=None):
        self.selects += 1
        return super().select(timeout)


@pytest.mark.parametrize("state", ["idle", "off", "dead", "hanging"])
def test_a_forwarder_with_nothing_to_do_does_not_turn_the_loop(tmp_path, receiver, state):
    unsupported = grpc.StatusCode.UNIMPLEMENTED if isinstance(receiver, GrpcReceiver) else 404
    receiver.default = {"off": Reply(unsupported), "hanging": Reply(hang=True)}.get(state, Reply())
    protocol = "grpc" if isinstance(receiver, GrpcReceiver) else "http/protobuf"
    selector = CountingSelector()

    async def main():
        url = dead_url() if state == "dead" else receiver.url
        config = backend(url, name="a", timeout_s=30, protocol=protocol)
        async with forwarding(config, data_dir=tmp_path) as forwarder:
            await forwarder.accept("traces", b"x", "protobuf")
            while True:
                traces = by_backend(forwarder)["a"]
                if {
                    "idle": traces.delivered,
                    "off": traces.off_reason,
                    "dead": traces.failures >= 3,
                    "hanging": receiver.received,
                }[state]:
                    break
                await asyncio.sleep(0.01)
            selector.selects = 0
            await asyncio.sleep(0.3)
            # Our own sleep, an attempt at a dead backend or two, a timer of aiohttp: a busy loop would be thousands.
            assert selector.selects < 60

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        runner.run(main())


async def test_reports_have_no_secrets(tmp_path, caplog):
    url = dead_url().replace("http://", "http://user:hunter2@")
    config = backend(url, headers={"authorization": "Bearer s3cret"})
    async with forwarding(config, data_dir=tmp_path) as forwarder:
        await forwarder.accept("traces", b"x", "protobuf")
        await aeventually(lambda: by_backend(forwarder)[config.name].failures >= 2)
        shown = "\n".join([*forwarder.report(), repr(forwarder.stats()), caplog.text])
    assert config.authority in shown
    assert "hunter2" not in shown
    assert "s3cret" not in shown


async def test_senders_are_closed_and_made_once_for_each_backend():
    made = []

    def open_scripted(config):
        made.append(ScriptedSender(default=UNSUPPORTED if config.name == "a" else GONE))
        return made[-1]

    configs = backend("http://a:1", name="a"), backend("http://b:1", name="b")
    async with forwarding(
        *configs, data_dir=None, durability="memory", open_sender=open_scripted
    ) as forwarder:
        await forwarder.accept("traces", b"x", "protobuf")
    assert len(made) == 2
    assert all(one.closed for one in made)
