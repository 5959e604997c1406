"""A seeded world: hosts that publish, expire and restart, clients on connections that lag and are cut, virtual time.

One seed is one story; a failure names it. Run more with `python -m tests.protocol.simulation FIRST COUNT`.
"""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from otelprogress.exceptions import RemoteProtocolError
from otelprogress.model import semconv
from otelprogress.model.events import Event, OperationView, State, run_id
from otelprogress.model.tree import Applied, OperationTree
from otelprogress.protocol.cursor import CursorKey, unseal
from otelprogress.protocol.encoding import SERVER_MESSAGES
from otelprogress.protocol.filters import Facts, Matcher
from otelprogress.protocol.hub import Hub
from otelprogress.protocol.journal import Entry, decode_facts, encode_facts
from otelprogress.protocol.messages import Filter, Gap, Level, Limits, SnapshotEnd
from otelprogress.protocol.session import ClientSession, Delivery, Grant, ServerSession, Subscription

from .auditor import Accepted, History, Join, Violation, audit, matches

NS = 10**9
START_NS = 1_800_000_000 * NS
KEY = CursorKey(b"simulation key, 32 bytes long...")
NAMES = ("alpha", "beta", "alpine")
ROUNDS = 400
QUIET_ROUNDS = 4
"""Of a quarter of a second each: longer than the slowest tick interval."""


@dataclass
class Writer:
    """One run, as its process sees it."""

    id: str
    name: str
    parent: str | None
    sequence: int = 0
    completed: float = 0.0
    ended: bool = False


@dataclass
class Connection:
    server: ServerSession
    client: ClientSession
    up: deque[bytes] = field(default_factory=deque)
    down: deque[bytes] = field(default_factory=deque)


