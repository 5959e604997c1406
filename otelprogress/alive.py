"""The writer's sign of life: that it lives although nothing happens."""

from __future__ import annotations

import time

from otelprogress.active import Instrumentation
from otelprogress.imports import late


class Alive:
    """Says `writer.alive` each third of the lease while something lives: one for all runs of this writer."""

    def __init__(self, instrumentation: Instrumentation) -> None:
        self._ins = instrumentation
        self._next_s = 0.0

    def __call__(self) -> None:
        """Say it where it is due. Called by the sampler at each look."""
        ins = self._ins
        if not ins.live or ins.lease_s is None:
            self._next_s = 0.0
            return
        now_s = time.monotonic()
        if not self._next_s:  # the starts themselves were signs of life
            self._next_s = now_s + ins.lease_s / 3
        elif now_s >= self._next_s:
            with late:
                from otelprogress.model import semconv
                from otelprogress.model.events import Event

            self._next_s = now_s + ins.lease_s / 3
            ins.submit(
                Event(
                    kind=semconv.WRITER_ALIVE,
                    run_id="",
                    time_unix_ns=time.time_ns(),
                    writer_id=ins.writer_id,
                    lease_s=ins.lease_s,
                )
            )
