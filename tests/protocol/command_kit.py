"""What tests of commands share: a desk over a hub with a clock."""

from __future__ import annotations

from typing import Any

from otelprogress.model import semconv
from otelprogress.model.events import State
from otelprogress.protocol.command_desk import CommandDesk
from otelprogress.protocol.command_judging import SCOPE_CONTROL, SCOPE_RESPOND, Asker
from otelprogress.protocol.filters import Matcher
from otelprogress.protocol.messages import Command, CommandStatus, Filter, LinkCommand
from tests.protocol.feed_kit import Stage

EVERYTHING = Filter(roots=False)
ADA = Asker(actor="ada", scopes=frozenset({SCOPE_CONTROL, SCOPE_RESPOND}))
ALL = ("cancel", "pause", "input", "snapshot")


class Bureau(Stage):
    """A desk over a hub with a clock, and whoever can be reached."""

    def __init__(self) -> None:
        super().__init__()
        self.away: set[str] = set()
        self.actions: dict[str, str] = {}
        self.asked_for: list[tuple[str, str]] = []
        self.desk = CommandDesk(self.hub, self.reaches)

    def reaches(self, writer_id: str, tenant: str) -> bool:
        self.asked_for.append((writer_id, tenant))
        return writer_id not in self.away

    def say(self, number: int, kind: str, **fields: Any) -> list:
        fields.setdefault("writer_id", "w1")
        applied = super().say(number, kind, **fields)
        self.desk.applied(applied, self.now_ns)
        return applied

    def command(
        self,
        action: str = "cancel",
        operation: str = "load-1",
        command_id: str = "c1",
        *,
        asker: Asker = ADA,
        sees: Filter | None = None,
        **fields: Any,
    ) -> CommandStatus:
        command = Command(command_id=command_id, operation=operation, action=action, **fields)
        self.actions.setdefault(command_id, action)
        matcher = Matcher(EVERYTHING, tenant=asker.tenant, predicate=sees)
        return self.desk.submit(command, asker, matcher, self.now_ns)

    def sent(self) -> list[tuple[str, LinkCommand]]:
        return [(each.writer_id, each.command) for each in self.desk.take_deliveries()]

    def told(self) -> list[tuple[str | None, str | None]]:
        """Words of the host's own, which it publishes."""
        events = self.desk.take_events(self.now_ns)
        for event in events:
            self.desk.applied(self.hub.publish(event, self.now_ns), self.now_ns)
        return [(event.control_id, event.control_refusal) for event in events]

    def answer(
        self, status: str, message: str = "", *, writer_id: str = "w1", command_id: str = "c1"
    ) -> None:
        self.desk.received(
            writer_id, "", CommandStatus(command_id=command_id, status=status, message=message)
        )

    def applies(self, number: int = 1, command_id: str = "c1", **fields: Any) -> None:
        fields.setdefault("control_action", self.actions.get(command_id, "cancel"))
        self.say(number, semconv.CONTROL_APPLIED, control_id=command_id, **fields)

    def refuses(
        self, number: int = 1, command_id: str = "c1", refusal: str = "expired", **fields: Any
    ) -> None:
        fields.setdefault("control_action", self.actions.get(command_id, "cancel"))
        self.say(number, semconv.CONTROL_REFUSED, control_id=command_id, control_refusal=refusal, **fields)

    def after(self, seconds: float) -> list[tuple[str | None, str | None]]:
        self.now_s += seconds
        self.desk.advance(self.now_ns)
        return self.told()

    def asks(self, input_id: str = "in1", schema: str | None = '{"enum": ["halve", "stop"]}') -> None:
        self.say(
            1,
            semconv.INPUT_REQUESTED,
            input_id=input_id,
            input_prompt="lr?",
            input_schema=schema,
            state=State.WAITING,
        )
