"""The settings of one process. Precedence: argument, `OTELPROGRESS_*`, `OTEL_*`, default."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from otelprogress.exceptions import InvalidValue

PREFIX: Final = "OTELPROGRESS_"
DEFAULT_PORT: Final = 4327
DEFAULT_BIND: Final = "127.0.0.1"
DEFAULT_LEASE_S: Final = 90.0
DEFAULT_SHUTDOWN_TIMEOUT_S: Final = 2.0
VIEWS: Final = ("auto", "bars", "lines", "off")
LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_TRUE: Final = frozenset({"1", "true", "on", "yes"})
_FALSE: Final = frozenset({"", "0", "false", "off", "no"})


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that `configure()` and the environment can say, resolved and checked."""

    service_name: str = ""
    """`service.name`; empty: OpenTelemetry's default."""
    endpoint: str | None = None
    """Base URL of OTLP that goes before those of `OTEL_EXPORTER_OTLP_*`; `None`: theirs, or none at all."""
    collector: str | None = None
    """Base URL of a collector: the worker link leads there, and telemetry that no other endpoint is named for."""
    feed: bool = True
    """Whether to serve a feed; `False` opens no port."""
    bind: str = DEFAULT_BIND
    port: int = DEFAULT_PORT
    """The port wanted; a taken one makes it the next free one. 0: any."""
    view: str = "auto"
    """`auto`, `bars`, `lines` or `off`."""
    rules: object = ()
    """Rules for spans that become operations: `SpanRule`s, or their text form."""
    lease_s: float = DEFAULT_LEASE_S
    history: bool = True
    shutdown_timeout_s: float = DEFAULT_SHUTDOWN_TIMEOUT_S
    notes_from_logging: str | None = None
    """The least level of log records that become notes; `None`: none do."""
    strict: bool = False
    """Whether misuse raises instead of being counted and logged."""
    integrations: tuple[str, ...] = ("tqdm",)
    token_file: str | None = None
    """A file that holds the collector's token, or without a collector the feed's; `None`: those of runtime files."""
    spool_dir: str | None = None
    """A folder where durable events wait for their receiver; `None`: they wait in memory."""
    link: str | None = None
    """Path of the runtime file of the process to report to; `None`: this process serves itself."""


