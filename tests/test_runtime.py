from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from opentelemetry import context as otel_context

import otelprogress as progress
from otelprogress import active, runtime
from otelprogress.exceptions import InvalidValue
from otelprogress.feed import runtime_file
from otelprogress.feed.history import History
from otelprogress.imports import late
from otelprogress.model.events import State
from tests.forking import exit_code, forked
from tests.otel.otlp_server import HttpReceiver, Reply
from tests.waiting import eventually

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def afterwards():
    before = otel_context.get_current()
    yield
    otel_context.attach(before)
    runtime.shutdown()
    active.forget_spans_only()
    active.misuses.clear()


def configure(**settings) -> runtime.Runtime:
    progress.configure(**{"feed": False, "history": False, "integrations": (), **settings})
    made = runtime.current_runtime()
    assert made is not None
    return made


def run(program: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# --- configure ---------------------------------------------------------------------------------------------------


def test_without_a_feed_no_port_is_open_and_the_host_still_knows():
    made = configure()
    assert made.server is None
    assert runtime_file.scan() == []
    with progress.operation("load") as operation:
        operation.advance(3)
        eventually(lambda: (step := made.host.view(operation.run_id).step) and step.completed == 3)
    eventually(lambda: not made.host.pending)
    assert made.host.view(operation.run_id).state is State.SUCCEEDED


def test_a_feed_leaves_a_private_runtime_file_and_tells_children_of_it():
    made = configure(feed="127.0.0.1:0")
    (found,) = runtime_file.scan()
    assert os.environ["OTELPROGRESS_LINK"] == str(found.path)
    assert found.path.stat().st_mode & 0o777 == 0o600
    assert len(found.content.token) >= 32
    host, port = made.server.address
    socket.create_connection((host, port), timeout=5).close()
    runtime.shutdown()
    assert runtime_file.scan() == []
    assert "OTELPROGRESS_LINK" not in os.environ
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, port), timeout=5)


def test_the_same_settings_again_do_nothing_and_others_warn(caplog):
    made = configure()
    assert configure() is made
    assert not caplog.records
    with caplog.at_level(logging.WARNING, "otelprogress"):
        assert configure(view="lines") is made
    assert "other settings" in caplog.text


def test_the_end_of_a_task_does_not_wait_twice_for_an_endpoint_that_hangs(monkeypatch):
    with HttpReceiver() as receiver:
        receiver.default = Reply(hang=True)
        made = configure(endpoint=receiver.url, shutdown_timeout_s=0.1)
        with progress.operation("task"):
            pass
        assert not made.flush(0.05)
        waits: list[float] = []
        monkeypatch.setattr(made.sender, "flush", waits.append)
        assert not made.flush(1.0)
        assert waits == []


def test_after_shutdown_it_can_be_configured_anew():
    first = configure()
    runtime.shutdown()
    assert active.current is None
    assert configure() is not first


def test_disabled_it_does_nothing(monkeypatch):
    monkeypatch.setenv("OTELPROGRESS_DISABLED", "1")
    progress.configure()
    runtime.configure_from_environment()
    assert runtime.current_runtime() is None
    assert active.instrumentation() is None


def test_zero_code_set_up_opens_a_port_only_when_told(monkeypatch):
    runtime.configure_from_environment()
    made = runtime.current_runtime()
    assert (made.server, made.view, made.history) == (None, None, None)
    runtime.shutdown()
    monkeypatch.setenv("OTELPROGRESS_FEED", "127.0.0.1:0")
    runtime.configure_from_environment()
    assert runtime.current_runtime().server is not None


def test_an_explicit_configure_replaces_the_zero_code_one(caplog):
    runtime.configure_from_environment()
    automatic = runtime.current_runtime()
    assert configure(view="lines") is not automatic
    assert not caplog.records


def test_zero_code_set_up_logs_what_is_wrong_and_never_raises(monkeypatch, caplog):
    monkeypatch.setenv("OTELPROGRESS_VIEW", "3d")
    runtime.configure_from_environment()
    assert "OTELPROGRESS_VIEW='3d'" in caplog.text
    assert runtime.current_runtime() is None


