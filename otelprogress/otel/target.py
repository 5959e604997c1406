"""Where telemetry of ours is sent: one OTLP endpoint per signal, read from the settings and the environment.

Names and defaults are those of the OpenTelemetry specification ("OpenTelemetry Protocol Exporter"), with two
differences: without any endpoint nothing is sent (no `localhost` by default), and without a protocol a
port of 4317 means gRPC, everything else HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal
from urllib.parse import urlsplit

from opentelemetry.util.re import parse_env_headers

from otelprogress.exceptions import InvalidValue

Signal = Literal["logs", "traces", "metrics"]
Protocol = Literal["http/protobuf", "grpc"]
SIGNALS: Final[tuple[Signal, ...]] = ("logs", "traces", "metrics")

DEFAULT_TIMEOUT_S: Final = 10.0
_GRPC_PORT: Final = 4317
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost"})


@dataclass(frozen=True, slots=True)
class OtlpEndpoint:
    """Where and how one signal is sent."""

    url: str
    """HTTP: with the signal's path. gRPC: scheme and authority."""
    protocol: Protocol
    headers: tuple[tuple[str, str], ...] = ()
    """Keys in lower case."""
    timeout_s: float = DEFAULT_TIMEOUT_S
    """Of one request."""
    gzip: bool = False
    certificate: str | None = None
    """Path of the CA certificate; `None`: the system's."""
    client_certificate: str | None = None
    client_key: str | None = None
    collector: bool = False
    """Whether our collector is there, which reads progress out of all signals."""
    token: Callable[[], str] | None = None
    """Asked before each request: what goes with it as `Authorization: Bearer`; an empty answer: nothing does."""

    @property
    def authority(self) -> str:
        """Host and port, for comparing and for log lines (never the path or the headers: they may hold secrets)."""
        return urlsplit(self.url).netloc.rpartition("@")[2]

    @property
    def secure(self) -> bool:
        """Whether it is TLS."""
        return urlsplit(self.url).scheme == "https"


@dataclass(frozen=True, slots=True)
class OtlpTarget:
    """The endpoints by signal; a signal that is absent is not sent."""

    logs: OtlpEndpoint | None = None
    traces: OtlpEndpoint | None = None
    metrics: OtlpEndpoint | None = None

    def of(self, signal: Signal) -> OtlpEndpoint | None:
        """The endpoint of one signal."""
        return {"logs": self.logs, "traces": self.traces, "metrics": self.metrics}[signal]

    def __bool__(self) -> bool:
        return self.logs is not None or self.traces is not None or self.metrics is not None


def otlp_target(
    environ: Mapping[str, str],
    *,
    endpoint: str | None = None,
    collector: str | None = None,
    token: Callable[[], str] | None = None,
) -> OtlpTarget | None:
    """Read the target from `OTEL_EXPORTER_OTLP_*`, `OTEL_{LOGS,TRACES,METRICS}_EXPORTER`.

    Args:
        environ: the environment.
        endpoint: base URL that goes before every endpoint of the environment.
        collector: base URL for the signals that neither names an endpoint for (`OTELPROGRESS_COLLECTOR`).
        token: of the collector; goes there and nowhere else.

    Returns:
        `None`: nothing is to be sent anywhere.

    Raises:
        InvalidValue: an endpoint that is no URL, a protocol we do not speak, a time-out that is no number.
    """
    found = {
        signal: _of_collector(environ, signal, collector, token)
        if collector and not _names_endpoint(environ, signal, endpoint)
        else _endpoint(environ, signal, endpoint)
        for signal in SIGNALS
    }
    target = OtlpTarget(found["logs"], found["traces"], found["metrics"])
    return target or None


def _names_endpoint(environ: Mapping[str, str], signal: Signal | None, override: str | None) -> bool:
    names = ["", *(f"{one.upper()}_" for one in SIGNALS if signal in (one, None))]
    return bool(override) or any(
        environ.get(f"OTEL_EXPORTER_OTLP_{name}ENDPOINT", "").strip() for name in names
    )


