"""The demo's job: its counts are held against SQL that knows nothing of it."""

from __future__ import annotations

import csv
import io
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from otelprogress.demo import dataset, etl


@pytest.fixture(scope="module")
def raw() -> Any:
    """The published files in SQLite, column by column as they are, loaded without any code of the demo."""
    with closing(sqlite3.connect(":memory:")) as database:
        folder = dataset.folder()
        with (
            zipfile.ZipFile(folder / "flights.csv.zip") as archive,
            archive.open(archive.namelist()[0]) as lines,
        ):
            fill(database, "flights", csv.reader(io.TextIOWrapper(lines, "utf-8")))
        for name in ("planes", "weather"):
            with (folder / f"{name}.csv").open(encoding="utf-8") as lines:
                fill(database, name, csv.reader(lines))
        yield lambda query: database.execute(query).fetchone()[0]


def fill(database: sqlite3.Connection, table: str, rows: Any) -> None:
    header = next(rows)
    database.execute(f"create table {table} ({', '.join(header)})")
    database.executemany(f"insert into {table} values ({', '.join('?' * len(header))})", rows)


@pytest.fixture
def report(tmp_path: Path, progress_capture: Any) -> etl.Report:
    return etl.run(tmp_path / "flights.sqlite3")


def test_rejected_rows_are_those_whose_departure_time_is_null(
    report: etl.Report, raw: Any, progress_capture: Any
) -> None:
    expected = raw("select count(*) from flights where dep_time = 'NA'")
    assert report.rejected == expected == 8_255
    run = progress_capture.one("nyc flights")
    assert run.outcome == "succeeded"
    assert run.step("clean").counts == {"rejected": expected}
    assert run.message == "8,255 rows rejected: dep_time is null"


def test_every_table_is_loaded_and_counted_as_sql_counts_it(
    report: etl.Report, raw: Any, progress_capture: Any
) -> None:
    departed = raw("select count(*) from flights where dep_time <> 'NA'")
    days = raw(
        "select count(*) from (select 1 from flights where dep_time <> 'NA' group by month, day, origin, carrier)"
    )
    assert report.extracted == {
        name: raw(f"select count(*) from {name}") for name in ("flights", "weather", "planes")
    }
    assert report.loaded == {"flights": departed, "daily": days}
    assert report.with_plane == raw(
        "select count(*) from flights where dep_time <> 'NA' and tailnum in (select tailnum from planes)"
    )
    assert report.with_weather == raw(
        "select count(*) from flights f join (select distinct origin, time_hour from weather where wind_speed <> 'NA') w"
        " using (origin, time_hour) where f.dep_time <> 'NA'"
    )


def test_each_step_says_how_far_it_came_and_child_operations_carry_the_rows(
    report: etl.Report, progress_capture: Any
) -> None:
    run = progress_capture.one("nyc flights")
    assert [(step.name, step.state) for step in run.steps] == [
        ("extract", "succeeded"),
        ("clean", "succeeded"),
        ("join", "succeeded"),
        ("aggregate", "succeeded"),
        ("load", "succeeded"),
    ]
    assert run.step("clean").completed == run.step("clean").total == report.extracted["flights"]
    reads = progress_capture.all("read table")
    assert {read.title: read.completed for read in reads} == {
        f"read {name}": rows for name, rows in report.extracted.items()
    }
    loads = progress_capture.all("load table")
    assert {load.title: load.completed for load in loads} == {
        f"load {name}": rows for name, rows in report.loaded.items()
    }
    assert {child.parent_id for child in [*reads, *loads]} == {run.id}
