from __future__ import annotations

import msgspec
import pytest

from otelprogress.model import semconv
from otelprogress.model.events import State
from otelprogress.model.tree import OperationTree
from otelprogress.protocol import command_desk, command_waiting
from otelprogress.protocol.command_desk import CommandDesk
from otelprogress.protocol.command_judging import DEFAULT_DEADLINE_S, SCOPE_CONTROL, SCOPE_RESPOND, Asker
from otelprogress.protocol.command_waiting import GRACE_NS
from otelprogress.protocol.hub import Hub
from otelprogress.protocol.messages import CommandStatus, Filter, LinkCommand
from tests.protocol.command_kit import ADA, ALL, Bureau
from tests.protocol.feed_kit import KEY, NS, rid


@pytest.fixture
def bureau() -> Bureau:
    made = Bureau()
    made.start(1, controls=ALL)
    return made


# --- taking ------------------------------------------------------------------------------------------------------


def test_what_is_accepted_goes_to_the_process_with_actor_reason_and_the_time_that_it_has(bureau: Bureau):
    assert bureau.command(arguments={"reason": "wrong day"}, deadline_s=20.0).status == "accepted"
    ((writer_id, sent),) = bureau.sent()
    assert writer_id == "w1"
    assert sent == LinkCommand(
        command_id="c1",
        run=rid(1),
        action="cancel",
        arguments={"reason": "wrong day"},
        actor="ada",
        valid_s=20.0,
    )
    assert bureau.sent() == []


def test_without_a_deadline_it_has_five_minutes(bureau: Bureau):
    bureau.command()
    assert bureau.sent()[0][1].valid_s == DEFAULT_DEADLINE_S


def test_what_is_not_there_is_not_found(bureau: Bureau):
    status = bureau.command(operation="load-9")
    assert (status.status, status.command_id) == ("not_found", "c1")
    assert "load-9" in status.message


def test_what_a_label_leaves_open_is_ambiguous_and_names_the_candidates(bureau: Bureau):
    for number in (2, 3):
        bureau.start(number, label="job-7", controls=ALL)
    status = bureau.command(operation="job-7")
    assert status.status == "ambiguous"
    assert "load-2, load-3" in status.message


@pytest.mark.parametrize(
    ("action", "lacks"), [("cancel", SCOPE_CONTROL), ("snapshot", SCOPE_CONTROL), ("input", SCOPE_RESPOND)]
)
def test_each_action_needs_its_scope(bureau: Bureau, action: str, lacks: str):
    status = bureau.command(action, asker=Asker(actor="bob", scopes=ADA.scopes - {lacks}))
    assert (status.status, status.message) == ("forbidden", f"the token lacks the scope {lacks}")


def test_a_process_that_is_not_connected_cannot_be_told(bureau: Bureau):
    bureau.away.add("w1")
    status = bureau.command()
    assert status.status == "no_worker"
    assert "worker link" in status.message
    assert bureau.sent() == []


# --- what must not leak -------------------------------------------------------------------------------------------


def test_nothing_is_said_of_operations_that_one_may_not_see(bureau: Bureau):
    bureau.start(2, "payroll", controls=(), service="finance")
    mine = Filter(service=("etl",), roots=False)
    seen = bureau.command(operation="payroll-1", sees=mine)
    unknown = bureau.command(operation="payroll-2", sees=mine)
    assert seen.status == unknown.status == "not_found"
    assert seen.message.replace("payroll-1", "payroll-2") == unknown.message


def test_a_command_id_of_others_says_nothing_of_what_became_of_it(bureau: Bureau):
    bureau.start(2, "payroll", controls=ALL, service="finance")
    bureau.command(operation="payroll-1")
    status = bureau.command(operation="load-1", sees=Filter(service=("etl",), roots=False))
    assert status.status == "invalid"
    assert "accepted" not in status.message


def test_without_the_scope_nothing_is_told_whatever_was_asked_for(bureau: Bureau):
    bureau.command()
    nobody = Asker(actor="eve", scopes=frozenset())
    answers = {
        bureau.command(operation=operation, command_id=command_id, asker=nobody).message
        for operation in ("load-1", "load-9")
        for command_id in ("c1", "c9")
    }
    assert answers == {"the token lacks the scope progress:control"}


