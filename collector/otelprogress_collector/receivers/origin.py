"""Who sends a group of records: tenant, service and process, as the resource says and the token allows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from otelprogress.model import semconv
from otelprogress.model.text import clean
from otelprogress_collector.auth.principal import Principal

MAX_TENANT_CHARS: Final = 128
_MAX_PROCESS_ID: Final = (1 << 31) - 1


class Origin(msgspec.Struct, frozen=True, gc=False):
    """What one resource says of all its records."""

    tenant: str
    said: dict[str, Any]
    """`service` and `process_id` of an event, where they are known."""
    resource: dict[str, Any]
    """`service.name` and `process.pid` as `event_from_log` reads them."""


class Refused(Exception):
    """The sender may not write what this resource sends; the message says why."""


def wanted_of_resource(principal: Principal) -> frozenset[str]:
    """The keys of a resource that `origin_of` looks at."""
    keys = {semconv.SERVICE_NAME, semconv.PROCESS_PID}
    if principal.tenant_from is not None:
        keys.add(principal.tenant_from)
    return frozenset(keys)


def origin_of(attributes: Iterable[tuple[str, Any]], principal: Principal) -> Origin:
    """The origin of a resource's records.

    Args:
        attributes: of the resource, in its order; those of `wanted_of_resource` will do.
        principal: who sends it.

    Raises:
        Refused: a service that the token may not write, or a gateway's resource that names no tenant.
    """
    found: dict[str, Any] = {}
    for key, value in attributes:
        if key in found and (
            key == principal.tenant_from or (principal.services and key == semconv.SERVICE_NAME)
        ):
            # The first counts for some readers, the last for others: whoever has no right to both could use that.
            raise Refused(f"the resource has {clean(key, 128)} twice")
        found[key] = value
    service, process_id = found.get(semconv.SERVICE_NAME), found.get(semconv.PROCESS_PID)
    if principal.services and service not in principal.services:
        shown = (
            f"the service {clean(service, 64)!r}"
            if isinstance(service, str)
            else "a resource without service.name"
        )
        raise Refused(f"this token may not write {shown}")
    said: dict[str, Any] = {}
    if isinstance(service, str):
        said["service"] = clean(service, semconv.MAX_NAME_CHARS)
    if isinstance(process_id, int) and not isinstance(process_id, bool) and 0 < process_id <= _MAX_PROCESS_ID:
        said["process_id"] = process_id
    return Origin(_tenant_of(found, principal), said, found)


def _tenant_of(attributes: dict[str, Any], principal: Principal) -> str:
    if principal.tenant_from is None:
        return principal.tenant
    tenant = attributes.get(principal.tenant_from)
    if not isinstance(tenant, str) or not tenant or clean(tenant, MAX_TENANT_CHARS) != tenant:
        raise Refused(f"the resource must name its tenant in {clean(principal.tenant_from, 128)!r}")
    return tenant
