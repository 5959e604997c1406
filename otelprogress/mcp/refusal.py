"""An answer that says no."""

from __future__ import annotations


class Refusal(Exception):
    """A call that is not answered as it was meant. Its text is the answer: what is wrong, and what to do instead."""