def test_an_answer_is_in_no_event_of_the_hosts_own(bureau: Bureau):
    bureau.asks(schema='{"type": "string"}')
    bureau.command("input", arguments={"content": "the secret word"})
    bureau.end(1, State.LOST)
    (event,) = bureau.desk.take_events(bureau.now_ns)
    assert b"secret" not in msgspec.json.encode(event)


def test_two_tenants_may_choose_the_same_command_id():
    bureau = Bureau()
    tree = OperationTree()
    bureau.hub = Hub(tree, epoch="e1", cursor_key=KEY)
    bureau.desk = CommandDesk(bureau.hub, bureau.reaches)
    for number, tenant in ((1, "red"), (2, "blue")):
        bureau.start(number, controls=ALL, tenant=tenant)
    red, blue = (Asker(actor=each, scopes=ADA.scopes, tenant=each) for each in ("red", "blue"))
    assert bureau.command(operation=rid(1), asker=red).status == "accepted"
    assert bureau.command(operation=rid(1), asker=blue, command_id="c2").status == "not_found"
    assert bureau.command(operation=rid(2), asker=blue).status == "accepted"
    assert [each.command.run for each in bureau.desk.take_deliveries()] == [rid(1), rid(2)]
    bureau.applies(1, tenant="red")
    assert "applied" in bureau.command(operation=rid(1), asker=red).message
    assert "not known yet" in bureau.command(operation=rid(2), asker=blue).message


# --- duplicates ---------------------------------------------------------------------------------------------------


def test_a_duplicate_is_not_passed_on_and_hears_what_became_of_the_first(bureau: Bureau):
    bureau.command()
    bureau.sent()
    again = bureau.command()
    assert (again.status, again.message) == (
        "duplicate",
        "accepted before; what became of it is not known yet",
    )
    bureau.applies()
    assert bureau.command().message == "accepted before; applied"
    bureau.end(1)
    assert bureau.command().message == "accepted before; applied"
    assert bureau.sent() == []


def test_a_duplicate_of_a_refused_one_hears_why(bureau: Bureau):
    bureau.command()
    bureau.refuses(refusal="its handler raised KeyError")
    assert bureau.command().message == "accepted before; refused: its handler raised KeyError"


def test_an_id_that_was_not_accepted_is_not_used_up(bureau: Bureau):
    bureau.away.add("w1")
    assert bureau.command().status == "no_worker"
    bureau.away.clear()
    assert bureau.command().status == "accepted"


def test_after_a_restart_the_log_says_what_became_of_a_command(bureau: Bureau):
    bureau.command()
    bureau.applies()
    bureau.command(command_id="c2")
    bureau.refuses(command_id="c2", refusal="ended")
    bureau.desk = CommandDesk(bureau.hub, bureau.reaches)
    assert bureau.command().message == "accepted before; applied"
    assert bureau.command(command_id="c2").message == "accepted before; refused: ended"
    assert bureau.command(command_id="c3").status == "accepted"


@pytest.mark.parametrize("action", ["cancel", "pause"])
def test_what_stands_above_stands_after_a_restart_too(bureau: Bureau, action: str):
    for number in (1, 2):
        bureau.command(action, command_id=f"c{number}", arguments={"reason": f"wrong day {number}"})
        bureau.applies(command_id=f"c{number}", control_actor="ada", control_reason=f"wrong day {number}")
    if action == "pause":
        bureau.say(1, semconv.OPERATION_STATE_CHANGED, state=State.PAUSED)
    bureau.desk = CommandDesk(bureau.hub, bureau.reaches)
    bureau.start(2, "chunk", parent=1, writer_id="w2")
    assert bureau.sent() == [
        (
            "w2",
            LinkCommand(
                command_id="c2",
                run=rid(1),
                action=action,
                arguments={"reason": "wrong day 2"},
                actor="ada",
                below=True,
            ),
        )
    ]


