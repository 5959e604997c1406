from __future__ import annotations

import io
import logging
import sys
from inspect import signature

from otelprogress.model.events import FeedEvent, OperationView, State
from otelprogress.visualization.render import make_console
from otelprogress.visualization.terminal import LineView, TerminalView, open_view
from tests.visualization.screen import NOW, SECOND, Screen, make_view, nightly_load, reindex


def on_a_terminal(test):
    """Run the test with a terminal in place of both streams; inside the call, where pytest has its own in place."""

    def run(monkeypatch):
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.delenv("NO_COLOR", raising=False)
        screen = Screen()
        monkeypatch.setattr(sys, "stderr", screen)
        monkeypatch.setattr(sys, "stdout", screen)
        view = TerminalView(make_console(screen, width=80, height=24))
        view.start()
        try:
            test(
                screen,
                view,
                **({"monkeypatch": monkeypatch} if "monkeypatch" in signature(test).parameters else {}),
            )
        finally:
            view.stop()

    run.__name__ = test.__name__
    return run


def ended(view: OperationView, state: State = State.SUCCEEDED) -> OperationView:
    import msgspec

    return msgspec.structs.replace(view, state=state, ended_at_unix_ns=NOW)


@on_a_terminal
def test_bars_look_as_the_design_pictures_them(screen, view):
    view.update([nightly_load(), reindex()], NOW)
    assert screen.lines == [
        "● nightly load 2026-11-21  ━━━━━━━━━━╸━━━━━  67% eta 1–2m           cancel pause",
        '  ✓ extract 58s   ✓ clean 2m40s   "12 rows rejected: bad date"',
        "  ● load   61.2k/120k row (51%) 2.0k/s",
        "▲ reindex acme             STALLED 45s (usually moves every 8s); alive 1s ago",
    ]


@on_a_terminal
def test_what_is_printed_appears_above_and_tears_nothing(screen, view):
    view.update([make_view(ratio=0.5)], NOW)
    print("first")
    print("second\nthird")
    view.update([make_view(ratio=0.6)], NOW)
    assert screen.lines[:3] == ["first", "second", "third"]
    assert len(screen.lines) == 4
    assert "60%" in screen.lines[3]


@on_a_terminal
def test_logging_handlers_made_before_do_not_tear_the_bars_either(screen, view):
    logger = logging.getLogger("tests.early")
    handler = logging.StreamHandler(sys.stderr)
    logger.addHandler(handler)
    try:
        view.update([make_view(ratio=0.5)], NOW)
        logger.warning("careful")
        view.update([make_view(ratio=0.6)], NOW)
        view.update([ended(make_view())], NOW)
        assert handler.stream is screen
    finally:
        logger.removeHandler(handler)
    assert screen.lines == ["careful", "✓ load 1  succeeded in 1m40s"]


@on_a_terminal
def test_long_lines_of_the_program_are_not_broken(screen, view):
    view.update([make_view(ratio=0.5)], NOW)
    print("x" * 200)
    assert "x" * 200 + "\n" in screen.raw


@on_a_terminal
def test_an_unfinished_line_is_shown_and_completed_later(screen, view):
    view.update([make_view(ratio=0.5)], NOW)
    print("dots..", end="", flush=True)
    view.update([make_view(ratio=0.5)], NOW)
    assert screen.lines[0] == "dots.."
    print("done")
    view.update([make_view(ratio=0.5)], NOW)
    assert screen.lines[0] == "dots..done"
    assert len(screen.lines) == 2


@on_a_terminal
def test_another_bar_that_returns_to_the_start_of_its_line_is_shown_as_one_line(screen, view):
    view.update([make_view(ratio=0.5)], NOW)
    for percent in (10, 20, 30):
        sys.stderr.write(f"\rother {percent}%")
        sys.stderr.flush()
    view.update([make_view(ratio=0.5)], NOW)
    assert screen.lines[0] == "other 30%"
    assert len(screen.lines) == 2


@on_a_terminal
def test_a_count_that_ends_in_a_carriage_return_is_one_line_too(screen, view):
    view.update([make_view(ratio=0.5)], NOW)
    for percent in (10, 20, 30):
        print(f"other {percent}%", end="\r")
    view.update([make_view(ratio=0.5)], NOW)
    assert screen.lines[0] == "other 30%"
    print("\nnext")
    view.update([make_view(ratio=0.5)], NOW)
    assert screen.lines[:2] == ["other 30%", "next"]