class Store:
    """What a host writes down after each thing that happens to it, and finds again once it was killed."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.starts = 0
        self.head = 0
        self.rows: list[tuple[Entry, bytes]] = []
        self.dumps: dict[str, bytes] = {}
        self.ticked: set[str] = set()

    def write(self, hub: Hub) -> None:
        for _, entry in hub.ring.take_unwritten():
            self.rows.append((entry, encode_facts(entry)))
        self.head = hub.head
        changed, ticked = hub.tree.take_changed()
        self.ticked = (self.ticked | set(ticked)) - set(changed)
        if self.rng.random() < 0.05:
            changed += self.ticked
            self.ticked = set()
        for run in changed:
            if (dump := hub.tree.dump(run)) is not None:
                self.dumps[run] = dump
        for run in [run for run in self.dumps if hub.tree.dump(run) is None]:
            del self.dumps[run]

    def read(self, tree: OperationTree, now_ns: int) -> None:
        self.starts += 1
        tree.restore(self.dumps.values(), now_ns, start=self.starts)

    def entries(self, count: int) -> list[Entry]:
        newest: dict[str, Facts] = {}
        return [
            Entry(entry.encoded, entry.revision, *decode_facts(facts, newest), entry.terminal, entry.evicted)
            for entry, facts in self.rows[-count:]
        ]


class Client:
    """One program with one subscription at a time."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.connection: Connection | None = None
        self.done: list[tuple[History, Subscription]] = []
        self.new_subscription()

    def new_subscription(self, cursor: str | None = None) -> None:
        world, rng = self.world, self.world.rng
        if cursor is None:
            self.filter = rng.choice(world.filters())
            self.level: Level = rng.choice(("ticks", "milestones", "terminal"))
        self.subscription = Subscription(
            filter=self.filter,
            level=self.level,
            cursor=cursor,
            max_rate_hz=rng.choice((None, 2.0)),
            window_bytes=rng.choice((0, 1500, 6000, 1 << 20)),
        )
        start = None if cursor is None else world.position_of(cursor, self.filter)
        self.history = History(self.name, self.filter, self.level, start)
        self.saved: str | None = cursor

    def connect(self) -> None:
        if self.connection is None:
            world = self.world
            self.connection = Connection(
                ServerSession(world.hub, authorize=lambda _token: Grant(), now_s=world.now_s),
                ClientSession([self.subscription]),
            )

    def cut(self) -> None:
        """Whatever is on its way, in both directions, is lost."""
        self.connection = None

    def move(self, *, limit: int, budget: int) -> bool:
        """Let up to `limit` frames pass each way."""
        connection = self.connection
        if connection is None:
            return False
        world = self.world
        moved = False
        try:
            connection.up.extend(connection.client.outgoing())
            for _ in range(min(limit, len(connection.up))):
                connection.server.receive(connection.up.popleft(), world.now_s, world.now_ns)
                moved = True
            if len(connection.down) < 4:
                connection.down.extend(
                    connection.server.outgoing(world.now_s, world.now_ns, budget_bytes=budget)
                )
            for _ in range(min(limit, len(connection.down))):
                self._handle(connection, connection.down.popleft())
                moved = True
                if self.connection is not connection:
                    return True
        except RemoteProtocolError as error:
            raise Violation(f"{self.name}: the client accuses the server: {error}") from error
        if connection.server.closed is not None:
            raise Violation(f"{self.name}: closed with {connection.server.closed}")
        return moved

    def _handle(self, connection: Connection, frame: bytes) -> None:
        message = SERVER_MESSAGES.decode(frame)
        gap = self.subscription._gap
        if isinstance(message, SnapshotEnd):
            position = self.world.position_of(message.cursor, self.filter)
            self.history.joins.append(Join(position, gap, message.complete))
        for item in connection.client.receive(frame):
            if isinstance(item, Delivery):
                self.history.seen.append(item.event)
                self.saved = item.cursor
                if self.world.rng.random() < self.world.crashes:
                    # The program dies after this event and begins again where it had saved.
                    self._crash()
                    return
            elif isinstance(item, Gap):
                self.history.gaps.append(item.reason)
                self.world.check_gap(self, item)

    def _crash(self) -> None:
        self.cut()
        if self.saved is None:
            self.history.seen.clear()
            self.history.joins.clear()
            self.history.gaps.clear()
            self.subscription = Subscription(filter=self.filter, level=self.level)
            return
        self.finish()
        self.new_subscription(self.saved)

    def finish(self) -> None:
        """Judge what this callback saw: it need not have seen the newest, but nothing before it may be missing."""
        end = (-1, 0) if self.saved is None else self.world.position_of(self.saved, self.filter)
        audit(self.history, self.world.accepted, end=end)


