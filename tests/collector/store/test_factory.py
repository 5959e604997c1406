"""A durability names a store."""

from __future__ import annotations

import pytest

from otelprogress_collector.store.factory import open_store
from otelprogress_collector.store.interface import Batch, StoreUnavailable
from tests.collector.store.rows import rows


@pytest.mark.parametrize("durability", ["memory", "disk", "fsync"])
def test_it_is_open_and_keeps_what_its_name_says(tmp_path, durability):
    store = open_store(durability, tmp_path / "data")
    assert store.durability == durability
    first = store.open()
    store.append(Batch(journal=rows(1, 3)))
    store.close()
    store = open_store(durability, tmp_path / "data")
    again = store.open()
    assert again.head == (0 if durability == "memory" else 3)
    assert (again.epoch == first.epoch) == (durability != "memory")
    store.close()


def test_memory_touches_no_disk(tmp_path):
    open_store("memory", tmp_path / "data").close()
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_opened_is_refused(tmp_path):
    (tmp_path / "data").touch()
    with pytest.raises(StoreUnavailable):
        open_store("disk", tmp_path / "data")
