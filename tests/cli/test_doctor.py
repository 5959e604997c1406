from __future__ import annotations

import json

import pytest

from otelprogress.cli import examination
from otelprogress.cli.findings import BAD, OK, Finding


@pytest.mark.parametrize(
    ("findings", "code"),
    [
        ([Finding(OK, "feed", "one")], 0),
        ([Finding(OK, "feed", "one"), Finding(BAD, "rules", "x", "do y")], 1),
        ([Finding(OK, "folder", "there")], 4),
    ],
)
def test_the_exit_code_says_whether_a_feed_answers_and_all_is_well(shell, monkeypatch, findings, code):
    async def examine(now_s: float) -> list[Finding]:
        return findings

    monkeypatch.setattr(examination, "examine", examine)
    result = shell("doctor")
    assert result.exit_code == code
    assert len(result.stdout.splitlines()) == sum(1 + bool(finding.advice) for finding in findings)
    assert [json.loads(line)["text"] for line in shell("doctor", "--json").stdout.splitlines()] == [
        finding.text for finding in findings
    ]
