"""Which store a durability asks for."""

from __future__ import annotations

import os

from otelprogress_collector.store.interface import Durability, Store
from otelprogress_collector.store.memory import MemoryStore
from otelprogress_collector.store.sqlite import SqliteStore


def open_store(durability: Durability, data_dir: str | os.PathLike[str]) -> Store:
    """The store for a durability, open; `Store.open` returns what it found.

    Args:
        durability: `memory` writes nothing.
        data_dir: for the others; made with mode 0700 where it is missing.

    Raises:
        StoreUnavailable: it cannot be opened.
    """
    store: Store = MemoryStore() if durability == "memory" else SqliteStore(data_dir, durability)
    store.open()
    return store
