"""What `otelprogress doctor` looks at. Every check answers with findings and never raises."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import os
import platform
import socket
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, entry_points, version
from typing import Final
from urllib.parse import urlsplit

from otelprogress import config
from otelprogress.cli import connection
from otelprogress.cli.collector_examination import examine_collectors, examine_senders, examine_spool
from otelprogress.cli.findings import ANSWER_WITHIN_S, BAD, COLLECTOR, FEED, MAX_TEXT_CHARS, NOTE, OK, Finding
from otelprogress.exceptions import ProgressError
from otelprogress.feed import runtime_file
from otelprogress.feed.runtime_folder import runtime_folder
from otelprogress.model import formats
from otelprogress.model.rules import parse_rules
from otelprogress.model.text import clean

VARIABLES: Final = (
    "COLLECTOR",
    "DISABLED",
    "FEED",
    "LEASE_S",
    "LINK",
    "RULES",
    "RUNTIME_DIR",
    "SPOOL_DIR",
    "STRICT",
    "TOKEN_FILE",
    "VIEW",
)
_ENDPOINTS: Final = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    "OTELPROGRESS_COLLECTOR",
)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "grpc": 4317}
_TRUE: Final = frozenset({"1", "true", "yes", "on"})


async def examine(now_s: float, environ: Mapping[str, str] = os.environ) -> list[Finding]:
    """All findings, in the order in which a person would ask."""
    findings = [_versions(), *_environment(environ)]
    findings += await _feeds(now_s, collector_named=bool(environ.get("OTELPROGRESS_COLLECTOR", "").strip()))
    findings += await examine_collectors(environ)
    findings += examine_spool(environ)
    findings += _rules(environ)
    findings += await _endpoints(environ)
    findings += _automatic()
    findings.append(_history(now_s))
    return findings


def _versions() -> Finding:
    found = []
    for name in ("otelprogress", "opentelemetry-sdk", "websockets"):
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    return Finding(OK, "versions", f"{', '.join(found)}, Python {platform.python_version()}")


def _environment(environ: Mapping[str, str]) -> Iterator[Finding]:
    for name in sorted(environ):
        if not name.startswith(config.PREFIX):
            continue
        if name.removeprefix(config.PREFIX) not in VARIABLES:
            meant = difflib.get_close_matches(name, [config.PREFIX + known for known in VARIABLES], n=1)
            yield Finding(
                BAD, "environment", f"{name} is no setting", f"set {meant[0]}" if meant else "unset it"
            )
        else:
            yield Finding(NOTE, "environment", f"{name}={clean(environ[name], MAX_TEXT_CHARS)}")
    try:
        config.resolve(environ=environ)
    except ProgressError as error:
        yield Finding(
            BAD, "environment", clean(str(error), MAX_TEXT_CHARS), "programs started here would refuse it"
        )
    if environ.get("OTELPROGRESS_DISABLED", "").lower() in _TRUE:
        yield Finding(
            BAD, "environment", "programs started here report nothing", "unset OTELPROGRESS_DISABLED"
        )
    if environ.get("OTELPROGRESS_FEED", "").lower() == "off":
        yield Finding(
            BAD,
            "environment",
            "programs started here open no feed: nothing can watch them",
            "unset OTELPROGRESS_FEED",
        )
    if environ.get("OTELPROGRESS_VIEW", "").lower() == "off":
        yield Finding(
            NOTE, "environment", "programs started here draw no bars", "unset OTELPROGRESS_VIEW to see them"
        )
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        yield Finding(
            NOTE, "environment", "OTEL_SDK_DISABLED: there are no spans; bars and feed work without them"
        )
    if environ.get("OTEL_TRACES_SAMPLER", "").endswith("always_off"):
        yield Finding(
            NOTE, "environment", "no span is sampled; bars and feed work, no trace reaches a backend"
        )


async def _feeds(now_s: float, *, collector_named: bool) -> list[Finding]:
    folder = runtime_folder()
    try:
        found = runtime_file.scan(folder)
    except (ProgressError, OSError) as error:
        return [Finding(BAD, "folder", clean(str(error), MAX_TEXT_CHARS))]
    findings = [Finding(OK, "folder", f"{folder}{'' if folder.exists() else ' (not there yet)'}")]
    found = [one for one in found if one.content.kind != COLLECTOR]
    alive = [one.content for one in found if one.live]
    for one in found:
        if not one.live:
            ago = formats.age(now_s - one.content.written_at_unix_ns / 1e9)
            findings.append(
                Finding(
                    NOTE,
                    "stale",
                    f"{_who(one.content)} started {ago} ago and is gone: its operations are lost",
                )
            )
    if not alive:
        findings.append(
            Finding(
                NOTE,
                FEED,
                "no program of yours has a feed open",
                "call otelprogress.configure() in it, or start it with OTELPROGRESS_FEED=on opentelemetry-instrument; "
                "OTELPROGRESS_RUNTIME_DIR and XDG_RUNTIME_DIR must be the same there and here",
            )
        )
    for answers in await asyncio.gather(
        *(_ask(content, collector_named=collector_named) for content in alive)
    ):
        findings += answers
    return findings


def _who(content: runtime_file.RuntimeFile) -> str:
    name = content.service or content.command or "a program"
    return f"{clean(name, MAX_TEXT_CHARS)} (pid {content.pid})"


async def _ask(content: runtime_file.RuntimeFile, *, collector_named: bool) -> list[Finding]:
    from websockets.exceptions import WebSocketException

    who = f"{_who(content)} at {clean(content.url, MAX_TEXT_CHARS)}"
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            async with connection.open_client_of(content.url, content.token) as client:
                views = await client.list(roots=False)
            facts = await connection.facts_of(content.url, content.token)
    except TimeoutError:
        text = f"{who} does not answer within {ANSWER_WITHIN_S:g} s"
        return [Finding(BAD, FEED, text, "is it stopped (Ctrl-Z)?")]
    except (ProgressError, OSError, EOFError, WebSocketException) as error:
        text = f"{who}: {clean(str(error), MAX_TEXT_CHARS)}"
        return [Finding(BAD, FEED, text, "does a firewall forbid loopback?")]
    live = sum(view.live for view in views)
    advice = (
        ""
        if views
        else "it has a feed but no operation yet: @operation, track() or a rule that matches its spans"
    )
    findings = [Finding(OK, FEED, f"{who}: {live} running, {len(views) - live} ended", advice)]
    findings += [
        Finding(NOTE, "provider", f"{content.pid} {clean(provider, MAX_TEXT_CHARS)}")
        for provider in filter(None, facts.get("providers", "").split("; "))
    ]
    findings += examine_senders(str(content.pid), facts, collector_named=collector_named)
    if facts.get("rule_spans") == "0":
        text = f"{_who(content)}: none of its {clean(facts.get('rules', ''), 8)} rules matched a span yet"
        findings.append(Finding(NOTE, "rules", text, "compare their globs with the names in its traces"))
    return findings


def _rules(environ: Mapping[str, str]) -> Iterator[Finding]:
    text = environ.get("OTELPROGRESS_RULES")
    if not text:
        return
    try:
        rules = parse_rules(text)
    except ProgressError as error:
        yield Finding(
            BAD, "rules", clean(str(error), MAX_TEXT_CHARS), "name=GLOB;root_only;children=steps|name=…"
        )
        return
    yield Finding(OK, "rules", f"{len(rules)} parsed; spans that match none of them are no operations")


async def _endpoints(environ: Mapping[str, str]) -> list[Finding]:
    findings = []
    for name in _ENDPOINTS:
        if not (url := environ.get(name)):
            continue
        parts = urlsplit(url if "://" in url else f"grpc://{url}")
        try:
            port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 4317)
        except ValueError:
            findings.append(Finding(BAD, "endpoint", f"{name} is no URL: {clean(url, MAX_TEXT_CHARS)}"))
            continue
        where = f"{name}: {clean(parts.hostname or '', MAX_TEXT_CHARS)}:{port}"
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                _, writer = await asyncio.open_connection(parts.hostname, port)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        except (OSError, TimeoutError, socket.gaierror) as error:
            reason = clean(str(error), MAX_TEXT_CHARS) or "no answer"
            findings.append(
                Finding(BAD, "endpoint", f"{where} cannot be reached: {reason}", "is the backend running?")
            )
        else:
            findings.append(Finding(OK, "endpoint", f"{where} takes connections"))
    if not findings:
        findings.append(
            Finding(NOTE, "endpoint", "none is set: traces stay in the program, bars and feed work")
        )
    return findings


def _automatic() -> Iterator[Finding]:
    named = {point.name for point in entry_points(group="opentelemetry_instrumentor")}
    try:
        found = version("opentelemetry-instrumentation")
    except PackageNotFoundError:
        yield Finding(
            NOTE,
            "automatic",
            "opentelemetry-instrument is not installed here",
            "pip install opentelemetry-distro, for programs that are not to be edited",
        )
        return
    if "otelprogress" in named:
        yield Finding(OK, "automatic", f"opentelemetry-instrument {found} will load otelprogress")
    else:
        yield Finding(
            BAD, "automatic", f"opentelemetry-instrument {found} does not see otelprogress", "reinstall it"
        )


def _history(now_s: float) -> Finding:
    history = connection.open_history()
    try:
        latest = history.operations(1)
        if history.off_because is not None:
            return Finding(BAD, "history", clean(history.off_because, MAX_TEXT_CHARS))
        if not latest:
            return Finding(NOTE, "history", f"{history.path}: empty")
        ago = formats.age(now_s - latest[0].started_at_unix_ns / 1e9)
        handle = clean(latest[0].handle, MAX_TEXT_CHARS)
        return Finding(OK, "history", f"{history.path}: the latest is {handle}, started {ago} ago")
    finally:
        history.close()
