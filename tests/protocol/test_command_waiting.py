from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from otelprogress.protocol import command_waiting
from otelprogress.protocol.command_waiting import GRACE_NS, Known, Pending, Remembered, Waiting
from otelprogress.protocol.messages import LinkCommand

NS = 10**9


def waiting_for(
    waiting: Waiting, name: str, *, run: str = "r", tenant: str = "", actor: str = "ada", until_s: int
) -> Pending:
    command = LinkCommand(command_id=name, run=run, action="cancel", actor=actor)
    pending = Pending(command, tenant, 0, until_s * NS)
    waiting.add(pending)
    return pending


def test_it_is_found_by_whatever_it_is_looked_for_and_gone_once_it_is_dropped():
    waiting = Waiting()
    one = waiting_for(waiting, "c1", tenant="red", until_s=5)
    waiting_for(waiting, "c1", tenant="blue", run="s", until_s=6)
    assert waiting.get(("red", "c1")) is one
    assert waiting.of_run("r") == waiting.of_tenant("red") == [one]
    assert waiting.counts("r", "red", "ada") == (1, 1, 1)
    for tenant in ("red", "blue", "red"):
        waiting.drop((tenant, "c1"))
    assert len(waiting) == 0
    assert waiting.counts("r", "red", "ada") == (0, 0, 0)
    assert (waiting.of_run("r"), waiting.of_tenant("red"), waiting.next_due_unix_ns()) == ([], [], None)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "confirm", "drop", "end", "time"]), st.integers(0, 5), st.integers(1, 20)
    ),
    max_size=40,
)


@given(STEPS)
def test_what_is_due_is_what_a_look_at_all_of_them_finds(steps: list[tuple[str, int, int]]):
    waiting, now_unix_ns, alive = Waiting(), 0, {}
    for what, number, seconds in steps:
        key = "", f"c{number}"
        if what == "add" and key not in alive:
            alive[key] = waiting_for(waiting, key[1], until_s=now_unix_ns // NS + seconds)
            alive[key].owed["w", "r"] = LinkCommand(command_id=key[1], run="r", action="cancel")
            alive[key].resend_unix_ns = now_unix_ns + 2 * NS
            waiting.reschedule(alive[key])
        elif what == "confirm" and key in alive:
            alive[key].owed.clear()
        elif what == "drop":
            alive.pop(key, None)
            waiting.drop(key)
        elif what == "end" and key in alive:
            alive[key].expires_unix_ns = min(alive[key].expires_unix_ns, now_unix_ns)
            waiting.reschedule(alive[key])
        elif what == "time":
            now_unix_ns += seconds * NS
            due = {each for each in alive.values() if each.due_unix_ns <= now_unix_ns}
            seen = set()
            for each in waiting.take_due(now_unix_ns):
                seen.add(each)
                if each.expires_unix_ns + GRACE_NS <= now_unix_ns:
                    del alive[each.key]
                    waiting.drop(each.key)
                else:
                    each.resend_unix_ns = now_unix_ns + 5 * NS
            assert seen == due
        assert waiting.next_due_unix_ns() == min((each.due_unix_ns for each in alive.values()), default=None)


def test_whoever_asks_when_something_is_due_does_not_look_at_all_that_waits(monkeypatch):
    """The desk is asked with each batch that the collector takes in."""
    waiting = Waiting()
    for number in range(1000):
        waiting_for(waiting, f"c{number}", until_s=300 + number)
    looks, real = [], Pending.due_unix_ns.fget
    monkeypatch.setattr(Pending, "due_unix_ns", property(lambda each: (looks.append(each), real(each))[1]))
    assert list(waiting.take_due(NS)) == []
    assert waiting.next_due_unix_ns() == 300 * NS + GRACE_NS
    assert len(looks) <= 4


def test_what_was_settled_long_before_its_deadline_takes_no_room_until_then():
    waiting = Waiting()
    waiting_for(waiting, "stays", until_s=86_400)
    for number in range(1000):
        waiting_for(waiting, f"c{number}", until_s=86_400)
        waiting.drop(("", f"c{number}"))
    assert len(waiting._due) < 100


def test_a_tenant_that_has_many_commands_makes_no_other_one_forget(monkeypatch):
    monkeypatch.setattr(command_waiting, "MAX_REMEMBERED", 4)
    remembered = Remembered()
    remembered.put(("blue", "c"), Known("r", "applied"))
    for number in range(10):
        for _ in range(2):
            remembered.put(("red", f"c{number}"), Known("r", "applied"))
    assert remembered.get(("blue", "c")) == Known("r", "applied")
    assert [number for number in range(10) if remembered.get(("red", f"c{number}"))] == [7, 8, 9]
    assert len(remembered) == 4
