"""Canaries: a secret in any text of an event does not come out of `sanitized`, which every host applies before it stores."""

from __future__ import annotations

import typing

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelprogress.model import semconv
from otelprogress.model.events import Event, run_id
from otelprogress.model.fields import sanitized
from otelprogress_collector.auth.token_records import new_token

CANARY = "c4n4ry" + "Q7x9" * 6
SECRETS = {
    "bearer": f"sent Bearer {CANARY} along",
    "named": f"failed with password={CANARY} twice",
    "in a URL": f"postgresql://etl:{CANARY}@db/flights",
    "a JWT": f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIx{CANARY}.{CANARY}",
    "a service's key": f"ghp_{CANARY}",
    "a private key": f"-----BEGIN PRIVATE KEY----- {CANARY} -----END PRIVATE KEY-----",
}
COMPARED = {
    "kind": "a constant of the conventions",
    "run_id": "checked to be hex where it is read",
    "tenant": "of the token, not of the sender",
    "parent_span_id": "16 characters",
    "writer_id": "told from others by it, random by the SDK",
    "service": "what rights and filters are about",
    "trace_state": "goes on with the trace as it came",
    "control_id": "what commands and their answers are matched by",
    "control_action": "what was declared",
    "input_id": "what answers are matched by",
    "span_kind": "16 characters",
    "ratio_source": "16 characters",
    "level": "16 characters",
    "lost_detector": "a word of ours",
    "unit": "compared with other units",
}
"""Texts that are no prose: identities, which a change would break. They are capped and cleaned, not looked through."""


def holds_text(annotation: object) -> bool:
    return annotation is str or any(map(holds_text, typing.get_args(annotation)))


TEXT_FIELDS = [
    one.name for one in msgspec.structs.fields(Event) if holds_text(one.type) and one.name not in COMPARED
]


def value_with(field: str, secret: str) -> object:
    """Such a text in the form that the field has."""
    if field in ("result", "input_schema"):
        return msgspec.json.encode({"rows": 7, "note": [secret, {"deep": secret}]}).decode()
    if field in ("steps", "controls"):
        return ("load", secret)
    if field == "attributes":
        return {"day": "2026-11-21", "note": secret}
    if field == "counters":
        return {"rejected": 1.0, secret: 2.0}
    return secret


def event_with(**fields) -> Event:
    return Event(kind=semconv.OPERATION_NOTED, run_id=run_id(1, 2), time_unix_ns=1, **fields)


def shown(event: Event) -> str:
    return msgspec.json.encode(event).decode() + repr(event)


@pytest.mark.parametrize("field", TEXT_FIELDS)
def test_a_secret_in_a_text_of_an_event_does_not_come_out(field):
    for secret in SECRETS.values():
        event = event_with(**{field: value_with(field, secret)})
        assert CANARY in shown(event)
        assert CANARY not in shown(sanitized(event))


def test_every_text_of_an_event_is_either_looked_through_or_an_identity():
    """A field that is new has to be put on one side."""
    assert set(TEXT_FIELDS) == {
        *(
            "name",
            "label",
            "title",
            "error_type",
            "control_actor",
            "control_refusal",
            "counters",
            "step_name",
            "message",
            "error_message",
            "error_stacktrace",
            "lost_cause",
            "control_reason",
        ),
        *("input_prompt", "input_default", "input_schema", "result", "steps", "controls", "attributes"),
    }


@pytest.mark.parametrize("field", TEXT_FIELDS)
@pytest.mark.parametrize("introducer", ["\x9b", "\x1b[", "\x1b]0;"])
def test_an_escape_sequence_that_swallows_the_front_of_a_secret_does_not_save_it(field, introducer):
    event = event_with(**{field: value_with(field, f"{introducer} {SECRETS['a private key']}")})
    assert CANARY not in shown(sanitized(event))


@pytest.mark.parametrize("key", ["password", "db.password", "x-api-key", "client_secret", "session_token"])
def test_an_attribute_is_left_out_by_its_name(key):
    assert CANARY not in shown(sanitized(event_with(attributes={key: CANARY, "day": "x"})))


@pytest.mark.parametrize("key", ["password", "db_password", "api_key"])
def test_a_member_of_a_result_is_redacted_by_its_name(key):
    result = msgspec.json.encode({key: CANARY, "rows": 7}).decode()
    assert CANARY not in shown(sanitized(event_with(result=result)))


def test_a_schema_keeps_what_it_says_of_a_secret_member():
    schema = '{"properties":{"password":{"type":"string","description":"at least 12 characters"}}}'
    assert sanitized(event_with(input_schema=schema)).input_schema == schema


def test_what_stands_below_such_a_member_is_redacted_too():
    for value in ([CANARY], {"value": CANARY}, [{"value": [CANARY]}]):
        result = msgspec.json.encode({"password": value}).decode()
        assert CANARY not in shown(sanitized(event_with(result=result)))


@pytest.mark.parametrize("field", ["result", "attributes"])
def test_a_secret_in_a_key_does_not_come_out(field):
    for secret in SECRETS.values():
        keyed = {secret: "x"}
        value = msgspec.json.encode(keyed).decode() if field == "result" else keyed
        assert CANARY not in shown(sanitized(event_with(**{field: value})))


def test_the_collectors_own_tokens_are_known_by_their_look():
    token = new_token()
    assert token not in shown(sanitized(event_with(message=f"connected with {token}")))


@given(
    st.text(max_size=30),
    st.sampled_from(sorted(SECRETS)),
    st.text(max_size=30),
    st.sampled_from(TEXT_FIELDS),
)
def test_a_secret_does_not_come_out_whatever_stands_around_it(before, secret, after, field):
    event = event_with(**{field: value_with(field, f"{before} {SECRETS[secret]} {after}")})
    kept = sanitized(event)
    assert sanitized(kept) == kept
    assert CANARY not in shown(kept)
