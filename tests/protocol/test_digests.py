from __future__ import annotations

import pytest

from otelprogress.model import semconv
from otelprogress.model.events import State, StepState
from otelprogress.protocol import digests
from otelprogress.protocol.digests import Digest, digest_from, digest_since
from otelprogress.protocol.filters import Matcher
from otelprogress.protocol.messages import Filter
from tests.model import digest_grammar
from tests.protocol.feed_kit import Stage, rid

ALL = Matcher(Filter(roots=False))


def ask(stage: Stage, since: Digest | str | None = None, **how) -> tuple[Digest, digest_grammar.Digest]:
    matcher = how.pop("matcher", ALL)
    position = since.position if isinstance(since, Digest) else since
    made = digest_since(stage.hub, matcher, position, stage.now_ns, **how)
    parsed = digest_grammar.parse(made.text)
    assert parsed.position == made.position
    return made, parsed


def lines(made: Digest) -> list[str]:
    return made.text.splitlines()[1:]


def test_who_is_new_is_told_the_full_state():
    stage = Stage()
    stage.start(1, title="load of today")
    made, parsed = ask(stage)
    assert (parsed.full, parsed.why, made.full) == (True, "started", True)
    assert [(one.handle, one.texts) for one in parsed.operations] == [("load-1", ["load of today"])]


def test_who_was_told_is_told_only_what_changed_since():
    stage = Stage()
    stage.start(1)
    stage.start(2)
    told, _ = ask(stage)
    stage.note(2, "half of it")
    again, parsed = ask(stage, told, elapsed_s=95)
    assert (parsed.full, parsed.why) == (False, "changed")
    assert lines(again) == ["load-2 RUN", 'i "half of it"']
    assert " +1m35s " in again.text
    _, parsed = ask(stage, again)
    assert parsed.operations == []


def test_a_position_of_another_log_or_nonsense_brings_the_full_state_and_says_so():
    stage = Stage()
    stage.start(1)
    told, _ = ask(stage)
    for since in ("zz1", "what?", f"{told.position}000", "", "@"):
        assert ask(stage, since)[1].full
    assert not ask(stage, f"@{told.position}")[1].full


def test_a_position_out_of_retention_brings_the_full_state():
    stage = Stage(ring_events=3)
    stage.start(1)
    told, _ = ask(stage)
    for n in range(3):
        stage.note(1, f"note {n}")
    assert not ask(stage, told)[1].full
    stage.note(1, "one too many")
    assert ask(stage, told)[1].full


def test_a_position_with_very_many_changes_after_it_brings_the_full_state_without_looking_at_them(
    monkeypatch,
):
    monkeypatch.setattr(digests, "MAX_LOOKED_AT", 3)
    stage = Stage()
    stage.start(1)
    told, _ = ask(stage)
    for n in range(3):
        stage.note(1, f"note {n}")
    assert not ask(stage, told)[1].full
    stage.note(1, "one too many")
    monkeypatch.setattr(digests, "_Changed", None)
    made, parsed = ask(stage, told)
    assert parsed.full
    assert parsed.operations[0].handle == "load-1"
    assert made.offset == stage.hub.head


def test_a_run_that_is_new_to_the_reader_comes_with_its_title():
    stage = Stage()
    told, _ = ask(stage)
    stage.start(1, title="load of today")
    made, parsed = ask(stage, told)
    assert parsed.why == "started"
    assert lines(made) == ["load-1 RUN", '= "load of today"', "started"]


def test_the_reader_s_knowledge_is_that_of_the_log_at_its_position():
    stage = Stage()
    stage.start(1, stall_after_s=10.0)
    stage.tick(1, 10.0)
    stage.now_s += 60
    stage.hub.advance(stage.now_ns)
    told, parsed = ask(stage)
    assert parsed.operations[0].stalled
    stage.now_s += 5
    stage.tick(1, 20.0)
    stage.now_s += 1
    stage.note(1, "on we go")
    again, parsed = ask(stage, told)
    assert parsed.why == "resumed"
    assert parsed.operations[0].changes[0].startswith("resumed after 1m0")