@pytest.mark.parametrize(
    "settings",
    [{"rules": [1]}, {"rules": "nonsense"}, {"integrations": ("nothing",)}, {"view": "3d"}],
    ids=repr,
)
def test_a_setting_that_cannot_be_meant_raises_and_leaves_nothing_behind(settings):
    with pytest.raises(InvalidValue):
        configure(feed="127.0.0.1:0", **settings)
    assert runtime.current_runtime() is None
    assert active.current is None
    assert runtime_file.scan() == []


def test_a_token_can_come_from_a_file(tmp_path, monkeypatch):
    file = tmp_path / "token"
    file.write_text("a-token-of-my-own\n")
    monkeypatch.setenv("OTELPROGRESS_TOKEN_FILE", str(file))
    configure(feed="127.0.0.1:0")
    assert runtime_file.scan()[0].content.token == "a-token-of-my-own"
    runtime.shutdown()
    file.write_text("")
    with pytest.raises(InvalidValue, match="is empty"):
        configure(feed="127.0.0.1:0")


def test_what_ran_is_in_the_history():
    progress.configure(feed=False, integrations=())
    with progress.operation("load"):
        pass
    runtime.shutdown()
    with History() as history:
        (view,) = history.operations()
    assert (view.name, view.state, view.handle) == ("load", State.SUCCEEDED, "load-1")


def test_the_writer_says_that_it_is_alive_each_third_of_its_lease():
    made = configure(lease_s=0.3)
    heard = []
    made.instrumentation.submit = heard.append
    with progress.operation("load"):
        eventually(lambda: len([event for event in heard if event.kind.endswith("writer.alive")]) >= 2)
    assert {event.lease_s for event in heard} == {0.3}


# --- the end ---------------------------------------------------------------------------------------------------------


def test_what_lives_at_shutdown_ends_as_lost_and_says_why():
    made = configure()
    operation = progress.operation("load").__enter__()
    runtime.shutdown()
    view = made.host.hub.tree.view(operation.run_id, time.time_ns())
    assert (view.state, view.lost_detector, view.lost_cause) == (
        State.LOST,
        "atexit",
        "shutdown() was called",
    )
    progress.note("nobody hears")


def test_no_thread_of_ours_is_left_after_shutdown():
    before = set(threading.enumerate())  # other tests may have clients of theirs open
    configure(feed="127.0.0.1:0", view="lines", history=True)
    with progress.operation("load"):
        pass
    assert set(threading.enumerate()) - before
    runtime.shutdown()
    eventually(lambda: not set(threading.enumerate()) - before)


def test_an_interpreter_that_leaves_with_an_operation_open_loses_it():
    ended = run(
        """
        import otelprogress as progress
        progress.configure(feed=False, view="lines")
        progress.operation("load").__enter__().advance(4)
        """
    )
    assert ended.returncode == 0
    assert "load-1 lost" in ended.stderr
    with History() as history:
        (view,) = history.operations()
    assert (view.state, view.lost_detector) == (State.LOST, "atexit")


def test_an_operation_that_ended_well_is_not_lost_to_a_backlog_at_the_exit():
    ended = run(
        """
        import time
        import otelprogress as progress
        from otelprogress import runtime
        from otelprogress.feed import host
        host._PASS_EVENTS = 16
        progress.configure(feed=False, view="off", shutdown_timeout_s=1.0)
        runtime.current_runtime().host.add_listener(lambda applied: time.sleep(0.02))  # 2.5 s for all of them
        with progress.operation("load") as load:
            for _ in range(1000):
                with load.step("row"):
                    pass
        """
    )
    assert "the process leaves faster" in ended.stderr
    with History() as history:
        (view,) = history.operations()
    assert view.state is State.SUCCEEDED


def test_the_exit_takes_no_longer_than_allowed_whatever_the_endpoint_does():
    with socket.create_server(("127.0.0.1", 0)) as tarpit:  # accepts, and never answers
        ended = run(
            """
            import atexit, time
            import otelprogress as progress
            progress.configure(feed=False, history=False)
            atexit.register(lambda: None)
            with progress.operation("load"):
                pass
            began = time.monotonic()
            progress.shutdown()
            print(time.monotonic() - began < 4)
            """,
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{tarpit.getsockname()[1]}",
        )
    assert (ended.stdout, ended.returncode) == ("True\n", 0), ended.stderr
    assert "Traceback" not in ended.stderr


