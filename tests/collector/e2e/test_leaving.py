"""A collector that was told to end and is still there, because a reader takes its time."""

from __future__ import annotations

import contextlib
import json
import signal
import urllib.error
import urllib.request

import grpc
import pytest

from otelprogress.model import semconv
from otelprogress.otel.transport_grpc import retry_delay_s
from tests.collector.collecting import CollectorProcess
from tests.collector.e2e.reading import Reader
from tests.collector.e2e.writing import Writer, ask, send
from tests.collector.receivers.messages import ASpan, Group, request
from tests.waiting import eventually

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


def leaving(collector: CollectorProcess) -> bool:
    try:
        urllib.request.urlopen(f"{collector.url}/readyz", timeout=5).close()
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.code == 503
    return False


def noted(writer: Writer, count: int) -> bytes:
    return writer.encoded(*(writer.event(semconv.OPERATION_NOTED, message="x" * 1_000) for _ in range(count)))


def test_what_comes_during_the_drain_is_to_come_again_plain_spans_too(tmp_path):
    writer = Writer()
    in_protobuf, in_json = (
        request("traces", encoding, Group([ASpan(name="GET /")])) for encoding in ("protobuf", "json")
    )
    with contextlib.ExitStack() as stack:
        collector = stack.enter_context(CollectorProcess(tmp_path / "data"))
        reader = stack.enter_context(Reader(collector.http_port, collector.token, max_queue=1))
        channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{collector.grpc_port}"))
        port, export = collector.http_port, channel.unary_unary(EXPORT)
        reader.subscribe()
        assert send(port, writer.started()).status == 200
        assert export(in_protobuf, timeout=20) == b""
        # More than the kernels keep for a reader that does not read: the collector waits for it, at the end too.
        for _ in range(12):
            assert send(port, noted(writer, 400)).status == 200
        collector.process.send_signal(signal.SIGTERM)
        eventually(lambda: leaving(collector))
        for late in (
            send(port, writer.noted("too late")),
            ask(port, "/v1/traces", in_protobuf),
            ask(port, "/v1/traces", in_json, content_type="application/json"),
        ):
            assert (late.status, late.headers["retry-after"]) == (503, "2")
        assert json.loads(late.body)["details"][0]["retryDelay"] == "2s"
        with pytest.raises(grpc.RpcError) as refused:
            export(in_protobuf, timeout=20)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert retry_delay_s(refused.value.trailing_metadata()) == 2.0
        assert collector.process.wait(30) == 0
    assert "Traceback" not in collector.log.read_text()
