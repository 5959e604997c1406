from __future__ import annotations

import asyncio
import gc
import threading

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from otelprogress.model import semconv
from otelprogress.model.events import Source, State, StepState, run_id
from otelprogress.model.rules import SpanRule
from otelprogress.otel.outlet import OUTLET
from otelprogress.otel.registry import REGISTRY
from otelprogress.otel.span_processor import ProgressSpanProcessor, claim_next_span

IMPORTS = SpanRule("import *", root_only=True, children="steps", title="Import of {file}")


def provider_with(*rules: SpanRule, **settings) -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False, **settings)
    provider.add_span_processor(ProgressSpanProcessor(rules))
    return provider


def kinds(submitted) -> list[str]:
    return [one.kind.removeprefix(semconv.PREFIX) for one in submitted]


def test_a_span_that_a_rule_names_is_an_operation_while_it_runs(submitted):
    tracer = provider_with(IMPORTS).get_tracer("app")
    with tracer.start_as_current_span(
        "import a", kind=SpanKind.CONSUMER, attributes={"file": "a.csv"}
    ) as span:
        [began] = submitted
        ids = span.get_span_context()
        assert began.kind == semconv.OPERATION_STARTED
        assert began.run_id == run_id(ids.trace_id, ids.span_id)
        assert (began.name, began.title, began.span_kind) == ("import a", "Import of a.csv", "consumer")
        assert (began.parent_span_id, began.start_unix_ns, began.sampled) == ("", span.start_time, True)
        assert (began.writer_id, began.lease_s, began.service, began.process_id) == (
            "watcher",
            90.0,
            "etl",
            7,
        )
    end = submitted[-1]
    assert (end.kind, end.state, end.source) == (semconv.OPERATION_ENDED, State.SUCCEEDED, Source.LOG)
    assert end.time_unix_ns == span.end_time
    assert REGISTRY.by_span_id == {}


def test_child_spans_are_its_steps_and_their_children_are_nobodys(submitted):
    tracer = provider_with(IMPORTS).get_tracer("app")
    with tracer.start_as_current_span("import a"):
        with tracer.start_as_current_span("parse"):
            with tracer.start_as_current_span("read block"):
                pass
        with tracer.start_as_current_span("load") as load:
            load.set_status(Status(StatusCode.ERROR, "disk full"))
    assert kinds(submitted) == [
        "operation.started",
        "step.started",
        "step.ended",
        "step.started",
        "step.ended",
        "operation.ended",
    ]
    assert [(one.step_name, one.step_index, one.step_state) for one in submitted[1:5]] == [
        ("parse", 0, StepState.RUNNING),
        ("parse", 0, StepState.SUCCEEDED),
        ("load", 1, StepState.RUNNING),
        ("load", 1, StepState.FAILED),
    ]
    assert len({one.run_id for one in submitted}) == 1


def test_child_spans_are_operations_where_the_rule_says_so(submitted):
    tracer = provider_with(SpanRule("import *", children="operations")).get_tracer("app")
    with tracer.start_as_current_span("import a") as parent:
        with tracer.start_as_current_span("part 1"):
            with tracer.start_as_current_span("query"):
                pass
    assert kinds(submitted) == [
        "operation.started",
        "operation.started",
        "operation.ended",
        "operation.ended",
    ]
    assert submitted[1].parent_span_id == f"{parent.get_span_context().span_id:016x}"


def test_an_error_of_the_span_is_a_failure_with_its_exception(submitted):
    tracer = provider_with(IMPORTS).get_tracer("app")
    with pytest.raises(ValueError), tracer.start_as_current_span("import a"):
        raise ValueError("no date")
    assert kinds(submitted) == ["operation.started", "operation.noted", "operation.ended"]
    assert submitted[1].source is Source.FOREIGN
    assert (submitted[2].state, submitted[2].error_type) == (State.FAILED, "ValueError")


def test_what_others_add_to_its_span_is_a_note_at_once(submitted):
    tracer = provider_with(IMPORTS).get_tracer("app")
    with tracer.start_as_current_span("import a") as span:
        span.add_event("half way", timestamp=5)
        note = submitted[-1]
        assert (note.kind, note.source, note.message) == (semconv.OPERATION_NOTED, Source.FOREIGN, "half way")
        assert note.time_unix_ns == 5
        with tracer.start_as_current_span("parse") as step:
            step.add_event("odd row")
            assert submitted[-1].message == "odd row"
            assert submitted[-1].run_id == note.run_id


def test_spans_that_no_rule_names_are_left_alone(submitted):
    tracer = provider_with(IMPORTS).get_tracer("app")
    with tracer.start_as_current_span("query") as span:
        assert "add_event" not in span.__dict__
        with tracer.start_as_current_span("import a"):  # not a root
            pass
    assert submitted == []
    assert REGISTRY.by_span_id == {}


def test_a_span_below_a_remote_parent_is_a_root_of_this_process(submitted):
    tracer = provider_with(IMPORTS).get_tracer("app")
    remote = NonRecordingSpan(SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(1)))
    tracer.start_span("import a", context=set_span_in_context(remote)).end()
    assert submitted[0].parent_span_id == f"{2:016x}"


def test_the_tree_passes_over_ordinary_spans(submitted):
    OUTLET.enclosing = lambda _: 77
    tracer = provider_with(SpanRule("import *")).get_tracer("app")
    with tracer.start_as_current_span("request"):
        tracer.start_span("import a").end()
    assert submitted[0].parent_span_id == f"{77:016x}"
    OUTLET.enclosing = None
    with tracer.start_as_current_span("request"):
        tracer.start_span("import b").end()
    assert submitted[2].parent_span_id == ""


