"""One OTLP backend: where it is, what it takes, and how much may wait for it."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from opentelemetry.util.re import parse_env_headers

from otelprogress.exceptions import InvalidValue
from otelprogress.otel.target import SIGNALS, Protocol, Signal

_GRPC_PORT: Final = 4317
_MIN_QUEUE_BYTES: Final = 64 * 1024
_MAX_QUOTED: Final = 200
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")
_HEADER_NAME: Final = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+\Z")
_HEADER_VALUE: Final = re.compile(r"[\x20-\x7e]*\Z")
_OURS: Final = frozenset(
    {"connection", "content-encoding", "content-length", "content-type", "te", "transfer-encoding"}
)
_SIZE: Final = re.compile(r"(\d+)\s*(|B|KIB|MIB|GIB)\Z")
_UNITS: Final = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}
_YES: Final = frozenset({"1", "true", "on", "yes"})
_NO: Final = frozenset({"0", "false", "off", "no"})


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendConfig:
    """See the module. `parse_backend` makes one of plain values, and says what is wrong with them."""

    name: str
    """Names its queues on the disk, and it in logs and counters: lower case letters, digits, `.`, `_`, `-`."""
    url: str = field(repr=False)
    """HTTP: the base, `/v1/<signal>` is added. gRPC: scheme and authority. `https` means TLS."""
    protocol: Protocol = "http/protobuf"
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Keys in lower case. They may hold secrets: never in a log line, a report or a repr."""
    ca_file: str | None = None
    """PEM of the authorities to trust; `None`: the system's."""
    cert_file: str | None = None
    """PEM of this side's certificate, for mutual TLS."""
    key_file: str | None = None
    """PEM of its key; `None`: it is in `cert_file`."""
    gzip: bool = False
    timeout_s: float = 10.0
    """Of one request, from the connection to the end of the answer."""
    signals: tuple[Signal, ...] = SIGNALS
    """What is forwarded to it."""
    queue_max_bytes: int = 256 * 1024 * 1024
    """What may wait, for each signal; over it the oldest requests are dropped and counted."""
    queue_max_age_s: float | None = 86_400.0
    """Requests that waited longer are dropped and counted: many backends refuse old ones. `None`: they never are."""
    in_flight: int = 1
    """Requests on their way at once, for each signal. Above 1 the order of requests is no longer kept."""
    max_merged_bytes: int = 256 * 1024
    """Once a queue has fallen behind, neighbouring protobuf requests are sent as one of at most so many bytes; the
    bytes of each stay as they are (protobuf joins messages that way). A crash then repeats at most what was sent as
    one. 0: every request goes by itself, always."""
    ticks: bool = False
    """Whether requests with nothing but ticks and `writer.alive` are forwarded too."""
    proxy_from_env: bool = False
    """Whether `HTTP_PROXY` and its kin are respected."""

    @property
    def authority(self) -> str:
        """Host and port: what logs and reports show of the URL."""
        return urlsplit(self.url).netloc.rpartition("@")[2]

    @property
    def secure(self) -> bool:
        """Whether it is TLS."""
        return urlsplit(self.url).scheme == "https"

    def url_of(self, signal: Signal) -> str:
        """Where requests of one signal go over HTTP."""
        parts = urlsplit(self.url)
        return parts._replace(path=f"{parts.path.rstrip('/')}/v1/{signal}").geturl()

    def quoted(self, text: str) -> str:
        """What the backend said, for a log line: escaped, capped, and without our own secrets should it echo them."""
        for secret in sorted(self._secrets(), key=len, reverse=True):
            text = text.replace(secret, "…")
        return repr(text[:_MAX_QUOTED])

    def _secrets(self) -> Iterable[str]:
        for _, value in self.headers:
            # "Bearer abc" is echoed as a whole or without its scheme.
            yield from (part for part in {value, value.rpartition(" ")[2]} if part)
        password = urlsplit(self.url).password
        if password:
            yield from {password, unquote(password)}


_KEYS: Final = tuple(BackendConfig.__dataclass_fields__)


