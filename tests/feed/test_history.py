from __future__ import annotations

import errno
import logging
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from otelprogress.exceptions import AmbiguousOperation, UnknownOperation
from otelprogress.feed.clock import ManualClock
from otelprogress.feed.history import RETENTION_S, History, history_path
from otelprogress.feed.process_identity import process_identity
from otelprogress.model import semconv
from otelprogress.model.estimate import Baseline
from otelprogress.model.events import Event, FeedEvent, OperationView, State, StepState, StepView
from otelprogress.model.tree import OperationTree
from tests.forking import exit_code, forked
from tests.waiting import eventually

S = 1_000_000_000
T0 = 1_700_000_000 * S


class Applied(NamedTuple):
    event: FeedEvent


def view(n: int = 1, **fields: object) -> OperationView:
    basis = OperationView(
        id=f"{n:032x}-{n:016x}",
        handle=f"nightly_load-{n}",
        name="nightly load",
        state=State.RUNNING,
        revision=1,
        as_of_unix_ns=T0 + n * S,
        started_at_unix_ns=T0 + n * S,
        updated_at_unix_ns=T0 + n * S,
        process_id=os.getpid(),
    )
    return msgspec.structs.replace(basis, **fields)


def applied(kind: str, operation: OperationView, step: StepView | None = None) -> list[Applied]:
    return [Applied(FeedEvent(kind=kind, operation=operation, step=step))]


