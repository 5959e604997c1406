from __future__ import annotations

import ast
import os
import subprocess
import sys
import threading

import pytest

from otelprogress.imports import LateImports, late
from tests.forking import exit_code, forked

FORK_DURING_AN_IMPORT = """
import os, threading, time
from otelprogress.imports import late

importing = threading.Event()
forking = threading.Event()
half_imported = []

def import_late():
    with late:
        half_imported.append("a module")
        importing.set()
        forking.wait(30)
        time.sleep(0.05)  # gives a fork that does not wait the time to happen
        half_imported.clear()

os.register_at_fork(before=forking.set)
threading.Thread(target=import_late).start()
importing.wait(30)
child = os.fork()
if child == 0:
    with late:  # nobody else's lock was left behind
        os._exit(len(half_imported))
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""

FIRST_USE_OF_EACH = """
import sys
import otelprogress as progress
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry import trace
from otelprogress.imports import late

trace.set_tracer_provider(TracerProvider())
outside = []

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in ("otelprogress.track", "otelprogress.run", "otelprogress.poller") and not late._lock._is_owned():
            outside.append(name)

sys.meta_path.insert(0, Watch())
for _ in progress.track([1], "load"):
    pass
with progress.operation("copy") as operation, operation.step("a") as step:
    step.poll(lambda: 1)
    list(step.track([1]))
assert {"otelprogress.track", "otelprogress.run", "otelprogress.poller"} <= set(sys.modules)
raise SystemExit(len(outside))
"""

FIRST_OPERATION = """
import sys
import otelprogress as progress

at_import = {name for name in sys.modules if name.startswith("otelprogress")}
progress.configure(feed=False, view="off", history=False)
with progress.operation("work", controls=["cancel"]):
    for _ in progress.track(range(3)):
        pass
print(sorted(at_import))
print(sorted(name for name in sys.modules if name.startswith("otelprogress")))
"""
FOR_COMMANDS = {
    "otelprogress.control",
    "otelprogress.protocol.command_desk",
    "otelprogress.protocol.command_judging",
    "otelprogress.protocol.command_recalling",
    "otelprogress.protocol.command_standing",
    "otelprogress.protocol.command_waiting",
    "otelprogress.feed.commanding",
}

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


def test_a_fork_waits_until_no_thread_is_importing():
    assert subprocess.run([sys.executable, "-c", FORK_DURING_AN_IMPORT], timeout=60).returncode == 0


def test_what_is_imported_at_its_first_use_is_imported_where_a_fork_waits():
    assert subprocess.run([sys.executable, "-c", FIRST_USE_OF_EACH], timeout=60).returncode == 0


def test_nobody_pays_for_commands_who_is_never_commanded():
    done = subprocess.run(
        [sys.executable, "-c", FIRST_OPERATION], timeout=60, capture_output=True, check=True
    )
    at_import, later = (set(ast.literal_eval(line)) for line in done.stdout.decode().splitlines())
    assert at_import == {"otelprogress", "otelprogress.imports"}
    assert "otelprogress.commands" in later
    assert later & FOR_COMMANDS == set()


def test_a_fork_in_the_middle_of_an_import_of_its_own_thread_goes_on():
    with late:

        def import_something() -> bool:
            with late:
                return True

        assert exit_code(forked(import_something)) == 0


def test_an_import_that_is_stuck_stops_no_fork(monkeypatch):
    monkeypatch.setattr("otelprogress.imports.FORK_WAITS_S", 0.01)
    stuck, entered, go_on = LateImports(), threading.Event(), threading.Event()

    def import_late() -> None:
        with stuck:
            entered.set()
            go_on.wait(30)

    thread = threading.Thread(target=import_late)
    thread.start()
    entered.wait(30)
    stuck.before_fork()
    stuck.after_fork()  # in the parent: the importing thread still holds it
    assert not stuck._lock.acquire(blocking=False)
    copy = LateImports()
    copy._lock, copy._forking = stuck._lock, stuck._forking
    copy.after_fork_in_child()
    with copy:
        pass
    go_on.set()
    thread.join()