def _of_collector(
    environ: Mapping[str, str], signal: Signal, collector: str, token: Callable[[], str] | None
) -> OtlpEndpoint | None:
    """The collector's own: its port says the protocol, whatever the environment says for others."""
    own = {name: value for name, value in environ.items() if not name.endswith("_PROTOCOL")}
    if _names_endpoint(environ, None, None):
        # What stands there besides is for the endpoints that are named: a key of theirs is not the collector's.
        own = {name: value for name, value in own.items() if not name.endswith("_HEADERS")}
    found = _endpoint(own, signal, collector)
    if found is None:
        return None
    # An `authorization` that was said goes before what we know.
    said = any(key == "authorization" for key, _ in found.headers)
    return replace(found, collector=True, token=None if said else token)


def _endpoint(environ: Mapping[str, str], signal: Signal, override: str | None) -> OtlpEndpoint | None:
    def setting(name: str) -> str | None:
        """The signal's own variable before the general one; empty counts as unset, as the specification says."""
        own = environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}", "").strip()
        return own or environ.get(f"OTEL_EXPORTER_OTLP_{name}", "").strip() or None

    if override is None:
        exporters = environ.get(f"OTEL_{signal.upper()}_EXPORTER", "").strip().lower()
        if exporters == "none":
            return None
    own_url = environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT", "").strip()
    url = override or own_url or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()
    if not url:
        return None
    insecure = (setting("INSECURE") or "").lower()
    if "://" not in url:  # gRPC endpoints are often written as host:port
        url = ("https://" if insecure == "false" else "http://") + url
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InvalidValue(f"the OTLP endpoint {url!r} of {signal} is no http:// or https:// URL")
    protocol = _protocol(setting("PROTOCOL"), parts.port, signal)
    if protocol == "http/protobuf" and (override or not own_url):
        url = f"{url.rstrip('/')}/v1/{signal}"
    timeout = setting("TIMEOUT")
    try:
        timeout_s = float(timeout) if timeout else DEFAULT_TIMEOUT_S
    except ValueError:
        raise InvalidValue(
            f"OTEL_EXPORTER_OTLP_TIMEOUT is {timeout!r}: a number of seconds was expected"
        ) from None
    headers = parse_env_headers(setting("HEADERS") or "", liberal=True)
    return OtlpEndpoint(
        url=url,
        protocol=protocol,
        headers=tuple(headers.items()),
        timeout_s=max(timeout_s, 0.1),
        gzip=(setting("COMPRESSION") or "none").lower() == "gzip",
        certificate=setting("CERTIFICATE"),
        client_certificate=setting("CLIENT_CERTIFICATE"),
        client_key=setting("CLIENT_KEY"),
    )


def _protocol(text: str | None, port: int | None, signal: Signal) -> Protocol:
    if text is None:
        return "grpc" if port == _GRPC_PORT else "http/protobuf"
    if text == "grpc":
        return "grpc"
    if text == "http/protobuf":
        return "http/protobuf"
    raise InvalidValue(f"OTLP protocol {text!r} of {signal} is not spoken here: use http/protobuf or grpc")


def same_place(ours: OtlpEndpoint, theirs: str) -> bool:
    """Whether an exporter's endpoint (URL, or host:port as the gRPC exporter keeps it) is where we send, too."""
    authority = urlsplit(theirs).netloc if "://" in theirs else theirs.split("/", 1)[0]
    return _host_and_port(authority) == _host_and_port(ours.authority)


def _host_and_port(authority: str) -> tuple[str, str]:
    host, _, port = authority.rpartition("@")[2].partition(":")
    host = host.lower()
    # Collectors listen to gRPC and HTTP on two ports; to one machine it is one place.
    return ("localhost" if host in _LOOPBACK else host, {"4317": "4318"}.get(port, port))
