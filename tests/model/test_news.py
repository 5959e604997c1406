from __future__ import annotations

import msgspec
import pytest

from otelprogress.model.events import Eta, FeedEvent, OperationView, State, StepState, StepView
from otelprogress.model.news import LOUDEST_FIRST, Reason, news_reason, wants_attention, why
from tests.model.test_digest import T0, S, event, known, view

FAILED_STEP = StepView(name="load", index=0, state=StepState.FAILED)
DONE_STEP = StepView(name="load", index=0, state=StepState.SUCCEEDED)


def test_every_reason_but_a_timeout_has_its_loudness() -> None:
    assert {*LOUDEST_FIRST, "timeout"} == set(Reason.__args__)


@pytest.mark.parametrize(
    ("happened", "is_urgent"),
    [
        (event("operation.noted", view(), level="warning"), True),
        (event("operation.noted", view(), level="error"), True),
        (event("operation.noted", view(), level="info"), False),
        (event("operation.noted", view(level="warning")), False),
        (event("input.requested", view(state=State.WAITING)), True),
        (event("operation.state_changed", view(stalled=True)), True),
        (event("operation.state_changed", view()), False),
        (event("operation.state_changed", view(state=State.PAUSED)), False),
        (event("step.ended", view(), step=FAILED_STEP), True),
        (event("step.ended", view(), step=DONE_STEP), False),
        (event("operation.started", view()), False),
        (event("operation.ended", view(state=State.SUCCEEDED)), True),
        (event("operation.state_changed", view(state=State.LOST)), True),
        (event("control.refused", view()), False),
    ],
)
def test_what_cannot_wait_is_told_at_once(happened: FeedEvent, is_urgent: bool) -> None:
    assert wants_attention(happened) is is_urgent


def test_of_several_reasons_the_loudest_is_said() -> None:
    events = [
        event("operation.noted", view(2), level="warning"),
        event("operation.ended", view(3, state=State.FAILED)),
        event("step.ended", view(2), step=DONE_STEP),
    ]
    assert why(events, known(view(2), view(3))) == "failed"
    assert why(events[2:], known(view(2))) == "step"
    assert why((), {}) == "changed"


def test_a_run_that_the_reader_does_not_know_has_started_or_stands_as_it_does() -> None:
    assert why([event("step.ended", view(), step=DONE_STEP)], {}) == "started"
    assert why([event("operation.ended", view(state=State.LOST))], {}) == "lost"
    assert why((), None, [view()]) == "started"
    assert why((), None, [view(), view(3, state=State.WAITING, input_id="in1")]) == "input"


def test_an_operation_that_was_told_may_have_moved_without_an_event() -> None:
    assert why((), known(view(revision=3)), [view(revision=3)]) == "changed"
    assert why((), known(view(revision=3)), [view(revision=4, eta=Eta(10_000, 20_000))]) == "eta"


@pytest.mark.parametrize(
    ("happened", "before", "attention", "end"),
    [
        (event("operation.state_changed", view()), view(stalled=True), None, None),
        (event("operation.state_changed", view()), view(state=State.WAITING, input_id="in1"), None, None),
        (event("operation.state_changed", view(stalled=True)), view(), "stalled", None),
        (event("control.refused", view()), view(), "warning", None),
        (event("control.applied", view()), view(), None, None),
        (event("operation.state_changed", view()), view(state=State.LOST), "resumed", None),
        (event("operation.ended", view(state=State.FAILED)), view(), "failed", "failed"),
    ],
)
def test_a_wait_is_over_with_what_needs_somebody_and_not_with_what_is_over(
    happened: FeedEvent, before: OperationView, attention: Reason | None, end: Reason | None
) -> None:
    assert news_reason(happened, before, "attention", resumed=True) == attention
    assert news_reason(happened, before, "end", resumed=True) == end


@pytest.mark.parametrize(
    ("now", "reason"),
    [(Eta(230, 300), "changed"), (Eta(400, 500), "eta"), (Eta(10, 20), "eta"), (None, "changed")],
)
def test_an_end_that_is_expected_at_another_time_is_news(now: Eta | None, reason: str) -> None:
    before = view(eta=Eta(240, 355))
    after = msgspec.structs.replace(before, as_of_unix_ns=before.as_of_unix_ns + 60 * S, eta=now, revision=10)
    tick = FeedEvent(kind="operation.progressed", operation=after, revision=10, time_unix_ns=T0)
    assert news_reason(tick, before, "change", resumed=True) == reason
    assert news_reason(tick, before, "attention", resumed=True) is None
