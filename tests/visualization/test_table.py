from __future__ import annotations

from otelprogress.model.events import ChildCounts, State
from otelprogress.visualization.table import page_lines, table_lines
from tests.visualization.screen import NOW, SECOND, make_view, nightly_load, reindex


def test_the_table_looks_as_the_design_pictures_it():
    import msgspec

    running = msgspec.structs.replace(nightly_load(), service="etl", started_at_unix_ns=NOW - 360 * SECOND)
    lost = msgspec.structs.replace(
        nightly_load(),
        handle="nightly_load-1",
        service="etl",
        state=State.LOST,
        ratio=0.18,
        eta=None,
        step=nightly_load().steps[1],
        started_at_unix_ns=NOW - 26 * 3600 * SECOND,
        lost_cause="SIGKILL (exit 137)",
    )
    assert table_lines([running, lost], NOW) == [
        "ID              STATE    DONE  ETA   STEP       AGE  SERVICE",
        "nightly_load-2  running  67%   1-2m  3/3 load   6m   etl",
        "nightly_load-1  lost     18%   -     2/3 clean  26h  etl      SIGKILL (exit 137)",
    ]


def test_a_stalled_operation_is_listed_as_stalled():
    assert table_lines([reindex()], NOW)[1].split()[1] == "stalled"


def test_a_page_tells_everything_that_is_known():
    view = make_view(
        1,
        label="job-7",
        service="etl",
        process_id=7,
        ratio=0.5,
        ratio_source="estimated",
        children=ChildCounts(total=4, live=1, failed=3),
        controls=("cancel",),
        message="hm",
        level="warning",
        dropped=3,
        incomplete=True,
        input_id="in1",
        input_prompt="go on?",
        input_schema='{"type": "boolean"}',
        input_default="true",
        result='{"rows": 9}',
        steps_folded=5,
    )
    assert page_lines(view, NOW) == [
        'load-1  "load 1"',
        f"  id        {view.id}",
        '  label     "job-7"',
        "  service   etl",
        "  process   7",
        "  state     running",
        "  started   100s ago",
        "  heard     1s ago",
        "  done      50% (estimated)",
        "  step      … 5 more",
        "  has       4 children: 1 live, 3 failed",
        "  accepts   cancel",
        '  asks      in1 "go on?"',
        "  answer    yes or no",
        "  default   true",
        '  note      warning "hm"',
        '  result    "{\\"rows\\": 9}"',
        "  missing   3 events were dropped",
        "  missing   some events of the writer never arrived",
    ]
