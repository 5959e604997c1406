"""What receivers need around them: a host that remembers, and somebody who passes bytes on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from otelprogress.model.events import Event
from otelprogress_collector.auth.principal import WRITE, Denied, Principal
from otelprogress_collector.host import Accepted
from otelprogress_collector.receivers.admission import Forbidden, bearer_of
from otelprogress_collector.receivers.decoding import Decoder
from otelprogress_collector.receivers.ingest import Ingest
from otelprogress_collector.receivers.limits import DEFAULT_LIMITS, Limits


class FakeHost:
    """Takes events; says what it is told to say."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.error: Exception | None = None
        self.answer = Accepted()
        self.gate: asyncio.Event | None = None

    async def accept(self, events: Sequence[Event], size_bytes: int) -> Accepted:
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.events += events
        return self.answer


class Desk:
    """An Ingest with all around it."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS, rate_limit=None, **decoding) -> None:
        self.host = FakeHost()
        self.forwarded: list[tuple] = []
        self.forward_error: Exception | None = None
        self.ingest = Ingest(
            Decoder(
                lambda run_id, _: any(one.run_id == run_id for one in self.host.events),
                limits=limits,
                **decoding,
            ),
            self.host,
            forward=self._forward,
            rate_limit=rate_limit,
        )

    async def _forward(self, *passed) -> None:
        if self.forward_error is not None:
            raise self.forward_error
        self.forwarded.append(passed)

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.host.events]


PRINCIPALS = {
    "good": Principal(actor="a", scopes=frozenset({WRITE})),
    "reader": Principal(actor="b", scopes=frozenset({"progress:read"})),
    "etl-only": Principal(actor="c", scopes=frozenset({WRITE}), services=("etl",)),
}


async def by_fixed_tokens(headers: Mapping[str, str]) -> Principal:
    """The tokens of `PRINCIPALS`; without one, anybody writes."""
    token = bearer_of(headers)
    if token is None:
        return PRINCIPALS["good"]
    if token not in PRINCIPALS:
        raise Denied("the token is unknown")
    if WRITE not in PRINCIPALS[token].scopes:
        raise Forbidden("the token lacks the scope progress:write")
    return PRINCIPALS[token]
