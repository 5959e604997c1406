from __future__ import annotations

import inspect

import otelprogress as progress
from otelprogress.no_operation import NO_OPERATION
from otelprogress.run import Operation


async def test_outside_any_operation_everything_does_nothing_and_raises_nothing():
    operation = progress.current_operation()
    assert operation is NO_OPERATION
    assert (operation.ended, operation.name, operation.run_id, operation.controls) == (True, "", "", ())
    operation.advance(-3)
    operation.count(rejected=-1)
    operation.set_total(-1)
    operation.note("x", level="loud")
    operation.show("x")
    operation.set_result(object())
    operation.poll(lambda: 1)
    operation.checkpoint()
    await operation.acheckpoint()
    operation.end(ValueError())
    assert not operation.cancel()
    assert not operation.pause()
    assert not operation.resume()
    assert not operation.cancel_requested
    assert not operation.span.get_span_context().is_valid
    assert list(operation.track("ab", "named", total=3)) == ["a", "b"]
    with operation.step("x", total=3) as step:
        step.advance()
        step.note("x")
        assert list(step.track([1])) == [1]


def test_it_has_the_signatures_of_a_real_one():
    for name, method in vars(type(NO_OPERATION)).items():
        if inspect.isfunction(method) and name != "__init__":
            assert inspect.signature(method) == inspect.signature(getattr(Operation, name)), name
