from __future__ import annotations

import msgspec

from otelprogress.cli.digesting import Digester
from otelprogress.model.events import FeedEvent, State
from tests.visualization.screen import NOW, SECOND, make_view, nightly_load


def test_the_first_digest_tells_everything_and_says_so():
    digester = Digester()
    digester.add(FeedEvent(kind="snapshot", operation=nightly_load()))
    text = digester.speak(NOW)
    assert text.splitlines()[0] == "@t1 why: started full"
    assert "nightly_load-2 RUN 67% eta 1-2m | 3/3 load 61.2k/120k row" in text


def test_the_next_one_tells_only_what_changed_and_the_loudest_reason():
    digester = Digester()
    digester.add(FeedEvent(kind="snapshot", operation=nightly_load()))
    digester.add(FeedEvent(kind="snapshot", operation=make_view(1)))
    digester.speak(NOW)
    failed = msgspec.structs.replace(
        make_view(1), state=State.FAILED, revision=9, ended_at_unix_ns=NOW, error_type="ValueError"
    )
    step = nightly_load().steps[0]
    digester.add(FeedEvent(kind="step.ended", operation=make_view(1, revision=8), step=step, revision=8))
    digester.add(FeedEvent(kind="operation.ended", operation=failed, revision=9, time_unix_ns=NOW))
    text = digester.speak(NOW + 5 * SECOND)
    assert text.splitlines()[0] == "@t2 +5.0s why: failed"
    assert "load-1 FAILED" in text
    assert "nightly_load-2" not in text


def test_nothing_new_is_no_digest():
    digester = Digester()
    assert digester.speak(NOW) is None


def test_an_operation_that_is_new_says_started_and_a_lost_one_lost():
    digester = Digester()
    digester.add(FeedEvent(kind="snapshot", operation=nightly_load()))
    digester.speak(NOW)
    digester.add(FeedEvent(kind="operation.started", operation=make_view(1)))
    assert "why: started" in digester.speak(NOW)
    lost = msgspec.structs.replace(make_view(1), state=State.LOST, revision=5, ended_at_unix_ns=NOW)
    digester.add(FeedEvent(kind="operation.ended", operation=lost, revision=5))
    assert "why: lost" in digester.speak(NOW)


def test_tail_prints_digests(shell):
    shell.client.events = [FeedEvent(kind="snapshot", operation=nightly_load())]
    result = shell("tail", "--digest", "--every", "0.01")
    assert result.exit_code == 0
    assert result.stdout.startswith("@t1 why: started full\n")


def test_a_digest_keeps_to_its_budget(shell):
    shell.client.events = [FeedEvent(kind="snapshot", operation=make_view(number)) for number in range(500)]
    output = shell("tail", "--digest", "--every", "0.01", "--max-tokens", "100").stdout
    assert all(len(digest) < 800 for digest in output.split("@t"))
    assert "left out" in output
