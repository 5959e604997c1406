"""What the claims of a JSON web token mean.

What is read of a token, once its signature was verified:

===============  ======================================================================================================
`iss`            required: the configured issuer
`aud`            required: a configured audience, or a list with one
`exp`            required: seconds since 1970; exact, no leeway
`nbf` `iat`      honoured with `leeway_s`
`sub`            who acts, for audits and limits; without it the issuer
`jti`            the id that a deny-list names; without it the token cannot be revoked
`scope`          a text, the scopes separated by spaces; or `scopes`, a list of texts; those that are not ours are ignored
`tenant`         whose operations; without it those without a tenant
`services`       a list of `service.name`s that may be written and read; without it all of the tenant
`tenant_from`    for a gateway, instead of `tenant`: the resource attribute that names the tenant of what it sends
===============  ======================================================================================================

A claim of the wrong type refuses the token: read half, a restriction could become a right.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from otelprogress_collector.auth.deny_list import is_token_id
from otelprogress_collector.auth.principal import MAX_SERVICES, SCOPES, Denied, Principal, is_tenant

MAX_TEXT_CHARS: Final = 256
_MAX_TIME_UNIX_S: Final = 1e11
"""The year 5138: a time beyond it is in other units."""


def principal_of(
    claims: Mapping[str, Any], *, issuer: str, audiences: tuple[str, ...], leeway_s: float, now_unix_s: float
) -> Principal:
    """Who that is, by claims whose signature was verified.

    Args:
        claims: the payload.
        issuer: what `iss` must be.
        audiences: one of which `aud` must name.
        leeway_s: for `nbf` and `iat`.
        now_unix_s: the time.

    Raises:
        Denied: a claim is missing, of the wrong type or over.
    """
    if claims.get("iss") != issuer:
        raise Denied("the token is of another issuer")
    said = claims.get("aud")
    if not set(audiences).intersection([said] if isinstance(said, str) else _texts(claims, "aud")):
        raise Denied("the token is for another audience")
    expires_at = _time(claims, "exp")
    if expires_at is None:
        raise Denied("the token lacks the claim exp: one that never expires is not taken")
    if now_unix_s >= expires_at:
        raise Denied("the token expired")
    for name in ("nbf", "iat"):
        begins_at = _time(claims, name)
        if begins_at is not None and begins_at > now_unix_s + leeway_s:
            raise Denied(f"the token is not valid yet ({name})")
    token_id = _text(claims, "jti")
    if token_id is not None and not is_token_id(token_id):
        raise Denied("the token's jti is none that a deny-list could name: white space, or too long")
    tenant, tenant_from = _text(claims, "tenant"), _text(claims, "tenant_from")
    if tenant is not None and not is_tenant(tenant):
        raise Denied("the token's tenant is too long, or has white space at an end")
    if tenant is not None and tenant_from is not None:
        raise Denied("the token has both tenant and tenant_from")
    services = tuple(_texts(claims, "services")) if "services" in claims else ()
    if len(services) > MAX_SERVICES or ("services" in claims and not services):
        raise Denied(f"the token's services are none, or more than {MAX_SERVICES}")
    return Principal(
        actor=_text(claims, "sub") or issuer,
        scopes=_scopes(claims),
        tenant=tenant or "",
        services=services,
        tenant_from=tenant_from,
        expires_at_unix_s=expires_at,
        token_id=token_id or "",
    )


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    if "scope" in claims and "scopes" in claims:
        raise Denied("the token has both scope and scopes")
    said = claims.get("scope", "")
    if not isinstance(said, str):
        raise Denied("the token's scope is no text")
    # Other scopes are for other services: an issuer gives one token for several.
    return SCOPES.intersection(_texts(claims, "scopes") if "scopes" in claims else said.split(" "))


def _text(claims: Mapping[str, Any], name: str) -> str | None:
    if name not in claims:
        return None
    value = claims[name]
    if not isinstance(value, str) or not _is_plain(value):
        raise Denied(f"the token's {name} is no printable text of 1 to {MAX_TEXT_CHARS} characters")
    return value


def _texts(claims: Mapping[str, Any], name: str) -> list[str]:
    values = claims.get(name)
    if not isinstance(values, list) or not all(isinstance(one, str) and _is_plain(one) for one in values):
        raise Denied(f"the token's {name} is no list of printable texts")
    return values


def _is_plain(text: str) -> bool:
    return 0 < len(text) <= MAX_TEXT_CHARS and text.isprintable()


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _MAX_TIME_UNIX_S:
        raise Denied(f"the token's {name} is no time in seconds since 1970")
    return float(value)
