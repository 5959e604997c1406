"""The store in memory keeps the contract, and nothing beyond the process."""

from __future__ import annotations

import pytest

from otelprogress_collector.store.interface import Batch, StoreUnavailable
from otelprogress_collector.store.memory import MemoryStore
from tests.collector.store.contract import StoreContract
from tests.collector.store.rows import rows


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def make(self):
        made = []

        def make(*, elsewhere: bool = False) -> MemoryStore:
            made.append(MemoryStore())
            return made[-1]

        yield make
        for store in made:
            store.close()


def test_nothing_can_be_backed_up_and_it_says_why(tmp_path):
    store = MemoryStore()
    store.open()
    store.append(Batch(journal=rows(1, 3)))
    with pytest.raises(StoreUnavailable, match="durability is `memory`"):
        store.backup(str(tmp_path / "copy"))
    assert not list(tmp_path.iterdir())
