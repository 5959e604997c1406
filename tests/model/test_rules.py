from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelprogress.exceptions import InvalidValue
from otelprogress.model.rules import RuleSet, SpanFacts, SpanRule, parse_rules


def test_a_span_matches_by_every_clause_that_is_said() -> None:
    rule = SpanRule(
        "import *",
        scope="app.*",
        kind="internal",
        attributes={"team": "data*", "n": 3, "ok": True},
        root_only=True,
    )
    fitting = {
        "name": "import flights",
        "scope": "app.etl",
        "root": True,
        "attributes": {"team": "data-1", "n": 3, "ok": True},
    }
    assert rule.matches(SpanFacts(**fitting))
    for change in (
        {"name": "export"},
        {"scope": "lib"},
        {"kind": "server"},
        {"root": False},
        {"attributes": {}},
        {"attributes": {"team": "web", "n": 3, "ok": True}},
        {"attributes": {"team": "data", "n": 3, "ok": 1}},
    ):
        assert not rule.matches(SpanFacts(**(fitting | change)))


def test_the_first_rule_that_matches_counts() -> None:
    first, second = SpanRule("import *", root_only=True), SpanRule("*")
    rules = RuleSet([first, second])
    assert rules.match(SpanFacts(name="import x", root=True)) is first
    assert rules.match(SpanFacts(name="import x")) is second
    assert RuleSet([first]).match(SpanFacts(name="other", root=True)) is None
    assert RuleSet().match(SpanFacts(name="x")) is None


def test_a_name_that_no_rule_wants_is_known_at_one_look() -> None:
    rules = RuleSet([SpanRule("import *")])
    assert rules.candidates("GET /") == ()
    assert rules.candidates("GET /") is rules.candidates("GET /")
    for n in range(10_000):
        rules.candidates(f"GET /{n}")
    assert len(rules._by_name) <= 4096


def test_spans_of_ours_and_of_the_mcp_sdk_are_left_out_unless_named() -> None:
    assert not SpanRule("*").matches(SpanFacts(name="x", scope="otelprogress"))
    assert not SpanRule("*", scope="otelprogress").matches(SpanFacts(name="x", scope="otelprogress"))
    assert not SpanRule("*", scope="mcp*").matches(SpanFacts(name="x", scope="mcp-python-sdk"))
    assert SpanRule("*", scope="mcp-python-sdk").matches(SpanFacts(name="x", scope="mcp-python-sdk"))


def test_a_title_is_filled_from_the_span() -> None:
    rule = SpanRule(title="{name} of {db.table}: {missing} {}")
    assert (
        rule.title_of(SpanFacts(name="load", attributes={"db.table": "flights"})) == "load of flights: ? {}"
    )
    assert SpanRule().title_of(SpanFacts(name="load")) is None


def test_rules_are_read_from_text() -> None:
    assert parse_rules(
        "name=import *;root_only;children=steps | name=job\\|a; scope=x.* ;kind=SERVER;attr.db.x=a=b;title=t {name}"
    ) == (
        SpanRule("import *", root_only=True, children="steps"),
        SpanRule("job|a", scope="x.*", kind="server", attributes={"db.x": "a=b"}, title="t {name}"),
    )
    assert parse_rules("") == parse_rules(" | ;") == ()
    assert parse_rules("root_only") == (SpanRule("*", root_only=True),)
    assert parse_rules(r"name=a\;b\\") == (SpanRule(r"a;b" + "\\"),)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name=", "rule 1: 'name=' needs a value"),
        ("name", "rule 1: 'name' needs a value"),
        ("name=a|nmae=b", "rule 2: unknown clause 'nmae=b'; known are name="),
        ("name=a;name=b", "rule 1: 'name' is said twice"),
        ("attr.a=1;attr.a=2", "said twice"),
        ("root_only=yes", "'root_only' takes no value"),
        ("kind=foo", "rule 1: kind must be one of internal, server"),
        ("children=step", "rule 1: children must be one of steps, operations, ignore, not 'step'"),
        ("attr.=x", "unknown clause"),
    ],
)
def test_a_mistake_in_a_rule_is_named(text: str, complaint: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        parse_rules(text)
    assert complaint in str(caught.value)


@given(st.text(max_size=80))
def test_any_text_is_rules_or_a_named_mistake(text: str) -> None:
    with contextlib.suppress(InvalidValue):
        assert isinstance(parse_rules(text), tuple)


def test_a_rule_shows_how_it_was_written() -> None:
    rule = SpanRule("a*", scope="s", attributes={"k": "v"}, root_only=True, children="steps", title="t")
    assert eval(repr(rule)) == rule
    assert hash(eval(repr(rule))) == hash(rule)
    assert repr(SpanRule()) == "SpanRule('*')"
