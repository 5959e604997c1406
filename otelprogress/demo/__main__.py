"""`otelprogress demo`: the ETL with its live view, then what it counted and where its trace went."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import otelprogress as progress
from otelprogress.demo import dataset, etl
from otelprogress.feed.history import history_path
from otelprogress.otel.target import otlp_target


def run(database: Path | None = None) -> int:
    """Run it once; the exit code.

    Args:
        database: where the SQLite file is written; `None`: a temporary folder, kept.

    Raises:
        UsageError: the data set is not installed.
    """
    dataset.folder()
    progress.configure(service_name=os.environ.get("OTEL_SERVICE_NAME") or "otelprogress-demo")
    if database is None:
        database = Path(tempfile.mkdtemp(prefix="otelprogress-demo-")) / "flights.sqlite3"
    report = etl.run(database)
    progress.shutdown()
    print(summary(report))
    return 0


def summary(report: etl.Report) -> str:
    """What was done, in lines."""
    lines = [f"extracted  {rows:>9,} {table}" for table, rows in report.extracted.items()]
    lines += [
        f"rejected   {report.rejected:>9,} flights: dep_time is null",
        f"joined     {report.with_plane:>9,} flights with their plane, {report.with_weather:,} with their weather",
    ]
    lines += [f"loaded     {rows:>9,} rows into {table!r}" for table, rows in report.loaded.items()]
    lines += [
        f"database   {report.database}",
        f"trace      {report.run_id.partition('-')[0]}",
        f"           {whereabouts()}",
    ]
    return "\n".join(lines)


def whereabouts() -> str:
    """Where the trace went."""
    target = otlp_target(os.environ)
    if target is None or target.traces is None:
        return (
            f"nothing left this machine: no OTLP endpoint is configured (set OTEL_EXPORTER_OTLP_ENDPOINT); "
            f"the run stands in {history_path()}: otelprogress list"
        )
    return f"sent to {target.traces.url} ({target.traces.protocol})"


if __name__ == "__main__":
    raise SystemExit(run())
