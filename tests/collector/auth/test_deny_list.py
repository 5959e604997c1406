from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelprogress.exceptions import InvalidValue
from otelprogress_collector.auth.deny_list import MAX_BYTES, DenyList, is_token_id, parse_deny_list

PROMISED_S = 5.0


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "denied"
    path.write_text("one\n")
    return path


def test_ids_stand_one_a_line_with_comments_between():
    text = b"# revoked in May\none\n\n  two  # stolen\n\tthree#3\r\n"
    assert parse_deny_list(text) == {"one", "two", "three#3"}


@pytest.mark.parametrize("line", [b"two words", b"\xff\xfe", b"x" * 257, b"bell\x07", b"a\x00b"])
def test_a_line_that_is_no_id_is_refused_by_its_number(line):
    with pytest.raises(InvalidValue, match="line 2|UTF-8"):
        parse_deny_list(b"one\n" + line + b"\n")


visible = st.characters(exclude_categories=["C", "Z"])


@given(st.lists(st.text(visible, min_size=1, max_size=12).filter(is_token_id)))
def test_every_id_that_a_token_can_have_can_be_denied(ids):
    text = "".join(f"{one}  # why\n" for one in ids)
    assert parse_deny_list(text.encode()) == set(ids)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_list_or_refused(content):
    try:
        found = parse_deny_list(content)
    except InvalidValue:
        return
    assert all(map(is_token_id, found))


@pytest.mark.parametrize("phase_s", [0.0, 0.3, 0.999])
@pytest.mark.parametrize("written_at_s", [0.1, 1.0, 1.9, 2.05, 7.7])
def test_an_id_is_denied_within_5_s_when_asked_to_look_each_second(path, phase_s, written_at_s):
    denied = DenyList(path, now_s=0.0)
    looks = [phase_s + second for second in range(20)]
    for now_s in looks:
        if now_s >= written_at_s:
            path.write_text("one\ntwo\n")
        denied.refresh(now_s)
        if "two" in denied:
            break
    assert 0 <= now_s - written_at_s <= PROMISED_S
    assert "one" in denied


def test_an_id_that_was_taken_out_counts_again(path):
    denied = DenyList(path, now_s=0.0)
    assert "one" in denied
    path.write_text("")
    assert denied.refresh(5.0)
    assert "one" not in denied
    assert "" not in denied


@pytest.mark.parametrize("how", ["gone", "not utf-8", "too long", "writable to others"])
def test_a_broken_list_keeps_denying_what_it_denied_and_says_so_once(path, how, caplog):
    denied = DenyList(path, now_s=0.0)
    if how == "gone":
        path.unlink()
    elif how == "not utf-8":
        path.write_bytes(b"two\n\xff")
    elif how == "too long":
        path.write_bytes(b"x\n" * (MAX_BYTES // 2 + 1))
    else:
        path.write_text("two\n")
        path.chmod(0o666)
    for now_s in (5.0, 10.0, 15.0):
        assert not denied.refresh(now_s)
    assert "one" in denied
    assert "two" not in denied
    assert denied.broken
    assert [one.levelno for one in caplog.records] == [logging.WARNING]


def test_a_missing_list_is_refused_at_the_beginning(tmp_path):
    with pytest.raises(InvalidValue, match="denied"):
        DenyList(tmp_path / "denied", now_s=0.0)
