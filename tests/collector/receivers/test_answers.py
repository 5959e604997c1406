"""Every way a request can fail has one answer, over HTTP and over gRPC."""

from __future__ import annotations

import json

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from otelprogress_collector.auth.principal import Denied
from otelprogress_collector.host import Overloaded
from otelprogress_collector.receivers.admission import Forbidden
from otelprogress_collector.receivers.answers import (
    OUR_FAULT,
    refusal_of,
    retry_after_header,
    status,
    success,
)
from otelprogress_collector.receivers.intake import BadRequest, Intake, TooLarge
from otelprogress_collector.receivers.rate import RateLimited
from otelprogress_collector.store.interface import StoreUnavailable

RETRYABLE_OVER_HTTP = {429, 502, 503, 504}

ANSWERS = [
    (BadRequest("bad"), 400, grpc.StatusCode.INVALID_ARGUMENT, None),
    (TooLarge("large"), 413, grpc.StatusCode.RESOURCE_EXHAUSTED, None),
    (Denied("who"), 401, grpc.StatusCode.UNAUTHENTICATED, None),
    (Forbidden("no"), 403, grpc.StatusCode.PERMISSION_DENIED, None),
    (Overloaded("wait", 0.5), 503, grpc.StatusCode.RESOURCE_EXHAUSTED, 0.5),
    (RateLimited("wait", 99.0), 429, grpc.StatusCode.RESOURCE_EXHAUSTED, 5.0),
    (RateLimited("wait", -1.0), 429, grpc.StatusCode.RESOURCE_EXHAUSTED, 0.0),
    (StoreUnavailable("full"), 503, grpc.StatusCode.UNAVAILABLE, 2.0),
    (ValueError("a bug"), 500, grpc.StatusCode.INTERNAL, None),
]


@pytest.mark.parametrize(("error", "http_status", "code", "retry_after_s"), ANSWERS)
def test_an_error_has_its_answer(error, http_status, code, retry_after_s):
    refusal = refusal_of(error)
    assert (refusal.http_status, refusal.code, refusal.retry_after_s) == (
        http_status,
        code.value[0],
        retry_after_s,
    )


@pytest.mark.parametrize(("error", "http_status", "code", "retry_after_s"), ANSWERS)
def test_only_what_may_be_sent_again_says_when(error, http_status, code, retry_after_s):
    assert (retry_after_s is not None) == (http_status in RETRYABLE_OVER_HTTP)


def test_what_is_not_the_senders_business_is_not_told():
    assert refusal_of(KeyError("secret")) is OUR_FAULT
    assert "full" not in refusal_of(StoreUnavailable("full: /var/lib/secret")).message


def test_a_status_reads_the_same_in_both_encodings():
    refusal = refusal_of(Overloaded("more waits than may wait", 1.25))
    message = Status.FromString(status(refusal, "protobuf"))
    info = RetryInfo()
    assert message.details[0].Unpack(info)
    said = json.loads(status(refusal, "json"))
    assert (said["code"], said["message"]) == (message.code, message.message)
    assert said["details"][0]["retryDelay"] == "1.25s"
    assert info.retry_delay.seconds + info.retry_delay.nanos / 1e9 == 1.25


def test_a_header_says_whole_seconds_and_never_none():
    assert [retry_after_header(one) for one in (0.0, 0.2, 1.0, 1.2, 5.0)] == ["1", "1", "1", "2", "5"]


@pytest.mark.parametrize(
    ("signal", "member"),
    [("logs", "rejectedLogRecords"), ("traces", "rejectedSpans"), ("metrics", "rejectedDataPoints")],
)
def test_partial_success_names_what_was_rejected(signal, member):
    intake = Intake(signal=signal, rejected=3, reason="because")
    assert json.loads(success(intake, "json")) == {"partialSuccess": {member: "3", "errorMessage": "because"}}
    assert success(intake, "protobuf") == b"\x0a\x0b\x08\x03\x12\x07because"


def test_a_success_without_anything_to_tell_is_empty():
    assert success(Intake(signal="logs"), "protobuf") == b""
    assert success(Intake(signal="logs"), "json") == b"{}"