def test_what_the_log_forgot_of_the_reader_s_knowledge_follows_from_the_next_event():
    stage = Stage(ring_events=2)
    stage.start(1, stall_after_s=10.0)
    stage.tick(1, 10.0)
    stage.now_s += 60
    stage.hub.advance(stage.now_ns)
    told, _ = ask(stage)
    stage.now_s += 5
    stage.tick(1, 20.0)
    stage.now_s += 1
    stage.note(1, "on we go")
    assert stage.hub.ring.first == told.offset + 1
    assert ask(stage, told)[1].operations[0].changes == ["resumed", "i"]


def test_a_failure_is_explained_to_who_knew_it_running():
    stage = Stage()
    stage.start(1)
    told, _ = ask(stage)
    stage.say(1, semconv.OPERATION_ENDED, state=State.FAILED, error_type="OSError", error_message="disk full")
    made, parsed = ask(stage, told)
    assert parsed.why == "failed"
    assert lines(made)[1:] == ['x "OSError: disk full"']


def test_asked_for_detail_a_failure_is_explained_at_once():
    stage = Stage()
    stage.start(1, steps=("extract", "load"))
    stage.say(1, semconv.STEP_STARTED, step_name="load", step_index=1)
    stage.say(
        1,
        semconv.OPERATION_PROGRESSED,
        step_name="load",
        step_index=1,
        completed=12_000.0,
        total=120_000.0,
        unit="{row}",
    )
    stage.say(1, semconv.OPERATION_ENDED, state=State.FAILED, error_type="OSError", error_message="disk full")
    made, parsed = ask(stage, run_ids=[rid(1)], detail=True)
    (told,) = parsed.operations
    assert (parsed.why, told.state, told.trace) == ("failed", "FAILED", rid(1)[:32])
    assert (told.step.name, told.step.done, told.step.total, told.step.unit) == ("load", "12k", "120k", "row")
    assert told.texts == ["OSError: disk full"]


def test_asked_about_some_it_is_about_those_only_and_in_their_order():
    stage = Stage()
    for number in (1, 2, 3):
        stage.start(number)
    told, _ = ask(stage)
    stage.note(1)
    stage.note(2, "this one")
    wanted = [rid(3), rid(2), "unknown", rid(3)]
    made, parsed = ask(stage, told, run_ids=wanted, why="timeout")
    assert parsed.why == "timeout"
    assert lines(made) == ["load-3 RUN", "load-2 RUN", 'i "this one"']
    assert [one.handle for one in ask(stage, None, run_ids=wanted)[1].operations] == ["load-3", "load-2"]


def test_a_wait_without_news_says_nothing_of_what_stood_still():
    stage = Stage()
    stage.start(1)
    stage.start(2)
    told, _ = ask(stage)
    began = stage.hub.changes
    stage.tick(2, 50.0)
    made, _ = ask(stage, told, run_ids=[rid(1), rid(2)], why="timeout", unchanged_since=began, elapsed_s=45)
    assert made.text == f"@{told.position} +45s why: timeout\nload-2 RUN 50% 50/100\n"
    made, _ = ask(stage, told, run_ids=[rid(1)], why="timeout", unchanged_since=began, elapsed_s=45)
    assert made.text == f"@{told.position} +45s why: timeout\n"


def test_what_is_not_authorized_is_not_told_whoever_asks_for_it():
    stage = Stage()
    stage.start(1, service="etl")
    stage.start(2, service="ml")
    only_ml = Matcher(Filter(), predicate=Filter(service=("ml",)))
    assert [one.handle for one in ask(stage, matcher=only_ml)[1].operations] == ["load-2"]
    told, _ = ask(stage, matcher=only_ml, run_ids=[rid(1), rid(2)])
    stage.note(1, "secret")
    made, parsed = ask(stage, told, matcher=only_ml, run_ids=[rid(1), rid(2)])
    assert [one.handle for one in parsed.operations] == ["load-2"]
    assert "secret" not in made.text
    assert ask(stage, told, matcher=Matcher(Filter(), tenant="b"))[1].operations == []


def test_a_run_that_stops_matching_is_told_once_more():
    stage = Stage()
    stage.start(1)
    running = Matcher(Filter(state=("running",)))
    told, _ = ask(stage, matcher=running)
    stage.end(1)
    again, parsed = ask(stage, told, matcher=running)
    assert [(one.handle, one.state) for one in parsed.operations] == [("load-1", "DONE")]
    stage.note(1)
    assert ask(stage, again, matcher=running)[1].operations == []


