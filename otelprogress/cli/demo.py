"""`otelprogress demo`: the main job on real data, with its live view."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from otelprogress.cli.output import say
from otelprogress.model.text import clean

if TYPE_CHECKING:
    from otelprogress.demo.etl import Report

_ENDPOINTS: Final = (
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTELPROGRESS_COLLECTOR",
)
_MAX_URL_CHARS: Final = 200


def demo(
    *,
    database: Annotated[
        Path | None,
        typer.Option(
            "--database",
            metavar="FILE",
            help="Keep the SQLite file that it writes. Default: a temporary one.",
        ),
    ] = None,
) -> None:
    """Run a real ETL job and watch it here.

    All flights that left New York in 2013 go through extract, clean, join, aggregate and load into SQLite. Start
    "otelprogress watch" in a second terminal to see it from outside, and kill the demo to see it lost there. With
    OTEL_EXPORTER_OTLP_ENDPOINT set, its trace goes there.
    """
    import otelprogress as progress
    from otelprogress.demo import etl

    progress.configure(service_name="otelprogress-demo")
    try:
        if database is not None:
            report = etl.run(database)
        else:
            with tempfile.TemporaryDirectory(prefix="otelprogress-demo-") as folder:
                report = etl.run(Path(folder) / "flights.sqlite3")
    finally:
        progress.shutdown()
    for line in _story(report, kept=database is not None):
        say(line)


def _story(report: Report, *, kept: bool) -> list[str]:
    loaded = ", ".join(f"{rows:,} into {table}" for table, rows in report.loaded.items())
    lines = [
        f"read      {', '.join(f'{rows:,} {source}' for source, rows in report.extracted.items())}",
        f"rejected  {report.rejected:,} flights without a departure",
        f"loaded    {loaded}{f' of {clean(str(report.database), _MAX_URL_CHARS)}' if kept else ''}",
    ]
    endpoint = next((value for name in _ENDPOINTS if (value := os.environ.get(name))), None)
    trace_id = report.run_id.partition("-")[0]
    if endpoint is not None:
        lines.append(f"trace     {trace_id} went to {clean(endpoint, _MAX_URL_CHARS)}")
    else:
        lines.append(f"trace     {trace_id} stayed here: OTEL_EXPORTER_OTLP_ENDPOINT is not set")
    return lines
