"""As much of JSON Schema 2020-12 as the OpenAPI document uses; anything else in a schema is an error of the test."""

from __future__ import annotations

from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_NOTES = {"description", "title", "default"}


def problems(value: Any, schema: dict[str, Any], document: dict[str, Any], path: str = "$") -> list[str]:
    """Why a value is not what a schema says; empty: it is."""
    found: list[str] = []
    for word, asked in schema.items():
        if word in _NOTES:
            continue
        if word == "$ref":
            found += problems(value, resolved(asked, document), document, path)
        elif word == "type":
            if not any(_is(value, each) for each in (asked if isinstance(asked, list) else [asked])):
                found.append(f"{path} is {value!r}, no {asked}")
        elif word == "enum":
            if value not in asked:
                found.append(f"{path} is {value!r}, none of {asked}")
        elif word == "anyOf":
            if all(problems(value, each, document, path) for each in asked):
                found.append(f"{path} is {value!r}, none of its forms")
        elif word == "required":
            found += [
                f"{path} has no {name}" for name in asked if isinstance(value, dict) and name not in value
            ]
        elif word == "properties":
            for name, each in asked.items():
                if isinstance(value, dict) and name in value:
                    found += problems(value[name], each, document, f"{path}.{name}")
        elif word == "additionalProperties":
            known = schema.get("properties", {})
            for name in value if isinstance(value, dict) else ():
                if name not in known and isinstance(asked, dict):
                    found += problems(value[name], asked, document, f"{path}.{name}")
                elif name not in known and asked is False:
                    found.append(f"{path} may not have {name}")
        elif word == "items":
            if isinstance(value, list) and isinstance(asked, dict):
                for number, each in enumerate(value):
                    found += problems(each, asked, document, f"{path}[{number}]")
        elif word == "prefixItems":
            for number, (each, one) in enumerate(zip(value, asked, strict=False)):
                found += problems(each, one, document, f"{path}[{number}]")
        elif word in ("minimum", "maximum"):
            if isinstance(value, int | float) and (value < asked if word == "minimum" else value > asked):
                found.append(f"{path} is {value}, {word} {asked}")
        elif word == "exclusiveMinimum":
            if isinstance(value, int | float) and value <= asked:
                found.append(f"{path} is {value}, not above {asked}")
        elif word == "maxLength":
            if isinstance(value, str) and len(value) > asked:
                found.append(f"{path} has {len(value)} characters, at most {asked}")
        elif word in ("minItems", "maxItems"):
            if isinstance(value, list) and (len(value) < asked if word == "minItems" else len(value) > asked):
                found.append(f"{path} has {len(value)} items, {word} {asked}")
        else:
            raise AssertionError(f"the check does not know {word!r} at {path}")
    return found


def resolved(reference: str, document: dict[str, Any]) -> dict[str, Any]:
    """What a local reference means."""
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def _is(value: Any, asked: str) -> bool:
    if isinstance(value, bool) and asked in ("integer", "number"):
        return False
    return isinstance(value, _TYPES[asked])
