from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otelprogress.model import semconv
from otelprogress.model.events import State
from otelprogress.protocol.messages import Filter, Limits
from otelprogress.protocol.session import Grant
from tests.model import digest_grammar
from tests.protocol.feed_kit import Stage, Talk, rid


def subscribed(stage: Stage, **fields) -> tuple[Talk, list[dict]]:
    talk = stage.session()
    return talk, talk.subscribe(render="digest", **fields)


def told(messages: list[dict]) -> list[digest_grammar.Digest]:
    return [digest_grammar.parse(message["text"]) for message in messages if message["type"] == "digest"]


def handles(parsed: digest_grammar.Digest) -> list[str]:
    return [one.handle for one in parsed.operations]


def warn(stage: Stage, number: int, message: str = "watch out") -> None:
    stage.say(number, semconv.OPERATION_NOTED, message=message, level="warning")


# --- when it speaks ------------------------------------------------------------------------------------------


def test_it_begins_with_the_full_state():
    stage = Stage()
    stage.start(1)
    _, (answer, first) = subscribed(stage)
    assert (answer["type"], answer["mode"]) == ("subscribed", "snapshot")
    assert sorted(first) == ["cursor", "id", "text", "type"]
    (parsed,) = told([first])
    assert (parsed.full, handles(parsed)) == (True, ["load-1"])


def test_with_nothing_to_follow_it_says_so_and_where_to_go_on():
    _, (_, first) = subscribed(Stage())
    (parsed,) = told([first])
    assert (parsed.full, parsed.why, parsed.operations) == (True, "changed", [])


def test_what_can_wait_is_told_together_when_its_time_has_come():
    stage = Stage()
    stage.start(1)
    talk, _ = subscribed(stage)
    stage.now_s += 4
    stage.note(1, "one")
    assert talk.hear() == []
    assert talk.session.next_deadline_s() == 110.0
    stage.now_s += 5
    stage.note(1, "two")
    assert talk.hear() == []
    stage.now_s = 110.0
    (parsed,) = told(talk.hear())
    assert (parsed.why, parsed.full, parsed.operations[0].texts) == ("changed", False, ["one", "two"])
    assert talk.session.next_deadline_s() is None
    stage.now_s += 3600
    assert talk.hear() == []


def test_the_client_says_how_often_that_is():
    stage = Stage()
    stage.start(1)
    talk, _ = subscribed(stage, max_rate_hz=2.0)
    stage.note(1)
    stage.now_s = 100.5
    assert len(told(talk.hear())) == 1


@pytest.mark.parametrize(
    ("happen", "why"),
    [
        (lambda stage: warn(stage, 1), "warning"),
        (lambda stage: stage.end(1), "ended"),
        (lambda stage: stage.end(1, State.FAILED), "failed"),
        (lambda stage: stage.end(1, State.LOST), "lost"),
        (
            lambda stage: stage.say(
                1, semconv.INPUT_REQUESTED, input_id="in1", input_prompt="Go on?", state=State.WAITING
            ),
            "input",
        ),
        (lambda stage: stage.say(1, semconv.OPERATION_STATE_CHANGED, stalled=True), "stalled"),
    ],
)
def test_what_wants_attention_is_told_at_once(happen, why: str):
    stage = Stage()
    stage.start(1)
    stage.tick(1, 5.0)
    talk, _ = subscribed(stage)
    stage.now_s += 2
    happen(stage)
    (parsed,) = told(talk.hear())
    assert parsed.why == why


def test_a_thousand_warnings_are_two_digests():
    stage = Stage()
    stage.start(1)
    talk, _ = subscribed(stage)
    stage.now_s += 2
    said = []
    for n in range(1000):
        stage.now_s += 0.0005
        warn(stage, 1, f"row {n}")
        said += told(talk.hear())
    assert len(said) == 1
    assert talk.session.next_deadline_s() == pytest.approx(103.0, abs=0.01)
    stage.now_s = 103.01
    (last,) = told(talk.hear())
    assert last.left_out["changes"] + len(last.operations[0].changes) == 999


def test_counts_alone_are_no_news_but_at_the_level_ticks():
    stage = Stage()
    stage.start(1)
    plain, _ = subscribed(stage)
    ticks, _ = subscribed(stage, level="ticks")
    stage.now_s += 1
    stage.tick(1, 40.0)
    stage.now_s += 30
    assert plain.hear() == []
    (parsed,) = told(ticks.hear())
    assert (parsed.why, parsed.operations[0].percent) == ("changed", 40)
    assert ticks.hear() == []


def test_counts_of_what_it_does_not_follow_are_none():
    stage = Stage()
    stage.start(1)
    stage.start(2, name="other")
    talk, _ = subscribed(stage, level="ticks", filter={"name": "load"})
    stage.tick(2, 40.0)
    stage.now_s += 30
    assert talk.hear() == []
    assert talk.session.next_deadline_s() is None


