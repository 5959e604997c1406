"""The caller's trace, from the `_meta` of a call. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

_TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"
)
_CHARS: Final = 55


def traceparent_of(meta: Mapping[str, Any] | None) -> str:
    """The `traceparent` in version 00's form; empty: none, or none that can be read.

    Args:
        meta: of a request; `None`: it had none.
    """
    said = (meta or {}).get("traceparent")
    if not isinstance(said, str) or len(said) > 256 or not (found := _TRACEPARENT.fullmatch(said.strip())):
        return ""
    text = said.strip()
    if found[1] and text.startswith("00"):
        return ""  # version 00 has four parts
    return f"00{text[2:_CHARS]}"
