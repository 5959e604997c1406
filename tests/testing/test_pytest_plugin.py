from __future__ import annotations

import subprocess
import sys

import pytest


def test_a_users_test_captures_what_the_code_under_test_reports(pytester: pytest.Pytester):
    pytester.makepyfile(
        """
        import otelprogress as progress

        @progress.operation("nightly load", steps=["clean"])
        def nightly_load(rows):
            with progress.step("clean") as step:
                for row in step.track(rows, unit="row"):
                    if row < 0:
                        step.count(rejected=1)

        def test_rejects_are_counted(progress_capture):
            nightly_load([1, -1, 2])
            op = progress_capture.one("nightly load")
            assert op.outcome == "succeeded" and op.step("clean").counts == {"rejected": 1}
        """
    )
    pytester.runpytest_subprocess("-q").assert_outcomes(passed=1)


def test_strict_mode_is_on_inside(pytester: pytest.Pytester):
    pytester.makepyfile(
        """
        import pytest
        import otelprogress as progress

        def test_misuse_raises(progress_capture):
            with progress.operation("load") as operation, pytest.raises(progress.ProgressError):
                operation.advance(-1)
        """
    )
    pytester.runpytest_subprocess("-q").assert_outcomes(passed=1)


def test_a_run_that_never_asks_for_it_does_not_load_the_sdk():
    program = (
        "import sys, otelprogress.testing.pytest_plugin;"
        "print([name for name in ('opentelemetry.sdk', 'websockets', 'rich', 'msgspec') if name in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def test_what_is_not_there_is_named():
    import otelprogress.testing

    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        otelprogress.testing.nothing  # noqa: B018 - to look it up


def test_capture_is_the_function_also_after_the_fixture_was_used(progress_capture):
    from otelprogress.testing import ProgressCapture, capture

    assert isinstance(progress_capture, ProgressCapture)
    with capture() as inner:
        assert inner.operations == []


def test_code_under_test_may_configure_and_shut_down_and_is_captured_all_the_same(pytester: pytest.Pytester):
    pytester.makepyfile(
        """
        import threading
        import pytest
        import otelprogress as progress

        def main():
            progress.configure()
            with progress.operation("load"):
                pass
            progress.shutdown()

        def test_main(progress_capture):
            threads = threading.active_count()
            main()
            main()
            assert [op.outcome for op in progress_capture.operations] == ["succeeded"] * 2
            assert threading.active_count() == threads
            with pytest.raises(progress.ProgressError):
                progress.configure(view="loud")
        """
    )
    pytester.runpytest_subprocess("-q").assert_outcomes(passed=1)
