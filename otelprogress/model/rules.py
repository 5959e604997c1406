r"""Which spans of existing instrumentation are operations: rules over name, scope, kind and attributes.

A rule is written in code (`SpanRule`) or in the environment (`OTELPROGRESS_RULES`, `parse_rules`)::

    rules      = rule *( "|" rule )
    rule       = clause *( ";" clause )
    clause     = "name=" glob | "scope=" glob | "kind=" kind | "attr." key "=" glob
               | "root_only" | "children=" ( "steps" | "operations" | "ignore" ) | "title=" text
    kind       = "internal" | "server" | "client" | "producer" | "consumer"

`\|`, `\;` and `\\` stand for the characters themselves; spaces around clauses do not count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, cast, get_args

import msgspec

from otelprogress.exceptions import InvalidValue
from otelprogress.model import semconv
from otelprogress.model.glob import compile_glob

ChildrenBecome = Literal["steps", "operations", "ignore"]
SPAN_KINDS: Final = ("internal", "server", "client", "producer", "consumer")
EXCLUDED_SCOPES: Final = frozenset({semconv.SCOPE_NAME, "mcp-python-sdk"})
"""Ours speak for themselves; the MCP SDK opens a server span for every message. A rule that names such a scope
without a wildcard gets it all the same (but never ours)."""

_MAX_CACHED_NAMES: Final = 4096
_ESCAPED: Final = re.compile(r"\\([|;\\])")
_PLACEHOLDER: Final = re.compile(r"\{([^{}]{1,128})\}")


class SpanFacts(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What rules and the mapping look at, of one span, free of any SDK."""

    name: str
    scope: str = ""
    """The instrumentation scope's name."""
    kind: str = "internal"
    """One of `SPAN_KINDS`."""
    attributes: Mapping[str, Any] = {}
    trace_id: int = 0
    span_id: int = 0
    parent_span_id: int | None = None
    """`None`: a root, or its parent is in another process (see `root`)."""
    root: bool = False
    """No parent in this process: none at all, or a remote one."""
    trace_state: str = ""
    sampled: bool = True
    start_unix_ns: int = 0
    end_unix_ns: int | None = None
    """`None`: it has not ended."""
    status: str = "unset"
    """`unset`, `ok` or `error`."""
    status_description: str | None = None
    events: tuple[tuple[str, int, Mapping[str, Any]], ...] = ()
    """(name, time, attributes) of its span events, oldest first; only looked at when it has ended."""


class SpanRule:
    """Which spans are operations, and what becomes of their children.

    Attributes:
        name: a glob over the span's name.
        scope: a glob over the instrumentation scope's name; `None`: any.
        kind: the span's kind, one of `SPAN_KINDS`; `None`: any.
        attributes: values that the span must have when it starts; texts are globs.
        root_only: only spans without a parent in this process.
        children: what the child spans of a match become: its steps, operations of their own, or nothing.
        title: for people; `{name}` and `{<attribute key>}` are filled in. `None`: the span's name.
    """

    __slots__ = (
        "_scope_is_exact",
        "_tests",
        "attributes",
        "children",
        "kind",
        "name",
        "root_only",
        "scope",
        "title",
    )

    def __init__(
        self,
        name: str = "*",
        *,
        scope: str | None = None,
        kind: str | None = None,
        attributes: Mapping[str, str | bool | float] | None = None,
        root_only: bool = False,
        children: ChildrenBecome = "ignore",
        title: str | None = None,
    ) -> None:
        """See the class.

        Raises:
            InvalidValue: an empty name, an unknown kind or an unknown word for the children.
        """
        if not name:
            raise InvalidValue("a rule needs a name, a glob such as 'import *'")
        if kind is not None and kind.lower() not in SPAN_KINDS:
            raise InvalidValue(f"kind must be one of {', '.join(SPAN_KINDS)}, not {kind!r}")
        if children not in get_args(ChildrenBecome):
            raise InvalidValue(
                f"children must be one of {', '.join(get_args(ChildrenBecome))}, not {children!r}"
            )
        self.name = name
        self.scope = scope
        self.kind = kind.lower() if kind is not None else None
        self.attributes = dict(attributes or {})
        self.root_only = root_only
        self.children: ChildrenBecome = children
        self.title = title
        self._scope_is_exact = scope is not None and "*" not in scope and "?" not in scope
        self._tests = (
            compile_glob(name),
            compile_glob(scope) if scope is not None else None,
            [(key, _value_test(value)) for key, value in self.attributes.items()],
        )

    def __repr__(self) -> str:
        said = [f"{self.name!r}"]
        said += [
            f"{key}={value!r}"
            for key in ("scope", "kind", "title")
            if (value := getattr(self, key)) is not None
        ]
        said += [f"attributes={self.attributes!r}"] if self.attributes else []
        said += ["root_only=True"] if self.root_only else []
        said += [f"children={self.children!r}"] if self.children != "ignore" else []
        return f"SpanRule({', '.join(said)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SpanRule) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def matches_name(self, name: str) -> bool:
        """Whether a span of that name could match."""
        return self._tests[0](name)

    def matches(self, span: SpanFacts) -> bool:
        """Whether the span is meant."""
        name_fits, scope_fits, attribute_tests = self._tests
        if (self.root_only and not span.root) or (self.kind is not None and span.kind != self.kind):
            return False
        if span.scope in EXCLUDED_SCOPES and not (self._scope_is_exact and span.scope != semconv.SCOPE_NAME):
            return False
        if not name_fits(span.name) or (scope_fits is not None and not scope_fits(span.scope)):
            return False
        return all(key in span.attributes and fits(span.attributes[key]) for key, fits in attribute_tests)

    def title_of(self, span: SpanFacts) -> str | None:
        """The title with its placeholders filled; an attribute that is not there becomes `?`; `None`: no title."""
        if self.title is None:
            return None

        def fill(placeholder: re.Match[str]) -> str:
            key = placeholder[1]
            return span.name if key == "name" else str(span.attributes.get(key, "?"))

        return _PLACEHOLDER.sub(fill, self.title)


