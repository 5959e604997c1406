from __future__ import annotations

import msgspec
import pytest

from otelprogress.exceptions import AmbiguousOperation, UnknownOperation
from otelprogress.model.tree import OperationTree
from tests.model.saying import T0, S, Saying, run_id


@pytest.fixture
def tree() -> OperationTree:
    tree = OperationTree()
    for number, (name, label) in enumerate(
        (("nightly load", "job-7"), ("Nightly Load", None), ("re-index", "job-8"), ("re-index", "job-8")),
        start=1,
    ):
        tree.apply(Saying(number, name=name).started(number, label=label), T0 + number * S)
    return tree


def test_handles_count_per_slug(tree):
    handles = [tree.view(run, T0).handle for run in tree.run_ids()]
    assert handles == ["nightly_load-1", "nightly_load-2", "re-index-1", "re-index-2"]


def test_numbers_may_come_from_a_history():
    numbers = iter((7, 7, 9))
    tree = OperationTree(next_number=lambda _slug: next(numbers))
    for number in (1, 2):
        tree.apply(Saying(number).started(), T0)
    assert [tree.view(run, T0).handle for run in tree.run_ids()] == ["nightly_load-7", "nightly_load-9"]


@pytest.mark.parametrize("text", ["nightly_load-1", run_id(1), "job-7"])
def test_a_run_is_found_by_handle_id_and_label(tree, text):
    assert tree.resolve(text) == run_id(1)


def test_a_unique_prefix_is_enough(tree):
    assert tree.resolve("job-7"[:5]) == run_id(1)
    with pytest.raises(AmbiguousOperation) as caught:
        tree.resolve("nightly")
    assert caught.value.candidates == ("nightly_load-1", "nightly_load-2")


def test_a_label_of_two_live_runs_is_ambiguous_until_one_ended(tree):
    with pytest.raises(AmbiguousOperation, match="re-index-1, re-index-2"):
        tree.resolve("job-8")
    ended = Saying(4)
    ended.sequence = 1
    tree.apply(ended.ended(9), T0 + 9 * S)
    assert tree.resolve("job-8") == run_id(3)
    ended = Saying(3)
    ended.sequence = 1
    tree.apply(ended.ended(9), T0 + 9 * S)
    assert tree.resolve("job-8") == run_id(4)


@pytest.mark.parametrize("text", ["", "nothing", run_id(99)])
def test_what_matches_nothing_is_unknown(tree, text):
    with pytest.raises(UnknownOperation):
        tree.resolve(text)


def test_an_evicted_run_is_found_no_more(tree):
    ended = Saying(1)
    ended.sequence = 1
    tree.apply(ended.ended(9), T0 + 9 * S)
    tree.evict(T0 + 9999 * S)
    for text in ("nightly_load-1", "job-7"):
        with pytest.raises(UnknownOperation):
            tree.resolve(text)


def test_each_tenant_has_its_own_numbers_and_finds_its_own_runs_only():
    tree = OperationTree()
    for number, tenant in enumerate(("", "acme", "acme", "umbrella"), start=1):
        started = Saying(number).started(number, label="job")
        tree.apply(msgspec.structs.replace(started, tenant=tenant), T0)
    assert [tree.view(run, T0).handle for run in tree.run_ids()] == [
        "nightly_load-1",
        "nightly_load-1",
        "nightly_load-2",
        "nightly_load-1",
    ]
    assert tree.resolve("nightly_load-1", "umbrella") == run_id(4)
    assert tree.resolve("job", "umbrella") == tree.resolve("nigh", "umbrella") == run_id(4)
    for text in (run_id(4), "nightly_load-2"):
        with pytest.raises(UnknownOperation):
            tree.resolve(text)


def test_a_run_that_comes_back_from_the_disk_keeps_its_handle_within_its_tenant():
    before = OperationTree()
    before.apply(msgspec.structs.replace(Saying(1).started(), tenant="acme"), T0)
    tree = OperationTree()
    tree.restore([before.dump(run_id(1))], T0, start=1)
    tree.apply(msgspec.structs.replace(Saying(2).started(), tenant="acme"), T0)
    tree.apply(Saying(3).started(), T0)
    assert [tree.view(run_id(n), T0).handle for n in (1, 2, 3)] == [
        "nightly_load-1",
        "nightly_load-2",
        "nightly_load-1",
    ]
