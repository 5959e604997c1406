"""Events to the bytes of an OTLP log request. The one file that knows the protobuf messages of logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from otelprogress.model import semconv
from otelprogress.model.events import Event
from otelprogress.model.mapping import event_to_attributes
from otelprogress.otel.records import SEVERITY_TEXT, body_of, severity_of
from otelprogress.otel.spool import MAX_REQUEST_BYTES

_SAMPLED: Final = 1


def any_value(value: Any) -> AnyValue:
    """One attribute value. Sequences become arrays; what OTLP does not know becomes its text."""
    if isinstance(value, str):
        return AnyValue(
            string_value=value.encode("utf-8", "replace").decode() if not value.isascii() else value
        )
    if isinstance(value, bool):  # before int: a bool is one
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 63:
            return AnyValue(double_value=float(value))
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, bytes):
        return AnyValue(bytes_value=value)
    if isinstance(value, Mapping):
        message = AnyValue()
        message.kvlist_value.SetInParent()
        message.kvlist_value.values.extend(key_values(value))
        return message
    if isinstance(value, Sequence):
        message = AnyValue()
        message.array_value.SetInParent()
        message.array_value.values.extend(any_value(item) for item in value)
        return message
    return AnyValue(string_value=str(value))


def key_values(attributes: Mapping[str, Any]) -> list[KeyValue]:
    """Attributes as OTLP has them."""
    return [KeyValue(key=key, value=any_value(value)) for key, value in attributes.items()]


class LogEncoder:
    """Encodes events of this process, and of others whose events pass through it, with the right resource each.

    Args:
        resource: the attributes of this process's resource (`service.name`, …).
        version: of otelprogress, for the scope.
    """

    def __init__(self, resource: Mapping[str, Any], version: str) -> None:
        self._resource = dict(resource)
        self._scope = InstrumentationScope(name=semconv.SCOPE_NAME, version=version)
        self._resources: dict[tuple[str | None, int | None], Resource] = {}

    def encode(self, events: Sequence[Event]) -> tuple[bytes, int]:
        """The bytes of one request and how many of the first events are in it.

        At least one event is encoded however large it is; the rest as far as `MAX_REQUEST_BYTES` reaches.
        """
        request = ExportLogsServiceRequest()
        groups: dict[tuple[str | None, int | None], ResourceLogs] = {}
        size = 0
        count = 0
        for event in events:
            record = encode_record(event)
            size += record.ByteSize() + 8
            if count and size > MAX_REQUEST_BYTES:
                break
            key = (event.service, event.process_id)
            group = groups.get(key)
            if group is None:
                group = groups[key] = request.resource_logs.add(resource=self._resource_of(key))
                group.scope_logs.add(scope=self._scope)
            group.scope_logs[0].log_records.append(record)
            count += 1
        return request.SerializeToString(), count

    def _resource_of(self, key: tuple[str | None, int | None]) -> Resource:
        resource = self._resources.get(key)
        if resource is None:
            service, process_id = key
            attributes = dict(self._resource)
            if service is not None:
                attributes[semconv.SERVICE_NAME] = service
            if process_id is not None:
                attributes[semconv.PROCESS_PID] = process_id
            resource = Resource(attributes=key_values(attributes))
            if len(self._resources) < 256:  # pools make a new process id for each task
                self._resources[key] = resource
        return resource


def encode_record(event: Event) -> LogRecord:
    """One event as a log record in the context of its span; `writer.alive` has no span."""
    severity = severity_of(event)
    record = LogRecord(
        time_unix_nano=max(event.time_unix_ns, 0),
        observed_time_unix_nano=max(event.time_unix_ns, 0),
        severity_number=severity,  # type: ignore[arg-type]  # an enum of protobuf is its number
        severity_text=SEVERITY_TEXT[severity],
        event_name=event.kind,
        flags=_SAMPLED if event.sampled else 0,
        attributes=key_values(event_to_attributes(event)),
    )
    if event.durable:
        record.body.string_value = body_of(event)
    if event.run_id:
        record.trace_id = bytes.fromhex(event.trace_id)
        record.span_id = bytes.fromhex(event.span_id)
    return record
