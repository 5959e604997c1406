"""Who has been silent for too long, in virtual time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from otelprogress_collector.monitor.leases import MAX_STEP_S, RESTART_LEASE_S, TICK_S, Heard, Leases


class Watching:
    """Leases with a clock; writers are heard by changing `heard`."""

    def __init__(self, **settings) -> None:
        self.leases = Leases(**settings)
        self.now_s = 1000.0
        self.writers: dict[str, Heard] = {}
        self.expired_at_s: dict[str, float] = {}

    def hear(self, key: str, *, lease_s: float | None = 2.0, linked: bool = False) -> None:
        self.writers[key] = Heard(key, int(self.now_s * 1e9), lease_s, linked)

    def pass_time(self, seconds: float, *, step_s: float = TICK_S) -> None:
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            self.now_s = min(self.now_s + step_s, until_s)
            for key in self.leases.tick(self.writers.values(), self.now_s):
                self.expired_at_s.setdefault(key, self.now_s)


def started() -> Watching:
    """Past the first tick, so that writers are new to it."""
    watching = Watching()
    watching.pass_time(TICK_S)
    return watching


def test_a_writer_that_says_nothing_for_longer_than_its_lease_is_named_soon_after():
    watching = started()
    watching.hear("w")
    heard_at_s = watching.now_s
    watching.pass_time(10)
    assert 2.0 < watching.expired_at_s["w"] - heard_at_s <= 2.0 + 2 * TICK_S + 0.001


def test_a_writer_that_is_heard_in_time_is_never_named():
    watching = started()
    for _ in range(20):
        watching.hear("w")
        watching.pass_time(1.5)
    assert watching.expired_at_s == {}


def test_an_open_link_outweighs_every_silence():
    watching = started()
    watching.hear("w", linked=True)
    watching.pass_time(3600)
    assert watching.expired_at_s == {}


def test_a_lease_begins_anew_when_the_link_is_gone():
    watching = started()
    watching.hear("w", linked=True)
    watching.pass_time(60)
    unlinked_at_s = watching.now_s
    watching.writers["w"] = watching.writers["w"]._replace(linked=False)
    watching.pass_time(10)
    assert watching.expired_at_s["w"] - unlinked_at_s > 2.0


def test_time_in_which_nobody_watched_does_not_count():
    watching = started()
    watching.hear("w", lease_s=5.0)
    watching.pass_time(1)
    watching.pass_time(3600, step_s=3600)  # the collector was stopped, or its machine slept
    assert watching.expired_at_s == {}
    watching.pass_time(10)
    assert "w" in watching.expired_at_s


def test_after_a_start_everybody_has_time_to_be_heard_again():
    watching = Watching()
    watching.hear("w", lease_s=2.0)
    watching.pass_time(RESTART_LEASE_S)
    assert watching.expired_at_s == {}
    watching.pass_time(5)
    assert "w" in watching.expired_at_s


def test_after_a_start_a_writer_that_was_heard_has_its_own_lease_again():
    watching = Watching()
    watching.hear("w", lease_s=2.0)
    watching.pass_time(1)
    watching.hear("w", lease_s=2.0)
    watching.pass_time(5)
    assert "w" in watching.expired_at_s


def test_a_writer_without_a_lease_is_given_a_long_one():
    watching = Watching(silent_lease_s=100.0)
    watching.pass_time(TICK_S)
    watching.hear("w", lease_s=None)
    watching.pass_time(99)
    assert watching.expired_at_s == {}
    watching.pass_time(5)
    assert "w" in watching.expired_at_s


def test_a_writer_that_answers_for_nothing_any_more_is_forgotten():
    watching = started()
    watching.hear("w")
    watching.pass_time(1.5)
    del watching.writers["w"]
    watching.pass_time(1)
    watching.hear("w")
    watching.pass_time(1.5)
    assert watching.expired_at_s == {}


@given(
    st.lists(st.tuples(st.floats(0, 10_000), st.booleans()), max_size=60),
    st.floats(0.1, 100),
)
def test_nobody_is_named_before_a_whole_lease_of_watched_silence_has_passed(steps, lease_s):
    leases = Leases()
    now_s = silent_s = 0.0
    heard = 1
    leases.tick([], now_s)
    leases.tick([Heard("w", heard, lease_s, linked=False)], now_s)
    for step_s, speaks in steps:
        now_s += step_s
        silent_s += min(step_s, MAX_STEP_S)
        if speaks:
            heard, silent_s = heard + 1, 0.0
        if leases.tick([Heard("w", heard, lease_s, linked=False)], now_s):
            assert silent_s >= lease_s * (1 - 1e-9)  # the two add up the same steps in another order
