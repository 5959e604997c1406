"""An ETL that says what it does: weighted steps, counts, a warning, child operations, work without a loop."""

import sqlite3
import threading
from contextlib import closing
from datetime import date

import otelprogress as progress
from otelprogress.demo import dataset

Row = tuple[str, ...]
TABLES = ("measured", "rejected")


@progress.operation(
    "nightly load", title="nightly load {day}", steps={"extract": 1, "clean": 2, "load": 6}
)  # weights; a list = equal weights
def nightly_load(day: date, database: sqlite3.Connection) -> int:
    with progress.step("extract"):
        rows = fetch(day)  # no counts: elapsed time only
    with progress.step("clean") as step:
        good: list[Row] = []
        bad: list[Row] = []
        for row in step.track(rows, unit="row"):
            if valid(row):
                good.append(row)
            else:
                bad.append(row)
                step.count(rejected=1)
        if n := step.counts["rejected"]:
            step.note(f"{n:g} rows rejected: no wind gust measured", level="warning")
    with progress.step("load") as step:
        for table, content in zip(step.track(TABLES, unit="table"), (good, bad), strict=True):
            with progress.operation("load table", title=table) as child:  # a child of this step
                child.poll(lambda table=table: count(database, table), total=len(content), every_s=0.1)
                run_sql(database, table, content)  # minutes without a loop
    return len(good)


def fetch(day: date) -> list[Row]:
    """The weather of that month at New York's airports."""
    with dataset.open_table("weather") as lines:
        header = next(lines)
        year, month = header.index("year"), header.index("month")
        return [tuple(row) for row in lines if (int(row[year]), int(row[month])) == (day.year, day.month)]


def valid(row: Row) -> bool:
    return row[10] != dataset.NULL  # wind_gust


LOCK = threading.Lock()


def count(database: sqlite3.Connection, table: str) -> int:
    """Called from otelprogress's polling thread, so the connection is guarded."""
    with LOCK:
        if not database.execute("select count(*) from sqlite_master where name = ?", (table,)).fetchone()[0]:
            return 0
        return database.execute(f'select count(*) from "{table}"').fetchone()[0]


def run_sql(database: sqlite3.Connection, table: str, content: list[Row]) -> None:
    with LOCK:
        database.execute(f'create table "{table}" (fields)')
    for start in range(0, len(content), 100):
        with LOCK:
            database.executemany(
                f'insert into "{table}" values (?)', [(repr(row),) for row in content[start : start + 100]]
            )


def main() -> None:
    progress.configure()
    with closing(sqlite3.connect(":memory:", check_same_thread=False)) as database:
        print(f"{nightly_load(date(2013, 7, 1), database)} rows loaded")


if __name__ == "__main__":
    main()
