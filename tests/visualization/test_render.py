from __future__ import annotations

import io

import pytest
from rich.cells import cell_len

from otelprogress.visualization.render import TreeRenderable, drawable, make_console
from otelprogress.visualization.view_model import tree_rows
from tests.visualization.screen import NOW, make_view, nightly_load, reindex


def drawn(views, width: int, *, handles: bool = False, footer: str = "") -> list[str]:
    file = io.StringIO()
    console = make_console(file, width=width)
    console.print(TreeRenderable(tree_rows(views, NOW, handles=handles), footer=footer), soft_wrap=True)
    return file.getvalue().splitlines()


def test_a_wide_terminal_names_handles_at_the_edge():
    assert drawn([nightly_load(), reindex()], 110, handles=True) == [
        "● nightly load 2026-11-21  ━━━━━━━━━━━━━━╸         67% eta 1–2m                    nightly_load-2 cancel pause",
        '  ✓ extract 58s   ✓ clean 2m40s   "12 rows rejected: bad date"',
        "  ● load   61.2k/120k row (51%) 2.0k/s",
        "▲ reindex acme             STALLED 45s (usually moves every 8s); alive 1s ago                        reindex-1",
    ]


def test_a_narrow_terminal_gives_up_controls_then_bars_then_ends_of_lines():
    assert drawn([nightly_load(), reindex()], 50) == [
        "● nightly load 2026…  ━━━━━━╸     67% eta 1–2m",
        '  ✓ extract 58s   ✓ clean 2m40s   "12 rows reject…',
        "  ● load   61.2k/120k row (51%) 2.0k/s",
        "▲ reindex acme        STALLED 45s (usually moves …",
    ]
    assert drawn([nightly_load()], 30)[0] == "● nightly l…  67% eta 1–2m"


@pytest.mark.parametrize("width", range(1, 130, 3))
def test_no_line_is_wider_than_the_terminal(width):
    wide = make_view(7, title="表" * 60, ratio=0.5, message="m" * 300, controls=("cancel",) * 9)
    assert all(
        cell_len(line) <= width for line in drawn([nightly_load(), wide, reindex()], width, handles=True)
    )


def test_markup_in_a_name_is_shown_as_it_is():
    assert "[bold red]x[/]" in drawn([make_view(1, title="[bold red]x[/]")], 80)[0]


def test_an_empty_tree_shows_only_the_footer():
    assert drawn([], 80, footer="nothing is running") == ["nothing is running"]


def test_a_file_and_a_closed_one_are_not_drawable():
    file = io.StringIO()
    assert not drawable(file)
    file.close()
    assert not drawable(file)
