"""Which durations are kept, and what follows from them."""

from __future__ import annotations

import statistics

from hypothesis import given
from hypothesis import strategies as st

from otelprogress_collector.store.durations import KEPT_DURATIONS, Took, baseline_of, by_key, merged
from tests.collector.store.rows import took

some = st.lists(st.builds(Took, st.integers(0, 1_000), st.floats(0, 1e6)), max_size=150)


@given(batches=st.lists(some, max_size=4))
def test_the_newest_are_kept_in_whatever_batches_they_come(batches):
    kept: list[Took] = []
    for batch in batches:
        kept = merged(kept, batch)
    everything = sorted(one for batch in batches for one in batch)
    assert kept == everything[-KEPT_DURATIONS:]


@given(kept=some)
def test_a_baseline_lies_between_the_extremes_and_in_order(kept):
    baseline = baseline_of(kept)
    durations = [one.duration_s for one in kept]
    if len(kept) < 3:
        assert baseline is None
        return
    assert min(durations) <= baseline.low_s <= baseline.median_s <= baseline.high_s <= max(durations)
    assert baseline.median_s == statistics.median(durations)


def test_only_what_succeeded_counts():
    outcomes = ["succeeded", "failed", "cancelled", "lost", ""]
    found = by_key(took(number, number, outcome=outcome) for number, outcome in enumerate(outcomes))
    assert found == {("", "load", ""): [Took(0, 0.0)]}
