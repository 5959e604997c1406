from __future__ import annotations

import pytest

from otelprogress_collector.auth.principal import Principal, is_tenant


def test_services_are_a_predicate_in_one_order_however_they_were_listed():
    one, other = (
        Principal(actor="a", scopes=frozenset(), services=names) for names in (("x", "y"), ("y", "x", "y"))
    )
    assert one.predicate == other.predicate
    assert one.predicate is not None
    assert one.predicate.service == ("x", "y")
    assert not one.predicate.only_roots


def test_without_services_there_is_no_predicate():
    assert Principal(actor="a", scopes=frozenset()).predicate is None


@pytest.mark.parametrize("text", ["acme", "a", "ac me", "Ünïcode", "x" * 128])
def test_a_tenant_is_a_printable_text(text):
    assert is_tenant(text)


@pytest.mark.parametrize("text", ["", " acme", "acme\n", "ac\x00me", "\u202eacme", "x" * 129, "\ud800"])
def test_what_could_be_read_in_two_ways_is_no_tenant(text):
    assert not is_tenant(text)
