"""The messages that leave attributes unread are those of opentelemetry.proto, with fewer fields."""

from __future__ import annotations

import pytest
from google.protobuf.descriptor import FieldDescriptor
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from otelprogress_collector.receivers import shapes

PAIRS = [
    (shapes.Resource, Resource),
    (shapes.Scope, InstrumentationScope),
    (shapes.LogRecord, LogRecord),
    (shapes.Span, Span),
    (shapes.SpanEvent, Span.Event),
    (shapes.Status, Status),
]
READ_AS = {
    FieldDescriptor.TYPE_MESSAGE: FieldDescriptor.TYPE_BYTES,
    FieldDescriptor.TYPE_ENUM: FieldDescriptor.TYPE_INT32,
}


@pytest.mark.parametrize(("ours", "official"), PAIRS, ids=lambda one: one.DESCRIPTOR.full_name)
def test_every_field_has_the_official_number_and_wire_type(ours, official):
    for field in ours.DESCRIPTOR.fields:
        meant = official.DESCRIPTOR.fields_by_name[field.name]
        assert field.number == meant.number
        assert field.type == READ_AS.get(meant.type, meant.type)
        assert field.is_repeated == meant.is_repeated


def test_an_official_message_is_read_with_its_attributes_as_they_came():
    span = Span(name="load", trace_id=b"\x01" * 16)
    attribute = span.attributes.add(key="a")
    attribute.value.string_value = "b"
    read = shapes.Span.FromString(span.SerializeToString())
    assert (read.name, read.trace_id) == ("load", b"\x01" * 16)
    assert list(read.attributes) == [attribute.SerializeToString()]