def test_after_a_restart_a_word_from_below_counts_for_less_than_that_of_the_operation_itself(bureau: Bureau):
    bureau.start(2, "chunk", parent=1, writer_id="w2")
    bureau.command("pause")
    bureau.refuses()
    bureau.applies(2, writer_id="w2")
    bureau.desk = CommandDesk(bureau.hub, bureau.reaches)
    assert bureau.command("pause").message == "accepted before; refused: expired"


def test_a_pause_whose_command_the_log_does_not_hold_any_more_stands_after_a_restart(bureau: Bureau):
    bureau.say(1, semconv.OPERATION_STATE_CHANGED, state=State.PAUSED)
    bureau.desk = CommandDesk(bureau.hub, bureau.reaches)
    bureau.start(2, "chunk", parent=1, writer_id="w2")
    ((_, sent),) = bureau.sent()
    assert (sent.command_id, sent.action, sent.valid_s) == ("", "pause", None)
    bureau.command("resume", command_id="c2")
    bureau.applies(command_id="c2")
    bureau.sent()
    bureau.start(3, "chunk", parent=1, writer_id="w3")
    assert bureau.sent() == []


def test_a_word_of_an_unknown_pause_may_be_of_one_below_and_lets_nothing_stand(bureau: Bureau):
    bureau.applies(command_id="c9", control_action="pause")
    assert len(bureau.desk._standing) == 0


def test_what_was_taken_back_or_has_ended_does_not_stand_after_a_restart(bureau: Bureau):
    bureau.start(2, controls=ALL)
    for number, (action, run) in enumerate((("pause", 1), ("resume", 1), ("cancel", 2)), 1):
        bureau.command(action, f"load-{run}", f"c{number}")
        bureau.applies(run, f"c{number}")
    bureau.end(2)
    bureau.desk = CommandDesk(bureau.hub, bureau.reaches)
    assert len(bureau.desk._standing) == 0


def test_what_a_text_of_an_operation_claims_is_no_word_about_a_command(bureau: Bureau):
    bureau.note(1, '"kind":"control.applied","control_id":"c1"')
    bureau.desk = CommandDesk(bureau.hub, bureau.reaches)
    assert bureau.command().status == "accepted"


# --- what becomes of it -------------------------------------------------------------------------------------------


def test_what_nobody_says_anything_of_expires_a_grace_after_its_deadline(bureau: Bureau):
    bureau.command(deadline_s=10.0, arguments={"reason": "password=hunter2"})
    bureau.answer("accepted")
    assert bureau.desk.next_deadline_unix_ns() == bureau.now_ns + 10 * NS + GRACE_NS
    assert bureau.after(11.9) == []
    bureau.now_s += 0.2
    bureau.desk.advance(bureau.now_ns)
    (event,) = bureau.desk.take_events(bureau.now_ns)
    assert (event.kind, event.run_id, event.control_id, event.control_refusal) == (
        semconv.CONTROL_REFUSED,
        rid(1),
        "c1",
        "expired",
    )
    assert (event.control_action, event.control_actor) == ("cancel", "ada")
    assert event.control_reason == "password=[redacted]"
    assert event.time_unix_ns == bureau.now_ns
    assert bureau.desk.next_deadline_unix_ns() is None
    assert bureau.command().message == "accepted before; refused: expired"


def test_a_run_that_is_lost_loses_its_commands_at_once(bureau: Bureau):
    bureau.command()
    bureau.command("snapshot", command_id="c2")
    bureau.end(1, State.LOST)
    assert bureau.told() == [("c1", "worker_lost"), ("c2", "worker_lost")]


def test_a_run_that_ends_leaves_its_own_word_a_grace(bureau: Bureau):
    bureau.command()
    bureau.end(1)
    assert bureau.after(1.0) == []
    bureau.applies()
    assert bureau.after(10.0) == []
    assert bureau.command().message == "accepted before; applied"


def test_a_run_that_ends_without_a_word_has_refused(bureau: Bureau):
    bureau.command()
    bureau.end(1)
    assert bureau.after(2.1) == [("c1", "ended")]


