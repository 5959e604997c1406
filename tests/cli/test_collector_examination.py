from __future__ import annotations

import asyncio
import contextlib
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from otelprogress.cli.collector_examination import examine_collectors, examine_senders, examine_spool
from otelprogress.cli.findings import BAD, NOTE, OK, Finding
from otelprogress.exceptions import FeedUnavailable
from otelprogress.feed import runtime_file
from otelprogress.feed.link_wire import LinkWire
from otelprogress.feed.server import WebSocketServer
from otelprogress.feed.worker_handler import WorkerLinks
from tests.collector.exporters.certificates import Authority
from tests.feed.collector_end import CollectorEnd
from tests.feed.fakes import started
from tests.feed.serving import TOKEN, real_host, serving
from tests.otel.spools import disk_spool, written


@contextlib.contextmanager
def standing_collector(*, takes_workers: bool = True) -> Iterator[WebSocketServer]:
    """A feed in the place of a collector's, with a runtime file that says so."""
    host = real_host()
    host.submit(started())
    worker_handler = WorkerLinks(host, token=TOKEN) if takes_workers else None
    with serving(host, worker_handler=worker_handler) as server:
        runtime_file.write(server.url, TOKEN, kind="collector")
        yield server


def collectors(environ: dict[str, str] | None = None) -> list[Finding]:
    return asyncio.run(examine_collectors(environ or {}))


def verdicts(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.verdict, finding.subject) for finding in findings]


def test_where_no_collector_is_nothing_is_said():
    assert collectors() == []


def test_a_collector_that_is_named_is_asked_for_its_feed_and_its_link():
    with standing_collector() as server:
        findings = collectors(
            {"OTELPROGRESS_COLLECTOR": server.url.replace("ws://127.0.0.1", "http://localhost")}
        )
    assert verdicts(findings) == [(OK, "collector"), (OK, "link")]
    assert findings[0].text.endswith("1 running, 0 ended lately")


def test_one_that_runs_here_and_is_not_named_is_offered():
    with standing_collector() as server:
        findings = collectors()
    assert verdicts(findings) == [(NOTE, "collector"), (OK, "collector"), (OK, "link")]
    assert findings[0].advice == f"set OTELPROGRESS_COLLECTOR={server.url.replace('ws://', 'http://')}"


def test_a_token_that_is_not_the_collectors_is_bad_and_not_shown(tmp_path: Path):
    token = tmp_path / "token"
    token.write_text("s3cret")
    with standing_collector() as server:
        environ = {
            "OTELPROGRESS_COLLECTOR": server.url.replace("ws://", "http://"),
            "OTELPROGRESS_TOKEN_FILE": str(token),
        }
        (finding,) = collectors(environ)
    assert (finding.verdict, finding.subject) == (BAD, "collector")
    assert str(token) in finding.advice
    assert "s3cret" not in str(finding)


def test_a_token_file_that_cannot_be_read_is_bad():
    with standing_collector() as server:
        environ = {
            "OTELPROGRESS_COLLECTOR": server.url.replace("ws://", "http://"),
            "OTELPROGRESS_TOKEN_FILE": "/nowhere",
        }
        findings = collectors(environ)
    assert verdicts(findings) == [(BAD, "collector"), (BAD, "collector")]
    assert "/nowhere" in findings[0].text


def test_a_feed_that_takes_no_workers_is_bad_for_the_link():
    with standing_collector(takes_workers=False) as server:
        findings = collectors({"OTELPROGRESS_COLLECTOR": server.url.replace("ws://", "http://")})
    assert verdicts(findings) == [(OK, "collector"), (BAD, "link")]


def test_nobody_at_the_address_is_bad():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (finding,) = collectors({"OTELPROGRESS_COLLECTOR": f"http://127.0.0.1:{port}"})
    assert finding.verdict == BAD
    assert "otelprogress-collector serve" in finding.advice


@pytest.fixture
def over_tls(tmp_path: Path) -> Iterator[str]:
    """The address of a collector whose authority this machine does not know."""
    pair = Authority(tmp_path).issue("collector")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pair.cert, pair.key)
    with CollectorEnd(tls=tls) as collector:
        yield collector.url


