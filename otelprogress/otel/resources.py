"""The resource of this process for the providers that only we see, also while the interpreter is leaving."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry.sdk.resources import OTELResourceDetector, Resource


def make_resource(attributes: Mapping[str, Any]) -> Resource:
    """The resource that the environment describes, with `attributes` over it.

    The SDK runs its detectors in a thread pool, which is refused once the interpreter leaves. A process that lives
    for a moment may need its first resource just then: it gets what the environment says, undetected.
    """
    try:
        return Resource.create(dict(attributes))
    except RuntimeError:
        return OTELResourceDetector().detect().merge(Resource(dict(attributes)))