def test_what_the_process_says_late_counts_for_more_than_that_it_had_said_nothing(bureau: Bureau):
    bureau.command()
    bureau.end(1, State.LOST)
    assert bureau.told() == [("c1", "worker_lost")]
    bureau.applies()
    assert bureau.command().message == "accepted before; applied"


def test_what_another_operation_says_of_that_id_is_not_about_this_command(bureau: Bureau):
    bureau.start(2, "other")
    bureau.command()
    bureau.applies(2)
    assert "not known yet" in bureau.command().message


def test_one_below_that_obeys_first_leaves_the_operation_itself_owed_what_it_was_not_told(bureau: Bureau):
    bureau.start(2, "chunk", parent=1, writer_id="w2")
    bureau.command("pause")
    bureau.sent()  # the frame to w1 is lost
    bureau.answer("accepted", writer_id="w2")
    bureau.applies(2, writer_id="w2")
    assert bureau.command("pause").message == "accepted before; applied"
    bureau.after(2.1)
    assert [writer_id for writer_id, _ in bureau.sent()] == ["w1"]
    bureau.desk.connected("w1", "", bureau.now_ns)
    assert [(writer_id, each.below) for writer_id, each in bureau.sent()] == [("w1", False)]
    assert bureau.after(DEFAULT_DEADLINE_S + 3) == [], "the log has a word of it"
    assert len(bureau.desk._pending) == 0


def test_what_the_operation_itself_says_counts_for_more_than_a_word_from_below(bureau: Bureau):
    bureau.start(2, "chunk", parent=1, writer_id="w2")
    bureau.command("pause")
    for writer_id in ("w1", "w2"):
        bureau.answer("accepted", writer_id=writer_id)
    bureau.applies(2, writer_id="w2")
    bureau.refuses()
    bureau.applies(2, writer_id="w2")
    assert bureau.command("pause").message == "accepted before; refused: expired"
    bureau.sent()
    bureau.start(3, "chunk", parent=1, writer_id="w3")
    assert bureau.sent() == [], "it does not stand"


def test_one_below_that_has_not_confirmed_is_told_again_though_the_operation_obeyed(family: Bureau):
    family.command("cancel")
    family.sent()
    for writer_id in ("w1", "w2"):
        family.answer("accepted", writer_id=writer_id)
    family.applies()
    family.end(1, State.CANCELLED)
    family.sent()
    family.desk.connected("w3", "", family.now_ns)
    assert [(writer_id, each.run, each.valid_s) for writer_id, each in family.sent()] == [
        ("w3", rid(3), None)
    ]
    family.answer("accepted", writer_id="w3")
    assert len(family.desk._pending) == 0


def test_a_word_from_below_is_one_about_the_command(bureau: Bureau):
    bureau.start(2, "chunk", parent=1, writer_id="w2")
    bureau.command()
    bureau.applies(2, writer_id="w2")
    assert bureau.command().message == "accepted before; applied"


@pytest.mark.parametrize(
    ("status", "message", "refusal"),
    [
        ("not_found", "no such operation lives in this process", "no such operation lives in this process"),
        ("ended", "", "ended"),
        ("invalid", "expired", "expired"),
        ("unsupported", "", "unsupported"),
    ],
)
def test_a_process_that_cannot_obey_has_refused(bureau: Bureau, status: str, message: str, refusal: str):
    bureau.command()
    bureau.answer(status, message)
    assert bureau.told() == [("c1", refusal)]


@pytest.mark.parametrize("status", ["accepted", "duplicate"])
def test_a_process_that_obeys_is_waited_for(bureau: Bureau, status: str):
    bureau.command()
    bureau.answer(status)
    assert bureau.told() == []
    assert "not known yet" in bureau.command().message


def test_a_process_that_was_not_asked_can_refuse_nothing(bureau: Bureau):
    bureau.command()
    bureau.answer("not_found", writer_id="w9")
    bureau.answer("not_found", command_id="c9")
    bureau.desk.received("w1", "red", CommandStatus(command_id="c1", status="not_found"))
    assert bureau.told() == []


# --- connections --------------------------------------------------------------------------------------------------