def test_a_run_that_the_host_forgot_is_told_by_its_last_event():
    stage = Stage()
    stage.start(1)
    told, _ = ask(stage)
    stage.end(1)
    stage.now_s += 700
    stage.hub.advance(stage.now_ns)
    stage.now_s += 31
    stage.hub.advance(stage.now_ns)
    assert stage.hub.facts(rid(1)) is None
    assert [one.state for one in ask(stage, told)[1].operations] == ["DONE"]


def test_a_question_that_was_asked_before_is_not_asked_again():
    stage = Stage()
    stage.start(1)
    told, _ = ask(stage)
    stage.say(1, semconv.INPUT_REQUESTED, input_id="in1", input_prompt="Go on?", state=State.WAITING)
    asked, parsed = ask(stage, told)
    assert parsed.why == "input"
    assert parsed.operations[0].question["id"] == "in1"
    stage.note(1)
    _, parsed = ask(stage, asked)
    assert (parsed.operations[0].state, parsed.operations[0].question) == ("WAIT", None)
    assert ask(stage)[1].operations[0].question["id"] == "in1"


def test_only_ends_are_told_at_the_level_terminal():
    stage = Stage()
    stage.start(1)
    stage.start(2)
    told, _ = ask(stage)
    stage.note(1)
    stage.note(2)
    stage.end(2)
    made = digest_from(stage.hub, ALL, told.offset, stage.now_ns, level="terminal")
    assert [(one.handle, one.changes) for one in digest_grammar.parse(made.text).operations] == [
        ("load-2", [])
    ]


def test_of_more_than_can_fit_the_failed_are_looked_at_and_the_rest_is_counted():
    stage = Stage()
    for number in range(1, 101):
        stage.start(number)
    for number in (3, 50):
        stage.end(number, State.FAILED)
    made, parsed = ask(stage, max_tokens=80)
    assert len(made.operations) == 10
    assert [one.handle for one in parsed.operations if one.state == "FAILED"] == ["load-50", "load-3"]
    assert len(parsed.operations) + parsed.left_out["operations"] == 100
    assert "failed" not in parsed.left_out


def test_of_more_events_than_are_read_those_that_want_attention_are_and_the_rest_is_counted():
    stage = Stage()
    stage.start(1)
    told, _ = ask(stage)
    stage.say(1, semconv.OPERATION_NOTED, message="first of all", level="warning")
    for n in range(999):
        stage.note(1, f"note {n}")
    _, parsed = ask(stage, told, max_tokens=100)
    assert parsed.why == "warning"
    assert parsed.left_out["changes"] + len(parsed.operations[0].changes) == 1000


def test_what_wants_attention_comes_first():
    stage = Stage()
    stage.start(1)
    stage.start(2)
    told, _ = ask(stage)
    stage.note(1)
    stage.say(2, semconv.OPERATION_NOTED, message="watch out", level="warning")
    assert [one.handle for one in ask(stage, told)[1].operations] == ["load-2", "load-1"]


@pytest.mark.parametrize("cut", range(1, 12))
def test_read_in_pieces_or_at_once_nothing_is_told_twice_or_never(cut: int):
    stage = Stage()
    told, _ = ask(stage)
    begin = told
    pieces: list[str] = []

    def then(position: int) -> None:
        nonlocal told
        if position % cut == 0:
            told, parsed = ask(stage, told)
            pieces.extend(text for one in parsed.operations for text in one.texts)

    for number in range(1, 13):
        if number == 1:
            stage.start(1, title="load of today")
        else:
            stage.say(1, semconv.OPERATION_NOTED, message=f"note {number}", level="warning")
        then(number)
    told, parsed = ask(stage, told)
    pieces.extend(text for one in parsed.operations for text in one.texts)
    assert pieces == ["load of today", *(f"note {number}" for number in range(2, 13))]
    assert [text for one in ask(stage, begin)[1].operations for text in one.texts] == pieces


def test_a_step_that_failed_is_told_of():
    stage = Stage()
    stage.start(1, steps=("extract", "load"))
    told, _ = ask(stage)
    stage.say(1, semconv.STEP_STARTED, step_name="extract", step_index=0)
    stage.say(1, semconv.STEP_ENDED, step_name="extract", step_index=0, step_state=StepState.FAILED)
    _, parsed = ask(stage, told)
    assert parsed.operations[0].changes[-1].startswith("x extract")