def parse_backend(values: Mapping[str, object]) -> BackendConfig:
    """Read one backend from plain values: strings (of a file, the environment, a flag) or what YAML makes of them.

    Args:
        values: the fields of `BackendConfig`; only `url` is needed. Without a protocol port 4317 means gRPC; without
            a name host and port are it. `headers` are a mapping or `key=value,key=value`, `signals` a list or
            `traces,logs`; sizes may have a unit (`64MiB`); an empty age means none.

    Raises:
        InvalidValue: a value that cannot be meant; the message says which, and quotes no secret.
    """
    for key in values:
        if key not in _KEYS:
            near = difflib.get_close_matches(str(key), _KEYS, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(_KEYS)}"
            raise InvalidValue(f"a backend has no setting {key!r}: {hint}")
    url, protocol = _url(values.get("url"), values.get("protocol"))
    name = _name(values.get("name"), url)
    where = f"backend {name!r}: "
    timeout_s = _seconds(values.get("timeout_s", 10.0), where + "timeout_s")
    if timeout_s is None:
        raise InvalidValue(f"{where}timeout_s is empty: a number of seconds was expected")
    config = BackendConfig(
        name=name,
        url=url,
        protocol=protocol,
        headers=_headers(values.get("headers"), protocol, where),
        ca_file=_file(values.get("ca_file"), where + "ca_file"),
        cert_file=_file(values.get("cert_file"), where + "cert_file"),
        key_file=_file(values.get("key_file"), where + "key_file"),
        gzip=_flag(values.get("gzip", False), where + "gzip"),
        timeout_s=timeout_s,
        signals=_signals(values.get("signals"), where),
        queue_max_bytes=_size(
            values.get("queue_max_bytes", 256 << 20), where + "queue_max_bytes", least=_MIN_QUEUE_BYTES
        ),
        queue_max_age_s=_seconds(values.get("queue_max_age_s", 86_400.0), where + "queue_max_age_s"),
        in_flight=_size(values.get("in_flight", 1), where + "in_flight", least=1, most=64),
        max_merged_bytes=_size(
            values.get("max_merged_bytes", 256 << 10), where + "max_merged_bytes", least=0
        ),
        ticks=_flag(values.get("ticks", False), where + "ticks"),
        proxy_from_env=_flag(values.get("proxy_from_env", False), where + "proxy_from_env"),
    )
    if config.key_file and not config.cert_file:
        raise InvalidValue(f"{where}key_file without cert_file: a key needs its certificate")
    if not config.secure and (config.ca_file or config.cert_file):
        raise InvalidValue(f"{where}TLS files are given, but its URL is not https://")
    return config


def parse_backends(many: Iterable[Mapping[str, object]]) -> tuple[BackendConfig, ...]:
    """Read several; each needs a name of its own.

    Raises:
        InvalidValue: as `parse_backend`, or two of one name.
    """
    configs = tuple(parse_backend(values) for values in many)
    seen: set[str] = set()
    for config in configs:
        if config.name in seen:
            raise InvalidValue(f"two backends are called {config.name!r}: give each a `name` of its own")
        seen.add(config.name)
    return configs


def _url(given: object, protocol: object) -> tuple[str, Protocol]:
    if not isinstance(given, str) or not given.strip():
        raise InvalidValue("a backend needs a `url`, as http://host:4318 or http://host:4317 (gRPC)")
    text = given.strip()
    if "://" not in text:  # gRPC endpoints are often written as host:port
        text = "http://" + text
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    # The URL itself is not quoted in errors: it may hold a password.
    if not host or parts.scheme not in ("http", "https"):
        raise InvalidValue("the url of a backend is no http:// or https:// URL with a host")
    if parts.fragment:
        raise InvalidValue(f"the url of the backend at {host} has a fragment (#…)")
    spoken = _protocol(protocol, port)
    path = parts.path.rstrip("/")
    if spoken == "grpc" and (path or parts.query):
        raise InvalidValue(
            f"the url of the gRPC backend at {host} has a path: gRPC has scheme, host and port only"
        )
    for signal in SIGNALS:
        if path.endswith(f"/v1/{signal}"):
            raise InvalidValue(
                f"the url of the backend at {host} ends with /v1/{signal}: leave that out, it is added"
            )
    return text, spoken