def test_what_a_process_has_not_confirmed_is_sent_again_when_it_comes_back_with_the_time_left(bureau: Bureau):
    bureau.command(deadline_s=10.0)
    bureau.command("snapshot", command_id="c2", deadline_s=10.0)
    bureau.sent()
    bureau.answer("accepted", command_id="c2")
    bureau.now_s += 4
    bureau.desk.connected("w1", "", bureau.now_ns)
    assert [(each.command_id, each.valid_s) for _, each in bureau.sent()] == [("c1", 6.0)]
    bureau.desk.connected("w2", "", bureau.now_ns)
    bureau.desk.connected("w1", "red", bureau.now_ns)
    assert bureau.sent() == []


def test_what_a_connected_process_has_not_confirmed_is_sent_again_ever_more_rarely(bureau: Bureau):
    bureau.command(deadline_s=60.0)
    sent_at_s = []
    while bureau.desk._pending:
        sent_at_s += [bureau.now_s - 100.0 for _ in bureau.sent()]
        due_unix_ns = bureau.desk.next_deadline_unix_ns()
        assert due_unix_ns is not None
        assert due_unix_ns > bureau.now_ns
        bureau.now_s += (due_unix_ns - bureau.now_ns) / NS
        bureau.desk.advance(bureau.now_ns)
    assert sent_at_s == pytest.approx([0, 2, 6, 14, 30])


def test_what_is_confirmed_is_not_sent_again_however_long_it_takes(bureau: Bureau):
    bureau.command()
    bureau.sent()
    bureau.answer("accepted")
    bureau.after(100)
    assert bureau.sent() == []


def test_what_is_settled_is_not_sent_again(bureau: Bureau):
    bureau.command()
    bureau.sent()
    bureau.applies()
    bureau.desk.connected("w1", "", bureau.now_ns)
    assert bureau.sent() == []


# --- below --------------------------------------------------------------------------------------------------------


@pytest.fixture
def family(bureau: Bureau) -> Bureau:
    """1 in w1, below it 2 and 3 in w2, below 2 in its own process 4, below 3 in w3 5; 6 in w1, too."""
    bureau.start(2, "chunk", parent=1, writer_id="w2")
    bureau.start(3, "chunk", parent=1, writer_id="w2")
    bureau.start(4, "part", parent=2, writer_id="w2")
    bureau.start(5, "part", parent=3, writer_id="w3")
    bureau.start(6, "part", parent=1, writer_id="w1")
    return bureau


def below(sent: list[tuple[str, LinkCommand]]) -> set[tuple[str, str]]:
    return {(writer_id, command.run) for writer_id, command in sent if command.below}


@pytest.mark.parametrize("action", ["cancel", "pause", "resume"])
def test_a_command_goes_once_over_each_edge_between_processes(family: Bureau, action: str):
    family.command(action)
    sent = family.sent()
    assert len(sent) == 3
    assert [(writer_id, command.run) for writer_id, command in sent if not command.below] == [("w1", rid(1))]
    assert below(sent) == {("w2", rid(1)), ("w3", rid(3))}
    assert {command.command_id for _, command in sent} == {"c1"}


@pytest.mark.parametrize("action", ["snapshot"])
def test_a_signal_is_for_one_operation(family: Bureau, action: str):
    family.command(action)
    assert below(family.sent()) == set()


def test_what_ended_below_needs_no_command(family: Bureau):
    family.end(5)
    family.command()
    assert below(family.sent()) == {("w2", rid(1))}


def test_a_process_below_that_is_away_hears_of_it_when_it_comes_back(family: Bureau):
    family.away.add("w3")
    family.command()
    assert below(family.sent()) == {("w2", rid(1))}
    family.away.clear()
    family.desk.connected("w3", "", family.now_ns)
    assert below(family.sent()) == {("w3", rid(3))}


def test_one_below_that_has_nothing_to_obey_refuses_nothing(family: Bureau):
    family.command()
    family.answer("not_found", writer_id="w2")
    assert family.told() == []


