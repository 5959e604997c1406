"""Every example runs as it stands, in a process of its own."""

from __future__ import annotations

import asyncio
import functools
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import otelprogress as progress
from otelprogress.model.events import FeedEvent
from tests.faults.proxy import FaultProxy, Plan
from tests.waiting import aeventually

EXAMPLES = Path(__file__).parents[2] / "examples"

SAYS = {
    "quickstart.py": r"^26115 rows, checksum [0-9a-f]{8}$",
    "nightly_load.py": r"^\d+ rows loaded$",
    "reindex_asyncio.py": r"^3322 planes indexed\ncancelled after 300 planes: enough for this example$",
    "steered_training.py": r"^asked 'the loss rises: what about the learning rate\?'\ntold to halve\n"
    r"snapshot: gust = \d\.\d\d x speed\ncancelled: good enough$",
    "imperative.py": r"^refused: .*job-7.*\n16 airlines$",
    "tqdm_unchanged.py": r"^checksum [0-9a-f]{8}$",
}


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize("name", SAYS)
def test_the_example_does_what_its_first_line_says(name: str) -> None:
    done = run(name)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(SAYS[name], done.stdout.strip(), re.DOTALL), done.stdout
    assert "Traceback" not in done.stderr


def test_the_agent_answers_one_job_cancels_another_and_reads_why_the_third_failed() -> None:
    done = run("agent_over_mcp.py")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    did = [
        r"export-1 cancelled",
        r'export-1 warned "the disk is almost full": cancelled',
        r"load-1 FAILED 99% .* \| 2/2 write 99/100 row: ValueError: time data 'yesterday' does not match .*",
        r"load-1 failed",
        r'train-1 asked "the loss is flat, what about the learning rate\?": halve',
        r"train-1 done",
    ]
    assert re.fullmatch("\n".join(did), "\n".join(sorted(done.stdout.splitlines()))), done.stdout


AGENT_DID = [
    "export-1 cancelled",
    'export-1 warns "the disk is almost full": cancel',
    "load-1 failed: ValueError: time data 'yesterday' does not match format '%Y-%m-%d'",
    'train-1 asks "the loss is flat: what now?": halve',
    "train-1 done",
]


def test_the_agent_of_raw_json_answers_one_job_cancels_another_and_reads_why_the_third_failed() -> None:
    done = run("agent_over_websocket.py")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(done.stdout.splitlines()) == AGENT_DID


async def test_the_agent_of_raw_json_does_the_same_where_its_connections_are_cut(
    capsys: pytest.CaptureFixture[str],
    private_runtime_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agent: Any = runpy.run_path(str(EXAMPLES / "agent_over_websocket.py"))
    trace_id = "7" * 32
    with subprocess.Popen(
        [sys.executable, EXAMPLES / "agent_over_websocket.py", "--work"],
        env=os.environ | {"TRACEPARENT": f"00-{trace_id}-{'7' * 16}-01"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as jobs:
        try:
            assert await asyncio.to_thread(jobs.stdout.readline) == b"began\n"
            url, token = agent["address"](private_runtime_folder)
            feed = urllib.parse.urlsplit(url)
            # In the middle of the first digest, of the first command, and of the answers.
            plans = [Plan(reset_down_at=1_300), Plan(reset_up_at=800), Plan(cut_down_at=1_100)]
            with FaultProxy(
                (feed.hostname, feed.port), lambda n: plans[n] if n < len(plans) else Plan()
            ) as proxy:
                through = functools.partial(agent["connect"], host="127.0.0.1", port=proxy.port)
                # `run_path` gives a copy of the names: functions look theirs up in the original.
                monkeypatch.setitem(agent["command"].__globals__, "connect", through)
                await asyncio.wait_for(agent["Agent"](url, token, trace_id).follow(), 60)
                assert proxy.connections > len(plans)
        finally:
            jobs.kill()
    assert sorted(capsys.readouterr().out.splitlines()) == AGENT_DID


@pytest.mark.parametrize("start_method", ["spawn", "fork", "forkserver"])
def test_the_pool_example_gives_the_same_checksums_with_every_start_method(start_method: str) -> None:
    done = run("pool.py", "--start-method", start_method)
    assert done.returncode == 0, done.stderr
    assert len(set(done.stdout.split())) == 4
    assert "Traceback" not in done.stderr


def test_the_imperative_example_leaves_its_run_in_the_history() -> None:
    run("imperative.py")
    listed = subprocess.run(
        [sys.executable, "-m", "otelprogress.cli.main", "list", "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert '"name":"job-7"' in listed.stdout.replace(" ", "")
    assert '"state":"succeeded"' in listed.stdout.replace(" ", "")


async def test_a_flask_service_that_knows_nothing_of_us_is_live_by_a_rule_alone() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    service = subprocess.Popen(
        [
            str(Path(sys.executable).parent / "opentelemetry-instrument"),
            *("--traces_exporter", "none", "--metrics_exporter", "none", "--logs_exporter", "none"),
            *(sys.executable, EXAMPLES / "flask_import.py", "--port", str(port)),
        ],
        env=os.environ
        | {"OTELPROGRESS_FEED": "on", "OTELPROGRESS_RULES": "name=POST /import*;children=steps"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        await aeventually(lambda: service.poll() is not None or listens(port), 60)
        assert service.poll() is None, service.stderr and service.stderr.read()
        async with progress.AsyncClient() as client:
            stream = client.watch(level="milestones")
            await asyncio.to_thread(post, port, "airlines")
            assert (await until_ended(stream))[-1].operation.name.startswith("POST /import")
            asked = asyncio.create_task(asyncio.to_thread(post, port, "weather"))
            seen = await until_ended(stream)
            assert await asked == b'{"rows":26115}\n'
        assert seen[0].kind == "operation.started"
        steps = [event.step.name for event in seen if event.kind == "step.started" and event.step]
        assert [name.split()[0].upper() for name in steps][:2] == ["CREATE", "INSERT"]
        assert seen[-1].operation.state == "succeeded"
    finally:
        service.send_signal(signal.SIGKILL)
        service.wait()
        if service.stderr:
            service.stderr.close()


def post(port: int, table: str) -> bytes:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/import/{table}", method="POST")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read()


async def until_ended(stream: AsyncIterator[FeedEvent]) -> list[FeedEvent]:
    """What comes up to the next end of an operation, be it in a snapshot."""
    seen = []
    async for event in stream:
        seen.append(event)
        if not event.operation.live:
            break
    return seen


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_the_follower_sees_another_examples_milestones_and_can_wait_for_an_end() -> None:
    follower = subprocess.Popen(
        [sys.executable, EXAMPLES / "follow.py", "--name", "nightly*", "--events", "1"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        await aeventually(lambda: run("nightly_load.py").returncode == 0 and follower.poll() is not None, 100)
        assert follower.stdout is not None
        assert "nightly_load-" in follower.stdout.read()
    finally:
        follower.kill()
        follower.wait()
        assert follower.stdout is not None
        follower.stdout.close()