def test_nothing_is_drawn_under_pytest_and_lines_are_written_elsewhere():
    assert configure(view="auto").view is None
    ended = run(
        """
        import otelprogress as progress
        progress.configure(feed="127.0.0.1:0")
        for _ in progress.track(range(3), "load", unit="row"):
            pass
        """
    )
    assert ended.stderr.count("otelprogress watch") == 1
    assert "load-1 succeeded" in ended.stderr
    assert ended.stdout == ""


# --- a collector -------------------------------------------------------------------------------------------------


def test_the_collectors_token_opens_no_feed_of_those_who_report_there(tmp_path, monkeypatch):
    file = tmp_path / "token"
    file.write_text("the-collectors")
    monkeypatch.setenv("OTELPROGRESS_TOKEN_FILE", str(file))
    made = configure(feed="127.0.0.1:0", collector="http://127.0.0.1:9")
    assert made.server is not None
    assert not made.server.authorizes("the-collectors")
    assert made.sender is not None
    assert made.sender.target.logs is not None
    assert made.sender.target.logs.token is not None
    assert made.sender.target.logs.token() == "the-collectors"
    file.write_text("renewed")
    assert made.sender.target.logs.token() == "renewed"


def test_a_process_says_how_its_way_to_the_collector_stands_and_what_it_dropped():
    made = configure(collector="http://127.0.0.1:9")
    facts = made.facts()
    assert facts["collector"] == "the collector at http://127.0.0.1:9: not needed yet"
    assert "logs to 127.0.0.1:9" in facts["sender"]
    assert facts["sender_troubles"] == ""
    assert "host" not in facts
    with progress.operation("load"):
        pass
    eventually(lambda: "nobody listens" in made.facts()["collector"])
    eventually(lambda: "logs to 127.0.0.1:9" in made.facts()["sender_troubles"])
    made.host.stats.dropped_durable = 3
    assert made.facts()["host"] == "3 events dropped"


def test_children_are_told_of_a_collector_and_a_spool_that_were_named_by_argument(tmp_path, monkeypatch):
    configure(collector="http://127.0.0.1:9", spool_dir=tmp_path / "spools")
    assert os.environ["OTELPROGRESS_COLLECTOR"] == "http://127.0.0.1:9"
    assert os.environ["OTELPROGRESS_SPOOL_DIR"] == str(tmp_path / "spools")
    runtime.shutdown()
    assert "OTELPROGRESS_COLLECTOR" not in os.environ
    assert "OTELPROGRESS_SPOOL_DIR" not in os.environ
    monkeypatch.setenv("OTELPROGRESS_COLLECTOR", "http://127.0.0.1:8")
    configure(collector="http://127.0.0.1:9")
    runtime.shutdown()
    assert os.environ["OTELPROGRESS_COLLECTOR"] == "http://127.0.0.1:8"


def test_a_process_without_a_collector_opens_no_link_to_its_endpoint():
    made = configure(endpoint="http://127.0.0.1:9")
    with progress.operation("load"):
        pass
    assert made.presence is None
    assert "otelprogress-link" not in {thread.name for thread in threading.enumerate()}


def test_a_process_with_a_spool_has_what_waits_on_disk_and_gives_its_threads_back(tmp_path):
    before = set(threading.enumerate())
    made = configure(collector="http://127.0.0.1:9", spool_dir=tmp_path / "spools")
    with progress.operation("load"):
        pass
    eventually(lambda: list((tmp_path / "spools").rglob("*.spool")))
    assert f"in {tmp_path / 'spools'}" in made.facts()["sender"]
    runtime.shutdown()
    eventually(lambda: not set(threading.enumerate()) - before)
    assert list((tmp_path / "spools").rglob("*.spool"))


# --- imports -------------------------------------------------------------------------------------------------------------