def test_a_collector_whose_certificate_nobody_vouches_for_is_there_and_the_variable_is_named(over_tls: str):
    (finding,) = collectors({"OTELPROGRESS_COLLECTOR": over_tls})
    assert finding.verdict == BAD
    assert "certificate verify failed" in finding.text
    assert "its certificate is not trusted: let OTEL_EXPORTER_OTLP_CERTIFICATE" in finding.advice


def test_an_address_with_tls_where_there_is_none_is_not_told_to_be_started():
    class Plain(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65_536)
            self.request.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Plain) as plain:
        answering = threading.Thread(target=plain.serve_forever, kwargs={"poll_interval": 0.02})
        answering.start()
        try:
            (finding,) = collectors(
                {"OTELPROGRESS_COLLECTOR": f"https://127.0.0.1:{plain.server_address[1]}"}
            )
            assert finding.advice.endswith("is it https there?")
            with pytest.raises(FeedUnavailable, match="no TLS with"):
                LinkWire(f"wss://127.0.0.1:{plain.server_address[1]}/", None, subprotocols=())
        finally:
            plain.shutdown()
            answering.join()


@pytest.mark.parametrize(
    ("line", "lost"),
    [
        ("logs to c:4318: 0 delivered, 2 waiting, 0 lost, last failure ConnectionError", False),
        ("logs to c:4318: 20 delivered, 0 waiting, 10 lost", True),
        ("logs to c:4318: 0 delivered, 0 waiting, 0 lost, 3 refused, last failure HTTP 400", True),
        ("logs to c:4318: 0 delivered, off (HTTP 404), 0 lost", False),
    ],
)
def test_a_sender_in_trouble_has_lost_only_what_it_says_that_it_lost(line: str, lost: bool):
    (finding,) = examine_senders("etl", {"sender": line, "sender_troubles": line}, collector_named=False)
    assert finding.verdict == BAD
    assert finding.advice.startswith("what was lost is lost" if lost else "nothing is lost yet")


@pytest.mark.parametrize("wrong", ["ftp://x", "http://c:4317"])
def test_an_address_that_cannot_be_meant_is_bad(wrong: str, monkeypatch):
    monkeypatch.setattr("otelprogress.cli.collector_examination.ANSWER_WITHIN_S", 0.01)
    assert (BAD, "collector") in verdicts(collectors({"OTELPROGRESS_COLLECTOR": wrong}))


@pytest.mark.parametrize(
    ("facts", "verdict", "subject"),
    [
        ({"collector": "the collector at http://c:4318: connected"}, OK, "link"),
        ({"collector": "the collector at http://c:4318: not needed yet"}, NOTE, "link"),
        (
            {"collector": "the collector at http://c:4318: not connected (refused with status 401)"},
            BAD,
            "link",
        ),
        ({"sender": "logs to c:4318: 5 delivered, 0 waiting, 0 lost", "sender_troubles": ""}, OK, "sender"),
        (
            {
                "sender": "logs to c:4318: 5 delivered, 9 waiting, 3 lost",
                "sender_troubles": "logs to c:4318: 5 delivered, 9 waiting, 3 lost",
            },
            BAD,
            "sender",
        ),
        ({"host": "12 events dropped"}, BAD, "drops"),
    ],
)
def test_what_a_program_says_of_its_way_out_is_judged(facts, verdict, subject):
    (finding,) = examine_senders("etl", facts, collector_named=False)
    assert (finding.verdict, finding.subject) == (verdict, subject)


def test_a_program_that_was_started_without_the_collector_is_noticed():
    (finding,) = examine_senders("etl", {"pid": "1"}, collector_named=True)
    assert (finding.verdict, finding.subject) == (NOTE, "link")
    assert list(examine_senders("etl", {}, collector_named=True)) == []


def test_a_spool_is_told_with_what_waits_in_it(tmp_path: Path):
    root = tmp_path / "spools"
    environ = {"OTELPROGRESS_SPOOL_DIR": str(root)}
    assert list(examine_spool({})) == []
    assert [finding.verdict for finding in examine_spool(environ)] == [NOTE]
    spool = written(disk_spool(root), "a", "b")
    (finding,) = examine_spool(environ)
    assert (finding.verdict, finding.text) == (NOTE, f"{root}: 2 events wait, of so many processes: 1")
    spool.next_body()
    spool.settle()
    (finding,) = examine_spool(environ)
    assert (finding.verdict, finding.text) == (OK, f"{root}: nothing waits")
    spool.abandon()
