"""Spools for the tests: entries are texts, a request is the texts one behind the other, each closed by a comma."""

from __future__ import annotations

import time
from pathlib import Path

from otelprogress.feed.process_identity import is_gone, process_identity
from otelprogress.otel.disk_spool import DiskSpool
from otelprogress.otel.spool_folder import SpoolFolder, SpoolOwner

OWNER = SpoolOwner("etl", process_identity, is_gone)
DESTINATION = "http://127.0.0.1:4318/v1/logs"


def encode(entries: list[str]) -> tuple[bytes, int]:
    if "bad" in entries:
        raise ValueError(entries)
    return "".join(f"{entry}," for entry in entries).encode(), len(entries)


def folder_in(root: Path, *, owner: SpoolOwner = OWNER, destination: str = DESTINATION) -> SpoolFolder:
    return SpoolFolder(root, owner, destination)


def disk_spool(root: Path, *, owner: SpoolOwner = OWNER, **options) -> DiskSpool:
    options.setdefault("limit", 1_000)
    return DiskSpool(folder_in(root, owner=owner), encode, **options)


def written(spool: DiskSpool, *entries: str) -> DiskSpool:
    """Each entry a record of its own, on the disk."""
    for entry in entries:
        spool.put(entry)
        spool.tend(time.monotonic())
    return spool


def delivered(spool, most: int = 1_000_000) -> list[str]:
    """Everything that waits, in the order in which it leaves."""
    out: list[str] = []
    while len(out) < most and (body := spool.next_body()) is not None:
        texts = body.decode().rstrip(",").split(",")
        assert spool.settle() == len(texts)
        out += texts
    return out
