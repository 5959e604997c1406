"""Texts from elsewhere made fit to show: one line, no control characters, capped.

Names, notes and messages come from instrumented code, which has them from anywhere. A terminal obeys escape
sequences, a log obeys line ends, a reader believes what bidirectional overrides show: none of these pass.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

MAX_SLUG_CHARS: Final = 40
ELLIPSIS: Final = "…"
NAMELESS_SLUG: Final = "operation"

# Only whole sequences are removed with their content. Of an unfinished one only the introducer goes (as a control
# character below), so that a stray ESC cannot hide the rest of a text. Every branch stops at the next introducer,
# which keeps the scan linear.
_ESCAPE_SEQUENCES: Final = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor movement
    r"|(?:\x1b\]|\x9d)[^\x07\x1b\x9c\x9d]*(?:\x07|\x1b\\|\x9c)"  # OSC: titles, links, the clipboard
    r"|(?:\x1b[PX^_]|[\x90\x98\x9e\x9f])[^\x1b\x90\x98\x9c\x9e\x9f]*(?:\x1b\\|\x9c)"  # DCS, SOS, PM, APC
    r"|\x1b[ -/]*[0-Z\\`-~]",  # two characters: character sets, reset
)
_LINE_ENDS: Final = re.compile("[\t\n\v\f\r\x85\u2028\u2029]+")
_NEVER: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f"
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional marks, overrides, isolates
    "\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]",  # tags: invisible to people, readable to models
)
_INVISIBLE: Final = re.compile(rf"(?![\t\n\v\f\r\x85]){_NEVER.pattern}")
_SURROGATES: Final = re.compile("[\ud800-\udfff]")
_NOT_IN_SLUGS: Final = re.compile("[^a-z0-9_-]+")


def clean(text: str, max_chars: int) -> str:
    """One printable line of at most `max_chars` characters; idempotent.

    Escape sequences, C0 and C1 characters and bidirectional controls are removed, line ends and tabs become a
    space, lone surrogates (which cannot be encoded) become U+FFFD, and spaces at both ends go. A text that was too
    long ends in `…`, which counts. No more than 8 `max_chars` + 256 characters of the input are looked at.
    Never raises.
    """
    if len(text) <= max_chars and text.isprintable():
        return text.strip()
    looked_at = text[: 8 * max_chars + 256]
    cut = len(looked_at) < len(text)
    if not looked_at.isprintable():
        looked_at = _ESCAPE_SEQUENCES.sub("", looked_at)
        looked_at = _LINE_ENDS.sub(" ", looked_at)
        looked_at = _NEVER.sub("", looked_at)
        looked_at = _SURROGATES.sub("\ufffd", looked_at)
    looked_at = looked_at.strip()
    if cut or len(looked_at) > max_chars:
        return looked_at[: max(0, max_chars - 1)].rstrip() + ELLIPSIS if max_chars > 0 else ""
    return looked_at


def without_invisible(text: str) -> str:
    """The whole text with its lines and tabs, but without escape sequences and what else `clean` removes."""
    return _INVISIBLE.sub("", _ESCAPE_SEQUENCES.sub("", text))


def slug(name: str) -> str:
    """The name as the front of a handle: `[a-z0-9_-]`, 1 to 40 characters, starting with a letter or digit.

    Accents are dropped, everything else becomes `_`. A name of which nothing is left is `operation`.
    """
    head = name[: 4 * MAX_SLUG_CHARS]
    if not head.isascii():
        head = unicodedata.normalize("NFKD", head).encode("ascii", "ignore").decode("ascii")
    return _NOT_IN_SLUGS.sub("_", head.lower()).strip("_-")[:MAX_SLUG_CHARS].rstrip("_-") or NAMELESS_SLUG