def _protocol(given: object, port: int | None) -> Protocol:
    if given in (None, ""):
        return "grpc" if port == _GRPC_PORT else "http/protobuf"
    if given == "grpc":
        return "grpc"
    if given in ("http/protobuf", "http"):
        return "http/protobuf"
    raise InvalidValue(f"protocol {given!r} of a backend is not spoken here: use http/protobuf or grpc")


def _name(given: object, url: str) -> str:
    name = given
    if name in (None, ""):
        name = re.sub(r"[^a-z0-9._-]+", "-", urlsplit(url).netloc.rpartition("@")[2].lower()).strip("-._")[
            :64
        ]
    if not isinstance(name, str) or not _NAME.match(name):
        raise InvalidValue(
            f"the name {name!r} of a backend cannot be used: lower case letters, digits, '.', '_', '-', at most 64"
        )
    return name


def _headers(given: object, protocol: Protocol, where: str) -> tuple[tuple[str, str], ...]:
    if given in (None, ""):
        return ()
    pairs: Mapping[Any, object]
    if isinstance(given, str):
        pairs = parse_env_headers(given, liberal=True)
        if not pairs:
            raise InvalidValue(f"{where}headers are not to be understood: use key=value,key=value")
    elif isinstance(given, Mapping):
        pairs = given
    else:
        raise InvalidValue(f"{where}headers are neither a mapping nor key=value,key=value")
    headers = []
    for key, value in pairs.items():
        name = str(key).strip().lower()
        if not _HEADER_NAME.match(name):
            raise InvalidValue(f"{where}{name!r} is no name of a header")
        if name in _OURS or (protocol == "grpc" and name.startswith("grpc-")):
            raise InvalidValue(f"{where}the header {name!r} is set by the collector itself")
        if protocol == "grpc" and name.endswith("-bin"):
            raise InvalidValue(f"{where}the header {name!r} would be binary: not supported")
        if not isinstance(value, str) or not _HEADER_VALUE.match(value):
            raise InvalidValue(f"{where}the value of the header {name!r} is no printable ASCII text")
        headers.append((name, value))
    return tuple(headers)


def _file(given: object, what: str) -> str | None:
    if given in (None, ""):
        return None
    try:
        with Path(str(given)).open("rb"):
            return str(given)
    except OSError as error:
        raise InvalidValue(f"{what} {str(given)!r} cannot be read: {error.strerror}") from None


def _signals(given: object, where: str) -> tuple[Signal, ...]:
    if given in (None, ""):
        return SIGNALS
    if isinstance(given, str):
        names = {name.strip() for name in given.split(",")}
    elif isinstance(given, Iterable):
        names = {str(name) for name in given}
    else:
        raise InvalidValue(f"{where}signals are neither a list nor text")
    unknown = names - set(SIGNALS)
    if unknown or not names:
        raise InvalidValue(f"{where}signals {sorted(unknown)}: there are {', '.join(SIGNALS)}")
    return tuple(signal for signal in SIGNALS if signal in names)


def _flag(given: object, what: str) -> bool:
    if isinstance(given, bool):
        return given
    text = str(given).strip().lower()
    if text in _YES:
        return True
    if text in _NO:
        return False
    raise InvalidValue(f"{what} is {given!r}: true or false was expected")


def _seconds(given: object, what: str) -> float | None:
    if given in (None, ""):
        return None
    try:
        seconds = float(given) if isinstance(given, (str, int, float)) else math.nan
    except ValueError:
        seconds = math.nan
    if isinstance(given, bool) or not 0 < seconds < math.inf:
        raise InvalidValue(f"{what} is {given!r}: a number of seconds above 0 was expected")
    return seconds


def _size(given: object, what: str, *, least: int, most: int = 1 << 50) -> int:
    found = _SIZE.match(str(given).strip().upper()) if not isinstance(given, bool) else None
    size = int(found[1]) * _UNITS[found[2]] if found else -1
    if not least <= size <= most:
        raise InvalidValue(f"{what} is {given!r}: a whole number from {least} to {most} was expected")
    return size
