"""Refusals as documents."""

from __future__ import annotations

import json
from http import HTTPStatus

from otelprogress_collector.api.problem import OnlyGet, Problem, busy, respond


class Sent(list):
    """What an application sent."""

    async def __call__(self, message) -> None:
        self.append(message)

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self[0]["headers"]}


async def test_a_problem_says_what_kind_it_is_and_what_is_wrong():
    sent = Sent()
    await Problem(HTTPStatus.CONFLICT, "which?", candidates=("a", "b")).answer(sent)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == 409
    assert sent.headers["content-type"] == "application/problem+json"
    assert int(sent.headers["content-length"]) == len(sent[1]["body"])
    assert json.loads(sent[1]["body"]) == {
        "type": "about:blank",
        "title": "Conflict",
        "status": 409,
        "detail": "which?",
        "candidates": ["a", "b"],
    }


async def test_an_upgrade_that_is_not_made_is_answered_the_same():
    sent = Sent()
    await busy("full", 3).answer(sent, upgrade=True)
    assert [message["type"] for message in sent] == [
        "websocket.http.response.start",
        "websocket.http.response.body",
    ]
    assert (sent[0]["status"], sent.headers["retry-after"]) == (503, "3")


async def test_nothing_is_stored_or_taken_for_another_type():
    sent = Sent()
    await respond(sent, b"{}")
    assert sent.headers["cache-control"] == "no-store"
    assert sent.headers["x-content-type-options"] == "nosniff"


async def test_other_methods_do_not_reach_the_application():
    reached = []

    async def app(scope, receive, send) -> None:
        reached.append(scope["method"])

    sent = Sent()
    for method in ("GET", "HEAD", "POST"):
        await OnlyGet(app)({"method": method}, None, sent)
        await OnlyGet(app, head=False)({"method": method}, None, Sent())
    assert reached == ["GET", "GET", "HEAD"]
    assert (sent[0]["status"], sent.headers["allow"]) == (405, "GET, HEAD")
