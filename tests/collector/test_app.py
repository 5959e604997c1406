"""A whole collector: what a person who starts it sees, and what it keeps."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from importlib.metadata import version

import aiohttp
import pytest

from otelprogress.exceptions import InvalidValue
from otelprogress.feed import runtime_file
from otelprogress.model import semconv
from otelprogress_collector.app import Collector, check
from otelprogress_collector.config import load
from otelprogress_collector.listening import PortTaken
from tests.collector.collecting import CollectorProcess, collecting
from tests.otel.otlp_server import GrpcReceiver, HttpReceiver
from tests.waiting import aeventually, eventually

APP = """
import sys, otelprogress as progress
progress.configure(feed=False, view="off", history=False, service_name="etl")
with progress.operation("nightly load", steps=["extract", "load"]):
    with progress.step("extract") as step:
        for _ in step.track(range(10)): pass
    with progress.step("load") as step:
        step.note("3 rows rejected", level="warning")
"""


def run_app(program: str, **environment: str) -> None:
    subprocess.run([sys.executable, "-c", program], env=os.environ | environment, check=True, timeout=60)


@pytest.fixture(autouse=True)
def private_runtime_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("OTELPROGRESS_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.delenv("OTELPROGRESS_LINK", raising=False)


def test_served_with_no_configuration_an_app_shows_up_and_is_still_there_after_a_restart(tmp_path):
    with CollectorProcess(tmp_path / "data") as collector:
        run_app(APP, OTELPROGRESS_COLLECTOR=collector.url)
        [seen] = json.loads(collector.get("/v1/operations"))["operations"]
        assert (seen["name"], seen["state"], seen["service"]) == ("nightly load", "succeeded", "etl")
        assert [step["state"] for step in seen["steps"]] == ["succeeded", "succeeded"]
        assert seen["message"] == "3 rows rejected"
        collector.kill()
        collector.start()
        [again] = json.loads(collector.get("/v1/operations"))["operations"]
        assert {**again, "as_of_unix_ns": 0, "revision": 0} == {**seen, "as_of_unix_ns": 0, "revision": 0}
        assert collector.stop() == 0
    log = collector.log.read_text()
    assert "ended in good order" in log
    assert "Traceback" not in log


def test_a_first_start_makes_a_token_for_the_user_alone_and_says_where(tmp_path):
    with CollectorProcess(tmp_path / "data") as collector:
        token_file = tmp_path / "data" / "token"
        assert stat.S_IMODE(token_file.stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
        [found] = runtime_file.scan(tmp_path / "run")
        assert (found.content.kind, found.content.token) == ("collector", collector.token)
        shown = collector.log.read_text()
        assert str(token_file) in shown
        assert collector.token not in shown
        assert f"OTELPROGRESS_COLLECTOR={collector.url}" in shown


async def test_without_a_token_otlp_comes_in_and_nothing_goes_out(tmp_path):
    async with collecting(tmp_path) as collector, aiohttp.ClientSession() as http:
        base = f"http://127.0.0.1:{collector.http_port}"
        headers = {"Content-Type": "application/json"}
        async with http.post(f"{base}/v1/logs", data=b"{}", headers=headers) as answer:
            assert answer.status == 200
        for path in ("/v1/operations", "/v1/feed/sse", "/metrics"):
            async with http.get(base + path) as answer:
                assert answer.status == 401
        async with http.get(f"{base}/v1/operations", headers={"Host": "evil.example"}) as answer:
            assert answer.status == 403
        async with http.post(
            f"{base}/v1/logs", data=b"{}", headers=headers | {"Host": "evil.example"}
        ) as answer:
            assert answer.status == 403


async def test_ingest_wants_a_token_when_that_is_asked_for(tmp_path):
    async with collecting(tmp_path, ingest_token=True) as collector, aiohttp.ClientSession() as http:
        url = f"http://127.0.0.1:{collector.http_port}/v1/logs"
        headers = {"Content-Type": "application/json"}
        async with http.post(url, data=b"{}", headers=headers) as answer:
            assert answer.status == 401
        headers["Authorization"] = f"Bearer {collector.own_token}"
        async with http.post(url, data=b"{}", headers=headers) as answer:
            assert answer.status == 200


async def test_a_sender_beyond_its_rate_is_told_when_to_come_again(tmp_path):
    async with collecting(tmp_path, requests_per_s=0.5) as collector, aiohttp.ClientSession() as http:
        url, headers = f"http://127.0.0.1:{collector.http_port}/v1/logs", {"Content-Type": "application/json"}
        async with http.post(url, data=b"{}", headers=headers) as answer:
            assert answer.status == 200
        async with http.post(url, data=b"{}", headers=headers) as answer:
            assert answer.status in (429, 503)
            assert 0 < int(answer.headers["Retry-After"]) <= 5


async def test_what_comes_in_over_grpc_goes_out_to_backends_of_both_protocols(tmp_path):
    with HttpReceiver() as over_http, GrpcReceiver() as over_grpc:
        exporters = [
            {"name": "http", "url": over_http.url},
            {"name": "grpc", "url": over_grpc.url, "protocol": "grpc"},
        ]
        async with collecting(tmp_path, exporters=exporters) as collector:
            process = await _run_async(
                APP,
                OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{collector.grpc_port}",
                OTEL_EXPORTER_OTLP_PROTOCOL="grpc",
            )
            assert process == 0
            for backend in (over_http, over_grpc):
                names = await aeventually(
                    lambda backend=backend: _complete([one.event_name for one in backend.log_records()])
                )
                assert names[0] == semconv.OPERATION_STARTED
                [span] = [one for one in backend.spans() if one.name == "nightly load"]
                assert span.end_time_unix_nano > span.start_time_unix_nano


async def test_its_own_spans_go_to_an_endpoint_of_their_own_and_nowhere_else(tmp_path):
    with HttpReceiver() as own, HttpReceiver() as backend:
        async with collecting(tmp_path, self_otlp=own.url, export_otlp=[backend.url]) as collector:
            assert (
                await _run_async(APP, OTELPROGRESS_COLLECTOR=f"http://127.0.0.1:{collector.http_port}") == 0
            )
            await aeventually(lambda: [one for one in backend.spans() if one.name == "nightly load"])
            assert [one["name"] for one in await _listed(collector)] == ["nightly load"]
        names = {span.name for span in own.spans()}
        assert names <= {"ingest logs", "ingest traces", "ingest metrics"}
        assert "ingest logs" in names
        assert {span.name for span in backend.spans()} == {"nightly load"}


async def test_secrets_go_to_no_backend_when_that_is_asked_for(tmp_path):
    canary = "c4n4ry" + "Q7x9" * 6
    program = f"""
