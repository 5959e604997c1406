"""`otelprogress demo`: the main job on real data, with its live view."""

from __future__ import annotations

import typer


def demo() -> None:
    """Run a real ETL job (a year of New York's flights into SQLite) and watch it here.

    Start "otelprogress watch" in a second terminal to see it from outside, and kill the demo to see it lost.
    """
    from otelprogress.demo.__main__ import run

    raise typer.Exit(run())
