"""Short positions for digests: `kq58` names the log by two letters and the newest entry that was told.

A cursor of the feed is sealed and costs a language model fifty tokens each time it repeats it; this costs five at the
most below a thousand million entries. It opens nothing: rights are checked at each call, and whoever makes one up
skips what happened before.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import Final

_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz"
_POSITION: Final = re.compile(r"@?([a-z]{2})([0-9]{1,18})", re.ASCII)


@lru_cache(maxsize=8)
def _tag(epoch: str) -> str:
    number = int.from_bytes(hashlib.blake2b(epoch.encode(), digest_size=8).digest(), "big")
    return _ALPHABET[number % 26] + _ALPHABET[number // 26 % 26]


def short_position(epoch: str, offset: int) -> str:
    """The short form of "everything up to and including the entry `offset` of this log was told"."""
    return f"{_tag(epoch)}{offset}"


def is_position(text: str) -> bool:
    """Whether it has the form of a short position, of whichever log."""
    return _POSITION.fullmatch(text.strip()[:32]) is not None


def read_position(text: str, epoch: str) -> int | None:
    """The offset of a short position; `None`: it is none, or of another log. A leading `@` is no fault.

    Of another log than this, one in 676 has the same tag: its positions then name entries of this one.
    """
    found = _POSITION.fullmatch(text.strip()[:32])
    return int(found[2]) if found is not None and found[1] == _tag(epoch) else None
