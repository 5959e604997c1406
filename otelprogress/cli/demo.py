"""`otelprogress demo`: the main job on real data, with its live view."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    database: Annotated[
        Path | None,
        typer.Option(help="Write the SQLite file here. [default: a temporary folder]", dir_okay=False),
    ] = None,
) -> None:
    """Run a real ETL job (a year of New York's flights into SQLite) and watch it here.

    Start "otelprogress watch" in a second terminal to see it from outside, and kill the demo to see it lost.
    """
    from otelprogress.demo.__main__ import run

    raise typer.Exit(run(database))
