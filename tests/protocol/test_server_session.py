"""What one connection may do, what it is answered, and when it is closed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelprogress.protocol.messages import Filter, Limits
from otelprogress.protocol.session import Grant

from .feed_kit import Stage, kinds, revisions, rid


@pytest.fixture
def stage() -> Stage:
    return Stage()


# --- hello and token ---------------------------------------------------------------------------------
def test_a_welcome_says_where_one_is(stage: Stage):
    talk = stage.session(hello=False, grant=Grant(expires_at_s=160.0))
    talk.say(type="hello", version=1, client="t", capabilities=["x"], token="secret")
    (welcome,) = talk.hear()
    assert welcome["epoch"] == "e1"
    assert welcome["server"] == {"name": "test"}
    assert welcome["token_expires_in_s"] == 60.0
    assert welcome["now"] == stage.now_ns
    assert welcome["limits"]["client_frame_bytes"] == 65_536
    assert talk.tokens == ["secret"]


def test_the_token_of_the_http_request_counts_when_hello_has_none(stage: Stage):
    talk = stage.session(token="of the header")
    assert talk.tokens == ["of the header"]


def test_where_two_tokens_are_shown_the_one_in_the_hello_counts(stage: Stage):
    talk = stage.session(hello=False, token="header")
    talk.say(type="hello", version=1, token="frame")
    assert (talk.types(), talk.tokens) == (["welcome"], ["frame"])


def test_a_wrong_token_is_4401_and_a_missing_scope_4403(stage: Stage):
    talk = stage.session(hello=False, grant=None)
    talk.say(type="hello", version=1)
    assert (talk.hear(), talk.closed) == ([], 4401)
    talk = stage.session(hello=False, grant=Grant(scopes=frozenset({"progress:write"})))
    talk.say(type="hello", version=1)
    assert (talk.hear(), talk.closed) == ([], 4403)


def test_no_hello_in_time_is_4408(stage: Stage):
    talk = stage.session(hello=False)
    assert talk.session.next_deadline_s() == stage.now_s + 5
    stage.now_s += 5
    assert (talk.hear(), talk.closed) == ([], 4408)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ('{"type":"subscribe","id":"1"}', 4400),
        ('{"type":"dance"}', 4400),
        ('{"type":"hello","version":2}', 4400),
        ("no json", 4400),
        ('{"type":"hello","version":1,"client":"' + "x" * 4096 + '"}', 1009),
    ],
)
def test_a_bad_beginning_ends_the_connection(stage: Stage, frame: str, code: int):
    talk = stage.session(hello=False)
    talk.raw(frame)
    assert (talk.hear(), talk.closed) == ([], code)


def test_a_second_hello_is_4400(stage: Stage):
    talk = stage.session()
    talk.say(type="hello", version=1)
    assert talk.closed == 4400


def test_nothing_is_sent_after_the_token_expired(stage: Stage):
    stage.start(1)
    talk = stage.session(grant=Grant(expires_at_s=stage.now_s + 10))
    talk.subscribe()
    stage.now_s += 9.9
    stage.note(1)
    assert kinds(talk.hear()) == ["operation.noted"]
    assert talk.session.next_deadline_s() <= 110.0
    stage.note(1)
    stage.now_s = 110.0
    assert (talk.hear(), talk.closed) == ([], 4501)


def test_a_token_is_renewed_on_the_open_connection(stage: Stage):
    grants = {
        None: Grant(expires_at_s=110.0),
        "new": Grant(expires_at_s=200.0),
        "wider": Grant(tenant="acme"),
        "none": Grant(scopes=frozenset()),
    }
    talk = stage.session(authorize=grants.get)
    talk.say(type="auth", token="wrong")
    talk.say(type="auth", token="wider")
    talk.say(type="auth", token="none")
    assert [(error["ref"], error["code"]) for error in talk.hear()] == [
        ("auth", "unauthorized"),
        ("auth", "forbidden"),
        ("auth", "forbidden"),
    ]
    talk.say(type="auth", token="new")
    stage.now_s = 150.0
    assert (talk.hear(), talk.closed) == ([], None)
    stage.now_s = 200.0
    talk.raw("{}")
    assert talk.closed == 4501


# --- errors that close nothing ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("message", "ref", "code"),
    [
        ({"type": "subscribe", "id": "2", "render": "poem"}, "2", "invalid"),
        ({"type": "subscribe", "id": "2", "render": "digest", "max_tokens": 49}, "2", "invalid"),
        ({"type": "subscribe", "id": "2", "render": "digest", "max_tokens": 10_001}, "2", "invalid"),
        ({"type": "subscribe", "id": "2", "level": "everything"}, "2", "invalid"),
        ({"type": "subscribe", "id": "2", "filter": {"nmae": "x"}}, "2", "invalid"),
        ({"type": "subscribe", "id": "2", "filter": {"state": ["done"]}}, "2", "invalid"),
        ({"type": "subscribe", "id": "2", "filter": {"run": ["r"] * 17}}, "2", "invalid"),
        ({"type": "subscribe", "id": "2", "max_rate_hz": 0}, "2", "invalid"),
        ({"type": "subscribe", "id": "2", "filter": {"ended_within_s": 1e308}}, "2", "invalid"),
        ({"type": "subscribe", "id": "1"}, "1", "duplicate"),
        ({"type": "subscribe", "id": "i" * 65}, "i" * 65, "invalid"),
        ({"type": "subscribe", "id": "2", "cursor": "c" * 513}, "2", "invalid"),
        ({"type": "unsubscribe", "id": "2"}, "2", "unknown_subscription"),
        ({"type": "ack", "id": "1", "frames": 99}, "1", "invalid"),
        ({"type": "dance", "id": "9"}, "9", "unsupported"),
        ({"type": "dance"}, "dance", "unsupported"),
    ],
)
def test_an_error_of_one_request_is_a_message(stage: Stage, message: dict, ref: str, code: str):
    talk = stage.session()
    talk.subscribe()
    talk.say(**message)
    (error,) = talk.hear()
    assert (
        error["type"],
        error["ref"],
        error["code"],
        error.get("retryable", False),
    ) == ("error", ref, code, False)
    assert talk.closed is None


def test_commands_are_answered_as_unsupported(stage: Stage):
    talk = stage.session()
    talk.say(type="command", command_id="c1", operation="load-1", action="cancel")
    talk.say(type="command", command_id="c2", operation=1, action="cancel")
    assert [(answer["command_id"], answer["status"]) for answer in talk.hear()] == [
        ("c1", "unsupported"),
        ("c2", "invalid"),
    ]


def test_subscriptions_are_limited(stage: Stage):
    talk = stage.session(limits=Limits(subscriptions=2))
    for number in "123":
        talk.say(type="subscribe", id=number)
    assert [answer["code"] for answer in talk.hear() if answer["type"] == "error"] == [
        "too_many_subscriptions"
    ]
    assert talk.session.subscription_count == 2


def test_more_frames_than_allowed_are_4429_but_acks_cost_nothing(stage: Stage):
    stage.start(1)
    talk = stage.session(limits=Limits(frames_burst=10, frames_per_s=1.0))
    talk.subscribe(window_bytes=1 << 20)
    for frames in range(1, 40):
        stage.note(1)
        talk.hear()
        talk.say(type="ack", id="1", frames=frames)
    assert talk.closed is None
    for _ in range(11):
        talk.say(type="ack", id="1", frames=1)
    assert talk.closed == 4429


def test_a_client_that_asks_and_never_reads_is_cut_off(stage: Stage):
    talk = stage.session(limits=Limits(frames_burst=10_000))
    for _ in range(1100):
        talk.say(type="unsubscribe", id="nothing")
    assert (talk.hear(), talk.closed) == ([], 4429)


@given(
    st.lists(
        st.binary(max_size=60)
        | st.text(max_size=60)
        | st.builds(
            json.dumps,
            st.dictionaries(
                st.sampled_from(["type", "id", "filter", "cursor", "frames", "token", "version"]),
                st.sampled_from(["hello", "subscribe", "ack", "auth", "1", 1, -1, None, [], {}, 1.5]),
            ),
        ),
        max_size=6,
    )
)
def test_no_frame_makes_the_session_raise(frames):
    stage = Stage()
    talk = stage.session()
    for frame in frames:
        talk.raw(frame)
        talk.hear()


TEXTS = st.text(max_size=20) | st.sampled_from(["*", "?*", "load-1", rid(1), "running"])
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
FILTERS = st.fixed_dictionaries(
    {},
    optional={
        **{key: st.lists(TEXTS, max_size=3) for key in ("run", "label", "trace_id", "service")},
        "state": st.lists(st.sampled_from(["running", "failed", "done"]), max_size=2),
        "name": TEXTS,
        "subtree": TEXTS,
        "after": TEXTS,
        "attributes": st.dictionaries(TEXTS, TEXTS | NUMBERS | st.booleans(), max_size=2),
        "roots": st.none() | st.booleans(),
        "ended_within_s": NUMBERS,
        "limit": NUMBERS,
    },
)


@given(
    FILTERS,
    st.sampled_from(["ticks", "milestones", "terminal"]),
    st.none() | NUMBERS,
    st.none() | TEXTS,
    st.integers() | st.sampled_from([0, 1, 2000]),
)
def test_no_subscription_makes_the_session_raise(wanted, level, rate, cursor, window):
    stage = Stage()
    stage.start(1)
    talk = stage.session()
    talk.subscribe(filter=wanted, level=level, max_rate_hz=rate, cursor=cursor, window_bytes=window)
    stage.tick(1, 1)
    stage.end(1)
    stage.now_s += 20
    talk.hear()
    talk.session.next_deadline_s()
    assert talk.closed is None


# --- joining -----------------------------------------------------------------------------------------
def test_without_a_cursor_one_gets_the_state_and_then_what_follows(stage: Stage):
    stage.start(1)
    stage.start(2, parent=1)
    talk = stage.session()
    first = talk.subscribe(filter={"roots": False})
    assert [message["type"] for message in first] == ["subscribed", "snapshot", "snapshot_end"]
    assert first[0]["mode"] == "snapshot"
    assert {view["id"] for view in first[1]["operations"]} == {rid(1), rid(2)}
    assert first[2]["complete"]
    stage.note(2)
    assert kinds(talk.hear()) == ["operation.noted"]


def test_with_a_cursor_one_gets_what_was_missed_and_nothing_twice(stage: Stage):
    stage.start(1)
    talk = stage.session()
    cursor = talk.subscribe()[-1]["cursor"]
    stage.note(1)
    stage.note(1)
    talk = stage.session()
    resumed = talk.subscribe(cursor=cursor)
    assert [message["type"] for message in resumed] == ["subscribed", "events"]
    assert resumed[0]["mode"] == "resumed"
    assert revisions(resumed) == [2, 3]
    talk = stage.session()
    assert [message["type"] for message in talk.subscribe(cursor=resumed[-1]["cursor"])] == ["subscribed"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda cursor: cursor[:-4] + "AAAA", "invalid"),
        (lambda _: "nonsense", "invalid"),
        (lambda _: Stage(epoch="e0").session().subscribe()[-1]["cursor"], "epoch"),
    ],
)
def test_a_cursor_that_does_not_open_is_a_gap_and_the_whole_state(stage: Stage, change, reason: str):
    stage.start(1)
    cursor = change(stage.session().subscribe()[-1]["cursor"])
    answer = stage.session().subscribe(cursor=cursor)
    assert [message["type"] for message in answer] == ["subscribed", "gap", "snapshot", "snapshot_end"]
    assert answer[1]["reason"] == reason
    assert answer[1]["from"] == cursor
    assert answer[3]["complete"]


def test_a_cursor_from_the_future_says_that_the_log_went_back(stage: Stage):
    stage.start(1)
    stage.note(1)
    ahead = stage.session().subscribe()[-1]["cursor"]
    restored = Stage()
    restored.start(1)
    answer = restored.session().subscribe(cursor=ahead)
    assert (answer[1]["type"], answer[1]["reason"]) == ("gap", "epoch")


def test_a_cursor_of_another_filter_or_tenant_is_foreign(stage: Stage):
    cursor = stage.session().subscribe()[-1]["cursor"]
    assert stage.session().subscribe(cursor=cursor, filter={"name": "a"})[1]["reason"] == "invalid"
    talk = stage.session(grant=Grant(tenant="acme"))
    assert talk.subscribe(cursor=cursor)[1]["reason"] == "invalid"
    talk = stage.session(grant=Grant(predicate=Filter(service=("etl",))))
    assert talk.subscribe(cursor=cursor)[1]["reason"] == "invalid"


def test_past_retention_only_what_changed_since_is_sent():
    stage = Stage(ring_events=3)
    stage.start(1)
    stage.start(2)
    wanted = {"roots": False}
    cursor = stage.session().subscribe(filter=wanted)[-1]["cursor"]
    stage.start(3)
    for _ in range(4):
        stage.note(2)
    answer = stage.session().subscribe(filter=wanted, cursor=cursor)
    assert [message["type"] for message in answer] == ["subscribed", "gap", "snapshot", "snapshot_end"]
    assert answer[1]["reason"] == "expired"
    # The run that changed last before the cursor may have changed with it: it is shown rather than lost.
    assert {view["id"] for view in answer[2]["operations"]} == {rid(2), rid(3)}
    assert not answer[3].get("complete", False)


def test_where_runs_can_leave_the_whole_state_is_sent_past_retention():
    stage = Stage(ring_events=3)
    stage.start(1)
    stage.start(2)
    cursor = stage.session().subscribe()[-1]["cursor"]
    for _ in range(4):
        stage.note(2)
    answer = stage.session().subscribe(cursor=cursor)
    assert {view["id"] for view in answer[2]["operations"]} == {rid(1), rid(2)}
    assert answer[3]["complete"]


def test_past_retention_the_whole_state_is_sent_where_runs_were_forgotten_meanwhile():
    stage = Stage(ring_events=3)
    stage.start(1)
    stage.start(2)
    wanted = {"roots": False}
    cursor = stage.session().subscribe(filter=wanted)[-1]["cursor"]
    stage.end(1)
    stage.now_s += 700
    stage.hub.advance(stage.now_ns)
    for _ in range(4):
        stage.note(2)
    answer = stage.session().subscribe(filter=wanted, cursor=cursor)
    # Whoever knows the first run as a live one learns from what is complete that it is not there any more.
    assert answer[1]["reason"] == "expired"
    assert {view["id"] for view in answer[2]["operations"]} == {rid(2)}
    assert answer[3]["complete"]


def test_a_reader_that_falls_out_of_retention_is_told_in_its_place():
    stage = Stage(ring_events=3)
    stage.start(1)
    talk = stage.session()
    talk.subscribe()
    for _ in range(5):
        stage.note(1)
    answer = talk.hear()
    assert [message["type"] for message in answer] == ["gap", "snapshot", "snapshot_end"]
    assert answer[0]["reason"] == "evicted"


def test_a_snapshot_page_says_how_many_more_there_are(stage: Stage):
    for number in range(1, 6):
        stage.start(number)
    page = stage.session().subscribe(filter={"limit": 2})
    assert [view["id"] for view in page[1]["operations"]] == [rid(5), rid(4)]
    assert page[2]["more"] == 3
    page = stage.session().subscribe(filter={"limit": 2, "after": rid(4)})
    assert [view["id"] for view in page[1]["operations"]] == [rid(3), rid(2)]
    page = stage.session(limits=Limits(operations=1)).subscribe()
    assert page[2]["more"] == 4


# --- levels, ticks, leaving --------------------------------------------------------------------------
def test_levels(stage: Stage):
    stage.start(1)
    talk = stage.session()
    for level in ("ticks", "milestones", "terminal"):
        talk.subscribe(id=level, level=level)
    stage.tick(1, 5)
    stage.note(1)
    stage.tick(1, 6)
    stage.end(1)
    heard = {level: [] for level in ("ticks", "milestones", "terminal")}
    for message in talk.hear():
        heard[message["id"]] += [event["kind"] for event in message["events"]]
    assert heard["terminal"] == ["operation.ended"]
    assert heard["milestones"] == ["operation.noted", "operation.ended"]
    assert heard["ticks"] == ["operation.noted", "operation.ended"]


def test_ticks_are_conflated_and_come_at_the_rate_asked_for(stage: Stage):
    stage.start(1)
    talk = stage.session()
    talk.subscribe(level="ticks", max_rate_hz=2.0)
    stage.tick(1, 1)
    stage.tick(1, 2)
    (frame,) = talk.hear()
    assert [event["operation"]["step"]["completed"] for event in frame["events"]] == [2.0]
    stage.tick(1, 3)
    assert talk.hear() == []
    assert talk.session.next_deadline_s() == 100.5
    stage.now_s = 100.5
    stage.tick(1, 4)
    (frame,) = talk.hear()
    assert [event["operation"]["step"]["completed"] for event in frame["events"]] == [4.0]
    assert talk.session.next_deadline_s() is None


def test_a_parent_ticks_with_its_child_under_a_revision_of_its_own(stage: Stage):
    stage.start(1)
    stage.start(2, parent=1)
    talk = stage.session()
    before = talk.subscribe(level="ticks")[1]["operations"][0]["revision"]
    stage.tick(2, 50)
    (frame,) = talk.hear()
    (event,) = frame["events"]
    assert event["operation"]["id"] == rid(1)
    assert event["kind"] == "operation.progressed"
    assert event["revision"] > before
    assert event["operation"]["ratio"] > 0


def test_a_tick_never_overtakes_a_durable_event(stage: Stage):
    stage.start(1)
    talk = stage.session()
    talk.subscribe(level="ticks")
    for number in range(5):
        stage.note(1, "x" * 200)
        stage.tick(1, number)
    heard = []
    while frames := talk.hear(budget_bytes=1):
        heard += revisions(frames)
    assert heard == sorted(heard)
    assert heard[-1] == 11


def test_a_run_that_leaves_is_shown_leaving(stage: Stage):
    stage.start(1)
    talk = stage.session()
    talk.subscribe(filter={"state": ["running"]})
    stage.end(1)
    events, left = talk.hear()
    assert kinds([events]) == ["operation.ended"]
    assert (left["type"], left["operation"], left["reason"]) == ("left", rid(1), "filter")
    # If only the event arrived, going on after it still tells that the run left.
    resumed = stage.session().subscribe(filter={"state": ["running"]}, cursor=events["cursor"])
    assert [message["type"] for message in resumed] == ["subscribed", "events", "left"]
    resumed = stage.session().subscribe(filter={"state": ["running"]}, cursor=left["cursor"])
    assert [message["type"] for message in resumed] == ["subscribed"]


def test_a_forgotten_run_is_told(stage: Stage):
    stage.start(1)
    stage.end(1)
    talk = stage.session()
    talk.subscribe()
    stage.now_s += 700
    stage.hub.advance(stage.now_ns)
    (left,) = [message for message in talk.hear() if message["type"] == "left"]
    assert (left["operation"], left["reason"]) == (rid(1), "evicted")


# --- flow --------------------------------------------------------------------------------------------
def test_a_full_window_stalls_one_subscription_until_it_acknowledges(stage: Stage):
    stage.start(1)
    talk = stage.session()
    talk.subscribe(id="slow", window_bytes=2000)
    talk.subscribe(id="free")
    for _ in range(20):
        stage.note(1, "x" * 100)
    heard = {"slow": 0, "free": 0}
    sent = 2
    for message in talk.hear():
        heard[message["id"]] += len(message["events"])
        sent += message["id"] == "slow"
    assert heard["free"] == 20
    assert 0 <= heard["slow"] < 20
    while heard["slow"] < 20:
        talk.say(type="ack", id="slow", frames=sent)
        messages = talk.hear()
        assert messages
        assert sum(len(json.dumps(message)) for message in messages) < 3000
        sent += len(messages)
        heard["slow"] += sum(len(message["events"]) for message in messages)


def test_a_snapshot_comes_in_frames_that_the_window_bounds():
    stage = Stage()
    for number in range(1, 40):
        stage.start(number, "n" * 100)
    talk = stage.session()
    frames = talk.subscribe(window_bytes=4000)
    shown = sum(len(frame.get("operations", ())) for frame in frames)
    assert 0 < shown < 39
    sent = len(frames) - 1
    stage.note(1)
    stage.start(40)
    while frames[-1]["type"] != "snapshot_end":
        talk.say(type="ack", id="1", frames=sent)
        frames = talk.hear()
        sent += len(frames)
        shown += sum(len(frame.get("operations", ())) for frame in frames)
    assert shown == 39
    talk.say(type="ack", id="1", frames=sent)
    # The note came while the snapshot was under way, and the part that followed it showed it already.
    assert kinds(talk.hear()) == ["operation.started"]


def test_no_frame_is_larger_than_the_limit():
    stage = Stage(limits=Limits(server_frame_bytes=4096))
    for number in range(1, 30):
        stage.start(number)
    talk = stage.session()
    talk.say(type="subscribe", id="1", level="ticks", filter={"roots": False})
    frames = talk.frames()
    for number in range(1, 30):
        stage.note(number, "x" * 300)
        stage.tick(number, 1)
    stage.now_s += 1
    frames += talk.frames()
    assert len(frames) > 10
    assert max(map(len, frames)) <= 4096


def test_a_pass_of_ticks_that_does_not_fit_leaves_nobody_out():
    stage = Stage(limits=Limits(server_frame_bytes=4096))
    for number in range(1, 41):
        stage.start(number)
    talk = stage.session()
    talk.subscribe(level="ticks")
    seen = set()
    for completed in range(1, 30):
        for number in range(1, 41):
            stage.tick(number, completed)
        # One frame a round is all that this link carries.
        seen |= {
            event["operation"]["id"] for message in talk.hear(budget_bytes=1) for event in message["events"]
        }
        stage.now_s += 0.01
    assert len(seen) == 40


def test_a_position_is_told_after_ten_idle_seconds_or_many_filtered_events():
    stage = Stage(ring_events=2000)
    stage.start(1)
    talk = stage.session()
    talk.subscribe(filter={"name": "other"})
    stage.note(1)
    assert talk.hear() == []
    assert talk.session.next_deadline_s() == pytest.approx(110.0)
    stage.now_s = 110.0
    (bookmark,) = talk.hear()
    assert bookmark["type"] == "bookmark"
    assert (
        stage.session().subscribe(filter={"name": "other"}, cursor=bookmark["cursor"])[0]["mode"] == "resumed"
    )
    assert talk.session.next_deadline_s() is None
    for number in range(2, 1003):
        stage.start(number)
    assert talk.types() == ["bookmark"]


def test_equal_subscriptions_share_their_bytes(stage: Stage):
    stage.start(1)
    talks = [stage.session() for _ in range(3)]
    for talk in talks:
        talk.subscribe(level="ticks")
    stage.note(1)
    frames = [talk.frames() for talk in talks]
    assert frames[0][0] is frames[1][0] is frames[2][0]
    stage.tick(1, 1)
    frames = [talk.frames() for talk in talks]
    assert frames[0][0] is frames[1][0] is frames[2][0]


def test_draining_gives_what_is_owed_then_says_goodbye(stage: Stage):
    stage.start(1)
    talk = stage.session()
    talk.subscribe()
    stage.end(1)
    talk.session.drain(stage.now_s, (1.0, 2.0))
    events, drain = talk.hear()
    assert kinds([events]) == ["operation.ended"]
    assert drain == {"type": "drain", "reconnect_after_s": [1.0, 2.0]}
    assert talk.closed == 1012
    assert talk.hear() == []


def test_unsubscribing_ends_it(stage: Stage):
    stage.start(1)
    talk = stage.session()
    talk.subscribe()
    talk.say(type="unsubscribe", id="1")
    stage.note(1)
    assert talk.hear() == []


# --- rights ------------------------------------------------------------------------------------------
def test_two_tenants_never_see_each_other(stage: Stage):
    stage.start(1, tenant="a")
    stage.start(2, tenant="b")
    talk = stage.session(grant=Grant(tenant="a"))
    frames = talk.subscribe(level="ticks", filter={"roots": False})
    stage.say(2, "otelprogress.operation.noted", message="secret of b", tenant="b")
    stage.say(2, "otelprogress.operation.progressed", completed=1.0, tenant="b")
    stage.now_s += 20
    frames += talk.hear()
    frames += stage.session(grant=Grant(tenant="a")).subscribe(filter={"run": [rid(2), "load-2"]})
    assert rid(1) in json.dumps(frames)
    assert rid(2) not in json.dumps(frames)
    assert "secret" not in json.dumps(frames)


def test_a_predicate_bounds_every_filter(stage: Stage):
    stage.start(1, service="etl")
    stage.start(2, service="api")
    talk = stage.session(grant=Grant(predicate=Filter(service=("etl",))))
    assert rid(2) not in json.dumps(talk.subscribe(filter={"roots": False, "service": ["api", "etl"]}))


def test_a_session_says_whether_anything_in_it_may_be_due_all_of_a_sudden():
    talk = Stage().session()
    assert not talk.session.hasty
    talk.subscribe()
    assert not talk.session.hasty
    talk.subscribe(id="2", level="ticks")
    assert talk.session.hasty
    talk.say(type="unsubscribe", id="2")
    assert not talk.session.hasty
    talk.subscribe(id="3", render="digest")
    assert talk.session.hasty


def test_a_subscription_in_step_with_the_head_falls_out_of_retention_with_a_gap():
    stage = Stage(ring_events=4)
    talk = stage.session()
    stage.start(1)
    talk.subscribe()
    stage.note(1)
    assert kinds(talk.hear()) == ["operation.noted"]
    for _ in range(6):
        stage.note(1)
    assert talk.types() == ["gap", "snapshot", "snapshot_end"]
    stage.note(1)
    assert kinds(talk.hear()) == ["operation.noted"]
