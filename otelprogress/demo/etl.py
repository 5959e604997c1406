"""An ordinary ETL job that says what it does: extract, clean, join, aggregate, load to SQLite.

It uses the public face of otelprogress only, and would run just the same, silently, without `configure()`.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import otelprogress as progress
from otelprogress.demo import dataset

SOURCES = ("flights", "weather", "planes")
BATCH_ROWS = 2_000


class Flight(NamedTuple):
    """One departure, typed; missing values are `None`."""

    day: str
    origin: str
    dest: str
    carrier: str
    tailnum: str | None
    hour_utc: str
    dep_delay_min: float | None
    arr_delay_min: float | None
    distance_mi: float


class JoinedFlight(NamedTuple):
    """A flight with its plane and the weather at its departure."""

    flight: Flight
    seats: int | None
    wind_mph: float | None


class DailyRow(NamedTuple):
    """One carrier's day at one airport."""

    day: str
    origin: str
    carrier: str
    flights: int
    seats: int
    mean_dep_delay_min: float
    mean_wind_mph: float | None


@dataclass
class Tables:
    """What extract hands on: rows by source, header removed, and the columns' positions."""

    rows: dict[str, list[list[str]]] = field(default_factory=dict)
    columns: dict[str, dict[str, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What the job did, in rows."""

    run_id: str
    """Of its operation, `<trace id>-<span id>`; empty when nothing is configured."""
    extracted: dict[str, int]
    rejected: int
    with_plane: int
    with_weather: int
    loaded: dict[str, int]
    database: Path


@progress.operation(
    "nyc flights",
    title="nyc flights 2013",
    steps={"extract": 3, "clean": 4, "join": 3, "aggregate": 1, "load": 4},
    controls=["cancel", "pause"],
)
def run(database: Path) -> Report:
    """Run the whole job into a new SQLite file at `database`.

    Raises:
        OperationCancelled: somebody cancelled it; a table that it was loading holds whole batches only.
    """
    with progress.step("extract") as step:
        tables = Tables()
        for source in step.track(SOURCES, unit="table"):
            extract(source, tables)
    with progress.step("clean") as step:
        flights = list(clean(step.track(tables.rows["flights"], unit="row"), tables.columns["flights"], step))
        rejected = int(step.counts.get("rejected", 0))
        if rejected:
            step.note(f"{rejected:,} rows rejected: dep_time is null", level="warning")
    with progress.step("join") as step:
        joined = join(step.track(flights, unit="row"), tables)
        with_plane = sum(row.seats is not None for row in joined)
        with_weather = sum(row.wind_mph is not None for row in joined)
    with progress.step("aggregate") as step:
        daily = aggregate(step.track(joined, unit="row"))
    with progress.step("load") as step:
        database.unlink(missing_ok=True)
        with closing(sqlite3.connect(database)) as connection:
            work: list[tuple[str, Sequence[str], Sequence[tuple[object, ...]]]] = [
                (
                    "flights",
                    (*Flight._fields, "seats", "wind_mph"),
                    [(*row.flight, row.seats, row.wind_mph) for row in joined],
                ),
                ("daily", DailyRow._fields, daily),
            ]
            for table, columns, rows in step.track(work, unit="table"):
                load(connection, table, columns, rows)
            loaded = {
                table: connection.execute(f'select count(*) from "{table}"').fetchone()[0]  # noqa: S608 - our own names
                for table, _, _ in work
            }
    return Report(
        run_id=progress.current_operation().run_id,
        extracted={source: len(rows) for source, rows in tables.rows.items()},
        rejected=rejected,
        with_plane=with_plane,
        with_weather=with_weather,
        loaded=loaded,
        database=database,
    )


@progress.operation("read table", title="read {source}")
def extract(source: str, tables: Tables) -> None:
    """Read one CSV file; its length is not known beforehand, so it shows a count and a rate."""
    with dataset.open_table(source) as lines:
        tables.columns[source] = {name: position for position, name in enumerate(next(lines))}
        tables.rows[source] = list(progress.track(lines, unit="row"))


def clean(rows: Iterable[list[str]], at: dict[str, int], step: progress.Step) -> Iterator[Flight]:
    """Type the rows; a flight that never departed (`dep_time` is null) is rejected."""
    dep_time, tailnum, dep_delay, arr_delay = at["dep_time"], at["tailnum"], at["dep_delay"], at["arr_delay"]
    origin, dest, carrier, hour, distance = (
        at["origin"],
        at["dest"],
        at["carrier"],
        at["time_hour"],
        at["distance"],
    )
    year, month, day = at["year"], at["month"], at["day"]
    null = dataset.NULL
    for row in rows:
        if row[dep_time] == null:
            step.count(rejected=1)
            continue
        yield Flight(
            day=f"{row[year]}-{int(row[month]):02}-{int(row[day]):02}",
            origin=row[origin],
            dest=row[dest],
            carrier=row[carrier],
            tailnum=None if row[tailnum] == null else row[tailnum],
            hour_utc=row[hour],
            dep_delay_min=number(row[dep_delay]),
            arr_delay_min=number(row[arr_delay]),
            distance_mi=float(row[distance]),
        )


def number(text: str) -> float | None:
    """A number of the files; `None` where it is missing."""
    return None if text == dataset.NULL else float(text)


def join(flights: Iterable[Flight], tables: Tables) -> list[JoinedFlight]:
    """Look up each flight's plane by tail number, and the weather by airport and hour."""
    planes, weather = tables.columns["planes"], tables.columns["weather"]
    seats = {row[planes["tailnum"]]: int(row[planes["seats"]]) for row in tables.rows["planes"]}
    wind = {
        (row[weather["origin"]], row[weather["time_hour"]]): number(row[weather["wind_speed"]])
        for row in tables.rows["weather"]
    }
    return [
        JoinedFlight(
            flight,
            None if flight.tailnum is None else seats.get(flight.tailnum),
            wind.get((flight.origin, flight.hour_utc)),
        )
        for flight in flights
    ]


def aggregate(rows: Iterable[JoinedFlight]) -> list[DailyRow]:
    """One row per day, airport and carrier."""
    groups: defaultdict[tuple[str, str, str], list[JoinedFlight]] = defaultdict(list)
    for row in rows:
        groups[row.flight.day, row.flight.origin, row.flight.carrier].append(row)
    return [
        DailyRow(
            *key,
            flights=len(group),
            seats=sum(row.seats or 0 for row in group),
            mean_dep_delay_min=mean([row.flight.dep_delay_min for row in group]) or 0.0,
            mean_wind_mph=mean([row.wind_mph for row in group]),
        )
        for key, group in sorted(groups.items())
    ]


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of the values that are there; `None` when none is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


@progress.operation("load table", title="load {table}")
def load(
    connection: sqlite3.Connection, table: str, columns: Sequence[str], rows: Sequence[tuple[object, ...]]
) -> None:
    """Create the table and insert its rows in batches, one transaction each; commands take effect between two."""
    names = ", ".join(f'"{name}"' for name in columns)
    marks = ", ".join("?" * len(columns))
    connection.execute(f'create table "{table}" ({names})')
    progress.set_total(len(rows), unit="row")
    for start in range(0, len(rows), BATCH_ROWS):
        progress.current_operation().checkpoint()
        batch = rows[start : start + BATCH_ROWS]
        with connection:
            connection.executemany(f'insert into "{table}" ({names}) values ({marks})', batch)  # noqa: S608 - our own names
        progress.advance(len(batch))
