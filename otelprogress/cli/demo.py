"""`otelprogress demo`: the main job on real data, with its live view."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from otelprogress.cli.exit_codes import ExitCode
from otelprogress.cli.output import remark, say
from otelprogress.model.text import clean

if TYPE_CHECKING:
    from otelprogress.demo.etl import Report

_DELIVERY_S: Final = 3.0
_MAX_URL_CHARS: Final = 200
_MAX_REASON_CHARS: Final = 200


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
    "otelprogress watch" in a second terminal to see it from outside, "otelprogress pause" or "cancel" it from there, and
    kill the demo to see it lost. With OTEL_EXPORTER_OTLP_ENDPOINT set, its trace goes there.
    """
    import otelprogress as progress
    from otelprogress.demo import dataset, etl

    dataset.folder()  # not there: said before anything is drawn or recorded
    progress.configure(service_name="otelprogress-demo")
    try:
        if database is not None:
            report = etl.run(database)
        else:
            with tempfile.TemporaryDirectory(prefix="otelprogress-demo-") as folder:
                report = etl.run(Path(folder) / "flights.sqlite3")
        went = _whereabouts()
    except progress.OperationCancelled as cancelled:
        why = clean(cancelled.reason, _MAX_REASON_CHARS)
        remark(f"otelprogress: the demo was cancelled{f': {why}' if why else ''}")
        raise typer.Exit(ExitCode.CANCELLED) from None
    finally:
        progress.shutdown()
    for line in _story(report, kept=database is not None):
        say(line)
    say(f"trace     {report.run_id.partition('-')[0]} {went}")


def _story(report: Report, *, kept: bool) -> list[str]:
    loaded = ", ".join(f"{rows:,} into {table}" for table, rows in report.loaded.items())
    return [
        f"read      {', '.join(f'{rows:,} {source}' for source, rows in report.extracted.items())}",
        f"rejected  {report.rejected:,} flights: dep_time is null",
        f"loaded    {loaded}{f' of {clean(str(report.database), _MAX_URL_CHARS)}' if kept else ''}",
    ]


def _whereabouts() -> str:
    """Where the trace went, as its receiver answered."""
    from otelprogress.runtime import current_runtime

    runtime = current_runtime()
    sender = None if runtime is None else runtime.sender
    endpoint = None if sender is None else sender.target.traces
    if sender is None or endpoint is None:
        return "stayed here: OTEL_EXPORTER_OTLP_ENDPOINT is not set"
    sender.flush(_DELIVERY_S)
    taken = sender.stats()["traces"].delivered
    url = clean(endpoint.url, _MAX_URL_CHARS)
    return f"went to {url}" if taken else f"was not taken by {url}: see otelprogress doctor"
