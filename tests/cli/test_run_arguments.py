from __future__ import annotations

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from otelprogress.cli.main import app
from otelprogress.cli.running.arguments import Arguments, read

WORDS = st.sampled_from(
    ["--detach", "--id", "--id=x", "--name", "n", "--title=a b", "--log", "f", "--grace", "3", "--grace=nan", "-", "--", "-h", "--no", "make", ""]
)  # fmt: skip


def by_typer(words: list[str], monkeypatch: pytest.MonkeyPatch) -> Arguments | None:
    """What Typer makes of the same words; `None`: an error, or help."""
    seen: list[Arguments] = []
    monkeypatch.setattr("otelprogress.cli.running.runner.run", seen.append)
    try:
        typer.main.get_command(app).main(["run", *words], prog_name="otelprogress", standalone_mode=False)
    except Exception:
        return None
    return seen[0] if seen else None


def test_the_program_begins_where_the_options_end():
    assert read(["--id", "x", "--", "make", "--id", "y"]) == Arguments(("make", "--id", "y"), label="x")
    assert read(["--id=x", "make", "-j4", "--", "all"]) == Arguments(("make", "-j4", "--", "all"), label="x")
    assert read(["--detach", "--log=f", "--grace", "2.5", "--", "-x"]) == Arguments(
        ("-x",), detach=True, log="f", grace_s=2.5
    )


@pytest.mark.parametrize(
    "words",
    [[], ["--"], ["--id"], ["--id", "x"], ["--bogus", "make"], ["-h"], ["--grace", "soon", "make"],
     ["--grace", "-1", "make"], ["--grace", "nan", "make"], ["--log", "f", "make"]],
)  # fmt: skip
def test_what_is_not_well_formed_is_left_to_typer(words: list[str]):
    assert read(words) is None


@settings(deadline=None)
@given(st.lists(WORDS, max_size=7))
def test_what_is_read_is_what_typer_would_have_read(words: list[str]):
    with pytest.MonkeyPatch.context() as monkeypatch:
        found = read(words)
        if found is not None:
            assert by_typer(words, monkeypatch) == found


def test_every_option_that_typer_knows_is_read():
    options = [
        one for one in typer.main.get_command(app).commands["run"].params if one.param_type_name == "option"
    ]
    for option in options:
        words = [] if option.is_flag else ["1"]
        detach = ["--detach"] if option.name == "log" else []
        assert read([*detach, option.opts[0], *words, "make"]) is not None, option.opts


def test_the_name_is_the_program_s_file_name():
    assert Arguments(("/usr/bin/make",)).operation_name == "make"
    assert Arguments(("make",), name="nightly").operation_name == "nightly"
    assert Arguments(("/",)).operation_name == "command"
