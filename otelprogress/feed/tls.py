"""How the other end of a TLS connection is known: by the authorities that OpenTelemetry's own variables name."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping

from otelprogress.exceptions import InvalidValue


def client_tls(environ: Mapping[str, str] = os.environ) -> ssl.SSLContext:
    """The context for `wss`: one authority for what is sent to a collector and for what is read from it.

    `OTEL_EXPORTER_OTLP_CERTIFICATE` names the authorities (default: the system's), `_CLIENT_CERTIFICATE` and
    `_CLIENT_KEY` what this side shows where the collector asks for it.

    Raises:
        InvalidValue: a file that is named cannot be read, or is no certificate.
    """
    authorities = environ.get("OTEL_EXPORTER_OTLP_CERTIFICATE") or None
    certificate = environ.get("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE") or None
    try:
        context = ssl.create_default_context(cafile=authorities)
        if certificate is not None:
            context.load_cert_chain(certificate, environ.get("OTEL_EXPORTER_OTLP_CLIENT_KEY") or None)
    except OSError as error:  # an SSLError is one
        raise InvalidValue(f"OTEL_EXPORTER_OTLP_CERTIFICATE and _CLIENT_CERTIFICATE: {error}") from error
    return context
