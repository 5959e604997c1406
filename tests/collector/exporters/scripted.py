"""A backend without a network: answers as it is told, and remembers when it was asked for what."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from otelprogress.otel.transport import DELIVERED, Answer, Verdict

BUSY = Answer(Verdict.RETRY, "HTTP 503")
GONE = Answer(Verdict.RETRY, "ClientConnectorError: Connection refused", reached=False)
REFUSED = Answer(Verdict.REFUSED, "HTTP 400")
UNSUPPORTED = Answer(Verdict.UNSUPPORTED, "HTTP 404")


@dataclass
class ScriptedSender:
    script: list = field(default_factory=list)
    """Answers, or exceptions to raise, in order; then `default`."""
    default: Answer = DELIVERED
    takes_s: float = 0.0
    poison: bytes = b""
    """Not empty: bodies with it in them are refused."""
    sent: list[tuple[float, str, bytes, str]] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    closed: bool = False

    async def send(self, signal, body, encoding):
        self.sent.append((asyncio.get_running_loop().time(), signal, body, encoding))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if self.takes_s:
                await asyncio.sleep(self.takes_s)
        finally:
            self.in_flight -= 1
        if self.poison and self.poison in body:
            return REFUSED
        answer = self.script.pop(0) if self.script else self.default
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self):
        self.closed = True

    @property
    def bodies(self) -> list[bytes]:
        return [body for _, _, body, _ in self.sent]

    @property
    def times(self) -> list[float]:
        return [at for at, _, _, _ in self.sent]