@pytest.mark.parametrize("action", ["cancel", "pause"])
def test_what_begins_in_another_process_below_one_that_stands_or_was_cancelled_obeys_too(
    bureau: Bureau, action: str
):
    bureau.command(action, deadline_s=10.0)
    bureau.sent()
    bureau.now_s += 3
    bureau.start(2, "chunk", parent=1, writer_id="w2")
    ((writer_id, sent),) = bureau.sent()
    assert (writer_id, sent.run, sent.action, sent.below) == ("w2", rid(1), action, True)
    assert sent.valid_s == 7.0, "it is not in force yet: what is late for one is late for all"
    bureau.applies()
    ((writer_id, sent),) = bureau.sent()
    assert (writer_id, sent.command_id, sent.run, sent.below, sent.valid_s) == (
        "w2",
        "c1",
        rid(1),
        True,
        None,
    ), "it was obeyed: what is below does not go on when its deadline is over"
    bureau.after(100)
    bureau.start(3, "part", parent=2, writer_id="w3")
    ((writer_id, sent),) = bureau.sent()
    assert (writer_id, sent.run, sent.valid_s) == ("w3", rid(2), None), (
        "it is in force until it is taken back"
    )


def test_what_begins_in_the_same_process_is_its_own_business(bureau: Bureau):
    bureau.command()
    bureau.sent()
    bureau.start(2, "chunk", parent=1)
    assert bureau.sent() == []


def test_a_process_that_reports_before_its_link_stands_hears_of_what_stands_above_once_it_does(
    bureau: Bureau,
):
    bureau.command("pause")
    bureau.applies()
    bureau.sent()
    bureau.start(2, "chunk", parent=1, writer_id="w2")
    bureau.sent()  # to a link that is not there yet
    bureau.desk.connected("w2", "", bureau.now_ns)
    assert below(bureau.sent()) == {("w2", rid(1))}
    bureau.desk.connected("w2", "red", bureau.now_ns)
    assert bureau.sent() == []


def test_a_resume_takes_a_standing_pause_back_once_it_is_obeyed(bureau: Bureau):
    bureau.command("pause")
    bureau.applies()
    bureau.command("resume", command_id="c2")
    bureau.sent()
    bureau.start(2, "chunk", parent=1, writer_id="w2")
    assert [command.action for _, command in bureau.sent()] == ["pause"]
    bureau.applies(command_id="c2")
    ((writer_id, sent),) = bureau.sent()
    assert (writer_id, sent.action, sent.command_id, sent.run) == ("w2", "resume", "c2", rid(1)), (
        "it began after the resume was passed on, and before it was obeyed"
    )
    bureau.start(3, "chunk", parent=1, writer_id="w3")
    assert bureau.sent() == []


def test_a_resume_that_comes_to_nothing_leaves_the_pause(bureau: Bureau):
    bureau.command("pause")
    bureau.applies()
    bureau.command("resume", command_id="c2", deadline_s=1.0)
    assert bureau.after(4.0) == [("c2", "expired")]
    bureau.sent()
    bureau.start(2, "chunk", parent=1, writer_id="w2")
    assert [(command.command_id, command.valid_s) for _, command in bureau.sent()] == [("c1", None)]


def test_a_process_that_was_away_when_its_parent_was_resumed_hears_so_however_late(family: Bureau):
    family.command("pause")
    family.applies()
    for writer_id in ("w2", "w3"):
        family.answer("accepted", writer_id=writer_id)
    family.away.add("w3")
    family.command("resume", command_id="c2", deadline_s=5.0)
    family.applies(command_id="c2")
    family.after(60)
    family.sent()
    family.desk.connected("w3", "", family.now_ns)
    assert [(each.action, each.run, each.valid_s) for _, each in family.sent()] == [("resume", rid(3), None)]


def test_its_own_code_takes_a_standing_pause_back_too(bureau: Bureau):
    bureau.start(2, "chunk", parent=1, writer_id="w2")
    bureau.command("pause")
    bureau.applies()
    bureau.sent()
    bureau.say(1, semconv.CONTROL_APPLIED, control_action="resume")
    assert [(each.command_id, each.action) for _, each in bureau.sent()] == [("", "resume")]
    bureau.start(3, "chunk", parent=1, writer_id="w3")
    assert bureau.sent() == []


