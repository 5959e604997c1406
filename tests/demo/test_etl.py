"""The demo's job: its counts are held against SQL that knows nothing of it."""

from __future__ import annotations

import csv
import io
import sqlite3
import zipfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest

from otelprogress.demo import dataset, etl
from otelprogress.testing import ProgressCapture, capture

pytestmark = pytest.mark.xdist_group("demo")


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


@dataclass
class Job:
    report: etl.Report
    progress: ProgressCapture


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    """The job, run once, and what it said."""
    with capture() as captured:
        yield Job(etl.run(tmp_path_factory.mktemp("etl") / "flights.sqlite3"), captured)


def test_rejected_rows_are_those_whose_departure_time_is_null(job: Job, raw: Any) -> None:
    expected = raw("select count(*) from flights where dep_time = 'NA'")
    assert job.report.rejected == expected == 8_255
    run = job.progress.one("nyc flights")
    assert run.outcome == "succeeded"
    assert run.step("clean").counts == {"rejected": expected}
    assert run.message == "8,255 rows rejected: dep_time is null"


def test_every_table_is_loaded_and_counted_as_sql_counts_it(job: Job, raw: Any) -> None:
    departed = raw("select count(*) from flights where dep_time <> 'NA'")
    days = raw(
        "select count(*) from (select 1 from flights where dep_time <> 'NA' group by month, day, origin, carrier)"
    )
    assert job.report.extracted == {
        name: raw(f"select count(*) from {name}") for name in ("flights", "weather", "planes")
    }
    assert job.report.loaded == {"flights": departed, "daily": days}
    assert job.report.with_plane == raw(
        "select count(*) from flights where dep_time <> 'NA' and tailnum in (select tailnum from planes)"
    )
    assert job.report.with_weather == raw(
        "select count(*) from flights f join (select distinct origin, time_hour from weather where wind_speed <> 'NA') w"
        " using (origin, time_hour) where f.dep_time <> 'NA'"
    )


def test_each_step_says_how_far_it_came_and_child_operations_carry_the_rows(job: Job) -> None:
    run = job.progress.one("nyc flights")
    assert [(step.name, step.state) for step in run.steps] == [
        ("extract", "succeeded"),
        ("clean", "succeeded"),
        ("join", "succeeded"),
        ("aggregate", "succeeded"),
        ("load", "succeeded"),
    ]
    assert run.step("clean").completed == run.step("clean").total == job.report.extracted["flights"]
    reads = job.progress.all("read table")
    assert {read.title: read.completed for read in reads} == {
        f"read {name}": rows for name, rows in job.report.extracted.items()
    }
    loads = job.progress.all("load table")
    assert {load.title: load.completed for load in loads} == {
        f"load {name}": rows for name, rows in job.report.loaded.items()
    }
    assert {child.parent_id for child in [*reads, *loads]} == {run.id}