class RuleSet:
    """Rules in order: the first that matches counts."""

    def __init__(self, rules: Iterable[SpanRule] = ()) -> None:
        """See the class."""
        self.rules = tuple(rules)
        self._by_name: dict[str, tuple[SpanRule, ...]] = {}

    def candidates(self, name: str) -> tuple[SpanRule, ...]:
        """The rules that a span of that name could match; one dictionary look-up for a name met before."""
        known = self._by_name.get(name)
        if known is None:
            known = tuple(rule for rule in self.rules if rule.matches_name(name))
            if len(self._by_name) >= _MAX_CACHED_NAMES:  # names with ids in them: start again
                self._by_name = {}
            self._by_name[name] = known
        return known

    def match(self, span: SpanFacts) -> SpanRule | None:
        """The first rule that the span matches; `None`: it is no operation."""
        return next((rule for rule in self.candidates(span.name) if rule.matches(span)), None)


def parse_rules(text: str) -> tuple[SpanRule, ...]:
    """The rules of `OTELPROGRESS_RULES`; none for an empty text.

    Raises:
        InvalidValue: naming the rule, the clause and what is allowed there.
    """
    return tuple(
        _parse_rule(rule, number) for number, rule in enumerate(_split(text, "|"), 1) if rule.strip(" ;")
    )


def _parse_rule(text: str, number: int) -> SpanRule:
    said: dict[str, Any] = {}
    attributes: dict[str, str] = {}
    for raw in _split(text, ";"):
        clause = raw.strip()
        if not clause:
            continue
        key, equals, value = (part.strip() for part in clause.partition("="))
        value = _ESCAPED.sub(r"\1", value)
        if key in said or (key.startswith("attr.") and key[5:] in attributes):
            raise InvalidValue(f"rule {number}: {key!r} is said twice")
        if key == "root_only":
            if equals:
                raise InvalidValue(f"rule {number}: 'root_only' takes no value")
            said[key] = True
        elif not equals or not value:
            raise InvalidValue(f"rule {number}: {clause!r} needs a value, as in 'name=import *'")
        elif key.startswith("attr.") and len(key) > len("attr."):
            attributes[key[5:]] = value
        elif key in {"name", "scope", "kind", "children", "title"}:
            said[key] = value
        else:
            raise InvalidValue(
                f"rule {number}: unknown clause {clause!r}; known are name=, scope=, kind=, attr.KEY=, children=, title=, "
                "root_only",
            )
    try:
        return SpanRule(**said, attributes=cast("dict[str, str | bool | float]", attributes))
    except InvalidValue as error:
        raise InvalidValue(f"rule {number}: {error}") from None


def _split(text: str, separator: str) -> list[str]:
    """At every separator that no backslash escapes; the escapes stay for the next level."""
    parts = re.findall(rf"(?:[^\\{separator}]|\\.?)*", text, re.DOTALL)
    return [part for part in parts if part]


def _value_test(expected: str | bool | float) -> Callable[[Any], bool]:
    if isinstance(expected, str):
        fits = compile_glob(expected)
        return lambda value: fits(_as_text(value))
    return lambda value: value == expected and isinstance(value, bool) == isinstance(expected, bool)


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