def test_at_the_level_terminal_only_ends_are_news():
    stage = Stage()
    stage.start(1)
    talk, _ = subscribed(stage, level="terminal")
    warn(stage, 1)
    stage.now_s += 60
    assert told(talk.hear()) == []
    stage.end(1)
    (parsed,) = told(talk.hear())
    assert (parsed.why, parsed.operations[0].changes) == ("ended", [])


def test_the_time_since_the_last_digest_is_said():
    stage = Stage()
    stage.start(1)
    talk, _ = subscribed(stage)
    stage.now_s += 95
    warn(stage, 1)
    (message,) = talk.hear()
    assert " +1m35s why: warning\n" in message["text"]


def test_the_feed_s_end_is_no_reason_to_keep_news():
    stage = Stage()
    stage.start(1)
    talk, _ = subscribed(stage)
    stage.note(1, "last words")
    talk.session.drain(stage.now_s)
    digest, drain = talk.hear()
    assert drain["type"] == "drain"
    assert told([digest])[0].operations[0].texts == ["last words"]


def test_the_client_s_budget_counts():
    stage = Stage()
    for number in range(1, 60):
        stage.start(number)
    _, (_, small) = subscribed(stage, max_tokens=60)
    _, (_, large) = subscribed(stage, max_tokens=5000)
    assert told([small])[0].left_out["operations"] > 40
    assert len(told([large])[0].operations) == 59


# --- where it goes on ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("short", [False, True])
def test_it_goes_on_from_a_cursor_and_from_the_position_that_the_text_begins_with(short: bool):
    stage = Stage()
    stage.start(1)
    _, (_, first) = subscribed(stage)
    stage.note(1, "missed")
    position = first["text"].partition(" ")[0] if short else first["cursor"]
    talk, (answer, second) = subscribed(stage, cursor=position)
    assert answer["mode"] == "resumed"
    (parsed,) = told([second])
    assert (parsed.full, parsed.operations[0].texts) == (False, ["missed"])
    assert talk.hear() == []


def test_nothing_missed_is_nothing_told():
    stage = Stage()
    stage.start(1)
    _, (_, first) = subscribed(stage)
    _, messages = subscribed(stage, cursor=first["cursor"])
    assert [message["type"] for message in messages] == ["subscribed"]


@pytest.mark.parametrize(
    ("cursor", "reason"), [("zz7", "epoch"), ("nonsense", "invalid"), (None, "expired"), ("far", "epoch")]
)
def test_where_it_cannot_go_on_a_gap_and_the_full_state_come(cursor: str | None, reason: str):
    stage = Stage(ring_events=2)
    stage.start(1)
    _, (_, first) = subscribed(stage)
    for _ in range(3):
        stage.note(1)
    position = first["text"].partition(" ")[0]
    wanted = {None: first["cursor"], "far": f"{position}000"}.get(cursor, cursor)
    _, (answer, gap, digest) = subscribed(stage, cursor=wanted)
    assert answer["mode"] == "snapshot"
    assert (gap["type"], gap["reason"], gap["from"]) == ("gap", reason, wanted)
    assert told([digest])[0].full


def test_a_cursor_of_another_filter_is_none():
    stage = Stage()
    stage.start(1)
    _, (_, first) = subscribed(stage)
    _, (_, gap, _) = subscribed(stage, cursor=first["cursor"], filter={"name": "load"})
    assert gap["reason"] == "invalid"


def test_who_falls_out_of_retention_is_told_so():
    stage = Stage(ring_events=3)
    stage.start(1)
    talk, _ = subscribed(stage)
    for _ in range(5):
        stage.note(1)
    gap, digest = talk.hear()
    assert (gap["type"], gap["reason"]) == ("gap", "evicted")
    assert told([digest])[0].full


def test_what_does_not_concern_it_moves_its_position_on():
    stage = Stage()
    stage.start(1)
    talk, (_, first) = subscribed(stage, filter={"name": "load"})
    stage.start(2, name="other")
    stage.now_s += 9
    assert talk.hear() == []
    assert talk.session.next_deadline_s() == 110.0
    stage.now_s += 1
    (bookmark,) = talk.hear()
    assert (bookmark["type"], bookmark["cursor"] != first["cursor"]) == ("bookmark", True)
    stage.note(1, "missed")
    _, (_, digest) = subscribed(stage, filter={"name": "load"}, cursor=bookmark["cursor"])
    assert told([digest])[0].operations[0].texts == ["missed"]


# --- whom it tells what ----------------------------------------------------------------------------------------


def test_what_is_not_authorized_is_not_told():
    stage = Stage()
    stage.start(1, service="etl")
    stage.start(2, service="ml")
    talk = stage.session(grant=Grant(predicate=Filter(service=("ml",))))
    (_, first) = talk.subscribe(render="digest")
    assert handles(told([first])[0]) == ["load-2"]
    warn(stage, 1, "secret")
    assert talk.hear() == []


def test_an_operation_that_ends_is_told_to_who_follows_the_running():
    stage = Stage()
    stage.start(1)
    talk, _ = subscribed(stage, filter={"state": ["running"]})
    stage.now_s += 2
    stage.end(1)
    (parsed,) = told(talk.hear())
    assert parsed.operations[0].state == "DONE"


