"""The OpenAPI document and the routes are the same thing said twice."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.routing import Route

from otelprogress.protocol.messages import Filter
from otelprogress_collector.api.openapi import document
from otelprogress_collector.api.query import ListParameters, StreamParameters, ViewParameters
from otelprogress_collector.auth.rate import RateLimits, TokenBuckets
from tests.collector.api.kit import TOKEN, FakeAuthority, get, reader, serving
from tests.collector.api.schema_check import problems
from tests.feed.fakes import ended, noted, progressed, started

DOCUMENT = json.loads(json.dumps(document("1.2.3")))
FILTER = set(Filter.__struct_fields__)


@pytest.fixture
def served():
    with serving(
        server_info={"version": "1.2.3"},
        authority=FakeAuthority({TOKEN: reader(), "t": reader(tenant="t"), "w": reader(scopes=frozenset())}),
    ) as server:
        yield server


def parameters(path: str, place: str = "query") -> set[str]:
    return {
        each["name"] for each in DOCUMENT["paths"][path]["get"].get("parameters", ()) if each["in"] == place
    }


async def test_it_is_served_to_everybody_who_gets_there(served):
    answer = await get(served, "/openapi.json", token=None)
    assert (answer.status, answer.json) == (200, DOCUMENT)
    assert answer.json["info"]["version"] == "1.2.3"


def test_it_has_every_route_and_no_other(served):
    routes = {route.path for route in served.reading.routes() if isinstance(route, Route)}
    assert set(DOCUMENT["paths"]) == routes
    assert all(set(methods) == {"get"} for methods in DOCUMENT["paths"].values())


def test_it_has_every_parameter_and_no_other():
    assert parameters("/v1/operations") == FILTER | set(ListParameters.__struct_fields__)
    assert parameters("/v1/operations/{operation}") == set(ViewParameters.__struct_fields__)
    assert parameters("/v1/operations/{operation}", "path") == {"operation"}
    assert parameters("/v1/feed/sse") == FILTER | set(StreamParameters.__struct_fields__)
    for path in ("/v1/feed", "/healthz", "/readyz", "/metrics", "/openapi.json"):
        assert parameters(path) == set()


def test_every_reference_leads_somewhere_and_every_operation_has_a_name_of_its_own():
    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [each for value in node.values() for each in references(value)]
        return [each for value in node for each in references(value)] if isinstance(node, list) else []

    assert references(DOCUMENT)
    for reference in references(DOCUMENT):
        assert reference.removeprefix("#/components/schemas/") in DOCUMENT["components"]["schemas"], reference
    names = [one["get"]["operationId"] for one in DOCUMENT["paths"].values()]
    assert len(set(names)) == len(names)


ASKED = [
    ("/v1/operations", "/v1/operations", TOKEN, 200),
    ("/v1/operations", "/v1/operations?limit=1", TOKEN, 200),
    ("/v1/operations", "/v1/operations?limit=x", TOKEN, 400),
    ("/v1/operations", "/v1/operations", None, 401),
    ("/v1/operations", "/v1/operations", "w", 403),
    ("/v1/operations/{operation}", "/v1/operations/load-1", TOKEN, 200),
    ("/v1/operations/{operation}", "/v1/operations/load-1?after=x", TOKEN, 400),
    ("/v1/operations/{operation}", "/v1/operations/load-1", "wrong", 401),
    ("/v1/operations/{operation}", "/v1/operations/load-1", "w", 403),
    ("/v1/operations/{operation}", "/v1/operations/nothing", TOKEN, 404),
    ("/v1/operations/{operation}", "/v1/operations/load", TOKEN, 409),
    ("/v1/feed", "/v1/feed", TOKEN, 426),
    ("/v1/feed/sse", "/v1/feed/sse?level=x", TOKEN, 400),
    ("/v1/feed/sse", "/v1/feed/sse", None, 401),
    ("/v1/feed/sse", "/v1/feed/sse", "w", 403),
    ("/openapi.json", "/openapi.json", TOKEN, 200),
    ("/healthz", "/healthz", None, 200),
    ("/readyz", "/readyz", None, 200),
    ("/metrics", "/metrics", TOKEN, 200),
    ("/metrics", "/metrics", None, 401),
    ("/metrics", "/metrics", "t", 403),
]


async def test_every_answer_is_what_the_document_says(served):
    served.submit(
        started(run=1, name="load", steps=("a", "b"), label="job", attributes={"region": "eu", "n": 1})
    )
    served.submit(progressed(5.0, total=10.0))
    served.submit(noted(2, message="half way", level="warning"))
    served.submit(started(run=2, name="load"))
    served.submit(ended(2, run=2))
    for path, asked, token, status in ASKED:
        answer = await get(served, asked, token=token)
        assert answer.status == status, asked
        _check(path, answer)


@pytest.mark.parametrize("path", list(DOCUMENT["paths"]))
async def test_another_method_is_a_problem_that_says_which(served, path: str):
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        answer = await get(served, path.replace("{operation}", "x"), method=method)
        assert answer.status == 405
        assert "GET" in answer.headers["Allow"]
        _check(path, answer)


async def test_a_forged_host_is_refused_by_every_path_that_has_something_to_hide(served):
    for path in DOCUMENT["paths"]:
        answer = await get(served, path.replace("{operation}", "x"), headers={"Host": "evil.example"})
        if path in ("/healthz", "/readyz", "/v1/feed"):
            assert answer.status in (200, 426)
        else:
            assert answer.status == 403, path
            _check(path, answer)


async def test_more_requests_than_the_limit_are_told_when_to_come_back():
    limits = RateLimits(by_token=TokenBuckets(per_s=1.0, burst=3), by_address=None)
    with serving(rate_limits=limits) as server:
        answers = [await get(server, "/v1/operations") for _ in range(5)]
        assert [answer.status for answer in answers[:3]] == [200] * 3
        assert answers[4].status == 429
        assert 1 <= int(answers[4].headers["Retry-After"]) <= 5
        _check("/v1/operations", answers[4])


async def test_what_a_collector_that_ends_answers_is_in_the_document_too(served):
    served.run(served.reading.drain(0.1))
    for path in ("/readyz", "/v1/feed/sse"):
        answer = await get(served, path)
        assert answer.status == 503
        _check(path, answer)


def _check(path: str, answer: Any) -> None:
    said = DOCUMENT["paths"][path]["get"]["responses"][str(answer.status)]["content"]
    media_type = answer.headers["Content-Type"]
    assert media_type in said, (path, answer.status)
    if media_type.endswith("json"):
        assert problems(answer.json, said[media_type]["schema"], DOCUMENT) == []


def test_a_wrong_answer_would_be_noticed():
    operation = {"$ref": "#/components/schemas/OperationView"}
    assert problems({"id": 5}, operation, DOCUMENT)
    assert problems(
        {"operations": [{}], "more": -1}, {"$ref": "#/components/schemas/OperationList"}, DOCUMENT
    )
    assert problems({"status": "dead"}, {"$ref": "#/components/schemas/Status"}, DOCUMENT)
