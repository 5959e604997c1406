"""What an examination comes to: the words that all parts of `otelprogress doctor` share."""

from __future__ import annotations

from typing import Final

import msgspec

OK: Final = "ok"
NOTE: Final = "note"
BAD: Final = "BAD"
FEED: Final = "feed"
COLLECTOR: Final = "collector"
ANSWER_WITHIN_S: Final = 3.0
MAX_TEXT_CHARS: Final = 200


class Finding(msgspec.Struct, frozen=True):
    """One line of the examination."""

    verdict: str
    """`ok`, `note` or `BAD`."""
    subject: str
    text: str
    advice: str = ""
    """What to do next; empty: nothing."""
