"""The commands of a host that wait for their effect, and those whose end is known: bounded, and found without a search.

Pure. What is done with them is the business of the `command_desk`.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, OrderedDict
from collections.abc import Iterator
from typing import Final, NamedTuple

from otelprogress.model import semconv
from otelprogress.model.redaction import redacted
from otelprogress.protocol.messages import LinkCommand

GRACE_NS: Final = 2_000_000_000
"""How long after the deadline, or the end of the run, the worker's own word may still take."""
RESEND_NS: Final = 2_000_000_000
"""After so long a worker that is connected, and has not said that it received a command, is sent it again; then after twice
as long, and so on."""
MAX_REMEMBERED: Final = 16_384
"""Ids of commands whose end is known."""

_SPARE: Final = 64
"""Entries of the heap that may be out of date whatever there is."""

Key = tuple[str, str]
"""(tenant, command id)."""


class Pending:
    """A command that was accepted.

    Args:
        command: as its operation's process is told.
        tenant: whose operation it is.
        now_unix_ns: when it was accepted, by the host's clock.
        expires_unix_ns: until when it may take effect.
    """

    __slots__ = (
        "action",
        "actor",
        "command_id",
        "expires_unix_ns",
        "in_force",
        "in_heap_unix_ns",
        "owed",
        "reason",
        "refusal",
        "resend_unix_ns",
        "resent",
        "run_id",
        "settled",
        "tenant",
    )

    def __init__(self, command: LinkCommand, tenant: str, now_unix_ns: int, expires_unix_ns: int) -> None:
        self.command_id = command.command_id
        self.tenant = tenant
        self.run_id = command.run
        self.action = command.action
        self.actor = command.actor
        self.reason = _reason(command)
        self.expires_unix_ns = expires_unix_ns
        self.resend_unix_ns = now_unix_ns + RESEND_NS
        self.resent = 0
        self.refusal = "expired"
        self.owed: dict[tuple[str, str], LinkCommand] = {}
        """What workers, by (writer id, run), have not said that they received."""
        self.settled = False
        """Somebody said that it took effect: the host says nothing of its own, and only brings it to whom it is owed."""
        self.in_force = False
        """The operation itself said so: it has no deadline any more."""
        self.in_heap_unix_ns: int | None = None
        """The earliest time at which `Waiting` looks at it; its own."""

    @property
    def key(self) -> Key:
        """Under which it is known."""
        return self.tenant, self.command_id

    @property
    def due_unix_ns(self) -> int:
        """When something is to be done about it though nobody says anything."""
        over_unix_ns = self.expires_unix_ns + GRACE_NS
        return min(over_unix_ns, self.resend_unix_ns) if self.owed else over_unix_ns


