from __future__ import annotations

import asyncio
import socket

import msgspec
import pytest

from otelprogress.cli import connection, examination
from otelprogress.cli.examination import examine
from otelprogress.cli.findings import BAD, NOTE, OK
from otelprogress.exceptions import FeedDenied
from otelprogress.feed import runtime_file
from tests.cli.fakes import FakeClient, FakeHistory
from tests.visualization.screen import NOW, make_view


@pytest.fixture(autouse=True)
def history(monkeypatch) -> FakeHistory:
    history = FakeHistory()
    history.path = "history.sqlite3"
    history.off_because = None
    monkeypatch.setattr(connection, "open_history", lambda: history)
    return history


def found(environ: dict[str, str] | None = None) -> dict[str, list[tuple[str, str]]]:
    by_subject: dict[str, list[tuple[str, str]]] = {}
    for finding in asyncio.run(examine(NOW / 1e9, environ or {})):
        by_subject.setdefault(finding.subject, []).append((finding.verdict, finding.text))
    return by_subject


def answer_with(monkeypatch, client: FakeClient, **facts: str) -> None:
    async def facts_of(*_: object) -> dict[str, str]:
        return facts

    monkeypatch.setattr(connection, "open_client_of", lambda *_: client)
    monkeypatch.setattr(connection, "facts_of", facts_of)


def test_without_any_program_it_says_what_to_call(private_runtime_folder):
    findings = asyncio.run(examine(NOW / 1e9, {}))
    (feed,) = [finding for finding in findings if finding.subject == "feed"]
    assert (feed.verdict, "configure()" in feed.advice) == (NOTE, True)


def test_a_feed_that_answers_is_counted(monkeypatch):
    runtime_file.write("ws://127.0.0.1:1", "token", service="etl")
    answer_with(monkeypatch, FakeClient([make_view(1), make_view(2)]))
    ((verdict, text),) = found()["feed"]
    assert verdict == OK
    assert "etl (pid" in text
    assert text.endswith("2 running, 0 ended")


def test_the_providers_of_a_program_are_told_and_rules_that_matched_nothing(monkeypatch):
    runtime_file.write("ws://127.0.0.1:1", "token", service="etl")
    answer_with(
        monkeypatch,
        FakeClient(),
        providers="traces: private TracerProvider; logs: none",
        rules="2",
        rule_spans="0",
    )
    findings = found()
    assert [text.partition(" ")[2] for _, text in findings["provider"]] == [
        "traces: private TracerProvider",
        "logs: none",
    ]
    assert "none of its 2 rules matched" in findings["rules"][0][1]


def test_a_feed_that_refuses_is_bad_and_no_token_is_shown(monkeypatch):
    runtime_file.write("ws://127.0.0.1:1", "secret-token")
    answer_with(monkeypatch, FakeClient(error=FeedDenied("wrong token")))
    findings = found()
    assert findings["feed"][0][0] == BAD
    assert "secret-token" not in str(findings)


def test_a_feed_that_does_not_answer_is_bad(monkeypatch):
    class Silent(FakeClient):
        async def list(self, *_: object, **__: object):
            await asyncio.Event().wait()

    runtime_file.write("ws://127.0.0.1:1", "token")
    monkeypatch.setattr(examination, "ANSWER_WITHIN_S", 0.01)
    answer_with(monkeypatch, Silent())
    assert found()["feed"][0][0] == BAD


def test_a_dead_programs_file_is_told_as_stale():
    path = runtime_file.write("ws://127.0.0.1:1", "token", service="etl")
    content = msgspec.structs.replace(
        runtime_file.read(path), identity=f"{runtime_file.read(path).identity}0"
    )
    path.write_bytes(msgspec.json.encode(content))
    ((verdict, text),) = found()["stale"]
    assert verdict == NOTE
    assert "is gone" in text


def test_a_folder_that_others_can_read_is_bad(private_runtime_folder):
    private_runtime_folder.chmod(0o755)
    assert found()["folder"][0][0] == BAD


@pytest.mark.parametrize(
    ("environ", "subject", "verdict"),
    [
        ({"OTELPROGRESS_FEDE": "on"}, "environment", BAD),
        ({"OTELPROGRESS_DISABLED": "true"}, "environment", BAD),
        ({"OTELPROGRESS_FEED": "off"}, "environment", BAD),
        ({"OTELPROGRESS_VIEW": "off"}, "environment", NOTE),
        ({"OTELPROGRESS_VIEW": "bras"}, "environment", BAD),
        ({"OTELPROGRESS_LEASE_S": "-1"}, "environment", BAD),
        ({"OTEL_SDK_DISABLED": "true"}, "environment", NOTE),
        ({"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, "environment", NOTE),
        ({"OTELPROGRESS_RULES": "name=import *;root_only;children=steps"}, "rules", OK),
        ({"OTELPROGRESS_RULES": "nmae=import *"}, "rules", BAD),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:99999999"}, "endpoint", BAD),
    ],
)
def test_the_environment_is_examined(environ, subject, verdict):
    assert verdict in [found_verdict for found_verdict, _ in found(environ)[subject]]


def test_a_misspelt_setting_is_answered_with_the_right_one():
    findings = asyncio.run(examine(NOW / 1e9, {"OTELPROGRESS_FEDE": "on"}))
    assert "set OTELPROGRESS_FEED" in [finding.advice for finding in findings]


def test_an_endpoint_that_takes_connections_is_ok_and_one_that_does_not_is_bad():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert found({"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"})["endpoint"][0][0] == OK
    assert found({"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"})["endpoint"][0][0] == BAD


def test_the_history_is_told(history):
    assert found()["history"][0][0] == NOTE
    history.views = [make_view(1)]
    assert found()["history"][0] == (OK, "history.sqlite3: the latest is load-1, started 100s ago")
    history.off_because = "history.sqlite3: disk I/O error"
    assert found()["history"][0][0] == BAD
