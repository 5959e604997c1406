from __future__ import annotations

from pathlib import Path

from otelprogress.cli.reference import reference

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def test_the_page_about_the_command_line_says_what_the_commands_say():
    assert PAGE.read_text(encoding="utf-8") == reference(), (
        "run: python -m otelprogress.cli.reference > docs/cli.md"
    )
