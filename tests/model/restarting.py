"""A host for tests that writes its runs down as a collector does, and may be killed between two events."""

from __future__ import annotations

import random
from collections.abc import Callable

from otelprogress.model import semconv
from otelprogress.model.applied import Applied
from otelprogress.model.events import OUTCOMES, Event, State, StepState
from otelprogress.model.tree import OperationTree, TreeLimits
from tests.model.saying import T0, S, Saying, SpanOf

STRIDE = 1 << 20
LIMITS = TreeLimits(keep_ended_s=6.0, span_end_grace_s=2.03, reorder_window_s=0.77, foreign_notes_burst=3.0)

Act = Callable[[OperationTree, int], list[Applied]]
"""Something that happens to a tree at a time."""


class Numbers:
    """Numbers of handles, as a store keeps them."""

    def __init__(self, given: dict[str, int] | None = None) -> None:
        self.given = dict(given or {})

    def __call__(self, front: str) -> int:
        self.given[front] = self.given.get(front, 0) + 1
        return self.given[front]


class RecordingHost:
    """A tree whose changed runs are dumped after everything that happens.

    Args:
        ticks_too: whether what only ticks changed is dumped as well. A collector does that now and then.
    """

    def __init__(self, *, ticks_too: bool) -> None:
        self.ticks_too = ticks_too
        self.numbers = Numbers()
        self.tree = OperationTree(next_number=self.numbers, limits=LIMITS)
        self.tree.track_changes()
        self.dumps: dict[str, bytes] = {}
        self.gone: dict[str, int | None] = {}

    def do(self, act: Act, now_ns: int) -> list[Applied]:
        applied = act(self.tree, now_ns)
        lost = {run for run in self.dumps if run not in self.tree._runs and self.tree.evicted_revision(run)}
        for run_id in [run_id for run_id in self.dumps if run_id not in self.tree._runs]:
            del self.dumps[run_id]
            self.gone[run_id] = self.tree.evicted_revision(run_id) if run_id in lost else None
        changed, ticked = self.tree.take_changed()
        for run_id in changed + (ticked if self.ticks_too else []):
            dump = self.tree.dump(run_id)
            assert dump is not None, "an evicted run is no changed one"
            self.dumps[run_id] = dump
        return applied

    def killed_and_restored(self, now_ns: int, **how: object) -> OperationTree:
        """Another tree, made of what this one wrote down."""
        tree = OperationTree(next_number=Numbers(self.numbers.given), limits=LIMITS)
        how.setdefault("start", 1)
        how.setdefault("quiet_s", 0.0)
        tree.restore(self.dumps.values(), now_ns, revision_stride=STRIDE, **how)  # type: ignore[arg-type]
        for run_id, lost_revision in self.gone.items():
            tree.remember_evicted(run_id, lost_revision)
        return tree


def happenings(seed: int, count: int = 80) -> list[tuple[int, Act]]:
    """What happens to twelve runs of three writers, within 25 s: everything in order and out of it."""
    rng = random.Random(seed)
    sayings = {
        n: Saying(n, writer=f"w{n % 3}", parent=n // 2 or None, name=f"job {n % 4}") for n in range(1, 13)
    }
    explicit = {n: rng.choice([2.0, 3.5, None]) for n in sayings}
    at = 0.0
    held_back: list[Event] = []
    said: list[Event] = []
    acts: list[tuple[int, Act]] = []

    def happen(act: Act) -> None:
        acts.append((T0 + round(at * S), act))

    def hear(event: Event) -> None:
        said.append(event)
        # A limit of silence that comes late counts late: the tree looks when it first meant to, a new one at once.
        if event.stall_after_s is None and rng.random() < 0.1:
            held_back.append(event)
        else:
            happen(lambda tree, now_ns: tree.apply(event, now_ns))

    for _ in range(count):
        at += rng.choice([0.15, 0.15, 0.31, 0.31, 0.9 if at < 20 else 0.16])
        saying = sayings[n := rng.randint(1, 12)]
        dice = rng.random()
        if saying.sequence == 0 and dice < 0.20:
            for event in SpanOf(saying).whole(at):
                hear(event)
        elif saying.sequence == 0 and dice < 0.85:
            steps = rng.choice([None, None, ("a", "b"), tuple("abcdefghijkl")])
            hear(
                saying.started(
                    at,
                    steps=steps,
                    label=rng.choice([None, "x"]),
                    stall_after_s=explicit[n],
                    weight=rng.choice([None, 2.0]),
                    expected_children=rng.choice([None, None, 3]),
                    attributes=rng.choice([None, {"team": "data", "n": 1}]),
                    lease_s=rng.choice([None, 30.0]),
                )
            )
        elif dice < 0.30:
            hear(
                saying.tick(
                    at,
                    float(rng.randint(0, 20)),
                    rng.choice([None, 20.0]),
                    step_name=rng.choice([None, "a", "b"]),
                    unit=rng.choice([None, "{row}"]),
                    state=rng.choice([None, None, State.RUNNING, State.WAITING]),
                )
            )
        elif dice < 0.42:
            hear(saying.step(rng.choice("abcd"), at, total=10.0, counters={"bad": float(rng.randint(0, 9))}))
        elif dice < 0.50:
            hear(
                saying.step_ended(rng.choice("abcd"), at, rng.choice([StepState.SUCCEEDED, StepState.FAILED]))
            )
        elif dice < 0.55:
            hear(saying.state(rng.choice([State.RUNNING, State.WAITING, State.PAUSED]), at))
        elif dice < 0.60:
            hear(saying.note("hm", at, level=rng.choice([None, "warning"])))
        elif dice < 0.65:
            for _ in range(rng.randint(1, 5)):
                at += 0.01
                hear(saying.foreign(f"at {at}", at))
        elif dice < 0.69:
            hear(saying.lost(at))
        elif dice < 0.77:
            hear(
                saying.ended(at, rng.choice(sorted(OUTCOMES - {State.LOST})), result=rng.choice([None, "1"]))
            )
        elif dice < 0.80:
            for event in rng.choice([SpanOf(saying).whole(at), [SpanOf(saying).ended(at)]]):
                hear(event)
        elif dice < 0.83:
            hear(
                saying.event(semconv.INPUT_REQUESTED, at, input_id="i", input_prompt="?", state=State.WAITING)
            )
        elif dice < 0.86:
            alive = Event(
                kind=semconv.WRITER_ALIVE,
                run_id="",
                time_unix_ns=T0 + round(at * S),
                writer_id=saying.writer,
                lease_s=rng.choice([None, 20.0, 40.0]),
            )
            happen(lambda tree, now_ns, alive=alive: tree.apply(alive, now_ns))
        elif dice < 0.90 and held_back:
            late = held_back.pop(rng.randrange(len(held_back)))
            happen(lambda tree, now_ns, late=late: tree.apply(late, now_ns))
        elif dice < 0.94 and said:
            again = rng.choice(said)
            happen(lambda tree, now_ns, again=again: tree.apply(again, now_ns))
        else:
            at += 0.02
            happen(lambda tree, now_ns: [tree.evict(now_ns), []][1])
        at += 0.005
        happen(lambda tree, now_ns: tree.advance(now_ns))
    return acts
