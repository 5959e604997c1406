"""Globs over names: `*` stands for any characters, `?` for one, everything else for itself.

Not regular expressions: patterns come from clients and from configuration, and none of them may be slow.
"""

from __future__ import annotations

from collections.abc import Callable


def compile_glob(pattern: str) -> Callable[[str], bool]:
    """A predicate for a whole text.

    Literal pieces are looked for one after the other, leftmost first, and never looked for again: no pattern
    makes it backtrack.
    """
    pieces = pattern.split("*")
    if len(pieces) == 1:
        return lambda text: len(text) == len(pattern) and _fits(text, 0, pattern)
    head, *inner, tail = pieces
    middle = [piece for piece in inner if piece]

    def matches(text: str) -> bool:
        start, end = len(head), len(text) - len(tail)
        if end < start or not _fits(text, 0, head) or not _fits(text, end, tail):
            return False
        for piece in middle:
            found = _find(text, piece, start, end)
            if found < 0:
                return False
            start = found + len(piece)
        return True

    return matches


def _fits(text: str, start: int, piece: str) -> bool:
    if "?" not in piece:
        return text.startswith(piece, start)
    part = text[start : start + len(piece)]
    return len(part) == len(piece) and all(want in ("?", got) for want, got in zip(piece, part, strict=True))


def _find(text: str, piece: str, start: int, end: int) -> int:
    if "?" not in piece:
        return text.find(piece, start, end)
    return next((at for at in range(start, end - len(piece) + 1) if _fits(text, at, piece)), -1)