import otelprogress as progress
from opentelemetry import trace
progress.configure(feed=False, view="off", history=False, service_name="etl")
with progress.operation("load {{password={canary}}}") as run:
    trace.get_current_span().set_attribute("db.password", "{canary}")
    run.note("sent Bearer {canary} along")
"""
    with HttpReceiver() as backend:
        async with collecting(tmp_path, export_otlp=[backend.url], redact_exports=True) as collector:
            assert (
                await _run_async(program, OTELPROGRESS_COLLECTOR=f"http://127.0.0.1:{collector.http_port}")
                == 0
            )
            await aeventually(lambda: _complete([one.event_name for one in backend.log_records()]))
            await aeventually(lambda: [one for one in backend.spans() if "load" in one.name])
        received = b"".join(one.body for one in backend.received)
    assert canary.encode() not in received
    assert b"load {password=[redacted]}" in received
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert canary.encode() not in kept


async def _listed(collector: Collector) -> list[dict]:
    async with aiohttp.ClientSession() as http:
        url = f"http://127.0.0.1:{collector.http_port}/v1/operations"
        async with http.get(url, headers={"Authorization": f"Bearer {collector.own_token}"}) as answer:
            return (await answer.json())["operations"]


def _complete(names: list[str]) -> list[str]:
    return names if semconv.OPERATION_ENDED in names else []


async def _run_async(program: str, **environment: str) -> int:
    import asyncio

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, env=os.environ | environment
    )
    return await process.wait()


async def test_a_taken_port_is_named_with_a_command_that_would_work(tmp_path):
    async with collecting(tmp_path / "first") as first:
        said = {
            "data_dir": str(tmp_path / "second"),
            "http_port": first.http_port,
            "grpc_port": 0,
            "runtime_file": False,
        }
        second = Collector(load(None, said), arguments=["serve", "--http-port", str(first.http_port)])
        with pytest.raises(PortTaken) as taken:
            await second.start()
    assert f"port {first.http_port} of 127.0.0.1 (http_port) is taken" in str(taken.value)
    assert "otelprogress-collector serve --http-port " in str(taken.value)


def test_the_command_line_says_a_taken_port_in_one_line(tmp_path):
    with CollectorProcess(tmp_path / "first") as first:
        answer = subprocess.run(
            [
                *(sys.executable, "-m", "otelprogress_collector", "serve"),
                *("--data-dir", str(tmp_path / "second"), "--http-port", str(first.http_port)),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert answer.returncode == 1
    assert "Traceback" not in answer.stderr
    assert "This would work: otelprogress-collector serve" in answer.stderr


@pytest.mark.parametrize("durability", ["memory", "disk"])
async def test_a_folder_that_others_may_read_is_used_with_a_warning_and_its_files_are_private(
    tmp_path, caplog, durability
):
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(0o755)
    async with collecting(folder, durability=durability, export_otlp=["http://127.0.0.1:9"]):
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert [line for line in caplog.messages if f"`chmod 700 {folder}`" in line]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert any(line.startswith("warning   ") for line in check(load(None, {"data_dir": str(folder)})))


@pytest.mark.parametrize("command", [["serve"], ["serve", "--durability", "memory"], ["check-config"]])
def test_a_folder_that_others_may_write_is_refused_before_anything_is_put_there(tmp_path, command):
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(0o775)
    answer = subprocess.run(
        [sys.executable, "-m", "otelprogress_collector", *command, "--data-dir", str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 1
    assert f"`chmod 700 {folder}`" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert list(folder.iterdir()) == []


def test_one_data_folder_is_one_collectors(tmp_path):
    with CollectorProcess(tmp_path / "data") as first:
        second = CollectorProcess(tmp_path / "data")
        second.log = tmp_path / "second.log"
        second.start(wait=False)
        assert second.process.wait(60) == 1
        assert str(first.pid) in second.log.read_text()


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_signal_ends_it_in_good_order_while_clients_and_workers_are_connected(tmp_path, number):
    import signal as signals

    slow = "import otelprogress as p, time\np.configure(feed=False, view='off', history=False)\nwith p.operation('slow'):\n    time.sleep(300)"
    with CollectorProcess(tmp_path / "data") as collector:
        environment = os.environ | {"OTELPROGRESS_COLLECTOR": collector.url}
        app = subprocess.Popen([sys.executable, "-c", slow], env=environment)
        try:
            eventually(lambda: b'"slow"' in collector.get("/v1/operations"), 30)
            collector.process.send_signal(getattr(signals, number))
            assert collector.process.wait(30) == 0
        finally:
            app.kill()
            app.wait()
    log = collector.log.read_text()
    assert "Traceback" not in log
    assert "ended in good order" in log


def test_settings_that_cannot_be_meant_start_nothing(tmp_path):
    with pytest.raises(InvalidValue, match="rule"):
        list(check(load(None, {"data_dir": str(tmp_path), "rules": "nonsense"})))
    assert list(tmp_path.iterdir()) == []


def test_the_settings_can_be_looked_at_without_starting_anything(tmp_path):
    lines = list(check(load(None, {"data_dir": str(tmp_path), "export_otlp": ["http://jaeger:4317"]})))
    assert any("jaeger" in line and "grpc" in line for line in lines)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_variable_is_refused_by_every_command_as_an_unknown_key_is(tmp_path):
    config = tmp_path / "collector.toml"
    config.write_text("http_prot = 1")
    for command in ("check-config", "serve"):
        for arguments, environment, named in (
            ([], {"OTELPROGRESS_COLLECTOR_HTTP_PROT": "1"}, "OTELPROGRESS_COLLECTOR_HTTP_PORT"),
            (["--config", str(config)], {}, "http_port"),
        ):
            answer = subprocess.run(
                [
                    *(sys.executable, "-m", "otelprogress_collector", command, *arguments),
                    *("--data-dir", str(tmp_path / "data")),
                ],
                env=os.environ | environment,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert answer.returncode == 2
            assert f"no such setting; did you mean {named}?" in answer.stderr
    assert not (tmp_path / "data").exists()


def test_tokens_are_made_listed_and_revoked_from_the_command_line(tmp_path):
    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "otelprogress_collector",
                *arguments,
                "--data-dir",
                str(tmp_path / "data"),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    made = command("token", "create", "ci", "--scope", "progress:write", "--tenant", "acme")
    assert made.returncode == 0
    listed = command("token", "list").stdout
    assert "ci  progress:write  tenant acme  never expires" in listed
    assert made.stdout.strip() not in listed
    assert command("token", "create", "ci").returncode == 2
    assert command("token", "create", "x", "--scope", "progress:everything").returncode == 2
    assert command("token", "revoke", "ci").returncode == 0
    assert command("token", "revoke", "ci").returncode == 2


def test_a_backup_of_a_running_collector_can_be_served(tmp_path):
    with CollectorProcess(tmp_path / "data") as collector:
        run_app(APP, OTELPROGRESS_COLLECTOR=collector.url)
        copy = tmp_path / "copy.sqlite3"
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "otelprogress_collector",
                "backup",
                str(copy),
                "--data-dir",
                str(tmp_path / "data"),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    restored = tmp_path / "restored"
    restored.mkdir(mode=0o700)
    copy.rename(restored / "collector.sqlite3")
    with CollectorProcess(restored) as collector:
        [seen] = json.loads(collector.get("/v1/operations"))["operations"]
        assert seen["handle"] == "nightly_load-1"
        assert "epoch" in collector.log.read_text()


def test_the_version_is_that_of_the_distribution(tmp_path):
    answer = subprocess.run(
        [sys.executable, "-m", "otelprogress_collector", "--version"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.stdout.strip() == version("otelprogress-collector")
