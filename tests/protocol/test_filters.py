"""Which runs a filter means."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelprogress.exceptions import InvalidValue
from otelprogress.model.events import State
from otelprogress.protocol.filters import Facts, Matcher, check
from otelprogress.protocol.messages import Filter

RUN = "0" * 31 + "1-" + "0" * 15 + "2"
PARENT = "0" * 31 + "1-" + "0" * 15 + "1"
FACTS = Facts(
    RUN,
    "load-1",
    "",
    "nightly load",
    "job-7",
    "etl",
    State.RUNNING,
    None,
    (),
    {"day": "monday", "rows": 1},
    None,
)
CHILD = msgspec.structs.replace(FACTS, parent_id=PARENT, ancestors=(PARENT, "root"))


def meant(facts: Facts = FACTS, **clauses) -> bool:
    return Matcher(Filter(**clauses))(facts)


@pytest.mark.parametrize(
    "clauses",
    [
        {},
        {"run": (RUN,)},
        {"run": ("load-1", "other")},
        {"label": ("job-7",)},
        {"trace_id": (RUN[:32],)},
        {"service": ("etl", "api")},
        {"name": "night*"},
        {"name": "*l??d"},
        {"name": "nightly load"},
        {"attributes": {"day": "monday"}},
        {"attributes": {"rows": 1.0}},
        {"state": ("running", "waiting")},
        {"subtree": RUN},
        {"roots": True},
    ],
)
def test_what_a_clause_means(clauses):
    assert meant(**clauses)


@pytest.mark.parametrize(
    "clauses",
    [
        {"run": ("load",)},
        {"label": ("job",)},
        {"trace_id": ("1",)},
        {"service": ("api",)},
        {"name": "night"},
        {"name": "Night*"},
        {"attributes": {"day": "tuesday"}},
        {"attributes": {"rows": True}},
        {"attributes": {"other": 1}},
        {"state": ("failed",)},
        {"subtree": PARENT},
        {"name": "night*", "service": ("api",)},
    ],
)
def test_what_it_does_not_mean(clauses):
    assert not meant(**clauses)


def test_roots_are_meant_unless_something_narrower_is_asked_for():
    assert not meant(CHILD)
    assert not meant(CHILD, service=("etl",))
    assert meant(CHILD, roots=False)
    for narrower in ({"run": (RUN,)}, {"label": ("job-7",)}, {"name": "*"}, {"subtree": "root"}):
        assert meant(CHILD, **narrower)
        assert not meant(CHILD, **narrower, roots=True)


def test_another_tenant_is_never_meant():
    other = msgspec.structs.replace(FACTS, tenant="acme")
    assert not meant(other)
    assert Matcher(Filter(), tenant="acme")(other)
    assert not Matcher(Filter(run=(RUN,)), tenant="acme")(FACTS)


def test_the_authorization_comes_before_the_filter_and_does_not_ask_for_roots():
    only_api = Filter(service=("api",))
    assert not Matcher(Filter(run=(RUN,)), predicate=only_api)(FACTS)
    assert Matcher(Filter(roots=False), predicate=Filter(service=("etl",)))(CHILD)


def test_equal_filters_have_equal_keys_and_others_have_others():
    def key(wanted: Filter, **how) -> bytes:
        return Matcher(wanted, **how).key

    assert key(Filter(attributes={"a": 1, "b": 2})) == key(Filter(attributes={"b": 2, "a": 1}))
    keys = [
        key(Filter()),
        key(Filter(name="a")),
        key(Filter(label=("a",))),
        key(Filter(), tenant="a"),
        key(Filter(), predicate=Filter(name="a")),
        key(Filter(name="a"), predicate=Filter(name="a")),
    ]
    assert len(set(keys)) == len(keys)


def test_too_many_clauses_and_unknown_states_are_refused():
    check(Filter(run=tuple("abcdefgh"), service=tuple("abcdefg"), name="x"), max_clauses=16)
    with pytest.raises(InvalidValue, match="at most 16"):
        check(Filter(run=tuple("abcdefghijklmnopq")), max_clauses=16)
    with pytest.raises(InvalidValue, match="no such state: done"):
        check(Filter(state=("done",)), max_clauses=16)


def test_a_clause_that_is_not_known_is_refused_and_not_ignored():
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"nmae": "x"}', type=Filter)


@given(st.text(alphabet="ab?", max_size=8), st.text(alphabet="ab", max_size=12))
def test_a_name_is_matched_as_a_whole(pattern: str, name: str):
    import re

    expected = re.fullmatch(pattern.replace("?", "."), name) is not None
    assert meant(msgspec.structs.replace(FACTS, name=name), name=pattern) is expected
