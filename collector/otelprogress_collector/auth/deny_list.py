"""Tokens that count no more, although they are genuine and not expired: a file of their ids.

One id a line: the `jti` of a JWT, the name of a static token. Ids hold no white space and do not begin with a `#`.
Empty lines, and what follows a `#` at the beginning of a line or after white space, are not read. Others may read the
file, but not write it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from otelprogress.exceptions import InvalidValue
from otelprogress_collector.auth.private_file import read_trusted
from otelprogress_collector.auth.watched_file import CHECK_EVERY_S, WatchedFile

MAX_BYTES: Final = 4 * 1024 * 1024
MAX_ID_CHARS: Final = 256


class DenyList:
    """The ids in a file; a change counts within 5 s if `refresh` is called each second.

    Args:
        path: the file; it must be there, if empty.
        now_s: a monotonic clock; all `now_s` come from the same one.
        check_every_s: the least time between two looks at the file.

    Raises:
        InvalidValue: the file is missing or broken at the beginning. Later on the last good list stands, and one
            warning says so.
    """

    def __init__(self, path: Path, *, now_s: float, check_every_s: float = CHECK_EVERY_S) -> None:
        self._file = WatchedFile(
            path,
            read=lambda path: read_trusted(path, max_bytes=MAX_BYTES),
            parse=parse_deny_list,
            now_s=now_s,
            check_every_s=check_every_s,
        )

    def __contains__(self, token_id: str) -> bool:
        """Whether that token is denied. No I/O; the empty id never is: it names no token."""
        return token_id in self._file.content

    def __len__(self) -> int:
        return len(self._file.content)

    @property
    def broken(self) -> bool:
        """Whether the file cannot be used now, so that an older list stands."""
        return self._file.broken

    def due(self, now_s: float) -> bool:
        """Whether `refresh` would look."""
        return self._file.due(now_s)

    def refresh(self, now_s: float) -> bool:
        """Look at the file if it is time to; whether the list is another. Never raises."""
        return self._file.refresh(now_s)


def parse_deny_list(encoded: bytes) -> frozenset[str]:
    """The ids in the text of such a file.

    Raises:
        InvalidValue: it is no UTF-8, or an id is too long; names the line.
    """
    try:
        text = encoded.decode()
    except UnicodeDecodeError:
        raise InvalidValue("a deny-list is a text in UTF-8, one token id a line") from None
    ids = set()
    for number, line in enumerate(text.split("\n"), 1):
        token_id, *rest = line.split(maxsplit=1) or ("#",)
        if token_id.startswith("#"):
            continue
        if not is_token_id(token_id) or (rest and not rest[0].startswith("#")):
            raise InvalidValue(f"line {number} of the deny-list is not one token id")
        ids.add(token_id)
    return frozenset(ids)


def is_token_id(text: str) -> bool:
    """Whether a deny-list could name a token of that id."""
    return (
        0 < len(text) <= MAX_ID_CHARS
        and text.isprintable()
        and not text.startswith("#")
        and not any(map(str.isspace, text))
    )