def ended(n: int, duration_s: float = 60, state: State = State.SUCCEEDED, **fields: object) -> OperationView:
    start = T0 + n * S
    return view(n, state=state, ended_at_unix_ns=start + int(duration_s * S), **fields)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(T0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "history.sqlite3"


@pytest.fixture
def history(path: Path, clock: ManualClock) -> Iterator[History]:
    history = History(path, clock=clock)
    yield history
    history.close()


def test_a_start_is_written_at_once(history: History, path: Path) -> None:
    history(applied("operation.started", view()))
    reader = History(path, clock=ManualClock(T0))
    eventually(lambda: [one.handle for one in reader.operations()] == ["nightly_load-1"])
    reader.close()


def test_a_run_that_moves_is_written_now_and_then(path: Path) -> None:
    history = History(path, clock=ManualClock(T0), write_every_s=0.01)
    history(applied("operation.progressed", view(ratio=0.5)))
    eventually(lambda: [one.ratio for one in history.operations()] == [0.5])
    history.close()


def test_a_step_is_written_before_the_next_round(path: Path) -> None:
    with History(path, clock=ManualClock(T0), write_every_s=3600) as history:
        history(applied("operation.progressed", view()))
        history(applied("step.started", view(), StepView(name="load", index=0, state=StepState.RUNNING)))
        eventually(lambda: len(history.operations()) == 1)


def test_a_tick_alone_does_not_wake_the_disk(history: History, path: Path) -> None:
    history(applied("operation.progressed", view()))
    assert not path.exists()
    history.flush()
    assert len(history.operations()) == 1


def test_the_file_is_for_this_user_only(history: History, path: Path) -> None:
    history(applied("operation.started", view()))
    history.flush()
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_an_end_replaces_what_was_known(history: History) -> None:
    history(applied("operation.started", view()))
    history.flush()
    history(applied("operation.ended", ended(1, state=State.FAILED, error_type="ValueError")))
    history.flush()
    (one,) = history.operations()
    assert (one.state, one.error_type, one.elapsed_s) == (State.FAILED, "ValueError", 60)


def test_what_is_pending_is_written_on_close(path: Path) -> None:
    history = History(path, clock=ManualClock(T0))
    history(applied("operation.progressed", view()))
    history.close()
    history.close()
    with History(path) as reader:
        assert [one.handle for one in reader.operations()] == ["nightly_load-1"]


def test_a_run_comes_back_with_its_steps(history: History) -> None:
    extract = StepView(
        name="extract", index=0, state=StepState.SUCCEEDED, started_at_unix_ns=T0, ended_at_unix_ns=T0 + 5 * S
    )
    load = StepView(name="load", index=1, state=StepState.RUNNING, completed=3, total=9)
    history(applied("operation.started", view()))
    history(applied("step.ended", view(step=extract), extract))
    history(applied("operation.progressed", view(step=load)))
    history.flush()
    assert [(step.name, step.state) for step in history.get("nightly_load-1").steps] == [
        ("extract", StepState.SUCCEEDED),
        ("load", StepState.RUNNING),
    ]


def test_attributes_results_and_prompts_are_not_kept_and_secrets_in_messages_are_redacted(
    history: History, path: Path
) -> None:
    canary = "c4n4ryQ7x9Q7x9"
    history(
        applied(
            "operation.ended",
            ended(
                1,
                attributes={"customer": canary},
                result=f'"{canary}"',
                message=f"password={canary}",
                error_message=f"postgres://u:{canary}@h",
                input_prompt=canary,
                input_default=canary,
            ),
        ),
    )
    history.flush()
    assert history.get("nightly_load-1").message == "password=[redacted]"
    history.close()
    assert all(canary.encode() not in file.read_bytes() for file in path.parent.iterdir())


def test_a_run_is_found_by_id_handle_label_and_unique_prefix(history: History) -> None:
    for n in (1, 2):
        history(applied("operation.ended", ended(n, label=f"job-{n}")))
    history(applied("operation.ended", ended(3, handle="reindex-1")))
    history.flush()
    for text in (view(2).id, "nightly_load-2", "job-2", f"{2:032x}-"):
        assert history.get(text).handle == "nightly_load-2"
    assert history.get("rein").handle == "reindex-1"
    with pytest.raises(AmbiguousOperation) as caught:
        history.get("nightly")
    assert set(caught.value.candidates) == {"nightly_load-1", "nightly_load-2"}
    for text in ("nothing", "night%", "night_y"):
        with pytest.raises(UnknownOperation):
            history.get(text)


def test_a_label_means_its_live_run_or_the_one_that_started_last(history: History) -> None:
    history(applied("operation.started", view(1, label="job")))
    history(applied("operation.ended", ended(2, label="job")))
    history(applied("operation.ended", ended(3, label="old")))
    history(applied("operation.ended", ended(4, label="old")))
    history.flush()
    assert history.get("job").handle == "nightly_load-1"
    assert history.get("old").handle == "nightly_load-4"
    history(applied("operation.started", view(5, label="job")))
    history.flush()
    with pytest.raises(AmbiguousOperation):
        history.get("job")


def test_a_prefix_of_several_is_ambiguous_even_if_one_of_them_is_live(history: History) -> None:
    history(applied("operation.started", view(1)))
    history(applied("operation.ended", ended(2)))
    history.flush()
    with pytest.raises(AmbiguousOperation):
        history.get("nightly")


def test_runs_are_listed_latest_first_and_filtered(history: History) -> None:
    history(applied("operation.ended", ended(1)))
    history(applied("operation.started", view(2, name="reindex [acme]")))
    history(applied("operation.started", view(3, parent_id=view(2).id)))
    history.flush()
    assert [one.handle[-1] for one in history.operations()] == ["3", "2", "1"]
    assert [one.handle[-1] for one in history.operations(limit=1)] == ["3"]
    assert [one.handle[-1] for one in history.operations(live=False)] == ["1"]
    assert [one.handle[-1] for one in history.operations(live=True, roots=True)] == ["2"]
    assert [one.handle[-1] for one in history.operations(name="reindex [a*")] == ["2"]
    assert [one.handle[-1] for one in history.operations(before_unix_ns=T0 + 2 * S)] == ["1"]


def test_numbers_of_a_name_go_up_by_one_from_run_to_run_of_a_program(path: Path) -> None:
    for expected in (1, 2, 3):
        history = History(path, clock=ManualClock(T0))
        assert history.next_number("nightly_load") == expected
        history.close()


def test_numbers_of_a_busy_name_are_reserved_in_growing_blocks(history: History, path: Path) -> None:
    assert [history.next_number("busy") for _ in range(100)] == list(range(1, 101))
    other = History(path, clock=ManualClock(T0))
    first = other.next_number("busy")
    assert 100 < first <= 130
    assert other.next_number("quiet") == 1
    other.close()


def test_unused_numbers_are_given_back(path: Path) -> None:
    history = History(path, clock=ManualClock(T0))
    for _ in range(5):
        history.next_number("busy")
    history.close()
    with History(path) as other:
        assert other.next_number("busy") == 6


def test_no_number_is_given_twice_in_several_processes(path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from otelprogress.feed.history import History\n"
        "history = History(Path(sys.argv[1]), busy_timeout_s=20)\n"
        "print(*[history.next_number('x') for _ in range(50)])\nhistory.close()"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    numbers = [int(number) for child in children for number in child.communicate()[0].split()]
    assert len(numbers) == 200
    assert len(set(numbers)) == 200


def test_two_writers_share_the_file(path: Path) -> None:
    histories = [History(path, clock=ManualClock(T0), busy_timeout_s=20) for _ in range(2)]

    def record(history: History, first: int) -> None:
        for n in range(first, first + 50):
            history(applied("operation.started", view(n)))
            history.flush()

    threads = [
        threading.Thread(target=record, args=(history, 100 * i)) for i, history in enumerate(histories)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for history in histories:
        history.close()
    assert [history.off_because for history in histories] == [None, None]
    with History(path) as reader:
        assert len(reader.operations(limit=1000)) == 100


def test_a_locked_file_delays_the_rows_and_never_the_numbers(path: Path) -> None:
    history = History(path, clock=ManualClock(T0), busy_timeout_s=0.01, write_every_s=0.05)
    assert history.next_number("x") == 1
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    history(applied("operation.started", view()))
    assert history.next_number("x") == 2
    history.flush()
    blocker.execute("ROLLBACK")
    blocker.close()
    eventually(lambda: len(history.operations()) == 1)
    assert history.off_because is None
    history.close()


def test_what_is_older_than_thirty_days_is_forgotten(path: Path, clock: ManualClock) -> None:
    history = History(path, clock=clock)
    history(applied("operation.ended", ended(1)))
    history.flush()
    clock.advance(RETENTION_S + 100)
    history(applied("operation.ended", ended(2, updated_at_unix_ns=clock.time_unix_ns())))
    history.flush()
    assert [one.handle for one in history.operations()] == ["nightly_load-2"]
    history.close()


@pytest.mark.parametrize("content", [b"this is no database, " * 100, b""])
def test_a_file_that_cannot_be_used_switches_the_history_off_with_one_line(
    content: bytes, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.parent.mkdir(mode=0o700)
    if content:
        path.write_bytes(content)
    else:
        path.mkdir()
    history = History(path, clock=ManualClock(T0))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            history(applied("operation.started", view()))
            history.flush()
        assert [history.next_number("x") for _ in range(3)] == [1, 2, 3]
        assert history.operations() == []
        history.close()
    assert [record.message.startswith("otelprogress keeps no history") for record in caplog.records] == [True]
    assert history.off_because is not None


def test_a_folder_that_cannot_be_made_switches_the_history_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("x")
    history = History(tmp_path / "file" / "history.sqlite3")
    history(applied("operation.started", view()))
    history.flush()
    assert history.off_because is not None
    assert len(caplog.records) == 1


def test_a_folder_that_is_closed_to_us_switches_the_history_off(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", refuse)
    history = History(path)
    assert history.operations() == []
    assert history.lose_orphans() == []
    assert "Permission denied" in (history.off_because or "")
    assert len(caplog.records) == 1


def test_a_read_only_file_switches_the_history_off(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = History(path, clock=ManualClock(T0))
    history(applied("operation.started", view()))
    history.flush()
    assert history._batch_store is not None
    history._batch_store._connection.execute("PRAGMA query_only = ON")
    history(applied("operation.ended", ended(1)))
    history.flush()
    assert "readonly" in (history.off_because or "")
    assert len(caplog.records) == 1
    history.close()


def test_a_file_of_a_newer_release_is_left_alone(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    path.chmod(0o600)
    history = History(path, clock=ManualClock(T0))
    history(applied("operation.started", view()))
    history.flush()
    assert "newer release" in (history.off_because or "")


def test_without_a_file_nothing_is_known_and_none_is_made(history: History, path: Path) -> None:
    assert history.operations() == []
    assert history.baseline("nightly load") is None
    with pytest.raises(UnknownOperation):
        history.get("nightly_load-1")
    assert not path.exists()


def test_a_run_can_be_marked_lost_once(history: History, clock: ManualClock) -> None:
    history(applied("operation.started", view()))
    history.flush()
    lost = history.mark_lost(view().id, "pid", "SIGKILL", T0 + 30 * S)
    assert lost is not None
    assert (lost.state, lost.lost_detector, lost.lost_cause, lost.ended_at_unix_ns) == (
        State.LOST,
        "pid",
        "SIGKILL",
        T0 + 30 * S,
    )
    assert history.get("nightly_load-1").state is State.LOST
    assert history.mark_lost(view().id, "pid") is None
    assert history.mark_lost("unknown", "pid") is None


def test_a_true_outcome_is_not_overwritten_by_a_verdict(history: History) -> None:
    history(applied("operation.ended", ended(1)))
    history.flush()
    assert history.mark_lost(view().id, "pid") is None
    assert history.get("nightly_load-1").state is State.SUCCEEDED


def test_of_many_runs_the_ones_are_named_whose_writer_said_how_they_ended(history: History) -> None:
    history(applied("operation.started", view(1)))
    history(applied("operation.ended", ended(2, state=State.LOST)))
    for n, state in ((3, State.SUCCEEDED), (4, State.FAILED), (5, State.CANCELLED), (6, State.SUCCEEDED)):
        history(applied("operation.ended", ended(n, state=state)))
    history(applied("step.ended", ended(3), StepView(name="load", index=0, state=StepState.SUCCEEDED)))
    history.flush()
    outcomes = history.outcomes([view(n).id for n in (1, 2, 3, 4, 5, 99)])
    assert {run_id: one.state for run_id, one in outcomes.items()} == {
        view(3).id: State.SUCCEEDED,
        view(4).id: State.FAILED,
        view(5).id: State.CANCELLED,
    }
    assert [step.name for step in outcomes[view(3).id].steps] == ["load"]
    assert history.outcomes([]) == {}


def test_the_evidence_is_never_before_the_start(history: History) -> None:
    history(applied("operation.started", view()))
    history.flush()
    lost = history.mark_lost(view().id, "pid", evidence_unix_ns=1)
    assert lost is not None
    assert lost.ended_at_unix_ns == view().started_at_unix_ns


def test_runs_of_a_process_that_was_killed_are_lost_and_others_are_not(path: Path, history: History) -> None:
    code = (
        "import os, sys; from pathlib import Path\n"
        "from tests.feed.test_history import *\n"
        "history = History(Path(sys.argv[1]), clock=ManualClock(T0))\n"
        "history(applied('operation.started', view(7))); history.flush(); os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    history(applied("operation.started", view(8)))
    history.flush()
    assert [one.handle for one in history.lose_orphans()] == ["nightly_load-7"]
    assert history.lose_orphans() == []
    assert history.get("nightly_load-8").live


def test_a_run_whose_writer_outlives_its_host_is_not_lost(path: Path, history: History) -> None:
    writer = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    history(applied("operation.started", view(1, process_id=writer.pid)))
    history.flush()
    # The host is "gone": its identity is that of a process which never was.
    connection = sqlite3.connect(path)
    identity = (process_identity(os.getpid()) or "").rsplit(" ", 1)[0] + " 1"
    connection.execute("UPDATE runs SET host_identity = ?", (identity,))
    connection.commit()
    connection.close()
    assert history.lose_orphans() == []
    writer.kill()
    eventually(lambda: history.lose_orphans())
    writer.communicate()


def test_a_run_whose_writer_was_dead_before_it_was_written_down_is_lost_with_its_host(
    path: Path, history: History
) -> None:
    code = (
        "import os, subprocess, sys; from pathlib import Path\n"
        "from tests.feed.test_history import *\n"
        "writer = subprocess.Popen(['true']); writer.wait()\n"
        "history = History(Path(sys.argv[1]), clock=ManualClock(T0))\n"
        "history(applied('operation.started', view(7, process_id=writer.pid))); history.flush(); os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert [one.handle for one in history.lose_orphans()] == ["nightly_load-7"]


def test_a_baseline_is_the_median_of_the_last_successful_runs(history: History) -> None:
    for n, (duration_s, clean_s) in enumerate([(60, 10), (100, 30), (80, 20)], 1):
        step = StepView(
            name="clean",
            index=0,
            state=StepState.SUCCEEDED,
            started_at_unix_ns=T0,
            ended_at_unix_ns=T0 + clean_s * S,
        )
        history(applied("step.ended", view(n), step))
        history(applied("operation.ended", ended(n, duration_s)))
    history(applied("operation.ended", ended(9, 5, State.FAILED)))
    history.flush()
    baseline = history.baseline("nightly load")
    assert baseline is not None
    assert (baseline.runs, baseline.operation, baseline.steps) == (
        3,
        Baseline(80, 45, 125, 3),
        {"clean": Baseline(20, 7.5, 37.5, 3)},
    )
    assert baseline.of() == baseline.operation
    assert baseline.of("clean") == Baseline(20, 7.5, 37.5, 3)
    assert baseline.of("unknown") is None


def test_from_four_runs_on_a_baseline_has_quartiles(history: History) -> None:
    for n in range(1, 6):
        history(applied("operation.ended", ended(n, 10 * n)))
    history.flush()
    baseline = history.baseline("nightly load")
    assert baseline is not None
    assert baseline.operation == Baseline(30, 20, 40, 5)


def test_a_forked_child_leaves_the_file_alone(history: History) -> None:
    history(applied("operation.started", view(1)))
    history.flush()

    def record() -> bool:
        history(applied("operation.started", view(2)))
        history.flush()
        history.close()
        return history.next_number("x") == 1 and history.operations() == []

    assert exit_code(forked(record)) == 0
    assert len(history.operations()) == 1


def test_a_slow_disk_costs_rows_and_not_memory(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otelprogress.feed.history.MAX_PENDING", 2)
    for n in (1, 2, 3):
        history(applied("operation.progressed", view(n)))
    assert history.dropped == 1


def test_the_path_follows_the_environment() -> None:
    assert history_path({"OTELPROGRESS_RUNTIME_DIR": "/r", "XDG_STATE_HOME": "/s"}) == Path(
        "/r/history.sqlite3"
    )
    assert history_path({"XDG_STATE_HOME": "/s"}) == Path("/s/otelprogress/history.sqlite3")
    assert history_path({}) == Path.home() / ".local/state/otelprogress/history.sqlite3"


def test_what_a_host_s_tree_publishes_is_what_the_history_keeps(history: History) -> None:
    tree = OperationTree(next_number=history.next_number)
    run = view(1).id

    def say(kind: str, at_s: int, **fields: object) -> None:
        event = Event(kind=kind, run_id=run, time_unix_ns=T0 + at_s * S, **fields)
        history(tree.apply(event, T0 + at_s * S))

    say(
        semconv.OPERATION_STARTED,
        0,
        name="nightly load",
        start_unix_ns=T0,
        steps=("clean", "load"),
        parent_span_id="",
    )
    say(semconv.STEP_STARTED, 0, step_name="clean", step_index=0, step_state=StepState.RUNNING)
    say(semconv.STEP_ENDED, 20, step_name="clean", step_index=0, step_state=StepState.SUCCEEDED)
    say(semconv.STEP_STARTED, 20, step_name="load", step_index=1, step_state=StepState.RUNNING)
    say(semconv.OPERATION_PROGRESSED, 25, step_name="load", step_index=1, completed=5.0, total=10.0)
    history.flush()
    live = history.get("nightly_load-1")
    assert (
        live.state,
        live.step.name if live.step else None,
        live.step.completed if live.step else None,
    ) == (State.RUNNING, "load", 5)
    say(
        semconv.STEP_ENDED, 60, step_name="load", step_index=1, step_state=StepState.SUCCEEDED, completed=10.0
    )
    say(semconv.OPERATION_ENDED, 60, state=State.SUCCEEDED)
    history.flush()
    ended_view = history.get("nightly_load-1")
    assert (ended_view.state, ended_view.elapsed_s) == (State.SUCCEEDED, 60)
    assert [(step.name, step.state, step.completed) for step in ended_view.steps] == [
        ("clean", StepState.SUCCEEDED, None),
        ("load", StepState.SUCCEEDED, 10),
    ]
    usual = history.baseline("nightly load")
    assert usual is not None
    assert (usual.operation.median_s, usual.steps["clean"].median_s, usual.steps["load"].median_s) == (
        60,
        20,
        40,
    )
