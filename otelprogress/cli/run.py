"""`otelprogress run`: its help and what is wrong with a command line. `entry` goes past it where nothing is."""

from __future__ import annotations

from typing import Annotated

import typer

from otelprogress.cli.running.arguments import DEFAULT_GRACE_S, Arguments


def run(
    command: Annotated[
        list[str],
        typer.Argument(metavar="CMD ARGS...", help="The program, looked for in PATH, and its arguments."),
    ],
    *,
    detach: Annotated[
        bool,
        typer.Option(
            "--detach",
            help="Leave it running in a session of its own, without input, and print its id once it can be seen.",
        ),
    ] = False,
    label: Annotated[
        str | None,
        typer.Option(
            "--id",
            metavar="ID",
            help="A label to find it by: otelprogress wait ID. Refused while another run of yours here has it.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Default: the program's file name.")
    ] = None,
    title: Annotated[
        str | None, typer.Option("--title", metavar="TEXT", help="For people. Default: the name.")
    ] = None,
    log: Annotated[
        str | None,
        typer.Option(
            "--log", metavar="FILE", help="With --detach: append its output there. Default: nowhere."
        ),
    ] = None,
    grace: Annotated[
        float,
        typer.Option(
            "--grace", metavar="SECONDS", min=0, help="How long a cancel waits from SIGTERM to SIGKILL."
        ),
    ] = DEFAULT_GRACE_S,
) -> None:
    """Run a program as an operation, and end as it ends.

    It gets the terminal, the input and the signals as if the shell had started it; TRACEPARENT makes what it does a
    part of the same trace, and programs of its that use otelprogress report here. A cancel is SIGTERM to its process
    group, and SIGKILL after --grace; pause and resume are SIGSTOP and SIGCONT.

    Exits with the code of CMD, 128 + n after signal n; 127 where CMD is not found, 126 where it cannot be executed, 125
    where otelprogress could not run it. If otelprogress itself is killed with SIGKILL, CMD goes on unseen, and its
    operation is lost.
    """
    arguments = Arguments(
        command=tuple(command), name=name, title=title, label=label, detach=detach, log=log, grace_s=grace
    )
    if problem := arguments.problem():
        raise typer.BadParameter(problem)
    from otelprogress.cli.running.runner import run as run_it

    run_it(arguments)
