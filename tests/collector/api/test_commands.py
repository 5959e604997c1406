"""Bad input to commands, over REST and over the feed: each has an answer of its own, and none is a failure of ours."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otelprogress.model import semconv
from otelprogress.model.events import State
from otelprogress.protocol import command_desk
from otelprogress_collector.api.commands import MAX_BODY_BYTES
from otelprogress_collector.app import Collector
from otelprogress_collector.auth.principal import CONTROL, READ, RESPOND, WRITE
from otelprogress_collector.auth.tokens import create_token
from tests.collector.collecting import collecting
from tests.collector.e2e.reading import Reader
from tests.collector.e2e.writing import Answer, Writer, ask, send

EVERYTHING = (READ, WRITE, CONTROL, RESPOND)
TOKENS = (
    ("all", EVERYTHING, ()),
    ("reads", (READ,), ()),
    ("controls", (READ, CONTROL), ()),
    ("responds", (READ, RESPOND), ()),
    ("other", EVERYTHING, ("billing",)),
)
ANSWERS = {
    "accepted": 202,
    "duplicate": 200,
    "invalid": 400,
    "forbidden": 403,
    "not_found": 404,
    "ambiguous": 409,
    "ended": 409,
    "unsupported": 409,
    "stale": 412,
    "no_worker": 503,
    "overloaded": 429,
}


class Placed:
    """A collector on a thread of its own, writers that report to it, and one worker link."""

    def __init__(self, collector: Collector, tokens: dict[str, str]) -> None:
        self.port = collector.http_port
        self.collector = collector
        self.tokens = tokens
        self.ids = 0
        self.load = Writer("load")
        self.tell(self.load.started(controls=("cancel", "input"), label="monday"))
        self.link = Reader(self.port, self.tokens["all"], path="/v1/worker")

    def tell(self, body: bytes) -> None:
        assert send(self.port, body, token=self.tokens["all"]).status == 200

    def begun(self, name: str, **said: Any) -> Writer:
        writer = Writer(name)
        writer.writer_id = self.load.writer_id  # of the process that is linked
        self.tell(writer.started(**said))
        return writer

    def post(self, body: Any, operation: str = "load-1", *, token: str = "all", **headers: str) -> Answer:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return ask(
            self.port,
            f"/v1/operations/{operation}/commands",
            raw,
            token=self.tokens.get(token, token),
            **({"content_type": "application/json"} | headers),
        )

    def command(
        self, via: str, *, operation: str = "load-1", token: str = "all", **command: Any
    ) -> dict[str, Any]:
        """The status that comes back, by either way."""
        self.ids += 1
        said = {"command_id": f"c{self.ids}", "action": "cancel"} | command
        if via == "rest":
            answer = self.post(said, operation, token=token)
            document = json.loads(answer.body)
            assert document["command_id"] == said["command_id"]
            assert answer.status == ANSWERS[document["status"]]
        else:
            with Reader(self.port, self.tokens[token]) as reader:
                reader.hello()
                reader.say("command", operation=operation, **said)
                document = reader.hear()
                assert document["type"] == "command_status"
                assert document["command_id"] == said["command_id"]
        return document


@pytest.fixture(scope="module")
def placed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Placed]:
    folder = tmp_path_factory.mktemp("collector")
    up, over = threading.Event(), threading.Event()
    running: list[Collector] = []

    async def serve() -> None:
        async with collecting(folder / "data", tokens_file=str(folder / "data" / "tokens.json")) as collector:
            running.append(collector)
            up.set()
            await asyncio.to_thread(over.wait)

    (folder / "data").mkdir(mode=0o700)
    tokens = {
        name: create_token(
            folder / "data" / "tokens.json", name, scopes, services=services, now_unix_s=time.time()
        )
        for name, scopes, services in TOKENS
    }
    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert up.wait(60)
        made = Placed(running[0], tokens)
        with made.link as link:
            link.say("register", version=1, writer=made.load.writer_id)
            assert link.hear()["type"] == "welcome"
            yield made
    finally:
        over.set()
        thread.join(30)


@pytest.fixture(params=["rest", "feed"])
def via(request: pytest.FixtureRequest) -> str:
    return request.param


# --- what the issue calls bad input -----------------------------------------------------------------------------------


def test_an_unknown_operation_is_not_found(placed: Placed, via: str):
    told = placed.command(via, operation="nothing-1")
    assert told["status"] == "not_found"
    assert "nothing-1" in told["message"]


def test_one_that_one_may_not_see_is_not_found_in_the_same_words(placed: Placed, via: str):
    hidden = placed.command(via, token="other")
    unknown = placed.command(via, operation="load-9", token="other")
    assert hidden["status"] == unknown["status"] == "not_found"
    assert hidden["message"].replace("load-1", "load-9") == unknown["message"]


def test_an_ended_operation_says_how_it_ended(placed: Placed, via: str):
    writer = placed.begun("gone", label=f"gone {via}", controls=("cancel",))
    placed.tell(writer.ended(State.FAILED, error_type="KeyError"))
    told = placed.command(via, operation=writer.run_id)
    assert told["status"] == "ended"
    assert told["message"].endswith("has ended: failed")


def test_an_ambiguous_name_lists_the_candidates(placed: Placed, via: str):
    for _ in range(2):
        placed.begun("twin", label=f"twins {via}", controls=("cancel",))
    told = placed.command(via, operation=f"twins%20{via}" if via == "rest" else f"twins {via}")
    assert told["status"] == "ambiguous"
    assert told["message"].count("twin-") == 2


@pytest.mark.parametrize(
    ("action", "wanted"), [("pause", "pause"), ("resume", "pause"), ("rewind", "rewind")]
)
def test_what_was_not_declared_says_what_to_add(placed: Placed, via: str, action: str, wanted: str):
    told = placed.command(via, action=action)
    assert told["status"] == "unsupported"
    assert f"controls=['{wanted}']" in told["message"]


def test_a_stale_revision_says_which_it_is(placed: Placed, via: str):
    told = placed.command(via, expect_revision=4711)
    assert told["status"] == "stale"
    assert "not 4711" in told["message"]


@pytest.mark.parametrize(
    ("token", "action", "scope"),
    [
        ("reads", "cancel", CONTROL),
        ("responds", "cancel", CONTROL),
        ("reads", "input", RESPOND),
        ("controls", "input", RESPOND),
    ],
)
def test_a_missing_scope_is_named(placed: Placed, via: str, token: str, action: str, scope: str):
    told = placed.command(via, token=token, action=action, operation="whatever")
    assert (told["status"], told["message"]) == ("forbidden", f"the token lacks the scope {scope}")


@pytest.mark.parametrize(
    ("schema", "content", "wrong"),
    [
        ('{"enum": ["halve", "stop"]}', "double", '"halve", "stop"'),
        ('{"type": "integer"}', 1.5, "a whole number"),
        ('{"type": "integer"}', "9" * 400, "a whole number"),
        ('{"type": "number", "maximum": 1}', 2, "is at most 1"),
        ('{"type": "boolean"}', "maybe", "true or false"),
        (None, None, "`content`"),
        (None, "x" * 5000, "4096"),
    ],
)
def test_an_answer_that_fails_its_schema_says_what_would_fit(
    placed: Placed, via: str, schema: str | None, content: Any, wrong: str
):
    writer = placed.begun("asking", controls=("input",))
    asked = writer.event(
        semconv.INPUT_REQUESTED, input_id="in1", input_prompt="?", input_schema=schema, state=State.WAITING
    )
    placed.tell(writer.encoded(asked))
    told = placed.command(via, operation=writer.run_id, action="input", arguments={"content": content})
    assert told["status"] == "invalid"
    assert wrong in told["message"]
    other = placed.command(
        via, operation=writer.run_id, action="input", arguments={"input_id": "in9", "content": "x"}
    )
    assert "'in1' now, not 'in9'" in other["message"]


def test_an_answer_where_nothing_is_asked_says_that(placed: Placed, via: str):
    told = placed.command(via, action="input", arguments={"content": "x"})
    assert (told["status"], told["message"]) == ("invalid", "load-1 asks nothing at the moment")


def test_a_process_that_is_not_linked_cannot_be_told(placed: Placed, via: str):
    writer = Writer("alone")
    placed.tell(writer.started(controls=("cancel",)))
    told = placed.command(via, operation=writer.run_id)
    assert told["status"] == "no_worker"
    assert "worker link" in told["message"]


def test_where_too_many_wait_it_says_when_to_come_back(placed: Placed, monkeypatch: pytest.MonkeyPatch):
    writer = placed.begun("busy", controls=("pause",))
    monkeypatch.setattr(command_desk, "MAX_PENDING_OF_RUN", 0)
    answer = placed.post({"action": "pause"}, writer.run_id)
    assert (answer.status, json.loads(answer.body)["status"]) == (429, "overloaded")
    assert int(answer.headers["Retry-After"]) > 0


def test_what_is_accepted_reaches_the_worker_once_and_its_duplicate_is_told(placed: Placed, via: str):
    writer = placed.begun("obeys", controls=("cancel",))
    said = {"operation": writer.run_id, "command_id": f"once {via}", "arguments": {"reason": "x"}}
    assert placed.command(via, **said)["status"] == "accepted"
    again = placed.command(via, **said)
    assert (again["status"], again["message"]) == (
        "duplicate",
        "accepted before; what became of it is not known yet",
    )
    heard = placed.link.hear_until(lambda message: message["type"] == "command")[-1]
    assert (heard["type"], heard["command_id"], heard["run"]) == ("command", f"once {via}", writer.run_id)
    assert heard["actor"] == "all"
    placed.link.say("command_status", command_id=f"once {via}", status="accepted")
    placed.tell(
        writer.encoded(
            writer.event(semconv.CONTROL_APPLIED, control_id=f"once {via}", control_action="cancel")
        )
    )
    assert placed.command(via, **said)["message"] == "accepted before; applied"


# --- hostile bodies ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no JSON",
        b"null",
        b"[]",
        b"5",
        b'"cancel"',
        b"{}",
        b'{"action": null}',
        b'{"action": 5}',
        b'{"action": ["cancel"]}',
        b'{"action": "cancel", "command_id": 5}',
        b'{"action": "cancel", "surprise": 1}',
        b'{"action": "cancel", "operation": "load-1"}',
        b'{"action": "cancel", "arguments": []}',
        b'{"action": "cancel", "arguments": {"a": {}}}',
        b'{"action": "cancel", "arguments": {"a": []}}',
        b'{"action": "cancel", "arguments": {"reason": 5}}',
        b'{"action": "cancel", "deadline_s": "soon"}',
        b'{"action": "cancel", "deadline_s": NaN}',
        b'{"action": "cancel", "deadline_s": Infinity}',
        b'{"action": "cancel", "deadline_s": -1}',
        b'{"action": "cancel", "deadline_s": 0}',
        b'{"action": "cancel", "deadline_s": 1e400}',
        b'{"action": "cancel", "deadline_s": 1e300}',
        b'{"action": "cancel", "expect_revision": 1.5}',
        b'{"action": "cancel", "expect_revision": -1}',
        b'{"action": "cancel", "expect_revision": ' + b"9" * 25 + b"}",
        b'{"action": "cancel", "expect_revision": ' + b"9" * 6000 + b"}",
        b'{"action": "cancel", "arguments": {"n": ' + b"9" * 25 + b"}}",
        b'{"action": "cancel", "arguments": {"n": ' + b"9" * 6000 + b"}}",
        b'{"action": "cancel", "arguments": {"n": 1e999}}',
        b'{"action": "cancel", "arguments": {"reason": "\\ud800"}}',
        b'{"action": "cancel", "arguments": {"reason": "\xff"}}',
        b'{"action": "cancel", "command_id": "\\u0000"}',
        b'{"action": "cancel", "command_id": "\\u001b[31m"}',
        b'{"action": "cancel", "command_id": ""}',
        b'{"action": ""}',
        b'{"action": "' + b"x" * 257 + b'"}',
        b'{"action": "cancel", "arguments": {"' + b"k" * 257 + b'": 1}}',
        b'{"action": "cancel", "arguments": {"reason": "' + b"x" * 9000 + b'"}}',
        b'{"action": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        b'{"a":' * 10_000,
        b"\xef\xbb\xbf{}",
        b'{"action": "cancel"} {"action": "pause"}',
    ],
)
def test_a_hostile_body_is_refused_as_one(placed: Placed, body: bytes):
    answer = placed.post(body)
    assert answer.status == 400, answer.body
    document = json.loads(answer.body)
    assert document.get("detail") or document.get("message")
    assert len(answer.body) < 2000


def test_of_a_key_that_comes_twice_the_last_counts(placed: Placed):
    answer = placed.post(b'{"action": "cancel", "action": "rewind"}')
    assert json.loads(answer.body)["status"] == "unsupported"


def test_a_body_without_an_id_gets_one(placed: Placed):
    answer = placed.post({"action": "rewind"})
    assert len(json.loads(answer.body)["command_id"]) == 16


def test_a_body_that_is_too_large_is_not_read_to_its_end(placed: Placed):
    answer = placed.post(b'{"action": "' + b"x" * MAX_BODY_BYTES + b'"}')
    assert answer.status == 413


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonp"])
def test_only_json_is_taken_so_that_no_form_of_a_page_can_command(placed: Placed, kind: str):
    assert placed.post({"action": "cancel"}, content_type=kind).status == 415


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8"])
def test_json_may_be_said_in_more_ways_than_one(placed: Placed, kind: str):
    assert placed.post({"action": "rewind"}, content_type=kind).status == 409


def test_commands_are_only_posted(placed: Placed):
    answer = ask(placed.port, "/v1/operations/load-1/commands", token=placed.tokens["all"])
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize("token", ["wrong", ""])
def test_without_a_good_token_nobody_commands(placed: Placed, token: str):
    answer = placed.post({"action": "cancel"}, token=token)
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "operation", ["%00", "%ff", "..%2f..%2fetc", "%1b%5b31m", "load-1%20", "%F0%9F%92%A9", "x" * 300]
)
def test_a_hostile_name_is_not_found_or_invalid(placed: Placed, operation: str):
    answer = placed.post({"action": "cancel"}, operation)
    assert answer.status in {400, 404}, answer.body


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
BODIES = st.binary(max_size=60) | st.fixed_dictionaries(
    {},
    optional={
        "action": st.sampled_from(["rewind", "pause", "input"]) | JSON,
        "command_id": st.text(max_size=140) | JSON,
        "arguments": st.dictionaries(
            st.sampled_from(["reason", "content", "input_id", "content.a"]) | st.text(), JSON
        )
        | JSON,
        "expect_revision": st.integers() | JSON,
        "deadline_s": st.floats() | JSON,
    },
).map(lambda body: json.dumps(body).encode())


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=BODIES)
def test_whatever_is_posted_the_answer_is_never_a_failure_of_ours(placed: Placed, body: bytes):
    answer = placed.post(body)
    assert answer.status in {400, 409, 412}, answer.body
    json.loads(answer.body)


@pytest.mark.parametrize(
    "frame",
    [
        '{"type":"command","command_id":"c","operation":"load-1","action":"cancel","arguments":{"n":'
        + "9" * 25
        + "}}",
        '{"type":"command","command_id":"c","operation":"load-1","action":"cancel","expect_revision":'
        + "9" * 6000
        + "}",
        '{"type":"command","command_id":"c","operation":"load-1","action":"cancel","deadline_s":1e300}',
        '{"type":"command","command_id":"c\\u0007","operation":"load-1","action":"cancel"}',
    ],
)
def test_a_hostile_frame_is_answered_and_the_connection_goes_on(placed: Placed, frame: str):
    with Reader(placed.port, placed.tokens["all"]) as reader:
        reader.hello()
        reader.wire.send(frame)
        told = reader.hear()
        assert (told["type"], told.get("status", "invalid")) in {
            ("command_status", "invalid"),
            ("error", "invalid"),
        }
        reader.say("command", command_id="c2", operation="load-1", action="rewind")
        assert reader.hear()["status"] == "unsupported"


def test_nothing_of_all_that_was_counted_as_a_failure(placed: Placed):
    assert placed.collector.reading.feed.stats.failures == 0
    # And the worker was never bothered: what comes next is what is accepted next.
    writer = placed.begun("last", controls=("cancel",))
    assert placed.command("rest", operation=writer.run_id, command_id="last")["status"] == "accepted"
    heard = placed.link.hear_until(lambda message: message["type"] == "command")[-1]
    assert heard["command_id"] == "last"