def test_a_younger_pause_is_not_taken_back_by_an_older_resume(bureau: Bureau):
    bureau.command("pause", command_id="c1")
    bureau.command("resume", command_id="c2")
    bureau.refuses(command_id="c1", refusal="superseded by a resume")
    bureau.command("pause", command_id="c3")
    bureau.applies(command_id="c2")
    bureau.sent()
    bureau.start(2, "chunk", parent=1, writer_id="w2")
    assert [command.command_id for _, command in bureau.sent()] == ["c3"]


def test_one_more_pause_of_what_is_paused_that_comes_to_nothing_leaves_the_first(bureau: Bureau):
    bureau.command("pause")
    bureau.applies()
    bureau.command("pause", command_id="c2", deadline_s=1.0)
    bureau.after(4.0)
    bureau.sent()
    bureau.start(2, "chunk", parent=1, writer_id="w2")
    assert [command.command_id for _, command in bureau.sent()] == ["c1"]


def test_what_is_below_is_not_told_of_a_pause_behind_the_resume_that_took_it_back(family: Bureau):
    family.away.add("w3")
    family.command("pause")
    family.command("resume", command_id="c2")
    family.away.clear()
    family.sent()
    family.after(30)
    family.desk.connected("w3", "", family.now_ns)
    assert {each.action for writer_id, each in family.sent() if writer_id == "w3"} == {"resume"}


def test_what_is_below_and_obeyed_a_resume_that_came_to_nothing_stands_still_again(bureau: Bureau):
    bureau.start(2, "chunk", parent=1, writer_id="w2")
    bureau.command("pause")
    bureau.applies()
    bureau.command("resume", command_id="c2", deadline_s=1.0)
    bureau.answer("accepted", writer_id="w2", command_id="c2")
    bureau.sent()
    assert bureau.after(4.0) == [("c2", "expired")]
    ((writer_id, sent),) = [each for each in bureau.sent() if each[1].below]
    assert (writer_id, sent.action, sent.command_id, sent.run) == ("w2", "pause", "", rid(1))


def test_a_resume_leaves_a_standing_cancel(bureau: Bureau):
    bureau.command("cancel")
    bureau.command("resume", command_id="c2")
    bureau.sent()
    bureau.start(2, "chunk", parent=1, writer_id="w2")
    assert [command.action for _, command in bureau.sent()] == ["cancel"]


@pytest.mark.parametrize("how", ["refused", "expired", "by its process", "ended"])
def test_a_command_that_came_to_nothing_stands_no_more(bureau: Bureau, how: str):
    bureau.command("pause")
    if how == "refused":
        bureau.refuses()
    elif how == "expired":
        bureau.after(DEFAULT_DEADLINE_S + 3)
    elif how == "by its process":
        bureau.answer("unsupported")
    else:
        bureau.end(1)
    bureau.sent()
    bureau.start(2, "chunk", parent=1, writer_id="w2")
    assert bureau.sent() == []


def test_a_refusal_of_an_older_pause_leaves_the_newer_one(bureau: Bureau):
    bureau.command("pause")
    bureau.command("pause", command_id="c2")
    bureau.refuses()
    bureau.sent()
    bureau.start(2, "chunk", parent=1, writer_id="w2")
    assert [command.command_id for _, command in bureau.sent()] == ["c2"]


# --- bounds -------------------------------------------------------------------------------------------------------


def test_no_more_commands_wait_for_one_operation_than_it_can_need(bureau: Bureau, monkeypatch):
    monkeypatch.setattr(command_desk, "MAX_PENDING_OF_RUN", 3)
    answers = [bureau.command("snapshot", command_id=f"c{n}").status for n in range(4)]
    assert answers == ["accepted"] * 3 + ["overloaded"]
    bureau.start(2, controls=ALL)
    assert bureau.command("snapshot", "load-2", command_id="d").status == "accepted"
    bureau.applies(command_id="c0")
    assert bureau.command("snapshot", command_id="c3").status == "accepted"


