"""What must not reach a feed, a store, a page or a digest: secrets, by the key or by the look of the value.

Keys pass by an allow-list: what instrumented code hands to otelprogress itself is meant to be seen, of the
attributes of foreign spans only well-known harmless ones are. Values, and all texts, have what looks like a secret
replaced by `[redacted]`. This is a net, not a proof: a secret that looks like a word passes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping
from typing import Final

from otelprogress.model.text import clean, without_invisible

REDACTED: Final = "[redacted]"
MAX_ATTRIBUTES: Final = 32
MAX_KEY_CHARS: Final = 128
MAX_VALUE_CHARS: Final = 256
WINDOW_CHARS: Final = 8192
_ENOUGH_CHARS: Final = 4400
"""So many characters from its start tell whether something is a secret: a quoted value of 4,096 and what names it."""

AttributeScalar = str | bool | int | float

ALLOWED_FOREIGN_KEYS: Final = frozenset(
    {
        "code.function",
        "code.function.name",
        "db.collection.name",
        "db.namespace",
        "db.operation.name",
        "db.system",
        "db.system.name",
        "deployment.environment.name",
        "faas.name",
        "gen_ai.agent.name",
        "gen_ai.operation.name",
        "gen_ai.request.model",
        "gen_ai.system",
        "gen_ai.tool.name",
        "http.method",
        "http.request.method",
        "http.response.status_code",
        "http.route",
        "http.status_code",
        "messaging.destination.name",
        "messaging.operation.name",
        "messaging.system",
        "rpc.method",
        "rpc.service",
        "rpc.system",
        "server.address",
        "server.port",
        "service.name",
        "service.namespace",
        "service.version",
    },
)
"""Attributes of spans that otelprogress did not make; everything else stays where it is, on the span."""

_TELLING_WORDS: Final = (
    r"pass(?:word|wd|phrase)|pwd|secret|token|api[_.-]?key|access[_.-]?key|private[_.-]?key|client[_.-]?key|"
    r"auth(?:orization)?|credentials?|cookie|session[_.-]?id|signature"
)
_SECRET_KEY: Final = re.compile(rf"(?i)(?:^|[_.-])(?:{_TELLING_WORDS})(?:s|$|[_.-])")

_SYSTEM_SAYS: Final = (
    r"(?:permission denied|no such file or directory|(?:is a|not a) directory|operation not permitted|file exists|"
    r"exec format error|text file busy|input/output error|read-only file system|too many open files)(?![^\s.,;:)\"'\]])"
)
"""What stands behind the name of a file in an error and is no secret: `/etc/passwd: Permission denied`."""

# Every repetition is bounded or ends at a character that its own class leaves out, so that no text is slow.
_SECRET_VALUE: Final = re.compile(
    r"(?is)"
    r"(?P<pem>-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----(?:(?!-----END).){0,16384}(?:-----END [A-Z0-9 ]{0,40}-----)?)"
    r"|(?P<scheme>\b(?:bearer|basic|digest|negotiate|token)\s{1,8})(?=\S{0,255}[0-9])[A-Za-z0-9._~+/=-]{12,4096}"
    rf"|(?P<named>[\"']?\b(?:[\w.-]{{0,40}}[_.-])?(?:{_TELLING_WORDS})(?:[_.-]\w{{1,20}})?[\"']?\s{{0,4}}(?:[:=]|=>)\s{{0,4}})"
    rf"(?!{_SYSTEM_SAYS})"
    r"(?:\"[^\"]{1,4096}\"|'[^']{1,4096}'|[^\s\"',;&}{)(]{1,4096})"
    r"|(?P<user>\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@]{0,256}:)[^\s/@]{1,256}(?=@)"
    r"|\beyJ[A-Za-z0-9_-]{8,4096}\.[A-Za-z0-9_-]{4,4096}(?:\.[A-Za-z0-9_-]{0,4096})?"  # JSON web tokens
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"
    r"|\bgh[pousr]_[A-Za-z0-9]{20,255}|\bgithub_pat_[A-Za-z0-9_]{20,255}|\bglpat-[A-Za-z0-9_-]{16,255}"
    r"|\bxox[abeoprs]-[A-Za-z0-9-]{10,255}"
    r"|\b(?:sk|rk|pk)[_-](?:live|test|proj|ant|or)?[A-Za-z0-9_-]{20,255}"
    r"|\bAIza[A-Za-z0-9_-]{30,60}|\bya29\.[A-Za-z0-9_-]{20,1024}"
    r"|\botpc_[A-Za-z0-9_-]{20,255}"  # a collector's own
    r"|\b(?:hf|npm|dop_v1|shpat)_[A-Za-z0-9]{20,255}|\bpypi-[A-Za-z0-9_-]{30,1024}"
    r"|\bSG\.[A-Za-z0-9_-]{16,64}\.[A-Za-z0-9_-]{16,128}",
)
_MAYBE_AUTHORIZATION: Final = re.compile(
    r"(?i)(authorization[\"']?\s{0,4}[:=]\s{0,4}[\"']?)(?:\w{1,20}\s{1,8})?[^\s\"',;]{1,4096}"
)


# Every secret above has one of these in it. Looking for them is thirty times cheaper than the pattern, and almost no
# text has any.
_HINTS: Final = (
    *("pass", "pwd", "secret", "token", "key", "auth", "cred", "cookie", "session", "signature"),
    *("bearer", "basic", "digest", "negotiate", "://", "eyj", "akia", "asia", "aiza", "ya29", "sg."),
    *(
        "ghp_",
        "gho_",
        "ghu_",
        "ghs_",
        "ghr_",
        "github_pat_",
        "glpat-",
        "xox",
        "otpc_",
        "hf_",
        "npm_",
        "dop_v1",
        "shpat",
        "pypi-",
    ),
    *("sk-", "sk_", "rk-", "rk_", "pk-", "pk_"),
)
_PLAIN_HINTS: Final = tuple(hint for hint in _HINTS if not {"_", "-"} & set(hint))
_JOINED_HINTS: Final = tuple(hint for hint in _HINTS if {"_", "-"} & set(hint))


def _hinted(lowered: str) -> bool:
    for hint in _PLAIN_HINTS:
        if hint in lowered:
            return True
    return ("_" in lowered or "-" in lowered) and any(hint in lowered for hint in _JOINED_HINTS)


def redact(text: str) -> str:
    """The text with everything that looks like a secret replaced by `[redacted]`; what names it stays.

    Known are private keys, `Authorization` values, `password=…` and its relatives, passwords in URLs, JSON web
    tokens and the keys of well-known services.
    """
    if not _hinted(text.lower()):
        return text
    text = _MAYBE_AUTHORIZATION.sub(rf"\1{REDACTED}", text)
    return _SECRET_VALUE.sub(_without_the_secret, text)


def _without_the_secret(match: re.Match[str]) -> str:
    kept = match["scheme"] or match["named"] or match["user"] or ""
    return kept + REDACTED


def may_hold_secret(text: str) -> bool:
    """Whether `redact`, or a look at the names in it, could find something in a text: cheap, and often `True` for nothing."""
    return _hinted(text.lower())


def redact_whole(text: str, *, window_chars: int = WINDOW_CHARS) -> Generator[None, None, str]:
    """`redact` for a text of any length that is to stay as it is otherwise; it may take a second for a megabyte.

    Line ends and colours stay, unless a secret hides behind what cannot be seen: then that goes too.

    Args:
        text: not capped.
        window_chars: about how much is looked through between two `next`, of which each takes some milliseconds.
    """
    kept = yield from _redact_in_windows(text, window_chars)
    if not kept.isprintable() and len(seen := without_invisible(kept)) < len(kept):
        found = yield from _redact_in_windows(seen, window_chars)
        if found != seen:
            return found
    return kept


def _redact_in_windows(text: str, window_chars: int) -> Generator[None, None, str]:
    if len(text) <= 2 * window_chars:
        return redact(text)
    text = yield from _substituted(
        _MAYBE_AUTHORIZATION, lambda match: match[1] + REDACTED, text, window_chars
    )
    return (yield from _substituted(_SECRET_VALUE, _without_the_secret, text, window_chars))


def _substituted(
    pattern: re.Pattern[str], replacement: Callable[[re.Match[str]], str], text: str, window_chars: int
) -> Generator[None, None, str]:
    """`pattern.sub(replacement, text)`, window by window."""
    parts: list[str] = []
    copied = at = 0
    while at < len(text):
        end = at + window_chars
        enough = end + _ENOUGH_CHARS
        found = pattern.search(text, at, enough) if _hinted(text[at:enough].lower()) else None
        yield
        if found is None or found.start() >= end:
            at = end
            continue
        # Where it starts is certain; where it ends only without the edge of the window.
        found = pattern.match(text, found.start()) or found
        parts += text[copied : found.start()], replacement(found)
        copied = at = found.end()
    parts.append(text[copied:])
    return "".join(parts)


def redacted(text: str | None, max_chars: int) -> str | None:
    """`clean`, then `redact`; `None` stays `None`. At most `max_chars` characters."""
    if text is None:
        return None
    if not text.isprintable():
        # What `clean` takes for an escape sequence may be the front of what a secret is known by.
        text = redact(text[: 8 * max_chars + 256])
    # Redacted before the cap, so that a secret cut in half is still known by its front.
    return clean(redact(clean(text, 4 * max_chars)), max_chars)


def is_secret_key(key: str) -> bool:
    """Whether an attribute of that name is never shown, whatever its value: `db.password`, `x-api-key`."""
    return _SECRET_KEY.search(key) is not None


def allowed_attributes(
    attributes: Mapping[str, object],
    *,
    allowed: frozenset[str] | None = ALLOWED_FOREIGN_KEYS,
) -> dict[str, AttributeScalar]:
    """What of these attributes may be shown: at most 32, scalars only, texts cleaned, redacted and capped at 256.

    Args:
        attributes: by name; sequences and other non-scalars are left out.
        allowed: names that pass; `None`: all but those that look secret (for what was handed to otelprogress itself).
    """
    kept: dict[str, AttributeScalar] = {}
    for key, value in attributes.items():
        if len(kept) == MAX_ATTRIBUTES:
            break
        if not isinstance(value, (str, bool, int, float)) or is_secret_key(key):
            continue
        if allowed is not None and key not in allowed:
            continue
        name = redacted(key, MAX_KEY_CHARS) or ""
        kept[name] = (redacted(value, MAX_VALUE_CHARS) or "") if isinstance(value, str) else value
    return kept
