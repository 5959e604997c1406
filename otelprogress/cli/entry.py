"""The console script: `run` goes past Typer, whose import takes longer than its program may be kept waiting."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line of this process."""
    if sys.argv[1:2] == ["run"]:
        from otelprogress.cli.running.arguments import read

        arguments = read(sys.argv[2:])
        if arguments is not None:
            from otelprogress.cli.running.runner import run

            run(arguments)
    from otelprogress.cli.main import main as commands

    commands()


if __name__ == "__main__":
    main()
