"""`otelprogress respond`: answer what an operation asks, or read the question."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Annotated

import typer

from otelprogress.cli import connection, options
from otelprogress.cli.control import DEFAULT_TIMEOUT_S, Order, tell
from otelprogress.cli.exit_codes import ExitCode
from otelprogress.cli.output import say
from otelprogress.cli.show import find
from otelprogress.model.text import clean

_MAX_HANDLE_CHARS = 64


def respond(
    *,
    operation: options.OperationId,
    answer: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[INPUT_ID] ANSWER",
            help="The answer; before it the question's id (in1), where several are open. With --field only the id.",
        ),
    ] = None,
    fields: Annotated[
        list[str] | None,
        typer.Option("--field", metavar="NAME=VALUE", help="Of a form: one for each field."),
    ] = None,
    timeout_s: options.AppliedTimeout = DEFAULT_TIMEOUT_S,
    no_wait: options.NoWait = False,
    expect_revision: options.ExpectRevision = None,
    as_json: options.AsJson = False,
    url: options.Url = None,
    token_file: options.TokenFile = None,
) -> None:
    """Answer the question that an operation asks. Without an answer the question is shown.

    The answer is checked before the operation gets it: a wrong one is told what would do (exit code 2). The first one
    that fits counts. What begins with a minus stands behind --, as: respond train-1 -- -0.5

    Exits as cancel does; 1 also if it asks nothing.
    """
    arguments = arguments_of(answer or [], fields or [])
    if not arguments:
        _show_question(operation, url, token_file)
        return
    asked = Order(
        operation=operation,
        action="input",
        called="answer",
        arguments=arguments,
        wait=not no_wait,
        timeout_s=timeout_s,
        expect_revision=expect_revision,
    )
    tell(asked, as_json=as_json, url=url, token_file=token_file)


def arguments_of(answer: Sequence[str], fields: Sequence[str]) -> dict[str, str | bool | int | float | None]:
    """The arguments of the command `input`; empty where nothing was answered.

    Args:
        answer: `[INPUT_ID] ANSWER`; with fields the id alone.
        fields: `NAME=VALUE` each.

    Raises:
        typer.BadParameter: they cannot be meant.
    """
    arguments: dict[str, str | bool | int | float | None] = {}
    if len(answer) > (1 if fields else 2):
        raise typer.BadParameter(
            f"{' '.join(answer)!r}: an answer of several words stands in quotes, and none beside --field",
            param_hint="ANSWER",
        )
    if len(answer) == 2 or (answer and fields):
        arguments["input_id"] = answer[0]
    if answer and not fields:
        arguments["content"] = answer[-1]
    for each in fields:
        name, equals, value = each.partition("=")
        if not name or not equals or f"content.{name}" in arguments:
            raise typer.BadParameter(
                f"{each!r} is no NAME=VALUE, or the second of that name", param_hint="--field"
            )
        arguments[f"content.{name}"] = value
    return arguments


def _show_question(operation: str, url: options.Url, token_file: options.TokenFile) -> None:
    from otelprogress.visualization.question import question_rows

    view = asyncio.run(find(connection.open_client(url, token_file), operation, history=url is None))
    rows = question_rows(view, time.time_ns())
    handle = clean(view.handle, _MAX_HANDLE_CHARS)
    if not rows:
        say(f"{handle}: asks nothing" + ("" if view.live else f", it has ended: {view.state}"))
        raise typer.Exit(ExitCode.FAILED)
    for name, text in rows:
        say(f"{f'{handle}:' if name == 'asks' else ' '} {name:<7} {text}".rstrip())
