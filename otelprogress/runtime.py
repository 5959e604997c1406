"""The one runtime of a process: `configure()` and `shutdown()`, and what becomes of it in a forked child.

What it consists of stands in `composition`.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from otelprogress import active, config
from otelprogress.composition import Runtime
from otelprogress.config import Settings
from otelprogress.exceptions import ProgressError
from otelprogress.imports import late

if TYPE_CHECKING:
    from otelprogress.model.rules import SpanRule

_logger = logging.getLogger("otelprogress")

_runtime: Runtime | None = None
_lock = threading.RLock()
_building = False


def current_runtime() -> Runtime | None:
    """The runtime of this process; `None`: nothing is configured."""
    return _runtime


def configure(
    *,
    service_name: str | None = None,
    endpoint: str | None = None,
    collector: str | None = None,
    feed: bool | str | None = None,
    view: str | None = None,
    rules: Iterable[SpanRule] | str | None = None,
    lease_s: float | None = None,
    history: bool | None = None,
    shutdown_timeout_s: float | None = None,
    notes_from_logging: str | None = None,
    strict: bool | None = None,
    integrations: Iterable[str] = ("tqdm",),
    spool_dir: str | os.PathLike[str] | None = None,
) -> None:
    """Let this process show its progress: on its terminal, and to `otelprogress watch` through a loopback feed.

    Call it once, before or after the application's own OpenTelemetry set-up: providers that exist are used, those
    that appear later too, and none is ever set. `None` leaves a setting to the environment. A second call with the
    same settings does nothing, with others it warns and does nothing. In a child process of a configured one it
    reports to the parent and opens no port. `OTELPROGRESS_DISABLED=1` makes it do nothing, and so does the pytest
    fixture `progress_capture`: what the code under test reports is the test's. Where the system starts no more threads
    it opens no port either, says so in a warning, and the application goes on.

    Args:
        service_name: `service.name` where the application has no provider that says it (`OTEL_SERVICE_NAME`).
        endpoint: base URL of an OTLP endpoint to send to; else `OTEL_EXPORTER_OTLP_*`, else the collector, else nothing
            is sent.
        collector: base URL of a collector, `http://HOST:4318` (`OTELPROGRESS_COLLECTOR`): this process reports to it
            what no other endpoint is named for, and stays connected, so that its death is seen.
        feed: `False` or `off` opens no port; `HOST:PORT` (`OTELPROGRESS_FEED`). Default: 127.0.0.1:4327 or the next
            free port.
        view: `auto` (bars on a terminal, a line per milestone elsewhere, nothing under pytest), `bars`, `lines`,
            `off` (`OTELPROGRESS_VIEW`).
        rules: which spans of existing instrumentation are operations (`OTELPROGRESS_RULES`).
        lease_s: this process promises to be heard at least this often, seconds (`OTELPROGRESS_LEASE_S`, 90).
        history: write what ran to a local SQLite file; `False`: no. Default: yes.
        shutdown_timeout_s: how long the exit may take, seconds; 2 by default.
        notes_from_logging: log records of this level or above inside an operation become its notes; `None`: none.
        strict: misuse raises instead of being counted and logged (`OTELPROGRESS_STRICT`).
        integrations: libraries whose own progress is shown; `()`: none.
        spool_dir: a folder where durable events wait while their receiver is away (`OTELPROGRESS_SPOOL_DIR`): what a
            killed process leaves there, the next start of the same application delivers. Default: they wait in memory.

    Raises:
        InvalidValue: a setting that cannot be meant; names it.
        FeedUnavailable: no port could be had.
    """
    if config.is_disabled():
        return
    settings = config.resolve(
        service_name=service_name,
        endpoint=endpoint,
        collector=collector,
        feed=feed,
        view=view,
        rules=None if rules is None else rules if isinstance(rules, str) else tuple(rules),
        lease_s=lease_s,
        history=history,
        shutdown_timeout_s=shutdown_timeout_s,
        notes_from_logging=notes_from_logging,
        strict=strict,
        integrations=tuple(integrations),
        spool_dir=None if spool_dir is None else os.fspath(spool_dir),
    )
    if not active.captured:
        _configure(settings, automatic=False)


def configure_from_environment() -> None:
    """`configure()` for zero-code set-up; never raises: what is wrong is logged.

    A port is opened and a history written only with `OTELPROGRESS_FEED=on`, a view drawn only with
    `OTELPROGRESS_VIEW`.
    """
    try:
        if config.is_disabled():
            return
        says_view = bool(os.environ.get("OTELPROGRESS_VIEW"))
        settings = config.resolve(feed_by_default=False, view=None if says_view else "off")
        if not settings.feed:
            settings = config.replaced(settings, history=False)
        _configure(settings, automatic=True)
    except ProgressError as error:
        _logger.warning("otelprogress was not configured: %s", error)
    except Exception:
        _logger.warning("otelprogress was not configured: an error of its own", exc_info=True)


def join_link(path: str) -> None:
    """Report to the process whose runtime file `path` is, unless this process is configured already."""
    if config.is_disabled():
        return
    active.instrumentation()  # a forked child joins by itself, here
    with _lock:
        if _runtime is None:
            settings = config.resolve(view="off", feed_by_default=False)
            _configure(config.replaced(settings, link=path, history=False), automatic=True)


def _configure(settings: Settings, *, automatic: bool) -> None:
    global _building
    with _lock:
        if _building:  # what it is built of uses what it builds, on this very thread
            return
        settings = _with_living_parent(settings)
        existing = _runtime
        if existing is not None and existing.pid == os.getpid():
            if existing.settings == settings or automatic:
                return
            if not existing.automatic or existing.instrumentation.live:
                _logger.warning(
                    "otelprogress: configure() was called before with other settings, which stay: call shutdown() first"
                )
                return
            existing.close(cause="configure() was called")
        active.forget_spans_only()
        _building = True
        try:
            _build(settings, automatic=automatic)
        finally:
            _building = False
        active.on_first_use = None


def _build(settings: Settings, *, automatic: bool) -> None:
    global _runtime
    made: Runtime | None = None
    try:
        with late:  # nearly everything is imported in here, and any thread may fork meanwhile
            made = Runtime(settings, automatic=automatic, on_provider_found=_leave_first, shutdown=shutdown)
            made.start()
            _runtime = made  # in here, too: a child that is forked has to know what it inherits
    except BaseException:
        if made is not None:
            made.close()  # not in there: it waits for threads that may have something to import
        raise


def _with_living_parent(settings: Settings) -> Settings:
    """Forget a link that leads to this very process, or to one that is gone."""
    if settings.link is None:
        return settings
    from otelprogress.feed import runtime_file

    path = Path(settings.link)
    if _runtime is not None and _runtime.pid == os.getpid() and _runtime.runtime_path == path:
        return config.replaced(settings, link=None)
    try:
        lives = runtime_file.read_announced(path).live
    except (OSError, ProgressError):
        lives = False
    return settings if lives else config.replaced(settings, link=None)


def shutdown() -> None:
    """Undo `configure()`: operations that live end as lost, everything waiting leaves, the port is closed.

    Takes `shutdown_timeout_s` at most. Happens by itself when the interpreter exits.
    """
    _close("shutdown() was called")


def _close(cause: str | None) -> None:
    global _runtime
    with _lock:
        runtime, _runtime = _runtime, None
    if runtime is not None:
        runtime.close(cause=cause)


def _at_exit() -> None:
    _close(None)


atexit.register(_at_exit)


def _leave_first() -> None:
    """A provider that was made after us shuts down before us: what is still open then would not be exported."""
    atexit.unregister(_at_exit)
    atexit.register(_at_exit)


_left_to_parent: Runtime | None = None
"""What this process was forked with. Kept, because finalizers would close what the parent uses."""

# --- fork ------------------------------------------------------------------------------------------------------------


def _after_fork_in_child() -> None:
    """Start clean: the parent's operations, threads and sockets are not ours. Reporting begins again at the first use."""
    global _building, _runtime, _lock, _left_to_parent
    _lock = threading.RLock()
    _building = False
    inherited, _runtime = _runtime, None
    _left_to_parent = inherited
    if inherited is None:
        active.forget_spans_only()
        return
    settings = inherited.leave_to_parent()
    active.on_first_use = lambda: _configure_in_child(settings)


def _configure_in_child(settings: Settings) -> None:
    with _lock:  # other threads' first uses wait here: what they do next is to be reported, too
        if active.on_first_use is None:
            return
        try:
            _configure(settings, automatic=True)
        except Exception:
            active.on_first_use = None
            _logger.debug("otelprogress: a forked child could not report", exc_info=True)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