def is_disabled(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether `OTELPROGRESS_DISABLED` switches everything off."""
    return _flag("DISABLED", environ, default=False)


def strict_from_environment(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether `OTELPROGRESS_STRICT` lets misuse raise."""
    return _flag("STRICT", environ, default=False)


def resolve(
    *,
    service_name: str | None = None,
    endpoint: str | None = None,
    collector: str | None = None,
    feed: bool | str | None = None,
    view: str | None = None,
    rules: object = None,
    lease_s: float | None = None,
    history: bool | None = None,
    shutdown_timeout_s: float | None = None,
    notes_from_logging: str | None = None,
    strict: bool | None = None,
    integrations: tuple[str, ...] = ("tqdm",),
    spool_dir: str | None = None,
    feed_by_default: bool = True,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """The settings that these arguments (see `runtime.configure`) and the environment make.

    `None` is not said here. `feed_by_default` is what `feed` is when neither argument nor environment says it.

    Raises:
        InvalidValue: naming the setting and the value.
    """
    serves, bind, port = _feed(
        "feed" if feed is not None else f"{PREFIX}FEED", feed, feed_by_default, environ
    )
    return Settings(
        service_name=service_name
        or environ.get("OTEL_SERVICE_NAME", "").strip()
        or _resource_service(environ),
        endpoint=endpoint or None,
        collector=collector_url("collector", collector) if collector else collector_of(environ),
        feed=serves,
        bind=bind,
        port=port,
        view=_view(view, environ),
        rules=rules if rules is not None else environ.get(f"{PREFIX}RULES", ""),
        lease_s=_seconds("lease_s", lease_s, f"{PREFIX}LEASE_S", DEFAULT_LEASE_S, environ),
        history=True if history is None else bool(history),
        shutdown_timeout_s=_seconds(
            "shutdown_timeout_s", shutdown_timeout_s, None, DEFAULT_SHUTDOWN_TIMEOUT_S, environ
        ),
        notes_from_logging=_level(notes_from_logging),
        strict=strict_from_environment(environ) if strict is None else bool(strict),
        integrations=tuple(integrations),
        token_file=environ.get(f"{PREFIX}TOKEN_FILE") or None,
        spool_dir=os.fspath(spool_dir)
        if spool_dir
        else environ.get(f"{PREFIX}SPOOL_DIR", "").strip() or None,
        link=environ.get(f"{PREFIX}LINK") or None,
    )


def replaced(settings: Settings, **changes: Any) -> Settings:
    """The same settings but for these."""
    return dataclasses.replace(settings, **changes)


def _flag(name: str, environ: Mapping[str, str], *, default: bool) -> bool:
    text = environ.get(PREFIX + name)
    if text is None:
        return default
    lowered = text.strip().lower()
    if lowered in _TRUE:
        return True
    if lowered in _FALSE:
        return False
    raise InvalidValue(f"{PREFIX}{name}={text!r}: on or off")


def _feed(said_by: str, feed: Any, default: bool, environ: Mapping[str, str]) -> tuple[bool, str, int]:
    if feed is None:
        feed = environ.get(f"{PREFIX}FEED") or default
    if isinstance(feed, bool):
        return feed, DEFAULT_BIND, DEFAULT_PORT
    text = str(feed).strip()
    if text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE, DEFAULT_BIND, DEFAULT_PORT
    host, colon, number = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not number.isdecimal() or int(number) > 65_535:
        raise InvalidValue(f"{said_by}={feed!r}: on, off or HOST:PORT")
    return True, host or DEFAULT_BIND, int(number)


def _view(view: str | None, environ: Mapping[str, str]) -> str:
    said_by, text = (
        ("view", view) if view is not None else (f"{PREFIX}VIEW", environ.get(f"{PREFIX}VIEW") or "auto")
    )
    if text not in VIEWS:
        raise InvalidValue(f"{said_by}={text!r}: one of {', '.join(VIEWS)}")
    return text


def _seconds(
    name: str, value: float | None, variable: str | None, default: float, environ: Mapping[str, str]
) -> float:
    said_by: str = name
    said: object = value
    if value is None and variable is not None and environ.get(variable):
        said_by, said = variable, environ[variable]
    if said is None:
        return default
    try:
        seconds = float(str(said))
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise InvalidValue(f"{said_by}={said!r}: a positive number of seconds")
    return seconds


def _level(level: str | None) -> str | None:
    if level is None:
        return None
    if str(level).upper() not in LEVELS:
        raise InvalidValue(f"notes_from_logging={level!r}: one of {', '.join(LEVELS)}, or None")
    return str(level).upper()


def collector_of(environ: Mapping[str, str] = os.environ) -> str | None:
    """What `OTELPROGRESS_COLLECTOR` says; `None`: nothing.

    Raises:
        InvalidValue: it is no address of a collector.
    """
    text = environ.get(f"{PREFIX}COLLECTOR", "").strip()
    return collector_url(f"{PREFIX}COLLECTOR", text) if text else None


def collector_url(said_by: str, text: str) -> str:
    """The base URL of a collector, `http(s)://HOST:PORT[/PREFIX]`; without a scheme `http` is meant.

    Raises:
        InvalidValue: it is none. A user's name in it is refused too: who may come in is the token's to say.
    """
    written = text.strip()
    parts = urlsplit(written if "://" in written else f"http://{written}")
    try:
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        sound = False
    if not sound or "@" in parts.netloc or parts.query or parts.fragment:
        raise InvalidValue(f"{said_by}={text!r}: http://HOST:PORT or https://HOST:PORT")
    return f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")


def _resource_service(environ: Mapping[str, str]) -> str:
    for pair in environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        key, _, value = pair.partition("=")
        if key.strip() == "service.name":
            return value.strip()
    return ""
