"""docs/guarantees.md names tests that are there, and bounds that the code has."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from otelprogress.feed.connection import ServerLimits
from otelprogress.feed.host import Host
from otelprogress.otel import sender
from otelprogress.protocol.hub import Hub

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "guarantees.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[^`]*)`", PAGE)))


@pytest.mark.parametrize("named", NAMED)
def test_a_test_that_the_page_names_is_there(named: str):
    path, _, function = named.partition("::")
    assert path.endswith(".py"), "a folder refutes nothing"
    tree = ast.parse((ROOT / path).read_text())
    functions = {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert not function or function in functions


def test_each_guarantee_and_each_bound_says_what_refutes_it():
    rows = [line for line in PAGE.splitlines() if re.match(r"\| (?!where |\||---)\S", line)]
    assert len(rows) > 10
    for row in rows:
        assert "`tests/" in row.rsplit("|", 2)[1], row


def test_the_bounds_are_those_of_the_code():
    queue = Host.__init__.__kwdefaults__["max_pending"]
    ring = Hub.__init__.__kwdefaults__["ring_events"]
    for row in (
        f"| host queue | {queue:,} events |",
        f"| ring of durable events | {ring:,} |",
        f"| clients of one process | {ServerLimits().max_feed_clients} |",
        f"| what waits for an endpoint | {sender._MAX_DURABLE:,} durable events, {sender._MAX_SPANS:,} spans |",
    ):
        assert row in PAGE
