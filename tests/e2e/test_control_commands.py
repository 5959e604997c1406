"""`otelprogress cancel`, `pause`, `resume`, `signal` and `respond`, as somebody types them, against real programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

import otelprogress as progress
from otelprogress.exceptions import UnknownOperation
from otelprogress.model import semconv
from tests.e2e.test_control import commanded, moving
from tests.e2e.test_shell import shell
from tests.otel.otlp_server import HttpReceiver
from tests.waiting import aeventually

TIMEOUT_S = "60"


def attributes_of(carrier: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in carrier.attributes}


@pytest.mark.xdist_group("demo")
async def test_a_cancel_ends_the_demo_between_two_rows_and_its_span_says_so():
    async def cleans() -> bool:
        try:
            view = await client.get("nyc_flights-1")
        except (UnknownOperation, progress.FeedUnavailable):
            return False
        return view.step is not None and view.step.name == "clean" and (view.step.completed or 0) > 100

    with HttpReceiver() as receiver:
        environment = os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}
        with subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.counted_demo"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        ) as demo:
            try:
                async with progress.AsyncClient() as client:
                    await aeventually(cleans, 60)
                told = shell("cancel", "nyc_flights-1", "--reason", "wrong year", "--timeout", TIMEOUT_S)
                assert (told.returncode, told.stdout) == (0, "nyc_flights-1: cancel applied\n"), told.stderr
                output, errors = demo.communicate(timeout=60)
            finally:
                demo.kill()
        assert demo.returncode == 6
        assert "otelprogress: the demo was cancelled: wrong year" in errors
        assert "Traceback" not in errors
        counted = json.loads(output.splitlines()[-1])
        assert 100 < counted["processed"] < 336_776
        assert 0 <= counted["fetched"] - counted["processed"] <= 1
        (span,) = [each for each in receiver.spans() if each.name == "nyc flights"]
    assert attributes_of(span)[semconv.OPERATION_STATE] == "cancelled"
    assert span.status.code == Status.STATUS_CODE_UNSET  # it did not fail: it was told to stop
    (applied,) = [attributes_of(each) for each in span.events if each.name == semconv.CONTROL_APPLIED]
    assert applied[semconv.ITEMS_COMPLETED] == counted["processed"]
    assert applied[semconv.CONTROL_ACTION] == "cancel"
    assert applied[semconv.CONTROL_REASON] == "wrong year"
    assert applied[semconv.CONTROL_ACTOR]
    assert applied[semconv.CONTROL_ID]


async def test_a_script_pauses_resumes_and_cancels_a_program():
    with commanded("rows") as program:
        async with progress.AsyncClient() as client:
            await moving(client, "import_rows-1")
        shown = shell("show", "import_rows-1").stdout
        assert "  accepts   cancel, pause" in shown.splitlines()
        for action in ("pause", "resume", "cancel"):
            told = shell(action, "import_rows-1", "--timeout", TIMEOUT_S)
            assert (told.returncode, told.stdout) == (0, f"import_rows-1: {action} applied\n"), told.stderr
        assert program.stdout.readline().startswith("cancelled '' after ")
        again = shell("cancel", "import_rows-1")
        assert again.returncode == 1
        assert again.stdout.startswith("import_rows-1: cancel refused: ended: ")
        program.stdin.close()
        program.wait(30)
    again = shell("cancel", "import_rows-1")
    assert (again.returncode, again.stdout) == (1, "import_rows-1: cancel refused: ended: cancelled\n")
    assert shell("cancel", "nobody").returncode == 4


async def test_a_signal_is_sent_and_what_is_not_declared_is_refused_with_what_to_do():
    with commanded("signalled") as program:
        async with progress.AsyncClient() as client:
            await moving(client, "simulate-1")
        told = shell("signal", "simulate-1", "snapshot", "--timeout", TIMEOUT_S)
        assert (told.returncode, told.stdout) == (0, "simulate-1: snapshot applied\n")
        refused = shell("pause", "simulate-1")
        assert refused.returncode == 1
        assert "controls=['pause']" in refused.stdout
        assert shell("signal", "nobody", "snapshot").returncode == 3
        stale = shell("cancel", "simulate-1", "--expect-revision", "1")
        assert (stale.returncode, "stale" in stale.stdout) == (1, True)
        assert shell("cancel", "simulate-1", "--no-wait").stdout == "simulate-1: cancel accepted\n"
        assert program.stdout.readline() == "snapshots 1\n"


async def test_a_question_is_read_answered_wrongly_and_then_answered():
    with commanded("asking") as program:
        async with progress.AsyncClient() as client:
            await aeventually(lambda: _asks(client), 60)
        question = shell("respond", "train-1")
        assert question.stdout.splitlines()[:2] == [
            'train-1: asks    in1 "lr?"',
            '  answer  one of "halve", "stop"',
        ]
        assert "  accepts   input, cancel" in shell("show", "train-1").stdout.splitlines()
        wrong = shell("respond", "train-1", "double")
        assert (wrong.returncode, 'one of "halve", "stop"' in wrong.stdout) == (2, True)
        told = shell("respond", "train-1", "in1", "halve", "--timeout", TIMEOUT_S)
        assert (told.returncode, told.stdout) == (0, "train-1: answer applied\n"), told.stderr
        assert program.stdout.readline() == "answered halve\n"


async def _asks(client: progress.AsyncClient) -> bool:
    try:
        return (await client.get("train-1")).input_id is not None
    except (UnknownOperation, progress.FeedUnavailable):
        return False