class World:
    def __init__(
        self,
        seed: int,
        *,
        tree: Callable[[], OperationTree] = OperationTree,
        forget_on_restart: bool = False,
        kill: bool = False,
        crashes: float = 0.01,
        ring_events: int | None = None,
        frame_bytes: int | None = None,
    ) -> None:
        self.rng = random.Random(seed)
        self.now_s = 0.0
        self.crashes = crashes
        self.new_tree = tree
        self.forget_on_restart = forget_on_restart
        self.store = Store(self.rng) if kill else None
        """Of a host that restarts by being killed, and goes on in the same epoch; `None`: the log is lost."""
        self.tree = tree()
        if self.store is not None:
            self.store.read(self.tree, self.now_ns)
        self.ring_events = ring_events or self.rng.choice((8, 30, 1000))
        # Small frames and snapshots, so that everything comes in several parts.
        self.limits = Limits(
            server_frame_bytes=frame_bytes or self.rng.choice((4096, 16_384)), bookmark_filtered=5
        )
        self.epoch = 0
        self.accepted: list[Accepted] = []
        self.writers: list[Writer] = []
        self.last_view: dict[str, OperationView] = {}
        self.last_path: dict[str, tuple[str, ...]] = {}
        self.hub = self._new_hub()
        if kill:
            self.hub.ring.keep_unwritten()
        self.clients = [Client(self, f"client {number}") for number in range(3)]

    @property
    def now_ns(self) -> int:
        return START_NS + int(self.now_s * NS)

    def _new_hub(self) -> Hub:
        return Hub(
            self.tree,
            epoch=f"epoch-{self.epoch}",
            cursor_key=KEY,
            ring_events=self.ring_events,
            limits=self.limits,
        )

    def filters(self) -> list[Filter]:
        some = [Filter(), Filter(roots=False), Filter(state=("running",), roots=False), Filter(name="al*")]
        if self.writers:
            some.append(Filter(subtree=self.writers[0].id))
            some.append(Filter(run=(self.rng.choice(self.writers).id,)))
        return some

    def position_of(self, cursor: str, wanted: Filter) -> tuple[int, int]:
        for epoch in range(self.epoch, -1, -1):
            offset = unseal(KEY, cursor, epoch=f"epoch-{epoch}", scope=Matcher(wanted).key)
            if isinstance(offset, int):
                return epoch, offset
        raise Violation(f"a cursor that no epoch of ours gave: {cursor}")

    def check_gap(self, client: Client, gap: Gap) -> None:
        if gap.reason == "invalid" or (gap.reason == "epoch" and not self.epoch):
            raise Violation(f"G2: a gap for {client.name} without cause: {gap.reason}")
        if gap.reason in ("expired", "evicted"):
            assert gap.from_ is not None
            epoch, offset = self.position_of(gap.from_, client.filter)
            kept_from = self.hub.head - self.ring_events
            if epoch == self.epoch and offset >= kept_from:
                raise Violation(
                    f"G2: {client.name} at {offset} was within retention ({kept_from}), yet got a gap"
                )

    # --- what happens --------------------------------------------------------------------------------
    def publish(self, event: Event) -> None:
        self._note(self.hub.publish(event, self.now_ns), self.hub.head, {})
        if self.store is not None:
            self.store.write(self.hub)

    def _note(self, applied: list[Applied], head: int, paths: dict[str, tuple[str, ...]]) -> None:
        durable = [item.event for item in applied if item.durable]
        for offset, event in enumerate(durable, head - len(durable) + 1):
            run = event.operation.id
            path = paths[run] if run in paths else tuple(self.tree.ancestors(run))
            self.accepted.append(Accepted((self.epoch, offset), event, self.last_view.get(run), path))
            self.last_view[run] = event.operation
            self.last_path[run] = path

    def start(self) -> None:
        number = len(self.writers) + 1
        live = [writer for writer in self.writers if not writer.ended]
        parent = self.rng.choice(live) if live and self.rng.random() < 0.6 else None
        trace = int(parent.id[:32], 16) if parent is not None else number
        writer = Writer(
            run_id(trace, number), self.rng.choice(NAMES), parent.id if parent is not None else None
        )
        self.writers.append(writer)
        self.say(
            writer,
            semconv.OPERATION_STARTED,
            name=writer.name,
            parent_span_id=writer.parent[33:] if writer.parent is not None else "",
            start_unix_ns=self.now_ns,
            state=State.RUNNING,
        )

    def say(self, writer: Writer, kind: str, **fields: object) -> None:
        durable = kind in semconv.DURABLE_EVENTS
        writer.sequence += durable
        self.publish(
            Event(
                kind=kind,
                run_id=writer.id,
                time_unix_ns=self.now_ns,
                writer_id="w",
                sequence=writer.sequence if durable else None,
                **fields,  # type: ignore[arg-type]  # fields of Event
            )
        )

    def work(self) -> None:
        live = [writer for writer in self.writers if not writer.ended]
        if not live or (len(live) < 12 and self.rng.random() < 0.15):
            self.start()
            return
        writer = self.rng.choice(live)
        dice = self.rng.random()
        if dice < 0.55:
            writer.completed += self.rng.randrange(1, 9)
            self.say(writer, semconv.OPERATION_PROGRESSED, completed=writer.completed, total=1000.0)
        elif dice < 0.75:
            self.say(writer, semconv.OPERATION_NOTED, message="x" * self.rng.randrange(1, 300))
        elif dice < 0.85:
            self.say(
                writer, semconv.OPERATION_STATE_CHANGED, state=self.rng.choice((State.WAITING, State.RUNNING))
            )
        else:
            writer.ended = True
            self.say(writer, semconv.OPERATION_ENDED, state=self.rng.choice((State.SUCCEEDED, State.FAILED)))

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        head = self.hub.head
        # Where runs are before time passes: it also makes the tree forget some.
        paths = {run: tuple(self.tree.ancestors(run)) for run in self.tree.run_ids()}
        applied = self.hub.advance(self.now_ns)
        self._note(applied, head + sum(item.durable for item in applied), paths)
        if self.store is not None:
            self.store.write(self.hub)

    def restart(self) -> None:
        """The log is lost; the state was stored, unless this world forgets. A killed host has what it wrote."""
        for client in self.clients:
            client.cut()
        if self.store is not None:
            self.tree = self.new_tree()
            self.store.read(self.tree, self.now_ns)
            self.hub = self._new_hub()
            self.hub.restore_ring(self.store.head, self.store.entries(self.ring_events))
            self.hub.ring.keep_unwritten()
            return
        self.epoch += 1
        if self.forget_on_restart:
            self.tree = self.new_tree()
            for writer in self.writers:
                writer.sequence = 0
        self.hub = self._new_hub()

    def run(self, steps: int = 300) -> World:
        rng = self.rng
        for _ in range(steps):
            dice = rng.random()
            client = rng.choice(self.clients)
            if dice < 0.45:
                self.work()
            elif dice < 0.60:
                self.pass_time(rng.choice((0.01, 0.1, 0.6, 3.0, 11.0)))
            elif dice < 0.90:
                client.connect()
                client.move(limit=rng.choice((1, 2, 50)), budget=rng.choice((1, 2000, 1 << 20)))
            elif dice < 0.95:
                client.cut()
            elif dice < 0.965:
                client.finish()
                client.cut()
                client.new_subscription()
            elif dice < 0.972:
                self.restart()
            elif dice < 0.976:
                self.pass_time(650.0)
        self.settle()
        return self

    def settle(self) -> None:
        """No more cuts: everybody gets what they are owed, and is judged."""
        self.crashes = 0.0
        for client in self.clients:
            client.connect()
        quiet = 0
        for _ in range(ROUNDS):
            moved = [client.move(limit=1000, budget=1 << 20) for client in self.clients]
            self.now_s += 0.25
            quiet = 0 if any(moved) else quiet + 1
            if quiet == QUIET_ROUNDS:
                break
        else:
            raise Violation("the feed does not come to rest")
        for client in self.clients:
            audit(client.history, self.accepted, end=(self.epoch, self.hub.head))
            self._converged(client)

    def _converged(self, client: Client) -> None:
        """G3, and the truth of what a client holds: the newest state of exactly what matches."""
        shown = {view.id: view for view in client.subscription.operations}
        for run in self.hub.tree.run_ids():
            view = self.hub.view(run, self.now_ns)
            assert view is not None
            path = tuple(self.tree.ancestors(run))
            if path != self.last_path[run]:
                # Its ended parent was forgotten: it keeps its place for those who watch it.
                continue
            if not matches(view, path, client.filter):
                if run in shown and client.level != "terminal":
                    raise Violation(f"{client.name} still holds {run}, which left")
                continue
            if client.level != "ticks" or (not view.live and run not in shown):
                continue
            if run not in shown and client.history.start is not None:
                # It went on from a saved cursor and was never told what did not change since.
                continue
            if run not in shown:
                raise Violation(f"G3: {client.name} does not know {run}")
            have = shown[run]
            if _said(have) != _said(view):
                raise Violation(
                    f"G3: {client.name} holds revision {have.revision} of {run}, not {view.revision}"
                )


def _said(view: OperationView) -> tuple[object, ...]:
    """What of a view does not move with the clock."""
    return view.revision, view.state, view.step and view.step.completed, view.children, view.stalled


def main(first: int, count: int) -> None:
    for seed in range(first, first + count):
        try:
            World(seed).run()
        except Exception:
            print(f"seed {seed}", file=sys.stderr)
            raise


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:3]))
