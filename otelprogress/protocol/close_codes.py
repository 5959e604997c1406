"""Why a connection was closed, and whether coming back helps.

4000-4499: do not retry, the same attempt would end the same way. 4500-4999: retry with backoff.
Of the standard codes, 1001, 1006, 1011, 1012, 1013 and 1014 are worth a retry; the others are not.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class CloseCode(IntEnum):
    """The codes of protocol v1."""

    NORMAL = 1000
    TOO_BIG = 1009
    RESTART = 1012
    BAD_MESSAGE = 4400
    BAD_TOKEN = 4401
    FORBIDDEN = 4403
    HELLO_TIMEOUT = 4408
    ABUSE = 4429
    INTERNAL = 4500
    TOKEN_EXPIRED = 4501
    OVERLOADED = 4503
    SLOW = 4508
    NO_PONG = 4510


MEANINGS: Final[dict[CloseCode, str]] = {
    CloseCode.NORMAL: "closed by choice",
    CloseCode.TOO_BIG: "a frame over its limit",
    CloseCode.RESTART: "the feed ends or restarts",
    CloseCode.BAD_MESSAGE: "a frame that is no message of this protocol, or one at the wrong time",
    CloseCode.BAD_TOKEN: "the token is missing or wrong",
    CloseCode.FORBIDDEN: "the token lacks the scope",
    CloseCode.HELLO_TIMEOUT: "no hello in time",
    CloseCode.ABUSE: "more frames than the limit allows",
    CloseCode.INTERNAL: "a fault of the feed",
    CloseCode.TOKEN_EXPIRED: "the token expired and was not renewed",
    CloseCode.OVERLOADED: "too many clients",
    CloseCode.SLOW: "no byte was accepted for 30 s",
    CloseCode.NO_PONG: "no pong within 8 s",
}

_RETRIED_STANDARD_CODES: Final = frozenset({1001, 1006, 1011, 1012, 1013, 1014})


def retryable(code: int) -> bool:
    """Whether a client should connect again, with backoff, after this close code."""
    if 4000 <= code <= 4999:
        return code >= 4500
    return code in _RETRIED_STANDARD_CODES
