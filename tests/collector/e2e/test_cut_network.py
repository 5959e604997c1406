"""A worker whose host is cut off from the collector: seen by keepalive, noticed by nobody in the worker, and undone."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys

import msgspec
import pytest

from tests.collector.collecting import ROOT
from tests.collector.e2e.cut_network import Scene, Seen

OF_ITS_OWN = ("unshare", "--user", "--map-root-user", "--net")
_TRY_OUT = "ip link add here type veth peer name there && exec unshare --net true"


@functools.cache
def why_not() -> str:
    """Why there are no network namespaces here; empty: there are."""
    if missing := [tool for tool in ("unshare", "nsenter", "ip") if shutil.which(tool) is None]:
        return f"no {missing[0]} on this machine"
    tried = subprocess.run([*OF_ITS_OWN, "sh", "-c", _TRY_OUT], capture_output=True, text=True, check=False)
    return f"no network namespaces for this user: {tried.stderr.strip()}" if tried.returncode else ""


def played(scene: Scene, timeout_s: float) -> Seen:
    if reason := why_not():
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    command = [*OF_ITS_OWN, sys.executable, "-m", "tests.collector.e2e.cut_network"]
    done = subprocess.run(
        [*command, msgspec.json.encode(scene).decode()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = msgspec.json.decode(done.stdout, type=Seen)
    print(seen)
    assert (seen.detector, seen.cause) == ("keepalive", "its host does not answer")
    # Neither the silence nor the way back holds the application up, and its end is heard.
    assert seen.longest_pause_s < 2
    assert seen.state == "succeeded"
    return seen


QUICK = (1, 1, 3.5)


@pytest.mark.parametrize("said_after_s", [0.2, 2.0], ids=["at once", "while probed"])
def test_a_silent_host_is_lost_by_keepalive_whatever_the_collector_says_to_it_and_comes_back(said_after_s):
    played(Scene(keepalive_s=QUICK, watched_after_s=said_after_s), 60)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("said_after_s", [None, 0.2, 4.0, 12.0])
def test_as_it_is_set_it_is_lost_within_25_seconds(said_after_s):
    assert played(Scene(watched_after_s=said_after_s), 200).lost_after_s <= 25
