"""Cursors open only for whom they were made, and for nobody else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelprogress.protocol.cursor import CursorFault, CursorKey, seal, unseal

KEY = CursorKey(b"a" * 32)
SCOPE = b"s" * 16


def sealed(**changes) -> str:
    return seal(KEY, **{"epoch": "e1", "offset": 42, "scope": SCOPE, **changes})


@given(st.integers(0, 2**64 - 1), st.text(max_size=40), st.binary(max_size=40))
def test_what_was_sealed_opens(offset: int, epoch: str, scope: bytes):
    cursor = seal(KEY, epoch=epoch, offset=offset, scope=scope)
    assert unseal(KEY, cursor, epoch=epoch, scope=scope) == offset


def test_a_cursor_is_short_and_fits_into_a_url():
    assert len(sealed()) == 50
    assert sealed().replace("-", "a").replace("_", "a").isalnum()


@given(st.integers(0, 36), st.integers(1, 255))
def test_no_byte_of_it_can_be_changed(position: int, flip: int):
    import base64

    raw = bytearray(base64.urlsafe_b64decode(sealed() + "=="))
    raw[position] ^= flip
    changed = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    assert isinstance(unseal(KEY, changed, epoch="e1", scope=SCOPE), CursorFault)


def test_another_filter_tenant_or_predicate_is_another_scope():
    assert unseal(KEY, sealed(), epoch="e1", scope=b"t" * 16) is CursorFault.INVALID


def test_another_epoch_is_told_from_a_forgery():
    assert unseal(KEY, sealed(), epoch="e2", scope=SCOPE) is CursorFault.EPOCH
    assert unseal(CursorKey(b"b" * 32), sealed(), epoch="e2", scope=SCOPE) is CursorFault.EPOCH


def test_a_foreign_key_does_not_open():
    assert unseal(CursorKey(b"b" * 32), sealed(), epoch="e1", scope=SCOPE) is CursorFault.INVALID


def test_one_old_key_is_accepted_and_the_one_before_is_not():
    second = CursorKey(b"b" * 32, previous=KEY.secret)
    third = CursorKey(b"c" * 32, previous=second.secret)
    assert unseal(second, sealed(), epoch="e1", scope=SCOPE) == 42
    assert unseal(third, sealed(), epoch="e1", scope=SCOPE) is CursorFault.INVALID


@given(st.text(max_size=200))
def test_whatever_a_client_sends_gives_an_answer(text: str):
    assert isinstance(unseal(KEY, text, epoch="e1", scope=SCOPE), CursorFault)


def test_a_key_never_shows_itself():
    assert "aaaa" not in repr(KEY)


@pytest.mark.parametrize("secret", [b"", b"short", b"x" * 65])
def test_a_key_of_a_wrong_length_is_refused(secret: bytes):
    with pytest.raises(ValueError, match="cursor key"):
        CursorKey(secret)
