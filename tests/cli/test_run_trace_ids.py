from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace

from otelprogress.cli.running.trace_ids import sampler_decides, settle
from otelprogress.propagation import inherited_context

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_a_program_without_a_parent_gets_a_sampled_trace_of_its_own():
    carried = settle({}).carried({"TRACESTATE": "vendor=of-nobody", "BAGGAGE": "team=data", "PATH": "/bin"})
    version, trace_id, span_id, flags = carried["TRACEPARENT"].split("-")
    assert (version, len(trace_id), len(span_id), flags) == ("00", 32, 16, "03")
    assert "TRACESTATE" not in carried
    assert carried["BAGGAGE"] == "team=data"


def test_a_parent_keeps_its_trace_its_state_and_its_decision():
    ids = settle({"TRACEPARENT": PARENT[:-1] + "0"})
    carried = ids.carried({"TRACEPARENT": PARENT, "TRACESTATE": "vendor=x"})
    assert carried["TRACEPARENT"].startswith("00-4bf92f3577b34da6a3ce929d0e0e4736-")
    assert "00f067aa0ba902b7" not in carried["TRACEPARENT"]
    assert carried["TRACEPARENT"].endswith("-00")
    assert carried["TRACESTATE"] == "vendor=x"


FLAWS = st.sampled_from(["", " ", "-", "0", "f", "ff", "g", "-more", "A"])


@given(
    st.builds(
        lambda version, trace_id, span, flags, before, after: (
            f"{before}{version}-{trace_id}-{span}-{flags}{after}"
        ),
        st.sampled_from(["00", "01", "ff", "0"]),
        st.sampled_from(["4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32, "4BF92F3577B34DA6A3CE929D0E0E4736"]),
        st.sampled_from(["00f067aa0ba902b7", "0" * 16, "00f067aa0ba902b"]),
        st.sampled_from(["00", "01", "zz", "1"]),
        FLAWS,
        FLAWS,
    )
)
def test_a_parent_is_valid_where_opentelemetry_says_so(text: str):
    found = settle({"TRACEPARENT": text})
    context = inherited_context({"TRACEPARENT": text})
    assert found.inherited == (context is not None)
    if context is not None:
        assert found.trace_id == trace.get_current_span(context).get_span_context().trace_id


@pytest.mark.parametrize(("sampler", "asked"), [("", False), ("parentbased_always_on", False), ("always_on", False),
                                                 ("traceidratio", True), ("always_off", True), ("mine", True)])  # fmt: skip
def test_only_a_sampler_that_may_say_no_is_asked_first(sampler: str, asked: bool):
    assert sampler_decides({"OTEL_TRACES_SAMPLER": sampler}) is asked
