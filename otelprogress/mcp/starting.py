"""Commands that an operator listed, started for a model: never free text.

A command is a list of arguments with `{names}` in them, and a JSON schema of a primitive for each. A string has to have
an `enum`, or a `pattern` that it matches as a whole, so that whoever calls chooses and does not write. Nothing goes
through a shell. `otelprogress run --detach` runs it: it lives on when this server ends, is an operation with the
label it was given, a child of the caller's trace, and can be cancelled and paused like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from otelprogress.exceptions import InvalidValue
from otelprogress.mcp.refusal import Refusal
from otelprogress.model import digest, input_schema

STARTS_WITHIN_S: Final = 15.0
"""How long `otelprogress run --detach` may take to say that the command runs."""
MAX_COMMANDS: Final = 64
MAX_MATCHED_CHARS: Final = 256
"""Of a text that a `pattern` is tried on: an operator's pattern may take long for long texts, and everybody waits."""
_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,47}")
_PLACEHOLDER: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_RUNNER: Final = (sys.executable, "-m", "otelprogress.cli.main")
_SHOWN_CHARS: Final = 400


class Startable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One command."""

    command: tuple[str, ...]
    """The program and its arguments, with `{name}` where an argument of the call goes. An item whose argument was not
    given, and has no default, is left out."""
    description: str = ""
    """For the model."""
    schema: dict[str, Any] = {}
    """The arguments by name, each a JSON schema of a primitive. What has no `default` is required, unless it says
    `"optional": true`."""
    directory: str | None = None
    """Where it runs; `None`: where this server does."""


class Starter:
    """Starts what was listed.

    Args:
        commands: by name.
        environment: of what is started; `None`: this process's.
        runner: the command line's program, before `run`.

    Raises:
        InvalidValue: a command that cannot be meant; names it.
    """

    def __init__(
        self,
        commands: Mapping[str, Startable],
        *,
        environment: Mapping[str, str] | None = None,
        runner: Sequence[str] = _RUNNER,
    ) -> None:
        if len(commands) > MAX_COMMANDS:
            raise InvalidValue(f"{len(commands)} commands are listed; {MAX_COMMANDS} are the most")
        for name, command in commands.items():
            try:
                check(name, command)
            except InvalidValue as error:
                raise InvalidValue(f"commands.{name}: {error}") from None
        self._commands = dict(commands)
        self._environment = environment
        self._runner = tuple(runner)
        self._ending: set[asyncio.Task[int]] = set()

    @property
    def names(self) -> tuple[str, ...]:
        """Of all commands, as they were listed."""
        return tuple(self._commands)

    def described(self) -> str:
        """All commands for a model: `nightly_load(day: string, full: boolean = false): loads a day`."""
        return "; ".join(_described(name, command) for name, command in self._commands.items())

    async def start(self, name: str, arguments: Mapping[str, Any], *, traceparent: str = "") -> str:
        """Start a command; returns once it runs.

        Args:
            name: which.
            arguments: for its placeholders.
            traceparent: what the operation becomes a child of; empty: nothing.

        Returns:
            The label of the operation.

        Raises:
            Refusal: no such command, arguments that do not fit, or it could not be started.
        """
        command = self._commands.get(name)
        if command is None:
            raise Refusal(f"unknown command {digest.quoted(name)}; there are: {', '.join(self._commands)}")
        argv = arguments_of(name, command, arguments)
        label = f"{name}-{secrets.token_hex(3)}"
        environment = dict(os.environ if self._environment is None else self._environment)
        for stale in ("TRACEPARENT", "TRACESTATE"):
            environment.pop(stale, None)
        if traceparent:
            environment["TRACEPARENT"] = traceparent
        await self._run(name, label, argv, command.directory, environment)
        return label

    async def settle(self) -> None:
        """Wait until nothing is being started any more."""
        await asyncio.gather(*self._ending)

    async def _run(
        self,
        name: str,
        label: str,
        argv: Sequence[str],
        directory: str | None,
        environment: Mapping[str, str],
    ) -> None:
        # A file and no pipe: what goes on running must not hold this end open.
        with tempfile.TemporaryFile() as said:
            try:
                process = await asyncio.create_subprocess_exec(
                    *self._runner,
                    *("run", "--detach", "--id", label, "--name", name, "--"),
                    *argv,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=said,
                    stderr=said,
                    cwd=directory,
                    env=dict(environment),
                    start_new_session=True,
                )
            except OSError as error:
                raise Refusal(f"not started: {error.strerror or error}") from None
            # Whoever asked may leave; the process is waited for all the same.
            ending = asyncio.create_task(process.wait())
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)
            await asyncio.wait([ending], timeout=STARTS_WITHIN_S)
            if not ending.done():
                raise Refusal(
                    f"not known whether it started: nothing was said within {STARTS_WITHIN_S:g} s; "
                    f"if it did, its id is {label}"
                )
            if code := ending.result():
                said.seek(0)
                words = said.read()[-_SHOWN_CHARS:].decode("utf-8", "replace")
                raise Refusal(f"not started: exit code {code}: {digest.quoted(words)}")


def check(name: str, command: Startable) -> None:
    """Refuse a command that cannot be meant, or could be given free text.

    Raises:
        InvalidValue: says what is wrong.
    """
    if not _NAME.fullmatch(name):
        raise InvalidValue("a name is a-z, 0-9, _ and -, begins with a letter and has at most 48 characters")
    if not command.command or not command.command[0]:
        raise InvalidValue("`command` is empty")
    if _PLACEHOLDER.search(command.command[0]):
        raise InvalidValue("the program itself cannot be an argument")
    used = {found for item in command.command for found in _PLACEHOLDER.findall(item)}
    if unknown := used - set(command.schema):
        raise InvalidValue(f"`schema` has no {', '.join(sorted(unknown))}")
    if unused := set(command.schema) - used:
        raise InvalidValue(f"`command` has no place for {', '.join(sorted(unused))}")
    for key, said in command.schema.items():
        _check_property(key, said)
    if command.directory is not None and not Path(command.directory).is_dir():
        raise InvalidValue(f"`directory` {command.directory} is none")


def _check_property(key: str, said: Any) -> None:
    if not isinstance(said, dict):
        raise InvalidValue(f"schema.{key} is no JSON schema")
    pattern = said.get("pattern")
    if pattern is not None:
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise InvalidValue(f"schema.{key}: `pattern`: {error}") from None
    try:
        input_schema.check_schema(_primitive(said))
    except InvalidValue as error:
        raise InvalidValue(f"schema.{key}: {error}") from None
    if "enum" not in said:
        kind = said.get("type")
        if kind is None or kind == "object":
            raise InvalidValue(f"schema.{key} needs `enum`, or a `type` that is a primitive")
        if kind == "string" and pattern is None:
            raise InvalidValue(f"schema.{key}: a string needs `enum` or `pattern`: free text is not taken")
    if "default" in said:
        try:
            _fitting(key, said, said["default"])
        except Refusal as refused:
            raise InvalidValue(f"its default: {refused}") from None


def _primitive(said: Mapping[str, Any]) -> dict[str, Any]:
    """A property's schema without what is looked at here."""
    return {name: value for name, value in said.items() if name not in ("pattern", "optional")}


