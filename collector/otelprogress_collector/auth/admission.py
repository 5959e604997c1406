"""Which requests the collector looks at at all: exact lists of Host and Origin, and where a token may stand.

The rules are those of the feed in the process (`otelprogress.feed.admission`); here they hold for every path.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Final

from otelprogress.exceptions import InvalidValue
from otelprogress.feed.admission import Admission, Refusal, token_of

__all__ = ["CollectorAdmission", "Refusal", "token_of"]

_ANY_ADDRESS: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - compared with, never bound
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class CollectorAdmission:
    """The allow-lists of the HTTP port.

    Let in are the names of loopback and the address that is listened on, each with the port; where every address is
    listened on, also the very one that a connection arrived at (no page elsewhere can be served under it); and what is
    listed. A page of any of these may ask, and programs, which send no `Origin`.

    Args:
        bind: the address that is listened on; empty: every one.
        port: the port that is listened on.
        tls: whether pages served here are `https` ones.
        hosts: further hosts, each `name` (with this port, or without one, as behind a proxy) or `name:port`.
        origins: further origins, each `scheme://name[:port]`.

    Raises:
        InvalidValue: a host or an origin that no request could have.
    """

    def __init__(
        self,
        bind: str,
        port: int,
        *,
        tls: bool = False,
        hosts: Iterable[str] = (),
        origins: Iterable[str] = (),
    ) -> None:
        self._scheme = "https" if tls else "http"
        self._port = port
        self._any_address = bind in _ANY_ADDRESS
        listed = set()
        for host in hosts:
            check_host(host)
            listed.add(host)
            if not _has_port(host):
                listed.add(f"{host}:{port}")
        listed_origins = set(origins)
        for origin in listed_origins:
            check_origin(origin)
        self._admission = self._lists(
            bind, listed, listed_origins | {f"{self._scheme}://{one}" for one in listed}
        )

    def _lists(self, bind: str, hosts: set[str], origins: set[str]) -> Admission:
        lists = Admission(bind, self._port, hosts=hosts, origins=origins, scheme=self._scheme)
        if self._port != _DEFAULT_PORTS[self._scheme]:
            return lists
        # Browsers and programs leave the default port out.
        bare = {host.removesuffix(f":{self._port}") for host in lists.hosts}
        return Admission(
            bind,
            self._port,
            hosts=hosts | bare,
            origins=origins | {f"{self._scheme}://{host}" for host in bare},
            scheme=self._scheme,
        )

    def refusal(
        self, hosts: Sequence[str], origins: Sequence[str], *, arrived_at: str | None = None
    ) -> Refusal | None:
        """Why this request is not looked at; `None`: it may go on.

        Args:
            hosts: the values of all `Host` headers.
            origins: the values of all `Origin` headers.
            arrived_at: the local address of the connection, as the socket says it; `None`: unknown.
        """
        if self._any_address and arrived_at is not None:
            host = _literal(arrived_at, self._port, default=_DEFAULT_PORTS[self._scheme])
            own_page = [one.lower() for one in origins] in ([], [f"{self._scheme}://{host}"])
            if host is not None and own_page and [one.lower() for one in hosts] == [host]:
                return None
        refusal = self._admission.refusal_of_headers(hosts, origins)
        if refusal is None:
            return None
        wrong_host = self._admission.refusal_of_headers(hosts, ()) is not None
        return Refusal(
            HTTPStatus.FORBIDDEN,
            "The collector does not answer to that Host. If it should, list it among its hosts.\n"
            if wrong_host
            else "The collector does not answer pages of that Origin. If it should, list it among its origins.\n",
        )


def check_host(host: str) -> None:
    """Refuse what could never be a `Host`, or would stand for many.

    Raises:
        InvalidValue: says what one looks like.
    """
    if not host or any(one in host for one in "*/@? ,") or not host.isascii() or not host.isprintable():
        raise InvalidValue(
            "an allowed host is a name or name:port, exactly as requests say it: no pattern, no scheme"
        )


def check_origin(origin: str) -> None:
    """Refuse what could never be an `Origin`, or would stand for many.

    Raises:
        InvalidValue: says what one looks like.
    """
    scheme, separator, host = origin.partition("://")
    try:
        check_host(host)
    except InvalidValue:
        separator = ""
    if not separator or scheme not in _DEFAULT_PORTS:
        raise InvalidValue(
            "an allowed origin is https://name or https://name:port: no path, no pattern, never null"
        )


def _has_port(host: str) -> bool:
    return ":" in host and host.rpartition(":")[2].isdecimal()


def _literal(address: str, port: int, *, default: int) -> str | None:
    """An address as a `Host` would say it; `None`: it is none."""
    text = address.partition("%")[0].lower()
    try:
        parsed = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(parsed, ipaddress.IPv6Address):
        mapped = parsed.ipv4_mapped
        text = str(mapped) if mapped is not None else f"[{parsed.compressed}]"
    return text if port == default else f"{text}:{port}"