def test_a_rule_operation_is_found_from_the_current_span_and_from_its_steps(submitted):
    tracer = provider_with(IMPORTS).get_tracer("app")
    assert REGISTRY.current() is None
    with tracer.start_as_current_span("import a"):
        found = REGISTRY.current()
        assert found.run_id == submitted[0].run_id
        with tracer.start_as_current_span("parse"):
            assert REGISTRY.current() is found
    assert REGISTRY.current() is None


def test_until_a_runtime_is_there_a_processor_is_silent():
    OUTLET.close()
    tracer = provider_with(IMPORTS).get_tracer("app")
    with tracer.start_as_current_span("import a"):
        assert REGISTRY.by_span_id == {}


def test_a_processor_added_before_the_runtime_works_once_it_is_there():
    tracer = provider_with(IMPORTS).get_tracer("app")
    later = []
    ProgressSpanProcessor.bind(later.append, writer_id="w")
    with tracer.start_as_current_span("import a"):
        pass
    assert kinds(later) == ["operation.started", "operation.ended"]


def test_two_processors_on_one_provider_say_everything_once(submitted):
    provider = provider_with(IMPORTS)
    provider.add_span_processor(ProgressSpanProcessor([IMPORTS]))
    tracer = provider.get_tracer("app")
    with tracer.start_as_current_span("import a"), tracer.start_as_current_span("parse"):
        pass
    assert kinds(submitted) == ["operation.started", "step.started", "step.ended", "operation.ended"]


def test_ours_is_not_added_where_the_application_added_one_that_does_its_work():
    provider = provider_with(IMPORTS)
    ProgressSpanProcessor().attach_to(provider)
    assert len(provider._active_span_processor._span_processors) == 1
    ProgressSpanProcessor([SpanRule("other")]).attach_to(provider)
    assert len(provider._active_span_processor._span_processors) == 2


def test_after_the_providers_shutdown_what_runs_is_ended_and_nothing_begins(submitted):
    provider = provider_with(IMPORTS)
    tracer = provider.get_tracer("app")
    running = tracer.start_span("import a")
    provider.shutdown()
    tracer.start_span("import b").end()
    running.end()
    assert kinds(submitted) == ["operation.started", "operation.ended"]


def test_spans_that_the_sampler_dropped_are_not_seen(submitted):
    tracer = provider_with(IMPORTS, sampler=ALWAYS_OFF).get_tracer("app")
    tracer.start_span("import a").end()
    assert submitted == []


def test_nothing_that_fails_inside_reaches_the_application():
    def broken(event):
        raise RuntimeError("broken")

    processor = ProgressSpanProcessor([IMPORTS])
    processor.bind(broken)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("app")
    with tracer.start_as_current_span("import a") as span:
        span.add_event("x")
        with tracer.start_as_current_span("parse"):
            pass
    assert processor.errors >= 2


def test_a_span_that_is_never_ended_is_not_kept_alive(submitted):
    tracer = provider_with(IMPORTS).get_tracer("app")
    span = tracer.start_span("import a")
    assert len(REGISTRY.by_span_id) == 1
    del span
    gc.collect()
    assert REGISTRY.by_span_id == {}
    assert REGISTRY.parents == {}


def test_odd_attributes_and_links_do_no_harm(submitted):
    tracer = provider_with(SpanRule("*")).get_tracer("app")
    link = Link(SpanContext(1, 2, is_remote=True))
    tracer.start_span("\x1b[31mred\n", attributes={"a": [1, 2], "b": b"x", "": 1}, links=[link]).end()
    assert "\x1b" not in submitted[0].name
    assert len(submitted) == 2


# --- claims -------------------------------------------------------------------------------------------------


@pytest.fixture
def tracer(submitted):
    return provider_with().get_tracer("app")


def test_the_first_span_of_the_context_is_claimed_once(tracer):
    taken = []
    with claim_next_span(taken.append) as claim:
        with tracer.start_as_current_span("first") as first:
            with tracer.start_as_current_span("second"):
                pass
    assert taken == [first]
    assert claim.taken


def test_a_released_claim_takes_nothing(tracer):
    taken = []
    claim = claim_next_span(taken.append)
    claim.release()
    claim.release()
    tracer.start_span("late").end()
    assert taken == []
    assert not claim.taken


def test_claims_nest(tracer):
    outer, inner = [], []
    with claim_next_span(outer.append):
        with claim_next_span(inner.append):
            first = tracer.start_span("a")
        second = tracer.start_span("b")
    assert (inner, outer) == ([first], [second])


def test_another_thread_takes_no_claim_of_this_one(tracer):
    taken = []
    with claim_next_span(taken.append):
        thread = threading.Thread(target=lambda: tracer.start_span("other").end())
        thread.start()
        thread.join()
        assert taken == []


async def test_a_task_inherits_the_claim_of_its_coroutine(tracer):
    taken = []

    async def body() -> None:
        tracer.start_span("in a task").end()

    with claim_next_span(taken.append):
        await asyncio.create_task(body())
        tracer.start_span("after").end()
    assert [span.name for span in taken] == ["in a task"]


def test_our_own_spans_are_not_claimed(tracer):
    own = provider_with().get_tracer("otelprogress")
    taken = []
    with claim_next_span(taken.append):
        own.start_span("operation").end()
        span = tracer.start_span("foreign")
    assert taken == [span]


def test_a_claim_whose_taker_fails_harms_nobody(tracer):
    with claim_next_span(lambda _: 1 / 0):
        tracer.start_span("a").end()
        tracer.start_span("b").end()


def test_a_claim_released_in_another_context_is_released_all_the_same(tracer):
    import contextvars

    taken = []
    claim = claim_next_span(taken.append)
    contextvars.copy_context().run(claim.release)
    tracer.start_span("a").end()
    assert taken == []
    claim.release()
