"""Query strings to filters: what is not understood is refused, it would widen what is sent."""

from __future__ import annotations

import contextlib
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelprogress.protocol.messages import Filter
from otelprogress_collector.api.problem import Problem
from otelprogress_collector.api.query import ListParameters, StreamParameters, ViewParameters, read_query


def read(query: str, beside=ListParameters, max_clauses: int | None = 16):
    return read_query(query.encode(), beside, max_clauses=max_clauses)


def refused(query: str, beside=ListParameters, max_clauses: int | None = 16) -> str:
    with pytest.raises(Problem) as refusal:
        read(query, beside, max_clauses)
    assert refusal.value.status == 400
    return refusal.value.detail


def test_no_query_is_the_default_filter():
    assert read("") == (Filter(), ListParameters())


def test_every_clause_of_a_filter_has_a_name_in_a_query():
    query = urlencode(
        [
            ("run", "load-1"),
            ("run", "load-2"),
            ("label", "job-7"),
            ("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736"),
            ("service", "etl"),
            ("name", "nightly*"),
            ("attributes", '{"region":"eu","shard":3,"dry":false}'),
            ("state", "running"),
            ("subtree", "x"),
            ("roots", "false"),
            ("ended_within_s", "1.5"),
            ("limit", "7"),
            ("after", "y"),
        ]
    )
    wanted, _ = read(query)
    assert wanted == Filter(
        run=("load-1", "load-2"),
        label=("job-7",),
        trace_id=("4bf92f3577b34da6a3ce929d0e0e4736",),
        service=("etl",),
        name="nightly*",
        attributes={"region": "eu", "shard": 3, "dry": False},
        state=("running",),
        subtree="x",
        roots=False,
        ended_within_s=1.5,
        limit=7,
        after="y",
    )
    assert {name for name in Filter.__struct_fields__ if f"{name}=" in query} == set(Filter.__struct_fields__)


def test_what_stands_beside_a_filter_is_read_apart():
    wanted, asked = read("level=ticks&max_rate_hz=2.5&cursor=abc&name=a", StreamParameters)
    assert (wanted.name, asked) == ("a", StreamParameters(level="ticks", max_rate_hz=2.5, cursor="abc"))
    _, view = read("after=7&wait=1", ViewParameters, None)
    assert view == ViewParameters(after=7, wait=1.0)


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("nmae=x", "no parameter 'nmae'"),
        ("level=ticks", "no parameter 'level'"),
        ("name=a&name=b", "name is given twice"),
        ("limit=0", "limit"),
        ("limit=many", "limit"),
        ("roots=perhaps", "roots"),
        ("ended_within_s=-1", "ended_within_s"),
        ("ended_within_s=NaN", "ended_within_s"),
        ("ended_within_s=inf", "ended_within_s"),
        ("state=done", "no such state: done"),
        ("attributes=region", "attributes is a JSON object"),
        ("attributes=[1]", "attributes"),
        ('attributes={"a":{"b":1}}', "attributes"),
        ("attributes=" + "[" * 3_000, "attributes"),
        ("name=" + "x" * 257, "name"),
        ("&".join(f"run=r{number}" for number in range(17)), "at most 16 clauses"),
        ("&".join(f"run=r{number}" for number in range(100)), "at most 64 parameters"),
        ("name=%ff", "UTF-8"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_is_wrong(query: str, why: str):
    assert why in refused(query)


def test_where_no_filter_is_taken_its_clauses_are_unknown():
    assert "no parameter 'name'" in refused("name=x", ViewParameters, None)


@pytest.mark.parametrize("rate", ["0", "-1", "NaN", "inf", "0.0001", "fast"])
def test_a_rate_that_is_none_is_refused(rate: str):
    assert "max_rate_hz" in refused(f"max_rate_hz={rate}", StreamParameters)


@given(st.binary(max_size=300))
def test_whatever_stands_in_a_query_is_a_filter_or_a_problem(query: bytes):
    # Anything but a `Problem` would be a failure of ours.
    with contextlib.suppress(Problem):
        wanted, _ = read_query(query, StreamParameters, max_clauses=16)
        assert wanted.clauses <= 16