def test_a_window_holds_digests_back_until_they_are_acknowledged():
    stage = Stage()
    stage.start(1)
    talk, _ = subscribed(stage, window_bytes=100)
    stage.now_s += 2
    warn(stage, 1, "one")
    assert talk.hear() == []
    assert talk.session.next_deadline_s() is None
    warn(stage, 1, "two")
    talk.say(type="ack", id="1", frames=1)
    (parsed,) = told(talk.hear())
    assert parsed.operations[0].texts == ["one", "two"]


def test_equal_subscriptions_share_the_bytes():
    stage = Stage()
    stage.start(1)
    one, _ = subscribed(stage)
    two, _ = subscribed(stage)
    stage.now_s += 2
    warn(stage, 1)
    (first,), (second,) = one.frames(), two.frames()
    assert first is second


def test_the_largest_digest_fits_into_a_frame():
    stage = Stage(limits=Limits())
    for number in range(1, 400):
        stage.start(number, title='"\\' * 60 + "\U0001f600" * 40)
    talk = stage.session()
    talk.say(type="subscribe", id="1", render="digest", max_tokens=10_000)
    _, frame = talk.frames()
    assert 10_000 < len(frame) <= Limits().server_frame_bytes


MOVES = st.lists(
    st.tuples(
        st.sampled_from(
            ["start", "note", "warn", "tick", "end", "pass", "hear", "lose", "back", "back_short", "ack"]
        ),
        st.integers(1, 3),
    ),
    max_size=40,
)


@given(MOVES, st.sampled_from([0, 1]), st.sampled_from(["milestones", "ticks"]))
@settings(max_examples=100, deadline=None)
def test_whatever_happens_each_note_is_told_once_and_the_end_is_known(moves: list, window: int, level: str):
    stage = Stage(ring_events=10_000)
    fields = {"max_tokens": 10_000, "window_bytes": window, "level": level, "filter": {"roots": False}}
    said: dict[int, list[str]] = {}
    texts: dict[str, list[str]] = {}
    states: dict[str, str] = {}
    cursor = position = None
    talk, frames = stage.session(), 0

    def take(messages: list[dict], *, lost: bool = False) -> None:
        nonlocal cursor, position, frames
        for message in messages:
            assert message["type"] in ("subscribed", "digest", "bookmark")
            frames += message["type"] != "subscribed"
            if lost or message["type"] == "subscribed":
                continue
            cursor = position = message["cursor"]
            if message["type"] == "digest":
                parsed = digest_grammar.parse(message["text"])
                assert parsed.left_out == {}
                position = parsed.position
                for one in parsed.operations:
                    states[one.handle] = one.state
                    texts.setdefault(one.handle, []).extend(one.texts)

    def come_back(where: str | None) -> None:
        nonlocal talk, frames
        talk, frames = stage.session(), 0
        take(talk.subscribe(render="digest", **fields, **({} if where is None else {"cursor": where})))

    come_back(None)
    lost_some = False
    for what, number in moves:
        stage.now_s += 0.3
        if what == "start" and number not in said:
            stage.start(number)
            said[number] = []
        elif what in ("note", "warn") and number in said:
            message = f"{what} {stage.hub.head}"
            said[number].append(message)
            level_of = "warning" if what == "warn" else "info"
            stage.say(number, semconv.OPERATION_NOTED, message=message, level=level_of)
        elif what == "tick" and number in said:
            stage.tick(number, 1.0 + number)
        elif what == "end" and number in said:
            stage.end(number)
        elif what == "pass":
            stage.now_s += 20
        elif what == "hear" and not lost_some:
            take(talk.hear())
        elif what == "lose":
            take(talk.hear(), lost=True)
            lost_some = True
        elif what == "ack":
            talk.say(type="ack", id="1", frames=frames)
        elif what in ("back", "back_short"):
            come_back(cursor if what == "back" else position)
            lost_some = False
    come_back(cursor)
    stage.now_s += 60
    talk.say(type="ack", id="1", frames=frames)
    take(talk.hear())
    handles_of = {number: stage.hub.view(rid(number), stage.now_ns).handle for number in said}
    assert {handles_of[number]: notes for number, notes in said.items() if notes} == {
        handle: told for handle, told in texts.items() if told
    }
    for number, handle in handles_of.items():
        view = stage.hub.view(rid(number), stage.now_ns)
        assert (states[handle] == "DONE") == (not view.live)


def test_it_keeps_nothing_about_what_happens():
    stage = Stage()
    talk, _ = subscribed(stage, window_bytes=1)
    (subscription,) = talk.session._subscriptions.values()
    sizes = []
    for number in range(1, 200):
        stage.start(number)
        stage.note(number)
        talk.hear()
        sizes.append(
            {
                name
                for name, value in vars(subscription).items()
                if isinstance(value, list | dict | set) and value
            }
        )
    assert sizes == [set()] * 199
    assert rid(1) not in repr(vars(subscription))
