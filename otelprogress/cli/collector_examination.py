"""What `otelprogress doctor` finds out about collectors, about what programs send, and about spools on disk."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from otelprogress import config
from otelprogress.cli import connection
from otelprogress.cli.findings import (
    ANSWER_WITHIN_S,
    BAD,
    COLLECTOR,
    MAX_TEXT_CHARS,
    NOTE,
    OK,
    Finding,
)
from otelprogress.exceptions import FeedDenied, ProgressError
from otelprogress.feed.discovery import FeedTarget, all_feeds, token_from_file
from otelprogress.model.text import clean
from otelprogress.otel.spool_segment import SUFFIX, Segment

_GRPC_PORT: Final = 4317
_MAX_SPOOL_FILES: Final = 10_000
_LOST: Final = re.compile(r"\b[1-9]\d* (?:lost|refused)\b")
"""In a line of `Sender.report`."""


async def examine_collectors(environ: Mapping[str, str]) -> list[Finding]:
    """The collector that is named and those that run here: do they answer, and what does the token allow?"""
    try:
        named = config.collector_of(environ)
        targets = [target for target in all_feeds(environ) if target.is_collector]
    except (ProgressError, OSError) as error:
        return [Finding(BAD, COLLECTOR, clean(str(error), MAX_TEXT_CHARS))]
    findings: list[Finding] = []
    token_file = environ.get("OTELPROGRESS_TOKEN_FILE")
    if named is not None and token_file:
        try:
            token_from_file(token_file)
        except ProgressError as error:
            text = clean(str(error), MAX_TEXT_CHARS)
            findings.append(
                Finding(BAD, COLLECTOR, text, "no program here can show a token to the collector")
            )
    if named is None:
        if targets:
            url = targets[0].url.replace("ws", "http", 1).removesuffix("/v1/feed")
            findings.append(
                Finding(
                    NOTE,
                    COLLECTOR,
                    "one runs here, and programs started here do not report to it",
                    f"set OTELPROGRESS_COLLECTOR={clean(url, MAX_TEXT_CHARS)}",
                )
            )
    elif urlsplit(named).port == _GRPC_PORT:
        findings.append(
            Finding(
                BAD,
                COLLECTOR,
                f"OTELPROGRESS_COLLECTOR={clean(named, MAX_TEXT_CHARS)} is the port of gRPC: no link and no feed is there",
                "name the HTTP port, 4318 by default",
            )
        )
    for answers in await asyncio.gather(*(_ask(target, environ) for target in targets)):
        findings += answers
    return findings


async def _ask(target: FeedTarget, environ: Mapping[str, str]) -> list[Finding]:
    from websockets.exceptions import WebSocketException

    where = clean(target.url.removesuffix("/v1/feed"), MAX_TEXT_CHARS)
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            async with connection.open_client_of(target.url, target.token) as client:
                views = await client.list(roots=False)
    except TimeoutError:
        text = f"{where} does not answer within {ANSWER_WITHIN_S:g} s"
        return [Finding(BAD, COLLECTOR, text, "is it stopped, or behind a firewall?")]
    except FeedDenied as denied:
        return [
            Finding(
                BAD,
                COLLECTOR,
                f"{where}: {clean(str(denied), MAX_TEXT_CHARS)}",
                _token_advice(target, environ),
            )
        ]
    except (ProgressError, OSError, EOFError, WebSocketException) as error:
        text = f"{where}: {clean(str(error), MAX_TEXT_CHARS)}"
        return [Finding(BAD, COLLECTOR, text, _unavailable_advice(error))]
    live = sum(view.live for view in views)
    findings = [Finding(OK, COLLECTOR, f"{where}: {live} running, {len(views) - live} ended lately")]
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            await connection.link_answers(target)
    except TimeoutError:
        findings.append(
            Finding(BAD, "link", f"{where} does not answer a worker within {ANSWER_WITHIN_S:g} s")
        )
    except FeedDenied as denied:
        text = (
            f"{where} lets this token read, and refuses it as a worker: {clean(str(denied), MAX_TEXT_CHARS)}"
        )
        findings.append(Finding(BAD, "link", text, "programs need a token with the scope progress:write"))
    except (ProgressError, OSError, EOFError, WebSocketException) as error:
        findings.append(Finding(BAD, "link", f"{where}: {clean(str(error), MAX_TEXT_CHARS)}"))
    else:
        findings.append(Finding(OK, "link", f"{where} takes workers: that a program died is seen at once"))
    return findings


def _unavailable_advice(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return "its certificate is not trusted: let OTEL_EXPORTER_OTLP_CERTIFICATE name the file of its authority"
    if cause is not None:
        return "something listens there, and they do not agree about TLS: is it https there?"
    return "start it: `otelprogress-collector serve`"


def _token_advice(target: FeedTarget, environ: Mapping[str, str]) -> str:
    if file := environ.get("OTELPROGRESS_TOKEN_FILE"):
        return f"the token is that of OTELPROGRESS_TOKEN_FILE={clean(file, MAX_TEXT_CHARS)}: is it this collector's?"
    if target.token:
        return "the token is that of its runtime file: is it the same collector that runs there?"
    return "no token is known: set OTELPROGRESS_TOKEN_FILE"


def examine_senders(who: str, facts: Mapping[str, str], *, collector_named: bool) -> Iterator[Finding]:
    """What a program says of its own way out: its link to the collector, what is sent, what was dropped."""
    if link := facts.get("collector"):
        text = f"{who}: link to {clean(link, MAX_TEXT_CHARS)}"
        if link.endswith(": connected"):
            yield Finding(OK, "link", text)
        elif "not needed yet" in link:
            yield Finding(NOTE, "link", text)
        else:
            yield Finding(
                BAD,
                "link",
                text,
                "its death would be seen late; is the collector there, and the token right?",
            )
    elif collector_named and facts:
        text = f"{who} was started without the collector that is named here"
        yield Finding(NOTE, "link", text, "set OTELPROGRESS_COLLECTOR where it is started")
    troubles = facts.get("sender_troubles", "").split("; ")
    for line in filter(None, facts.get("sender", "").split("; ")):
        text = f"{who}: {clean(line, MAX_TEXT_CHARS)}"
        if line in troubles:
            so_far = "what was lost is lost" if _LOST.search(line) else "nothing is lost yet"
            yield Finding(BAD, "sender", text, f"{so_far}; is the receiver there, and does it take this?")
        else:
            yield Finding(OK, "sender", text)
    if dropped := facts.get("host"):
        yield Finding(
            BAD,
            "drops",
            f"{who}: {clean(dropped, MAX_TEXT_CHARS)}",
            "it says more than can be taken in: fewer notes, or fewer spans that rules match",
        )


def examine_spool(environ: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """What waits in the folder of spools that is named here."""
    named = environ.get(f"{config.PREFIX}SPOOL_DIR", "").strip()
    if not named:
        return
    where = clean(named, MAX_TEXT_CHARS)
    waiting: dict[str, int] = {}
    try:
        if not Path(named).exists():
            yield Finding(NOTE, "spool", f"{where} is not there yet")
            return
        for path in itertools.islice(Path(named).rglob(f"*{SUFFIX}"), _MAX_SPOOL_FILES):
            count = _waiting_in(path)
            if count:
                process = path.relative_to(named).parts[0]
                waiting[process] = waiting.get(process, 0) + count
    except OSError as error:
        yield Finding(BAD, "spool", f"{where}: {clean(str(error), MAX_TEXT_CHARS)}")
        return
    if not waiting:
        yield Finding(OK, "spool", f"{where}: nothing waits")
        return
    yield Finding(
        NOTE,
        "spool",
        f"{where}: {sum(waiting.values())} events wait, of so many processes: {len(waiting)}",
        "what dead ones left is delivered by the next start of the same application",
    )


def _waiting_in(path: Path) -> int:
    segment: Segment | None = None
    with contextlib.suppress(FileNotFoundError):  # it was delivered a moment ago
        segment = Segment.reopen(path)
    if segment is None:
        return 0
    segment.close()
    return segment.waiting
