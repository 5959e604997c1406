"""The answer of a wait."""

from __future__ import annotations

import msgspec

from otelprogress.model.events import FeedEvent, OperationView
from otelprogress.model.news import UNTIL, Reason, Until, news_reason, standing_reason

__all__ = ["UNTIL", "News", "Reason", "Until", "news_reason", "standing_reason"]


class News(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of a wait."""

    reason: Reason
    operation: OperationView
    """As it stands."""
    event: FeedEvent | None = None
    """What ended the wait; `None`: it stood already, or nothing did."""
    cursor: str = ""
    """Give it to the next wait, so that nothing is missed between the two."""
