"""A MeterProvider that nobody but us sees, collected by the sender's thread: no thread of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, MetricsData

from otelprogress.otel.resources import make_resource

if TYPE_CHECKING:
    from otelprogress.otel.sender import Sender


class SenderMetricReader(MetricReader):
    """Collects when the sender asks for it, and gives it the bytes of one request."""

    def __init__(self) -> None:
        super().__init__()
        self._data: list[MetricsData] = []

    def _receive_metrics(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> None:
        self._data.append(metrics_data)

    def request(self) -> bytes | None:
        """Collect now; `None`: nothing was recorded."""
        from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics

        self._data.clear()
        self.collect()
        data = self._data.pop() if self._data else None
        return (
            encode_metrics(data).SerializeToString() if data is not None and data.resource_metrics else None
        )

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Nothing to release; the sender has asked for the last time by now."""


def make_meter_provider(sender: Sender, attributes: Mapping[str, Any]) -> MeterProvider:
    """A MeterProvider whose values `sender` collects and sends."""
    reader = SenderMetricReader()
    # Not closed at exit by the SDK: the runtime does it, within its own time.
    provider = MeterProvider([reader], make_resource(attributes), shutdown_on_exit=False)
    sender.collect_metrics_with(reader.request)
    return provider
