from __future__ import annotations

import pytest

from otelprogress.model import semconv
from otelprogress.model.events import State
from tests.protocol.command_kit import ALL, Bureau
from tests.protocol.feed_kit import rid


@pytest.fixture
def bureau() -> Bureau:
    made = Bureau()
    made.start(1, controls=ALL)
    return made


def test_what_has_ended_says_how(bureau: Bureau):
    bureau.end(1)
    status = bureau.command()
    assert (status.status, status.message) == ("ended", "load-1 has ended: succeeded")


@pytest.mark.parametrize(
    ("action", "declared", "wanted"),
    [("cancel", (), "cancel"), ("resume", ("cancel",), "pause"), ("rewind", ("cancel", "pause"), "rewind")],
)
def test_what_was_not_declared_says_what_to_add_and_what_there_is(
    bureau: Bureau, action: str, declared: tuple[str, ...], wanted: str
):
    bureau.start(2, "train", controls=declared)
    status = bureau.command(action, "train-1")
    assert status.status == "unsupported"
    assert f"controls=['{wanted}']" in status.message
    assert all(each in status.message for each in declared or ("it accepts nothing",))


def test_whoever_expects_an_older_revision_looks_again(bureau: Bureau):
    bureau.note(1)
    seen = bureau.hub.view(rid(1), bureau.now_ns).revision
    assert bureau.command(expect_revision=seen).status == "accepted"
    bureau.note(1)
    status = bureau.command(command_id="c2", expect_revision=seen)
    assert status.status == "stale"
    assert f"not {seen}" in status.message


def test_a_tick_makes_no_revision_stale(bureau: Bureau):
    seen = bureau.hub.view(rid(1), bureau.now_ns).revision
    bureau.tick(1, 5)
    ticked = bureau.hub.view(rid(1), bureau.now_ns).revision
    assert ticked > seen
    assert bureau.command(expect_revision=seen).status == "accepted"
    assert bureau.command(command_id="c2", expect_revision=ticked).status == "accepted", (
        "as a snapshot shows it"
    )
    assert bureau.command(command_id="c3", expect_revision=ticked + 1).status == "stale", (
        "it never came that far"
    )


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"command_id": ""}, "command_id"),
        ({"command_id": "c" * 129}, "128 printable"),
        ({"command_id": "c\x1b[31m"}, "128 printable"),
        ({"command_id": " c"}, "128 printable"),
        ({"action": ""}, "`action`"),
        ({"deadline_s": 0.0}, "`deadline_s`"),
        ({"deadline_s": -1.0}, "`deadline_s`"),
        ({"deadline_s": float("nan")}, "`deadline_s`"),
        ({"deadline_s": float("inf")}, "`deadline_s`"),
        ({"expect_revision": -1}, "`expect_revision`"),
        ({"expect_revision": 10**5000}, "`expect_revision`"),
        ({"arguments": {"n": 1 << 63}}, "64 bits"),
        ({"arguments": {"n": -(10**5000)}}, "64 bits"),
        ({"arguments": {"a": "x" * 8192}}, "8192 characters"),
        ({"arguments": {"reason": 5}}, "`reason` is a text"),
    ],
)
def test_what_cannot_be_meant_is_invalid_and_says_what(bureau: Bureau, fields: dict, wrong: str):
    status = bureau.command(**fields)
    assert status.status == "invalid"
    assert wrong in status.message
    assert bureau.sent() == []


# --- questions ----------------------------------------------------------------------------------------------------


def test_an_answer_needs_a_question(bureau: Bureau):
    status = bureau.command("input", arguments={"content": "halve"})
    assert (status.status, status.message) == ("invalid", "load-1 asks nothing at the moment")


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ({}, "`content`"),
        ({"content": None}, "`content`"),
        ({"content": "double"}, '"halve", "stop"'),
        ({"content": "halve", "input_id": "in2"}, "asks 'in1' now, not 'in2'"),
        ({"content.rate": "halve"}, '"halve", "stop"|a text, a number'),
    ],
)
def test_an_answer_that_does_not_fit_says_what_would(bureau: Bureau, arguments: dict, wrong: str):
    bureau.asks()
    status = bureau.command("input", arguments=arguments)
    assert status.status == "invalid"
    assert any(each in status.message for each in wrong.split("|"))
    assert bureau.sent() == []


def test_an_answer_goes_to_the_question_that_its_sender_saw(bureau: Bureau):
    bureau.asks()
    assert bureau.command("input", arguments={"content": "halve"}).status == "accepted"
    ((_, sent),) = bureau.sent()
    assert sent.arguments == {"content": "halve", "input_id": "in1"}


def test_an_answer_needs_no_declaration(bureau: Bureau):
    bureau.start(2, "train")
    bureau.say(2, semconv.INPUT_REQUESTED, input_id="in1", input_prompt="go?", state=State.WAITING)
    assert bureau.command("input", "train-1", arguments={"content": True}).status == "accepted"
