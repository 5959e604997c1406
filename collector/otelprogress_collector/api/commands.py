"""`POST /v1/operations/{operation}/commands`: one command, answered with what became of it so far."""

from __future__ import annotations

import secrets
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import msgspec
from starlette.types import Receive, Scope, Send

from otelprogress.protocol.command_judging import Asker
from otelprogress.protocol.encoding import encode
from otelprogress.protocol.messages import Command, CommandAnswer, Filter
from otelprogress_collector.api.access import matcher_of
from otelprogress_collector.api.problem import Problem, respond

if TYPE_CHECKING:
    from otelprogress_collector.api.access import Access
    from otelprogress_collector.commanding import Commanding
    from otelprogress_collector.host import CollectorHost

MAX_BODY_BYTES: Final = 64 * 1024
_EVERYTHING: Final = Filter(roots=False)
STATUSES: Final[dict[CommandAnswer, HTTPStatus]] = {
    "accepted": HTTPStatus.ACCEPTED,
    "duplicate": HTTPStatus.OK,
    "invalid": HTTPStatus.BAD_REQUEST,
    "forbidden": HTTPStatus.FORBIDDEN,
    "not_found": HTTPStatus.NOT_FOUND,
    "ambiguous": HTTPStatus.CONFLICT,
    "ended": HTTPStatus.CONFLICT,
    "unsupported": HTTPStatus.CONFLICT,
    "stale": HTTPStatus.PRECONDITION_FAILED,
    "no_worker": HTTPStatus.SERVICE_UNAVAILABLE,
    "overloaded": HTTPStatus.TOO_MANY_REQUESTS,
}
RETRY_AFTER_S: Final = 5
"""What the answer `overloaded` asks for."""


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    """What is posted: a `command` of the feed without its type and operation."""

    action: str
    command_id: str | None = None
    arguments: dict[str, str | bool | int | float | None] = {}
    expect_revision: int | None = None
    deadline_s: float | None = None


_decode: Final = msgspec.json.Decoder(_Body).decode


class Commands:
    """The ASGI application.

    Args:
        host: whose operations are commanded.
        access: who may.
        commanding: takes them.
    """

    def __init__(self, host: CollectorHost, access: Access, commanding: Commanding) -> None:
        self._host = host
        self._access = access
        self._commanding = commanding

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            if scope["method"] != "POST":
                raise Problem(
                    HTTPStatus.METHOD_NOT_ALLOWED, "commands are sent with POST", headers={"Allow": "POST"}
                )
            principal = await self._access.reader(scope)
            command = _command(scope["path_params"]["operation"], await _body(scope, receive))
            await self._host.readable()
            self._access.still(principal)
            status = self._commanding.submit(
                command,
                Asker(actor=principal.actor, scopes=principal.scopes, tenant=principal.tenant),
                matcher_of(principal, _EVERYTHING),
                self._host.clock.time_unix_ns(),
            )
        except Problem as refused:
            await refused.answer(send)
        else:
            headers = {"Retry-After": str(RETRY_AFTER_S)} if status.status == "overloaded" else None
            await respond(send, encode(status), status=STATUSES[status.status], headers=headers)


def _command(operation: str, body: bytes) -> Command:
    try:
        asked = _decode(body)
        return msgspec.convert(
            {
                "type": "command",
                "command_id": secrets.token_hex(8) if asked.command_id is None else asked.command_id,
                "operation": operation,
                "action": asked.action,
                "arguments": asked.arguments,
                "expect_revision": asked.expect_revision,
                "deadline_s": asked.deadline_s,
            },
            Command,
        )
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Problem(HTTPStatus.BAD_REQUEST, f"the body is no command: {error}") from None


async def _body(scope: Scope, receive: Receive) -> bytes:
    kinds = [value for name, value in scope["headers"] if name.lower() == b"content-type"]
    if not kinds or kinds[-1].partition(b";")[0].strip().lower() != b"application/json":
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "a command is application/json")
    parts: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise Problem(HTTPStatus.BAD_REQUEST, "the request ended early")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY_BYTES:
            raise Problem(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a command has at most {MAX_BODY_BYTES} bytes"
            )
        more = message.get("more_body", False)
    return b"".join(parts)