class Waiting:
    """Commands that wait, by id, by run, by tenant, by who asked for them, and by when they are due."""

    def __init__(self) -> None:
        self._by_key: dict[Key, Pending] = {}
        self._by_run: dict[str, dict[Key, Pending]] = {}
        self._by_tenant: dict[str, dict[Key, Pending]] = {}
        self._of_actor: Counter[tuple[str, str]] = Counter()
        self._due: list[tuple[int, int, Pending]] = []
        """A heap of (when, in what order, what); an entry that is no longer its command's earliest is passed over."""
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._by_key)

    def get(self, key: Key) -> Pending | None:
        """The one of that id; `None`: none waits."""
        return self._by_key.get(key)

    def of_run(self, run_id: str) -> list[Pending]:
        """Those of an operation, in order of arrival."""
        return list(self._by_run.get(run_id, {}).values())

    def of_tenant(self, tenant: str) -> list[Pending]:
        """Those of a tenant, in order of arrival."""
        return list(self._by_tenant.get(tenant, {}).values())

    def counts(self, run_id: str, tenant: str, actor: str) -> tuple[int, int, int]:
        """How many wait for an operation, for a tenant, and of one of its actors."""
        return (
            len(self._by_run.get(run_id, ())),
            len(self._by_tenant.get(tenant, ())),
            self._of_actor[tenant, actor],
        )

    def add(self, pending: Pending) -> None:
        """Wait for one more."""
        self._by_key[pending.key] = pending
        self._by_run.setdefault(pending.run_id, {})[pending.key] = pending
        self._by_tenant.setdefault(pending.tenant, {})[pending.key] = pending
        self._of_actor[pending.tenant, pending.actor] += 1
        self.reschedule(pending)

    def drop(self, key: Key) -> None:
        """Wait for that one no more; nothing happens where it does not wait."""
        pending = self._by_key.pop(key, None)
        if pending is None:
            return
        _drop(self._by_run, pending.run_id, key)
        _drop(self._by_tenant, pending.tenant, key)
        actor = pending.tenant, pending.actor
        self._of_actor[actor] -= 1
        if not self._of_actor[actor]:
            del self._of_actor[actor]
        pending.in_heap_unix_ns = None
        if len(self._due) > 2 * len(self._by_key) + _SPARE:
            # What was settled long before its deadline does not stay here until then.
            self._due = [each for each in self._due if each[0] == each[2].in_heap_unix_ns]
            heapq.heapify(self._due)

    def reschedule(self, pending: Pending) -> None:
        """Its `due_unix_ns` may have become earlier; that it became later is noticed by itself."""
        due_unix_ns = pending.due_unix_ns
        if pending.in_heap_unix_ns is None or due_unix_ns < pending.in_heap_unix_ns:
            pending.in_heap_unix_ns = due_unix_ns
            heapq.heappush(self._due, (due_unix_ns, next(self._order), pending))

    def take_due(self, now_unix_ns: int) -> Iterator[Pending]:
        """What is due, the first first; what is still due later, and was not dropped, is looked at again then."""
        while (due_unix_ns := self.next_due_unix_ns()) is not None and due_unix_ns <= now_unix_ns:
            pending = heapq.heappop(self._due)[2]
            pending.in_heap_unix_ns = None
            yield pending
            if self._by_key.get(pending.key) is pending:
                self.reschedule(pending)

    def next_due_unix_ns(self) -> int | None:
        """When the first is due; `None`: none waits."""
        while self._due:
            at_unix_ns, _, pending = self._due[0]
            if at_unix_ns == pending.in_heap_unix_ns:
                if (due_unix_ns := pending.due_unix_ns) == at_unix_ns:
                    return at_unix_ns
                # It became later meanwhile: somebody confirmed it.
                pending.in_heap_unix_ns = due_unix_ns
                heapq.heapreplace(self._due, (due_unix_ns, next(self._order), pending))
            else:
                heapq.heappop(self._due)
        return None


class Known(NamedTuple):
    """A command whose end is known."""

    run_id: str
    word: str
    """For the answer to a duplicate."""
    by_owner: bool = False
    """Whether the operation that was commanded said it itself: not the host, nor one below."""
    action: str = ""
    """What was commanded; empty: not known any more."""


class Remembered:
    """What became of commands: the last ones. Where there are too many it is the tenant with the most that forgets."""

    def __init__(self) -> None:
        self._by_tenant: dict[str, OrderedDict[str, Known]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def get(self, key: Key) -> Known | None:
        """What became of that one; `None`: not known, or not any more."""
        of_tenant = self._by_tenant.get(key[0])
        return None if of_tenant is None else of_tenant.get(key[1])

    def put(self, key: Key, known: Known) -> None:
        """Remember what became of one; the oldest are forgotten for it."""
        tenant, command_id = key
        of_tenant = self._by_tenant.setdefault(tenant, OrderedDict())
        self._count += command_id not in of_tenant
        of_tenant[command_id] = known
        while self._count > MAX_REMEMBERED:
            largest = max(self._by_tenant, key=lambda each: len(self._by_tenant[each]))
            self._by_tenant[largest].popitem(last=False)
            self._count -= 1
            if not self._by_tenant[largest]:
                del self._by_tenant[largest]


def _drop(index: dict[str, dict[Key, Pending]], name: str, key: Key) -> None:
    of_name = index[name]
    del of_name[key]
    if not of_name:
        del index[name]


def _reason(command: LinkCommand) -> str | None:
    reason = command.arguments.get("reason")
    return redacted(reason, semconv.MAX_MESSAGE_CHARS) or None if isinstance(reason, str) else None
