"""Which operations a subscription sees: a `Filter` compiled to a predicate.

The authorization predicate (itself a filter) and the tenant come first, then the filter. No regular expression
of a client's is ever run: names are matched by globs in time linear in the name.
"""

from __future__ import annotations

import hashlib
from typing import Final, Protocol

import msgspec

from otelprogress.exceptions import InvalidValue
from otelprogress.model.events import OUTCOMES, OperationView, State
from otelprogress.model.glob import compile_glob
from otelprogress.protocol.messages import Filter

_STATES: Final = frozenset(state.value for state in State)


class Facts(msgspec.Struct, frozen=True, gc=False):
    """What filters look at, of one run. Kept with every event of the log, so it only points to shared strings."""

    id: str
    handle: str
    tenant: str
    name: str
    label: str | None
    service: str
    state: State
    parent_id: str | None
    ancestors: tuple[str, ...]
    """Run ids, nearest first."""
    attributes: dict[str, str | bool | int | float]
    ended_at_unix_ns: int | None

    @property
    def live(self) -> bool:
        """Whether it has no outcome yet."""
        return self.state not in OUTCOMES


def facts_of(view: OperationView, ancestors: tuple[str, ...]) -> Facts:
    """The facts of one view."""
    return Facts(
        view.id,
        view.handle,
        view.tenant,
        view.name,
        view.label,
        view.service,
        view.state,
        view.parent_id,
        ancestors,
        view.attributes,
        view.ended_at_unix_ns,
    )


class Predicate(Protocol):
    """Says whether a run is meant."""

    def __call__(self, facts: Facts, /) -> bool:
        """Whether it is."""


class Matcher:
    """A filter under a tenant and an authorization predicate, ready to ask.

    Attributes:
        key: 16 bytes that are equal for equal (tenant, predicate, filter): cursors and shared frames go by it.
        filter: as it was asked for.
        tenant: whose runs.
        volatile: whether a run can stop matching: by its state, or by its place in the tree.
    """

    def __init__(self, wanted: Filter, *, tenant: str = "", predicate: Filter | None = None) -> None:
        """Compile.

        Raises:
            InvalidValue: a clause that cannot be meant.
        """
        self.filter = wanted
        self.volatile = bool(wanted.state) or wanted.subtree is not None or wanted.only_roots
        self.tenant = tenant
        tests = [*(_tests(predicate, default_roots=False) if predicate is not None else ()), *_tests(wanted)]
        self._tests: tuple[Predicate, ...] = tuple(tests)
        canonical = msgspec.json.encode((tenant, predicate, wanted), order="deterministic")
        self.key = hashlib.blake2b(canonical, digest_size=16).digest()

    def __call__(self, facts: Facts, /) -> bool:
        """Whether the run is of the tenant, authorized and wanted."""
        if facts.tenant != self.tenant:
            return False
        for test in self._tests:  # noqa: SIM110 - a generator costs more than the tests themselves
            if not test(facts):
                return False
        return True


def check(wanted: Filter, *, max_clauses: int) -> None:
    """Refuse a filter that cannot be meant.

    Raises:
        InvalidValue: with what is wrong.
    """
    if wanted.clauses > max_clauses:
        raise InvalidValue(f"a filter has at most {max_clauses} clauses, this one {wanted.clauses}")
    if unknown := set(wanted.state) - _STATES:
        raise InvalidValue(f"no such state: {', '.join(sorted(unknown))}")


def _tests(wanted: Filter, *, default_roots: bool = True) -> list[Predicate]:
    tests: list[Predicate] = []
    if wanted.run:
        runs = frozenset(wanted.run)
        tests.append(lambda facts: facts.id in runs or facts.handle in runs)
    if wanted.trace_id:
        traces = frozenset(wanted.trace_id)
        tests.append(lambda facts: facts.id[:32] in traces)
    if wanted.label:
        labels = frozenset(wanted.label)
        tests.append(lambda facts: facts.label in labels)
    if wanted.service:
        services = frozenset(wanted.service)
        tests.append(lambda facts: facts.service in services)
    if wanted.state:
        states = frozenset(wanted.state)
        tests.append(lambda facts: facts.state in states)
    if (subtree := wanted.subtree) is not None:
        tests.append(lambda facts: facts.id == subtree or subtree in facts.ancestors)
    if wanted.name is not None:
        glob = compile_glob(wanted.name)
        tests.append(lambda facts: glob(facts.name))
    if attributes := wanted.attributes:
        tests.append(
            lambda facts: all(_equal(facts.attributes.get(key), value) for key, value in attributes.items()),
        )
    if wanted.only_roots if default_roots else wanted.roots:
        tests.append(lambda facts: facts.parent_id is None)
    return tests


def _equal(have: object, want: object) -> bool:
    # True == 1 in Python, not in JSON.
    return have == want and isinstance(have, bool) == isinstance(want, bool)
