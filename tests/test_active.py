from __future__ import annotations

import logging

import pytest

from otelprogress import active
from otelprogress.exceptions import InvalidValue, UsageError
from tests.recording import recording


@pytest.fixture(autouse=True)
def forgetful():
    active.misuses.clear()
    active._warned_at.clear()
    yield
    active.misuses.clear()


def test_misuse_is_counted_by_call_site_and_logged_once_a_minute(caplog, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(active.time, "monotonic", lambda: now[0])
    with caplog.at_level(logging.WARNING, "otelprogress"):
        for _ in range(3):
            active.misuse("wrong")
        assert len(caplog.records) == 1
        now[0] += 61
        for _ in range(2):
            active.misuse("wrong")
    assert list(active.misuses.values()) == [3, 2]
    assert "test_active.py" in caplog.text


def test_call_sites_are_bounded(monkeypatch):
    monkeypatch.setattr(active, "_MAX_SITES", 2)
    for n in range(5):
        exec(compile("active.misuse('wrong')\n", f"site{n}.py", "exec"), {"active": active})
    assert active.misuses == {"site0.py:1": 1, "site1.py:1": 1, "elsewhere": 3}


def test_strict_mode_raises_what_the_mistake_is():
    with recording(strict=True):
        with pytest.raises(InvalidValue, match=r"wrong \(at .*test_active.py"):
            active.misuse("wrong", InvalidValue)
        with pytest.raises(UsageError):
            active.misuse("wrong")


def test_every_writer_has_an_id_of_its_own():
    assert active.new_writer_id() != active.new_writer_id()
    assert len(active.new_writer_id()) == 16
