"""What values of OTLP/JSON mean."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from otelprogress.exceptions import InvalidRecord
from otelprogress_collector.receivers.json_shapes import (
    hex_id,
    kind_of,
    severity_of,
    status_of,
    value_in,
    whole,
)


def value(text: str, depth: int = 16):
    return value_in(Raw(text.encode()), depth)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("{}", None),
        ("null", None),
        ('{"stringValue":null}', None),
        ('{"unheardOf":[1]}', None),
        ('{"stringValue":""}', ""),
        ('{"boolValue":false}', False),
        ('{"intValue":"-12"}', -12),
        ('{"intValue":9223372036854775807}', 2**63 - 1),
        ('{"intValue":5.0}', 5),
        ('{"doubleValue":"-Infinity"}', -math.inf),
        ('{"doubleValue":"1e3"}', 1000.0),
        ('{"doubleValue":3}', 3.0),
        ('{"bytesValue":"AAEC/w=="}', b"\x00\x01\x02\xff"),
        ('{"bytesValue":"AAEC_w"}', b"\x00\x01\x02\xff"),
        ('{"bytesValue":""}', b""),
        ('{"arrayValue":{}}', []),
        ('{"arrayValue":{"values":[{},null,{"intValue":1}]}}', [None, None, 1]),
        (
            '{"kvlistValue":{"values":[{"key":"a"},{"key":"b","value":{"stringValue":"c"}}]}}',
            {"a": None, "b": "c"},
        ),
    ],
)
def test_a_value_is_read(text, meant):
    assert value(text) == meant
    assert type(value(text)) is type(meant)


@pytest.mark.parametrize(
    "text",
    [
        '{"intValue":"9223372036854775808"}',
        '{"intValue":1.5}',
        '{"intValue":"1_0"}',
        '{"intValue":""}',
        '{"intValue":"%s"}' % ("9" * 5_000),
        '{"intValue":true}',
        '{"doubleValue":"lots"}',
        '{"doubleValue":"1_0"}',
        '{"bytesValue":"?"}',
        '{"stringValue":1}',
        '{"boolValue":"true"}',
        '{"arrayValue":[]}',
        "[]",
        "7",
        '{"stringValue":"\\ud800"}',
    ],
)
def test_a_value_of_the_wrong_type_is_refused(text):
    with pytest.raises(InvalidRecord):
        value(text)


def test_depth_is_counted_by_lists_and_maps():
    nested = '{"arrayValue":{"values":[{"kvlistValue":{"values":[{"key":"a","value":{"intValue":1}}]}}]}}'
    assert value(nested, 2) == [{"a": 1}]
    with pytest.raises(InvalidRecord, match="nested 1 deep"):
        value(nested, 1)


@given(st.integers(0, 2**64 - 1))
def test_times_are_texts_or_numbers(number):
    assert whole(str(number), what="t") == whole(number, what="t") == number


@pytest.mark.parametrize("number", [-1, 2**64, "-1", "x", 0.5, True])
def test_times_that_are_none_are_refused(number):
    with pytest.raises(InvalidRecord):
        whole(number, what="timeUnixNano")


@pytest.mark.parametrize(("text", "number"), [(None, 0), ("", 0), ("00AB" * 4, 0x00AB00AB00AB00AB)])
def test_ids_are_hex_in_either_case(text, number):
    assert hex_id(text, 16, what="spanId") == number
    assert hex_id(text and text.lower(), 16, what="spanId") == number


@pytest.mark.parametrize("text", ["ab", "zz" * 8, "ab " * 6, "00AB" * 5, "AAAAAAAAAAA="])
def test_ids_that_are_none_are_refused(text):
    with pytest.raises(InvalidRecord, match="16 hex digits"):
        hex_id(text, 16, what="spanId")


def test_enums_are_numbers_or_names():
    assert kind_of(2) == kind_of("SPAN_KIND_SERVER") == "server"
    assert kind_of(0) == kind_of(None) == kind_of("SPAN_KIND_OF_THE_FUTURE") == "internal"
    assert status_of(2) == status_of("STATUS_CODE_ERROR") == "error"
    assert status_of(None) == status_of(7) == "unset"
    assert severity_of(13) == severity_of("SEVERITY_NUMBER_WARN") == severity_of("13") == 13
    assert severity_of("SEVERITY_NUMBER_ERROR3") == 19
    assert severity_of(None) == severity_of(-4) == 0