def arguments_of(name: str, command: Startable, given: Mapping[str, Any]) -> list[str]:
    """The program and its arguments, with what was given.

    Raises:
        Refusal: says which argument does not fit, and what would.
    """
    if unknown := sorted(set(given) - set(command.schema)):
        raise Refusal(
            f"invalid arguments: {name} has no {digest.quoted(unknown[0])}; it takes {_described(name, command)}"
        )
    values: dict[str, str] = {}
    for key, said in command.schema.items():
        if key in given:
            values[key] = _fitting(key, said, given[key])
        elif "default" in said:
            values[key] = _as_text(said["default"])
        elif not said.get("optional"):
            raise Refusal(f"invalid arguments: {key} is missing; {_described(name, command)}")
    argv = []
    for item in command.command:
        if all(key in values for key in _PLACEHOLDER.findall(item)):
            filled = _PLACEHOLDER.sub(lambda found: values[found[1]], item)
            if filled.startswith("-") and not item.startswith("-") and not _is_chosen(item, command, values):
                raise Refusal(f"invalid arguments: {filled[:100]!r} would be an option of the program")
            argv.append(filled)
    return argv


def _is_chosen(item: str, command: Startable, values: Mapping[str, str]) -> bool:
    """Whether the first of an item's arguments that is not empty is one of those that its operator wrote down.

    A number is none: `-9` is an option to many programs.
    """
    first = next((key for key in _PLACEHOLDER.findall(item) if values[key]), None)
    return first is None or "enum" in command.schema[first]


def _fitting(key: str, said: Mapping[str, Any], value: Any) -> str:
    try:
        text = _as_text(input_schema.checked(_primitive(said), value))
    except InvalidValue as wrong:
        raise Refusal(f"invalid arguments: {key}: {wrong}") from None
    pattern = said.get("pattern")
    if pattern is not None and len(text) > MAX_MATCHED_CHARS:
        raise Refusal(f"invalid arguments: {key} has more than {MAX_MATCHED_CHARS} characters")
    # JSON schema's patterns match anywhere in a text; here it is the whole.
    if pattern is not None and not re.fullmatch(pattern, text, re.ASCII):
        raise Refusal(f"invalid arguments: {key}: {digest.quoted(text)} does not match {pattern} as a whole")
    if not text.isprintable():
        raise Refusal(f"invalid arguments: {key} has characters that cannot be printed")
    return text


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _described(name: str, command: Startable) -> str:
    parts = []
    for key, said in command.schema.items():
        if "enum" in said:
            kind = "|".join(_as_text(one) for one in said["enum"])
        else:
            kind = f"/{said['pattern']}/" if "pattern" in said else said["type"]
        with contextlib.suppress(KeyError):
            kind += f" = {_as_text(said['default'])}"
        parts.append(f"{key}{'?' if said.get('optional') else ''}: {kind}")
    said_of_it = f": {command.description}" if command.description else ""
    return f"{name}({', '.join(parts)}){said_of_it}"


def read_commands(listed: Mapping[str, Any]) -> dict[str, Startable]:
    """Commands as a configuration file has them.

    Raises:
        InvalidValue: names the one that is no command.
    """
    commands = {}
    for name, said in listed.items():
        try:
            commands[name] = msgspec.convert(said, Startable)
        except msgspec.ValidationError as error:
            raise InvalidValue(f"commands.{name}: {error}") from None
    return commands
