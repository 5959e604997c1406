"""The simulated world keeps the guarantees, and its auditor notices when a part is broken on purpose."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from msgspec.structs import replace

from otelprogress.model.tree import OperationTree
from otelprogress.protocol import client_session, hub, server_subscription
from otelprogress.protocol.client_session import Subscription
from otelprogress.protocol.hub import Hub, Pull
from otelprogress.protocol.journal import Ring
from otelprogress.protocol.messages import Events
from otelprogress.protocol.server_subscription import ServerSubscription

from .auditor import Violation
from .simulation import World

SEEDS = 200
SEEDS_PER_TEST = 25
LONG_SEEDS = 2000


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_PER_TEST))
def test_nothing_is_lost_doubled_or_reordered_under_cuts_restarts_and_expiry(first: int):
    for seed in range(first, first + SEEDS_PER_TEST):
        run(seed)


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_PER_TEST))
def test_nothing_is_lost_doubled_or_reordered_when_a_host_is_killed_and_goes_on(first: int):
    for seed in range(first, first + SEEDS_PER_TEST):
        run(seed, kill=True)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_the_same_for_many_more_seeds():
    for seed in range(SEEDS, SEEDS + LONG_SEEDS):
        run(seed)
        run(seed, kill=True)


def test_the_stories_are_eventful():
    worlds = [World(seed).run() for seed in range(20)]
    gaps = [gap for world in worlds for client in world.clients for gap in client.history.gaps]
    kinds = {event.kind for world in worlds for client in world.clients for event in client.history.seen}
    assert {"expired", "evicted", "epoch"} <= set(gaps)
    assert {"snapshot", "left", "operation.progressed", "operation.ended"} <= kinds


def test_a_killed_host_gives_no_cause_for_a_gap_of_its_own():
    worlds = [run(seed, kill=True) for seed in range(20)]
    assert sum(world.store.starts - 1 for world in worlds if world.store is not None) > 10
    gaps = {gap for world in worlds for client in world.clients for gap in client.history.gaps}
    assert gaps == {"expired", "evicted"}


def run(seed: int, *, kill: bool = False) -> World:
    try:
        return World(seed, kill=kill).run()
    except Exception as error:
        error.add_note(f"seed {seed}: replay with World({seed}, kill={kill}).run()")
        raise


# --- bugs that other systems had, planted one at a time -------------------------------------------------
Plant = Callable[[pytest.MonkeyPatch], None]
PLANTED: dict[str, tuple[Plant, str]] = {}


def planted(expected: str) -> Callable[[Plant], Plant]:
    """Register a bug, and the word by which it has to be noticed."""

    def register(plant: Plant) -> Plant:
        PLANTED[plant.__name__] = (plant, expected)
        return plant

    return register


@planted("never")
def a_bookmark_ahead_of_the_stream(monkeypatch):
    true_cursor = Hub.cursor
    monkeypatch.setattr(
        Hub,
        "cursor",
        lambda self, matcher, position: true_cursor(self, matcher, min(position + 1, self.head)),
    )


@planted("G1")
def duplicates_on_resume(monkeypatch):
    true_unseal = server_subscription.unseal

    def one_back(*args, **kwargs):
        offset = true_unseal(*args, **kwargs)
        return max(0, offset - 1) if isinstance(offset, int) else offset

    monkeypatch.setattr(server_subscription, "unseal", one_back)
    without_deduplication(monkeypatch)


def without_deduplication(monkeypatch):
    def events(self, message: Events):
        self.cursor = message.cursor
        return [client_session.Delivery(self, event, message.cursor) for event in message.events]

    monkeypatch.setattr(Subscription, "_events", events)


@planted("revision")
def revisions_that_begin_again_after_a_restart(monkeypatch):
    true_init = World.__init__
    monkeypatch.setattr(
        World,
        "__init__",
        lambda self, seed, **kwargs: true_init(self, seed, forget_on_restart=True, **kwargs),
    )


@planted("never")
def a_loss_at_the_edge_of_retention(monkeypatch):
    # The position two before the oldest entry passes for one that nothing is missing after.
    monkeypatch.setattr(Ring, "can_resume", lambda self, position: self.first - 2 <= position <= self.head)


@planted("never")
def silence_in_place_of_a_gap(monkeypatch):
    true_open = ServerSubscription._open

    def opened(self, cursor):
        frames = true_open(self, cursor)
        if len(frames) == 2:
            self._joining = False
            self._position = self._hub.head
        return frames[:1]

    monkeypatch.setattr(ServerSubscription, "_open", opened)


@planted("never")
def a_position_read_after_the_state(monkeypatch):
    true_frame = ServerSubscription._snapshot_frame

    def frame(self, now_unix_ns):
        self._position = self._hub.head
        return true_frame(self, now_unix_ns)

    monkeypatch.setattr(ServerSubscription, "_snapshot_frame", frame)


@planted("which left")
def runs_that_leave_without_a_word(monkeypatch):
    true_pull = Hub._pull

    def pull(self, *args, **kwargs):
        pulled = true_pull(self, *args, **kwargs)
        kept = tuple(frame for frame in pulled.frames if not frame.startswith(b'{"type":"left"'))
        return Pull(kept, pulled.position, pulled.passed)

    monkeypatch.setattr(Hub, "_pull", pull)


@planted("G3")
def parents_that_are_forgotten_when_a_child_moves(monkeypatch):
    true_record = Hub._record

    def record(self, applied):
        true_record(self, applied)
        for run in self._runs.values():
            if run.stale:
                run.ticking = run.stale = False

    monkeypatch.setattr(Hub, "_record", record)


@planted("never")
def a_cursor_that_covers_events_still_to_be_handled(monkeypatch):
    true_events = Subscription._events

    def events(self, message):
        return [delivery._replace(cursor=message.cursor) for delivery in true_events(self, message)]

    monkeypatch.setattr(Subscription, "_events", events)


@planted("without cause")
def cursors_of_the_host_before_that_are_taken_for_forged(monkeypatch):
    true_seal = hub.seal
    monkeypatch.setattr(
        hub,
        "seal",
        lambda key, *, epoch, offset, scope: true_seal(key, epoch=epoch, offset=offset, scope=scope + b"!"),
    )
    monkeypatch.setattr(World, "position_of", lambda self, *_: (self.epoch, 0))


@planted("is owed a view")
def events_with_the_view_of_another_moment(monkeypatch):
    true_encode = hub.encode_event
    monkeypatch.setattr(
        hub,
        "encode_event",
        lambda event, limit: true_encode(
            replace(event, operation=replace(event.operation, revision=event.revision + 1)), limit
        ),
    )


@pytest.mark.parametrize("bug", PLANTED)
def test_the_auditor_notices(bug: str, monkeypatch: pytest.MonkeyPatch):
    plant, expected = PLANTED[bug]
    plant(monkeypatch)
    assert any(expected in noticed for noticed in violations(60)), (
        f"60 stories with {bug.replace('_', ' ')}, and nobody noticed"
    )


def revisions_given_twice(monkeypatch):
    true_restore = OperationTree.restore
    monkeypatch.setattr(
        OperationTree,
        "restore",
        lambda self, *args, **kwargs: true_restore(self, *args, revision_stride=0, **kwargs),
    )


def an_old_state_that_readers_are_not_told_of(monkeypatch):
    monkeypatch.setattr(OperationTree, "take_owed", lambda _: set())


def a_log_that_begins_again(monkeypatch):
    monkeypatch.setattr(Hub, "restore_ring", lambda *_: None)


def runs_compared_with_nothing_after_a_restart(monkeypatch):
    true_restore = Hub.restore_ring

    def restore(self, head, entries):
        true_restore(self, head, entries)
        for known in self._runs.values():
            known.facts = None

    monkeypatch.setattr(Hub, "restore_ring", restore)


@pytest.mark.parametrize(
    ("plant", "expected"),
    [
        (revisions_given_twice, "accuses the server"),
        (an_old_state_that_readers_are_not_told_of, "G3"),
        (a_log_that_begins_again, "without cause"),
        (runs_compared_with_nothing_after_a_restart, "never got"),
    ],
)
def test_the_auditor_notices_what_a_killed_host_forgets(plant, expected, monkeypatch: pytest.MonkeyPatch):
    plant(monkeypatch)
    assert any(expected in noticed for noticed in violations(100, kill=True))


def violations(seeds: int, **how: bool) -> Iterator[str]:
    for seed in range(seeds):
        try:
            World(seed, **how).run()
        except Violation as violation:
            yield str(violation)