@on_a_terminal
def test_a_standard_output_that_is_a_file_is_left_alone(screen, view, monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(sys, "stdout", file)
    view.update([make_view(ratio=0.5)], NOW)
    print("data")
    assert file.getvalue() == "data\n"
    assert "data" not in screen.text


@on_a_terminal
def test_the_final_state_stays_on_the_screen_and_the_streams_are_given_back(screen, view):
    view.update([make_view(ratio=0.5)], NOW)
    view.update([ended(make_view())], NOW)
    print("after")
    assert sys.stdout is screen
    assert screen.lines == ["✓ load 1  succeeded in 1m40s", "after"]
    view.update([ended(make_view())], NOW)
    assert screen.lines == ["✓ load 1  succeeded in 1m40s", "after"]


@on_a_terminal
def test_an_operation_that_ends_while_others_run_is_left_above_them(screen, view):
    view.update([make_view(1, ratio=0.5), make_view(2, ratio=0.1)], NOW)
    view.update([ended(make_view(1), State.LOST), make_view(2, ratio=0.2)], NOW)
    assert screen.lines[0] == "† load 1  lost after 1m40s"
    assert "20%" in screen.lines[1]
    assert len(screen.lines) == 2


@on_a_terminal
def test_what_still_runs_at_the_stop_stays_where_it_was(screen, view):
    view.update([make_view(1, ratio=0.5)], NOW)
    view.stop()
    view.stop()
    assert "50%" in screen.lines[0]
    assert sys.stderr is screen


@on_a_terminal
def test_a_lost_one_that_is_heard_again_is_drawn_again(screen, view):
    view.update([ended(make_view(), State.LOST)], NOW)
    view.update([make_view(ratio=0.9)], NOW)
    assert "90%" in screen.lines[-1]


@on_a_terminal
def test_an_operation_whose_end_was_only_heard_stays_on_the_screen(screen, view):
    view.update([make_view(ratio=0.5)], NOW)
    view.publish([FeedEvent(kind="operation.ended", operation=ended(make_view()))])
    view.update([], NOW)
    view.update([], NOW)
    assert screen.lines == ["✓ load 1  succeeded in 1m40s"]


@on_a_terminal
def test_many_short_operations_of_one_name_do_not_flood_the_screen(screen, view):
    view.update([ended(make_view(number)) for number in range(100)], NOW)
    view.stop()
    assert len(screen.lines) == 21
    assert screen.lines[-1] == "… 80 more load succeeded"


@on_a_terminal
def test_nothing_is_drawn_beyond_the_height_of_the_terminal(screen, view):
    view.update([make_view(number, ratio=0.5) for number in range(500)], NOW)
    view.update([make_view(number, ratio=0.6) for number in range(500)], NOW)
    assert len(screen.lines) == 22
    assert screen.lines[-1] == "… 479 more: 479 running"


@on_a_terminal
def test_the_cursor_is_never_left_hidden(screen, view):
    view.update([make_view(ratio=0.5)], NOW)
    assert screen.raw.rfind("\x1b[?25h") > screen.raw.rfind("\x1b[?25l")


@on_a_terminal
def test_a_redraw_is_one_write(screen, view):
    view.update([make_view(ratio=0.5)], NOW)
    before = screen.writes
    view.update([make_view(ratio=0.6)], NOW)
    assert screen.writes == before + 1


@on_a_terminal
def test_no_color_means_no_colour(screen, view, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    view = TerminalView(make_console(screen, width=80, height=24))  # anew: it looks when it is made
    view.update([nightly_load()], NOW)
    view.stop()
    assert "\x1b[3" not in screen.raw.replace("\x1b[3m", "")
    assert "nightly load" in screen.text


def test_a_terminal_without_unicode_gets_ascii(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    screen = Screen(encoding="ascii")
    view = TerminalView(make_console(screen, width=80, height=24))  # anew: it looks when it is made
    view.update([nightly_load(), make_view(7, title="größe 表")], NOW)
    view.stop()
    assert "* nightly load 2026-11-21" in screen.text
    assert "gr??e ?" in screen.text


@on_a_terminal
def test_a_forked_child_gets_the_streams_back(screen, view):
    view.update([make_view(ratio=0.5)], NOW)
    view.abandon()
    assert sys.stdout is screen
    before = screen.raw
    print("child")
    assert screen.raw == before + "child\n"


@on_a_terminal
def test_lines_that_rich_prints_for_the_program_appear_above_too(screen, view):
    from rich.console import Console

    console = Console(width=80)
    view.update([make_view(ratio=0.5)], NOW)
    console.print("[bold]hello[/bold]")
    view.update([make_view(ratio=0.6)], NOW)
    assert screen.lines[0] == "hello"
    assert len(screen.lines) == 2


@on_a_terminal
def test_a_program_with_a_display_of_its_own_gets_the_terminal(screen, view):
    from rich.console import Console
    from rich.progress import Progress

    view.update([make_view(ratio=0.5)], NOW)
    with Progress(console=Console(width=80, height=24), auto_refresh=False) as display:
        tasks = [display.add_task(f"task {number}", total=2) for number in range(2)]
        for _ in range(2):
            for task in tasks:
                display.advance(task)
                display.refresh()
                view.update([make_view(ratio=0.6)], NOW)
    view.update([ended(make_view())], NOW)
    view.stop()
    assert [line.split()[:2] for line in screen.lines] == [["task", "0"], ["task", "1"]]
    assert screen.text.count("100%") == 2


def milestone(kind: str, number: int = 1) -> FeedEvent:
    return FeedEvent(kind=kind, operation=make_view(number))


def test_without_a_terminal_every_milestone_is_a_line():
    file = io.StringIO()
    view = open_view("auto", file)
    assert isinstance(view, LineView)
    view.start()
    view.publish([milestone("operation.started"), milestone("operation.progressed")])
    view.update([], NOW)
    view.publish([FeedEvent(kind="operation.ended", operation=ended(make_view()))])
    view.stop()
    assert file.getvalue() == 'load-1 started "load 1"\nload-1 succeeded in 1m40s\n'


def test_a_flood_of_lines_is_folded():
    file = io.StringIO()
    view = LineView(file)
    view.publish(milestone("operation.started", number) for number in range(5_000))
    view.update([], NOW)
    lines = file.getvalue().splitlines()
    assert lines[0] == "… 4950 more lines (`otelprogress tail` has them)"
    assert len(lines) == 51
    view.publish(milestone("operation.started", number) for number in range(30))
    view.update([], NOW + SECOND)
    assert len(file.getvalue().splitlines()) == 51 + 11


def test_a_closed_file_is_no_error():
    file = io.StringIO()
    view = LineView(file)
    file.close()
    view.publish([milestone("operation.started")])
    view.stop()


def test_off_is_no_view():
    assert open_view("off") is None


@on_a_terminal
def test_a_dumb_terminal_gets_lines(screen, view, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(open_view("auto"), LineView)


@on_a_terminal
def test_a_terminal_gets_bars(screen, view):
    assert isinstance(open_view("auto"), TerminalView)