def test_instrumented_code_that_nobody_configured_loads_only_the_api():
    ended = run(
        """
        import sys
        import otelprogress as progress
        assert "opentelemetry" not in sys.modules
        @progress.operation
        def load():
            for _ in progress.track([1]):
                progress.advance()
        load()
        loaded = {name.partition(".")[0] for name in sys.modules}
        print(sorted(loaded & {"msgspec", "websockets", "asyncio", "rich", "typer", "sqlite3", "grpc", "google"}))
        print("opentelemetry.sdk" in sys.modules)
        """
    )
    assert ended.stdout == "[]\nFalse\n", ended.stderr


def test_a_public_name_stays_what_it_is_after_its_module_was_imported():
    import otelprogress.operation
    import otelprogress.step
    import otelprogress.track  # noqa: F401 - what it does to the package is the test

    assert callable(progress.track)
    assert callable(progress.operation)
    assert callable(progress.step)
    assert set(progress.__all__) <= set(dir(progress))
    for name in progress.__all__:
        assert getattr(progress, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = progress.nonsense


# --- fork ----------------------------------------------------------------------------------------------------------------


def test_a_forked_child_starts_clean_and_the_parent_goes_on():
    made = configure()
    with progress.operation("load") as operation:

        def speak() -> bool:
            assert progress.current_operation().name == ""
            assert active.current is None
            progress.advance(100)
            operation.note("nobody hears")
            return True

        assert exit_code(forked(speak)) == 0
        operation.advance(2)
    eventually(lambda: not made.host.pending)
    view = made.host.view(operation.run_id)
    assert (view.state, view.step.completed, view.message) == (State.SUCCEEDED, 2, None)


@pytest.mark.parametrize("folder", ["nowhere/below", "file"])
def test_where_no_runtime_file_can_be_the_feed_runs_all_the_same(tmp_path, monkeypatch, caplog, folder):
    (tmp_path / "nowhere").write_text("a file, below which no folder can be made")
    monkeypatch.setenv("OTELPROGRESS_RUNTIME_DIR", str(tmp_path / "nowhere" / folder))
    made = configure(feed="127.0.0.1:0", history=True)
    assert made.server is not None
    assert made.runtime_path is None
    assert "OTELPROGRESS_LINK" not in os.environ
    (line,) = [record.getMessage() for record in caplog.records if "runtime file" in record.getMessage()]
    assert "needs --url" in line
    assert list(progress.track([1, 2], "loop")) == [1, 2]


# --- limits ------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_threads(monkeypatch):
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        yield patched


def test_without_a_thread_left_the_application_goes_on_unwatched(no_threads, caplog):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    made = configure(feed=f"127.0.0.1:{port}", view="lines", history=True, endpoint="http://127.0.0.1:9")
    assert made.server is None
    assert runtime_file.scan() == []
    assert "nobody can watch this process: the feed did not start: can't start new thread" in caplog.text
    with socket.create_server(("127.0.0.1", port)):  # nobody listens there
        pass
    with progress.operation("load") as operation:
        assert list(progress.track(range(3))) == [0, 1, 2]
    assert operation.run_id
    made.host.drain()
    assert made.host.view(operation.run_id).state is State.SUCCEEDED
    assert (
        len([record for record in caplog.records if "until a thread can be started" in record.message]) == 1
    )
    runtime.shutdown()


def test_once_a_thread_can_be_started_what_lives_is_shown(no_threads):
    made = configure()
    no_threads.undo()
    with progress.operation("load") as operation:
        operation.advance(3)
        eventually(lambda: (step := made.host.view(operation.run_id).step) and step.completed == 3)


def test_no_fork_happens_in_the_middle_of_configure(monkeypatch):
    start, free = runtime.Runtime.start, []

    def look_and_start(made: runtime.Runtime) -> None:
        other = threading.Thread(target=lambda: free.append(late._lock.acquire(blocking=False)))
        other.start()
        other.join()
        start(made)

    monkeypatch.setattr(runtime.Runtime, "start", look_and_start)
    configure()
    assert free == [False]


def test_a_process_keeps_as_many_runs_as_an_application_needs_and_no_more():
    assert configure().host.hub.tree.limits.max_runs == 10_000
