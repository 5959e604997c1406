"""Query strings: filters, and the few other things that a URL asks for."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import parse_qsl

import msgspec

from otelprogress.exceptions import InvalidValue
from otelprogress.model.digest_budget import DEFAULT_MAX_TOKENS
from otelprogress.protocol import filters
from otelprogress.protocol.messages import Filter, Level, MaxTokens, Render
from otelprogress_collector.api.problem import Problem

MAX_CURSOR_CHARS: Final = 512
_MAX_FIELDS: Final = 64
_LISTS: Final = frozenset({"run", "label", "trace_id", "service", "state"})
_FILTER: Final = frozenset(Filter.__struct_fields__)

P = TypeVar("P", bound=msgspec.Struct)


class StreamParameters(msgspec.Struct, frozen=True, kw_only=True):
    """What `/v1/feed/sse` takes beside a filter."""

    level: Level = "milestones"
    max_rate_hz: Annotated[float, msgspec.Meta(ge=0.001, le=1e6)] | None = None
    cursor: Annotated[str, msgspec.Meta(max_length=MAX_CURSOR_CHARS)] | None = None
    render: Render = "events"
    max_tokens: MaxTokens = DEFAULT_MAX_TOKENS


class ViewParameters(msgspec.Struct, frozen=True, kw_only=True):
    """What `/v1/operations/{id}` takes."""

    after: int | None = None
    """Answer once the revision is higher; `None`: at once."""
    wait: float = 30.0
    """Seconds to wait for that; at most 60."""


class ListParameters(msgspec.Struct, frozen=True, kw_only=True):
    """What `/v1/operations` takes beside a filter."""

    render: Render = "events"
    """`digest`: as text for language models; else JSON."""
    since: Annotated[str, msgspec.Meta(max_length=MAX_CURSOR_CHARS)] | None = None
    """The position of an earlier digest: only what changed since. `None`: everything that matches."""
    max_tokens: MaxTokens = DEFAULT_MAX_TOKENS


def read_query(query: bytes, beside: type[P], *, max_clauses: int | None) -> tuple[Filter, P]:
    """The filter in a query string, and what stands beside it.

    Args:
        query: as it was sent.
        beside: further parameters.
        max_clauses: of the filter; `None`: no filter is taken.

    Raises:
        Problem: 400, with what is wrong: an unknown name is refused too, it would otherwise widen what is sent.
    """
    known = frozenset(beside.__struct_fields__) | (_FILTER if max_clauses is not None else frozenset())
    given: dict[str, Any] = {}
    for name, value in _fields(query):
        if name not in known:
            raise _bad(f"no parameter {name[:64]!r}; known are {', '.join(sorted(known))}")
        if name in _LISTS:
            given.setdefault(name, []).append(value)
        elif name in given:
            raise _bad(f"{name} is given twice")
        else:
            given[name] = _json(value) if name == "attributes" else value
    wanted = _convert({name: given[name] for name in given.keys() & _FILTER}, Filter)
    if max_clauses is None:
        wanted = Filter()
    else:
        try:
            filters.check(wanted, max_clauses=max_clauses)
        except InvalidValue as error:
            raise _bad(str(error)) from None
    return wanted, _convert(
        {name: given[name] for name in given.keys() & set(beside.__struct_fields__)}, beside
    )


def _fields(query: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS
        )
    except ValueError:
        raise _bad(f"a query has at most {_MAX_FIELDS} parameters, of UTF-8") from None


def _json(value: str) -> Any:
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError):
        raise _bad('attributes is a JSON object, as {"region": "eu"}') from None


def _convert(given: dict[str, Any], into: type[P]) -> P:
    try:
        # What stands in a URL are strings; attributes keep the types of their JSON.
        attributes = given.pop("attributes", None)
        struct = msgspec.convert(given, into, strict=False)
        if attributes is None:
            return struct
        kept = msgspec.convert({"attributes": attributes}, Filter)
        return msgspec.structs.replace(struct, attributes=kept.attributes)
    except msgspec.ValidationError as error:
        raise _bad(str(error)) from None


def _bad(detail: str) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, detail)
