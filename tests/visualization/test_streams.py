from __future__ import annotations

import io
import logging
import sys

import pytest

from otelprogress.visualization.render import make_console
from otelprogress.visualization.streams import MAX_PARTIAL_CHARS, AboveTheBars, Redirection
from tests.visualization.screen import Screen


def above(screen: Screen) -> AboveTheBars:
    return AboveTheBars(make_console(screen, width=80, height=24), screen, lambda: None)


def test_whole_lines_pass_as_they_are_with_their_colours():
    screen = Screen()
    assert above(screen).write("\x1b[31mred\x1b[0m [not markup]\nrest") == len(
        "\x1b[31mred\x1b[0m [not markup]\nrest"
    )
    assert screen.raw == "\x1b[31mred\x1b[0m [not markup]\n"


def test_an_endless_line_does_not_grow_in_memory():
    screen = Screen()
    proxy = above(screen)
    for _ in range(100):
        proxy.write("x" * 1_000)
    assert len(proxy.partial) <= MAX_PARTIAL_CHARS
    assert screen.raw.count("x") + len(proxy.partial) == 100_000


def test_the_stand_in_answers_as_the_terminal_would():
    screen = Screen()
    proxy = above(screen)
    assert proxy.isatty()
    assert proxy.writable()
    assert proxy.encoding == "utf-8"
    proxy.flush()


def test_only_text_can_be_written():
    with pytest.raises(TypeError, match="must be str"):
        above(Screen()).write(b"bytes")


def test_a_stream_that_somebody_replaced_meanwhile_is_left_alone(monkeypatch):
    screen, other = Screen(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    redirection = Redirection(make_console(screen, width=80, height=24), lambda: None)
    redirection.install()
    monkeypatch.setattr(sys, "stdout", other)
    redirection.remove()
    assert sys.stdout is other
    assert sys.stderr is screen


def test_a_handler_that_writes_a_file_is_left_alone(monkeypatch, tmp_path):
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    handler = logging.FileHandler(tmp_path / "log")
    logging.getLogger("tests.file").addHandler(handler)
    redirection = Redirection(make_console(screen, width=80, height=24), lambda: None)
    try:
        redirection.install()
        assert not isinstance(handler.stream, AboveTheBars)
    finally:
        redirection.remove()
        logging.getLogger("tests.file").removeHandler(handler)
        handler.close()


def test_a_missing_stream_is_no_error(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    redirection = Redirection(make_console(Screen()), lambda: None)
    redirection.install()
    assert redirection.partials() == []
    assert redirection.remove() == ""


def test_a_stand_in_that_somebody_kept_passes_everything_once_the_bars_are_gone(monkeypatch):
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    redirection = Redirection(make_console(screen, width=80, height=24), lambda: None)
    redirection.install()
    kept = sys.stderr
    redirection.remove()
    kept.write("no line end")
    kept.flush()
    assert screen.raw == "no line end"
    redirection.install()
    assert sys.stderr is kept
    kept.write("!")
    assert screen.raw == "no line end"
    redirection.remove()


@pytest.mark.parametrize("text", ["\x1b[2A", "\x1b[H", "\x1b[2J", "\x1b[?1049h", "\x1b[10;3H", "\x1b7"])
def test_moving_the_cursor_is_noticed_before_it_is_written(text):
    screen = Screen()
    seen: list[str] = []
    proxy = AboveTheBars(make_console(screen, width=80, height=24), screen, lambda: seen.append(screen.raw))
    proxy.write(text)
    assert seen == [""]


@pytest.mark.parametrize("text", ["\x1b[31m", "\x1b[2K", "\r", "\x1b[?25l"])
def test_colours_and_the_erasing_of_a_line_are_no_display(text):
    screen = Screen()
    AboveTheBars(make_console(screen), screen, lambda: pytest.fail("noticed")).write(text)
