"""The OpenAPI document and the routes are the same thing said twice."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from starlette.routing import Route

from otelprogress.protocol.messages import Command, CommandAnswer, CommandStatus, Filter
from otelprogress_collector.api.commands import STATUSES
from otelprogress_collector.api.openapi import document
from otelprogress_collector.api.query import ListParameters, StreamParameters, ViewParameters
from otelprogress_collector.auth.rate import RateLimits, TokenBuckets
from tests.collector.api.kit import TOKEN, FakeAuthority, get, reader, serving
from tests.collector.api.schema_check import problems
from tests.feed.fakes import ended, noted, progressed, started

COMMANDS = "/v1/operations/{operation}/commands"
DOCUMENT = json.loads(json.dumps(document("1.2.3")))
FILTER = set(Filter.__struct_fields__)


class Answers:
    """Takes commands: the operation that is meant is the answer."""

    def submit(self, command: Command, *_: object) -> CommandStatus:
        return CommandStatus(command_id=command.command_id, status=command.operation, message="why")


@pytest.fixture
def served():
    with serving(
        commanding=Answers(),
        server_info={"version": "1.2.3"},
        authority=FakeAuthority({TOKEN: reader(), "t": reader(tenant="t"), "w": reader(scopes=frozenset())}),
    ) as server:
        yield server


def parameters(path: str, place: str = "query") -> set[str]:
    return {each["name"] for each in said_of(path).get("parameters", ()) if each["in"] == place}


def said_of(path: str) -> dict[str, Any]:
    """The one method that a path has."""
    (said,) = DOCUMENT["paths"][path].values()
    return said


async def test_it_is_served_to_everybody_who_gets_there(served):
    answer = await get(served, "/openapi.json", token=None)
    assert (answer.status, answer.json) == (200, DOCUMENT)
    assert answer.json["info"]["version"] == "1.2.3"


def test_it_has_every_route_and_no_other(served):
    routes = {route.path for route in served.reading.routes() if isinstance(route, Route)}
    assert set(DOCUMENT["paths"]) == routes
    assert {path for path, methods in DOCUMENT["paths"].items() if set(methods) != {"get"}} == {COMMANDS}
    assert set(DOCUMENT["paths"][COMMANDS]) == {"post"}


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
    names = [said_of(path)["operationId"] for path in DOCUMENT["paths"]]
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
    (own,) = (method.upper() for method in DOCUMENT["paths"][path])
    for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS"):
        if method == own:
            continue
        answer = await get(served, path.replace("{operation}", "x"), method=method)
        assert answer.status == 405
        assert own in answer.headers["Allow"]
        _check(path, answer)


@pytest.mark.parametrize("word", get_args(CommandAnswer))
async def test_every_answer_to_a_command_is_what_the_document_says(served, word: str):
    answer = await get(served, f"/v1/operations/{word}/commands", method="POST", json={"action": "cancel"})
    assert (answer.status, answer.json["status"], answer.json["message"]) == (STATUSES[word], word, "why")
    _check(COMMANDS, answer)


@pytest.mark.parametrize(
    ("asked", "token", "status"),
    [
        ({"json": {"action": "cancel"}}, None, 401),
        ({"json": {"action": "cancel"}}, "w", 403),
        ({"json": {}}, TOKEN, 400),
        ({"json": {"action": "cancel", "colour": "red"}}, TOKEN, 400),
        ({"data": b"{", "headers": {"Content-Type": "application/json"}}, TOKEN, 400),
        ({"data": b"{}"}, TOKEN, 415),
        ({"json": {"action": "a" * 70_000}}, TOKEN, 413),
    ],
)
async def test_a_body_that_is_no_command_is_a_problem_of_the_document(served, asked, token, status: int):
    answer = await get(served, "/v1/operations/x/commands", method="POST", token=token, **asked)
    assert answer.status == status
    _check(COMMANDS, answer)


def test_the_document_names_the_fields_of_a_command_and_takes_what_is_one():
    schema = DOCUMENT["components"]["schemas"]["Command"]
    assert set(schema["properties"]) == set(Command.__struct_fields__) - {"operation"}
    for body in ({"action": "cancel"}, {"action": "input", "arguments": {"content": 0.5, "reason": None}}):
        assert problems(body, schema, DOCUMENT) == []
    wrong = ({}, {"action": 5}, {"action": "a" * 257}, {"action": "cancel", "colour": "red"})
    for body in (*wrong, {"action": "cancel", "deadline_s": 0}, {"action": "cancel", "arguments": {"a": []}}):
        assert problems(body, schema, DOCUMENT), body


async def test_a_forged_host_is_refused_by_every_path_that_has_something_to_hide(served):
    for path in DOCUMENT["paths"]:
        method = next(iter(DOCUMENT["paths"][path])).upper()
        asked = path.replace("{operation}", "x")
        answer = await get(served, asked, method=method, headers={"Host": "evil.example"})
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
    said = said_of(path)["responses"][str(answer.status)]["content"]
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
