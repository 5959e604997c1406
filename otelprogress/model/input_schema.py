"""What an answer to a question may be: a flat JSON schema, primitives only, as the conventions have it.

Both sides check by it: the host that takes the answer, so that whoever gives a wrong one hears at once, and the
process that asked. The subset is that of MCP's elicitation: a primitive, one of a few values, or a form whose fields are
primitives. No regular expression of somebody else's is ever run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from otelprogress.exceptions import InvalidValue
from otelprogress.model.text import clean

Primitive: TypeAlias = str | bool | int | float
Answer: TypeAlias = Primitive | dict[str, Primitive]

MAX_ANSWER_CHARS: Final = 4096
"""Of one text in an answer."""
_TYPES: Final = frozenset({"string", "number", "integer", "boolean"})
_PRIMITIVE_KEYS: Final = frozenset(
    {
        "type",
        "enum",
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "title",
        "description",
        "default",
    }
)
_FORM_KEYS: Final = frozenset({"type", "properties", "required", "title", "description"})
MAX_FIELDS: Final = 32
_MAX_SHOWN_CHARS: Final = 160


def check_schema(schema: Mapping[str, Any]) -> None:
    """Refuse a schema that cannot be asked by.

    Raises:
        InvalidValue: with what is wrong.
    """
    if not isinstance(schema, Mapping):
        raise InvalidValue("a schema is a mapping, as JSON has it")
    if schema.get("type") != "object":
        _check_primitive_schema(schema, "the schema")
        return
    if unknown := set(schema) - _FORM_KEYS:
        raise InvalidValue(f"a form has no {_listed(unknown)}: {_listed(_FORM_KEYS)}")
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or not 0 < len(properties) <= MAX_FIELDS:
        raise InvalidValue(f"a form needs `properties`, between 1 and {MAX_FIELDS}")
    for name, field in properties.items():
        if not isinstance(name, str) or not isinstance(field, Mapping):
            raise InvalidValue(f"field {_shown(name)} is no schema")
        if not name or not name.isprintable() or name != clean(name, _MAX_SHOWN_CHARS):
            raise InvalidValue(
                f"the name of the field {_shown(name)} is not one printable line of 1 to {_MAX_SHOWN_CHARS} characters"
            )
        _check_primitive_schema(field, f"field {name!r}")
    required = schema.get("required", [])
    if not isinstance(required, list | tuple) or not all(
        isinstance(each, str) and each in properties for each in required
    ):
        raise InvalidValue("`required` names fields of `properties`")
    _check_words(schema, "the form", ("title", "description"))


def _check_primitive_schema(schema: Mapping[str, Any], what: str) -> None:
    if unknown := set(schema) - _PRIMITIVE_KEYS:
        raise InvalidValue(f"{what} may not hold {_listed(unknown)}: only {_listed(_PRIMITIVE_KEYS)}")
    kind = schema.get("type")
    if "type" in schema and not (isinstance(kind, str) and kind in _TYPES):
        raise InvalidValue(f"{what} has a type that is none of {_listed(_TYPES)}: {kind!r}")
    choices = schema.get("enum")
    if "enum" in schema and not (
        isinstance(choices, list | tuple) and choices and all(map(_is_primitive, choices))
    ):
        raise InvalidValue(f"the `enum` of {what} is a list of texts, numbers or booleans")
    for key in ("minimum", "maximum", "minLength", "maxLength"):
        if key in schema and (isinstance(schema[key], bool | str) or not _is_primitive(schema[key])):
            raise InvalidValue(f"the `{key}` of {what} is a number")
    if schema.get("default") is not None and not _is_primitive(schema["default"]):
        raise InvalidValue(f"the `default` of {what} is a text, a number or a truth value")
    _check_words(schema, what, ("title", "description"))


def _check_words(schema: Mapping[str, Any], what: str, keys: tuple[str, ...]) -> None:
    for key in keys:
        if not isinstance(schema.get(key, ""), str):
            raise InvalidValue(f"the `{key}` of {what} is a text")


def _is_primitive(value: object) -> bool:
    """Whether JSON can carry it, and a float can hold it."""
    if isinstance(value, str | bool):
        return True
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:
        return False


def checked(schema: Mapping[str, Any], content: object) -> Answer:
    """The answer as the asking code gets it.

    Args:
        schema: one that `check_schema` let pass; empty: any primitive.
        content: what was answered. A text is taken as a number or a truth value where one is asked for, as people
            type it.

    Raises:
        InvalidValue: it does not fit, with what would. What was answered is not quoted: it may be a secret, and a
            refusal is told to all who watch.
    """
    if schema.get("type") != "object":
        return _checked_primitive(schema, content, "the answer")
    if not isinstance(content, Mapping):
        raise InvalidValue(f"the answer is a form with the fields {_listed(schema['properties'])}")
    properties: Mapping[str, Mapping[str, Any]] = schema["properties"]
    if set(content) - set(properties):
        raise InvalidValue(f"the form has only the fields {_listed(properties)}")
    if missing := set(schema.get("required", ())) - set(content):
        raise InvalidValue(f"the form needs {_listed(missing)} too")
    return {
        name: _checked_primitive(properties[name], value, f"field {name!r}")
        for name, value in content.items()
    }


def checked_text(schema_text: str | None, content: object) -> Answer:
    """`checked` by a schema as events carry it; what is no schema that can be asked by lets any primitive pass."""
    return checked(schema_of(schema_text), content)


def schema_of(schema_text: str | None) -> Mapping[str, Any]:
    """The schema that an event carries; empty where it carries none that can be asked by."""
    try:
        schema = json.loads(schema_text) if schema_text else {}
        if not isinstance(schema, dict):
            return {}
        check_schema(schema)
    except (ValueError, RecursionError, InvalidValue):
        return {}
    return schema


def _checked_primitive(schema: Mapping[str, Any], content: object, what: str) -> Primitive:
    value = _of_type(schema.get("type"), content, what)
    choices = schema.get("enum")
    if choices is not None:
        return _chosen(choices, value, what)
    if isinstance(value, str):
        least, most = (
            schema.get("minLength", 0),
            min(schema.get("maxLength", MAX_ANSWER_CHARS), MAX_ANSWER_CHARS),
        )
        if not least <= len(value) <= most:
            raise InvalidValue(f"{what} has between {least} and {most} characters")
    elif not isinstance(value, bool):
        least, most = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
        if not least <= value <= most:
            bounds = [f"at least {least}"] if least > -math.inf else []
            bounds += [f"at most {most}"] if most < math.inf else []
            raise InvalidValue(f"{what} is {' and '.join(bounds)}")
    return value


def _chosen(choices: Sequence[Primitive], value: Primitive, what: str) -> Primitive:
    for choice in choices:
        # 1 is no True here, and 1.0 is 1: so JSON has it.
        if isinstance(choice, bool) is isinstance(value, bool) and choice == value:
            return choice
    for choice in choices:
        # As people type them: 2 for "2", and "2" for 2.
        if isinstance(choice, str) is not isinstance(value, str) and _typed(choice) == _typed(value):
            return choice
    raise InvalidValue(f"{what} is one of {', '.join(map(json.dumps, choices))}")


def _typed(value: Primitive) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _of_type(kind: str | None, content: object, what: str) -> Primitive:
    if kind is None:
        if isinstance(content, str | bool | int | float) and _is_primitive(content):
            return content
        raise InvalidValue(f"{what} is a text, a number or a truth value")
    if kind == "string":
        if isinstance(content, str):
            return content
        raise InvalidValue(f"{what} is a text")
    if kind == "boolean":
        if isinstance(content, bool):
            return content
        if isinstance(content, str) and content.lower() in ("true", "yes", "false", "no"):
            return content.lower() in ("true", "yes")
        raise InvalidValue(f"{what} is true or false")
    return _number(kind, content, what)


def _number(kind: str, content: object, what: str) -> int | float:
    number: int | float | None = None
    if isinstance(content, int | float) and not isinstance(content, bool):
        number = content
    elif isinstance(content, str):
        try:
            number = int(content) if kind == "integer" else float(content)
        except ValueError:
            number = None
    whole = kind == "integer"
    if number is None or not _is_primitive(number) or (whole and number != int(number)):
        raise InvalidValue(f"{what} is {'a whole' if whole else 'a'} number")
    return int(number) if whole else number


def _shown(name: object) -> str:
    return repr(clean(name, _MAX_SHOWN_CHARS) if isinstance(name, str) else name)


def _listed(names: Any) -> str:
    return ", ".join(f"`{clean(name, _MAX_SHOWN_CHARS)}`" for name in sorted(map(str, names)))


def content_of(arguments: Mapping[str, Primitive | None]) -> object:
    """The answer that the arguments of an `input` command hold: `content`, or a form's fields `content.NAME`."""
    front = "content."
    form = {name[len(front) :]: value for name, value in arguments.items() if name.startswith(front)}
    return form or arguments.get("content")
