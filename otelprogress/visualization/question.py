"""The question that an operation asks, in lines for a person: what it asks, what an answer looks like, what without one.

Pure. Everything in quotes is the operation's own text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from otelprogress.model import formats
from otelprogress.model.events import OperationView
from otelprogress.model.input_schema import schema_of
from otelprogress.model.text import clean
from otelprogress.visualization.view_model import MAX_NAME_CHARS, quoted

_MAX_CHOICES_SHOWN: Final = 32
_KINDS: Final = {
    "string": "a text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "yes or no",
}


def question_rows(view: OperationView, now_unix_ns: int) -> list[tuple[str, str]]:
    """`asks`, `answer` and `default`, each with its text; empty where it asks nothing.

    Args:
        view: the operation.
        now_unix_ns: when it is looked at; its deadline is told from then on.
    """
    if view.input_id is None or not view.live:
        return []
    rows = [("asks", f"{clean(view.input_id, MAX_NAME_CHARS)} {quoted(view.input_prompt or '')}")]
    rows += [
        ("answer" if not n else "", text) for n, text in enumerate(_answers(schema_of(view.input_schema)))
    ]
    left = ""
    if view.input_deadline_unix_ns is not None:
        left = f"in {formats.duration(max(0, view.input_deadline_unix_ns - now_unix_ns) / 1e9)}"
    if view.input_default is not None:
        rows.append(("default", f"{json_value(view.input_default)} {left}".rstrip()))
    elif left:
        rows.append(("ends", left))
    return rows


def json_value(text: str) -> str:
    """A value that stands as JSON in an event, and is not trusted to: a text in quotes, others as they are."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return quoted(text)
    return (
        json.dumps(value)
        if isinstance(value, bool | int | float)
        else quoted(value if isinstance(value, str) else text)
    )


def _answers(schema: Mapping[str, Any]) -> Iterator[str]:
    """One line of what an answer looks like, or one for each field of a form."""
    if schema.get("type") != "object":
        yield _primitive(schema)
        return
    required = schema.get("required", ())
    for name, field in schema["properties"].items():
        optional = "" if name in required else ", may be left out"
        yield f"--field {clean(name, MAX_NAME_CHARS)}={{{_primitive(field)}{optional}}}"


def _primitive(schema: Mapping[str, Any]) -> str:
    choices = schema.get("enum")
    if choices:
        shown = ", ".join(
            quoted(one) if isinstance(one, str) else json.dumps(one) for one in choices[:_MAX_CHOICES_SHOWN]
        )
        more = len(choices) - _MAX_CHOICES_SHOWN
        text = f"one of {shown}" + (f" and {more} more" if more > 0 else "")
    else:
        text = _KINDS.get(schema.get("type", ""), "a text, a number, or true or false")
    for word, unit in (("imum", ""), ("Length", " characters")):
        least, most = schema.get(f"min{word}"), schema.get(f"max{word}")
        if least is not None:
            text += f", at least {least:g}{unit}"
        if most is not None:
            text += f", at most {most:g}{unit}"
    about = [quoted(schema[key]) for key in ("title", "description") if isinstance(schema.get(key), str)]
    return " ".join([text, *about])
