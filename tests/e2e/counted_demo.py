"""`otelprogress demo`, slowed down where it cleans, counting from outside what it fetches and what it has worked off."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator

import otelprogress as progress
from otelprogress.cli.main import app
from otelprogress.demo import etl

ROW_S = 0.0005

counted = {"fetched": 0, "processed": 0}
real_extract, real_clean = etl.extract, etl.clean


class CountedRows(list[list[str]]):
    """The flights: says how many somebody took."""

    def __iter__(self) -> Iterator[list[str]]:
        for row in super().__iter__():
            counted["fetched"] += 1
            yield row


def extract(source: str, tables: etl.Tables) -> None:
    """The demo's own, and the rows are counted from then on."""
    real_extract(source, tables)
    if source == "flights":
        tables.rows[source] = CountedRows(tables.rows[source])


def clean(rows: Iterable[list[str]], at: dict[str, int], step: progress.Step) -> Iterator[etl.Flight]:
    """The demo's own: a row is worked off once it is a flight or was rejected."""
    flights = 0
    try:
        for flight in real_clean(rows, at, step):
            flights += 1
            time.sleep(ROW_S)
            yield flight
    finally:
        counted["processed"] = flights + int(step.counts.get("rejected", 0))


if __name__ == "__main__":
    etl.extract, etl.clean = extract, clean
    try:
        app(["demo"], prog_name="otelprogress")
    finally:
        print(json.dumps(counted), flush=True)
