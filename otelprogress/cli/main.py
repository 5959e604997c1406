"""`otelprogress`: the command line. Modules of commands import what they need when they run."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from otelprogress.cli import control, demo, doctor, listing, mcp, respond, run, show, tail, wait, watch
from otelprogress.cli.exit_codes import ExitCode, of_error
from otelprogress.cli.output import prepare_streams, remark
from otelprogress.exceptions import ProgressError


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turn what ends a command into its exit code and one line for the person.

    Raises:
        typer.Exit: with a code of `ExitCode`.
    """
    try:
        yield
    except ProgressError as error:
        remark(f"otelprogress: {error}")
        raise typer.Exit(of_error(error)) from error
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    except BrokenPipeError:  # the reader has what it wanted (`| head`)
        _drop_output()
        raise typer.Exit(ExitCode.OK) from None
    except OSError as error:
        remark(f"otelprogress: {error}")
        try:
            sys.stdout.flush()
        except OSError:  # it was the output that failed, as on a full disk
            _drop_output()
        raise typer.Exit(ExitCode.FAILED) from error


def _drop_output() -> None:
    """The interpreter flushes at its exit: let it flush into nothing."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Commands(TyperGroup):
    """The group of all commands; every one of them ends by `exit_codes`."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        with exit_codes():
            return super().invoke(ctx)

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order in which they are registered: the most used first."""
        return list(self.commands)


app = typer.Typer(
    name="otelprogress",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    # Plain help: read by people, pagers and docs/cli.md alike, and shown without loading Rich.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"otelprogress {version('otelprogress')}")
        raise typer.Exit


@app.callback(
    epilog="Exit codes: 0 ok, 1 failed, lost or refused, 2 usage, 3 not found or ambiguous, 4 no feed, 5 denied, 6 cancelled, "
    "124 time-out, 130 Ctrl-C; run passes on its program's.",
)
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """See what instrumented programs are doing, while they do it."""


app.command("watch")(watch.watch)
app.command("list")(listing.list_)
app.command("show")(show.show)
app.command("tail")(tail.tail)
app.command("wait")(wait.wait)
app.command("cancel")(control.cancel)
app.command("pause")(control.pause)
app.command("resume")(control.resume)
app.command("signal")(control.signal)
app.command("respond")(respond.respond)
app.command("run", context_settings={"allow_interspersed_args": False})(run.run)
app.command("doctor")(doctor.doctor)
app.command("demo")(demo.demo)
app.command("mcp")(mcp.mcp)


def main() -> None:
    """Run the command line; the console script comes here by `entry`."""
    prepare_streams()
    app(prog_name="otelprogress")


if __name__ == "__main__":
    main()
