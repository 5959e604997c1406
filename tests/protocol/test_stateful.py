"""Hypothesis chooses what happens, and shrinks the story when a guarantee breaks."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from otelprogress.model import semconv
from otelprogress.model.events import State

from .auditor import audit
from .simulation import Client, World


class Feed(RuleBasedStateMachine):
    """The world of the simulation, but with every decision made by hypothesis."""

    @initialize(
        ring=st.sampled_from((3, 8, 1000)),
        frame_bytes=st.sampled_from((4096, 16_384)),
        seed=st.integers(0, 999),
    )
    def open(self, ring: int, frame_bytes: int, seed: int) -> None:
        self.world = World(seed, crashes=0.0, ring_events=ring, frame_bytes=frame_bytes)

    def client(self, number: int) -> Client:
        return self.world.clients[number]

    # --- writers
    @rule()
    def an_operation_starts(self) -> None:
        if len(self.world.writers) < 20:
            self.world.start()

    @rule(
        pick=st.integers(0, 19),
        kind=st.sampled_from(("tick", "note", "state", "end")),
        times=st.integers(1, 6),
    )
    def an_operation_speaks(self, pick: int, kind: str, times: int) -> None:
        live = [writer for writer in self.world.writers if not writer.ended]
        if not live:
            return
        writer = live[pick % len(live)]
        if kind == "end":
            writer.ended = True
            self.world.say(writer, semconv.OPERATION_ENDED, state=State.FAILED)
            return
        for _ in range(times):
            if kind == "tick":
                writer.completed += 1
                self.world.say(writer, semconv.OPERATION_PROGRESSED, completed=writer.completed, total=1000.0)
            elif kind == "note":
                self.world.say(writer, semconv.OPERATION_NOTED, message="x" * 200)
            else:
                self.world.say(writer, semconv.OPERATION_STATE_CHANGED, state=State.WAITING)

    # --- clients
    @rule(
        number=st.integers(0, 2),
        limit=st.sampled_from((1, 2, 3, 50)),
        budget=st.sampled_from((1, 3000, 1 << 20)),
    )
    def frames_move(self, number: int, limit: int, budget: int) -> None:
        self.client(number).connect()
        self.client(number).move(limit=limit, budget=budget)

    @rule(number=st.integers(0, 2))
    def a_connection_is_cut(self, number: int) -> None:
        self.client(number).cut()

    @rule(number=st.integers(0, 2))
    def a_client_changes_its_filter(self, number: int) -> None:
        client = self.client(number)
        client.finish()
        client.cut()
        client.new_subscription()

    @rule(number=st.integers(0, 2))
    def a_client_dies_and_goes_on_where_it_had_saved(self, number: int) -> None:
        self.client(number)._crash()

    # --- the host
    @rule(seconds=st.sampled_from((0.01, 0.3, 2.0, 11.0, 700.0)))
    def time_passes(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule()
    def the_host_restarts_under_a_new_epoch(self) -> None:
        self.world.restart()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.settle()
            for client in self.world.clients:
                audit(client.history, self.world.accepted, end=(self.world.epoch, self.world.hub.head))


TestFeed = Feed.TestCase
TestFeed.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
