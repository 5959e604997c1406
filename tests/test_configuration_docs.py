"""`docs/configuration.md` names every setting that the code reads, and no other."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import otelprogress
from otelprogress.config import Settings, resolve
from otelprogress.model.rules import parse_rules

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")


def test_every_argument_of_configure_has_a_row_and_every_row_is_an_argument() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.split("## Environment alone")[0], re.MULTILINE)
    assert rows == list(inspect.signature(otelprogress.configure).parameters)


def test_every_variable_of_ours_that_the_code_reads_is_documented_and_no_other() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "otelprogress").rglob("*.py"))
    read = set(re.findall(r"OTELPROGRESS_[A-Z_]+[A-Z]", code)) | {
        f"OTELPROGRESS_{name}" for name in re.findall(r"\{PREFIX\}([A-Z_]+)", code)
    }
    assert set(re.findall(r"OTELPROGRESS_[A-Z_]+[A-Z]", PAGE)) == read


@pytest.mark.parametrize(
    ("argument", "default"),
    [("lease_s", 90), ("shutdown_timeout_s", 2), ("view", "auto"), ("integrations", ("tqdm",))],
)
def test_the_defaults_are_those_of_the_page(argument: str, default: object) -> None:
    assert getattr(resolve(environ={}), argument) == getattr(Settings(), argument) == default
    assert re.search(
        rf"^\| `{argument}` \|[^|]*\| `?{re.escape(str(default)).replace(chr(39), chr(34))}",
        PAGE,
        re.MULTILINE,
    )


def test_the_pages_rules_can_be_read() -> None:
    (example,) = re.findall(r"^```\n(name=.*)\n```$", PAGE, re.MULTILINE)
    assert len(parse_rules(example)) == 2
