from __future__ import annotations

from otelprogress.otel.flush_budget import MAX_SAVED_S, SHARE, FlushBudget
from otelprogress.otel.lane import LaneStats
from otelprogress.otel.sender import Sender
from otelprogress.otel.target import otlp_target
from tests.otel.events import started
from tests.otel.otlp_server import HttpReceiver, Reply
from tests.waiting import eventually


class SlowSender:
    """Answers each request a while after it was made, on a clock that only waiting and working move."""

    def __init__(self, round_trip_s: float) -> None:
        self.round_trip_s = round_trip_s
        self.now_s = 100.0
        self.answered_at_s = 0.0
        self.failing = False
        self.waits_s: list[float] = []
        self._stats = LaneStats()

    def work(self, seconds: float) -> None:
        if self.answered_at_s <= self.now_s:
            self.answered_at_s = self.now_s + self.round_trip_s
        self._pass(seconds)

    def flush(self, timeout_s: float) -> bool:
        waited_s = min(timeout_s, max(0.0, self.answered_at_s - self.now_s))
        self.waits_s.append(waited_s)
        self._pass(waited_s)
        return self.now_s >= self.answered_at_s

    def stats(self) -> dict[str, LaneStats]:
        return {"logs": self._stats}

    def _pass(self, seconds: float) -> None:
        before_s, self.now_s = self.now_s, self.now_s + seconds
        if before_s < self.answered_at_s <= self.now_s:
            self._stats.delivered += 1


def tasks(sender: SlowSender, count: int, seconds: float) -> list[bool]:
    budget = FlushBudget(sender, monotonic_s=lambda: sender.now_s)
    flushed = []
    for _ in range(count):
        sender.work(seconds)
        flushed.append(budget.flush(1.0))
    return flushed


def test_a_backend_that_answers_at_once_is_waited_for_at_the_end_of_every_task():
    sender = SlowSender(0.001)
    assert all(tasks(sender, 40, 0.01))


def test_tasks_shorter_than_a_round_trip_wait_for_a_small_share_of_the_time_and_no_longer():
    sender = SlowSender(0.3)
    tasks(sender, 400, 0.01)
    assert sum(sender.waits_s) <= MAX_SAVED_S + SHARE * (sender.now_s - 100.0) + 1e-9


def test_tasks_that_take_long_wait_for_a_slow_backend_each_time():
    sender = SlowSender(0.3)
    assert all(tasks(sender, 20, 5.0))


def test_a_backend_that_hangs_is_waited_for_once():
    sender = SlowSender(1e9)
    assert not any(tasks(sender, 40, 5.0))
    assert sender.waits_s == [MAX_SAVED_S]


def test_endpoints_that_refuse_are_not_waited_for():
    sender = SlowSender(0.001)
    sender.failing = True
    assert not any(tasks(sender, 3, 0.01))
    assert sender.waits_s == []


def test_the_first_task_after_a_hanging_receiver_has_answered_waits_again():
    with HttpReceiver() as receiver:
        receiver.script = [Reply(hang=True)]
        target = otlp_target({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url})
        sender = Sender(target, resource={}, version="1")
        budget = FlushBudget(sender)
        try:
            sender.submit(started())
            assert not budget.flush(0.05)
            receiver.released.set()
            eventually(lambda: sender.stats()["logs"].delivered)
            sender.submit(started(2))
            assert budget.flush(15)
        finally:
            sender.shutdown(0.5)