def test_no_more_commands_wait_than_the_host_can_hold(bureau: Bureau, monkeypatch):
    monkeypatch.setattr(command_desk, "MAX_PENDING", 2)
    bureau.start(2, controls=ALL)
    for command_id, operation in (("a", "load-1"), ("b", "load-2")):
        assert bureau.command(operation=operation, command_id=command_id).status == "accepted"
    status = bureau.command(command_id="c")
    assert status.status == "overloaded"
    assert "too many" in status.message


@pytest.mark.parametrize(
    ("bound", "whose"), [("MAX_PENDING_OF_TENANT", "your tenant"), ("MAX_PENDING_OF_ACTOR", "yours")]
)
def test_whoever_sends_too_many_keeps_nobody_else_from_commanding(monkeypatch, bound: str, whose: str):
    monkeypatch.setattr(command_desk, bound, 2)
    bureau = Bureau()
    for number, tenant in ((1, "red"), (2, "blue")):
        bureau.start(number, controls=ALL, tenant=tenant)
    eve, bob, ada = (
        Asker(actor=actor, scopes=ADA.scopes, tenant=tenant)
        for actor, tenant in (("eve", "red"), ("bob", "red"), ("ada", "blue"))
    )
    answers = [bureau.command("snapshot", rid(1), f"c{n}", asker=eve, deadline_s=86_400.0) for n in range(3)]
    assert [each.status for each in answers] == ["accepted", "accepted", "overloaded"]
    assert whose in answers[-1].message
    assert bureau.command("snapshot", rid(2), asker=ada).status == "accepted"
    of_bob = bureau.command("snapshot", rid(1), "b1", asker=bob).status
    assert of_bob == ("overloaded" if "TENANT" in bound else "accepted")


def test_only_the_last_ids_are_remembered(bureau: Bureau, monkeypatch):
    monkeypatch.setattr(command_waiting, "MAX_REMEMBERED", 2)
    for number in range(3):
        bureau.command("snapshot", command_id=f"c{number}")
        bureau.applies(command_id=f"c{number}")
    answers = [bureau.command("snapshot", command_id=f"c{number}").status for number in (1, 2)]
    assert answers == ["duplicate"] * 2
    assert len(bureau.desk._known) == 2


def test_a_desk_whose_runs_have_ended_holds_nothing(family: Bureau):
    for number, action in enumerate(("cancel", "pause", "snapshot")):
        family.command(action, command_id=f"c{number}")
    for number in (5, 4, 3, 2, 6, 1):
        family.end(number)
    family.after(3.0)
    assert (len(family.desk._pending), len(family.desk._standing)) == (0, 0)


def test_an_event_without_a_command_settles_nothing(bureau: Bureau):
    bureau.command()
    bureau.say(1, semconv.CONTROL_APPLIED, control_action="cancel")
    assert "not known yet" in bureau.command().message


def test_the_effect_of_a_command_of_before_a_restart_is_what_its_sender_hears(bureau: Bureau):
    bureau.applies(command_id="c1")
    assert bureau.command(command_id="c1").message == "accepted before; applied"
    assert bureau.sent() == []


def test_a_cancel_is_taken_where_others_wait_in_vain(monkeypatch):
    monkeypatch.setattr(command_desk, "MAX_PENDING_OF_RUN", 2)
    bureau = Bureau()
    bureau.start(1, controls=ALL)
    answers = [bureau.command("snapshot", rid(1), f"c{number}") for number in range(3)]
    assert [each.status for each in answers] == ["accepted", "accepted", "overloaded"]
    assert bureau.command("cancel", rid(1), "stop").status == "accepted"
    assert bureau.command("cancel", rid(1), "stop too").status == "overloaded", "one cancels as well as many"


def test_an_id_that_was_given_to_another_action_is_no_duplicate():
    bureau = Bureau()
    bureau.start(1, controls=ALL)
    assert bureau.command("pause", rid(1), "c1").status == "accepted"
    status = bureau.command("cancel", rid(1), "c1")
    assert status.status == "invalid"
    assert "take a new one" in status.message
    bureau.say(1, semconv.CONTROL_APPLIED, control_id="c1", control_action="pause")
    assert bureau.command("cancel", rid(1), "c1").status == "invalid", (
        "nor once it is known what became of it"
    )
    assert bureau.command("pause", rid(1), "c1").status == "duplicate"
