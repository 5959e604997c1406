"""A start that fails gives everything back: the same process starts again on the same folder and ports."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from otelprogress.exceptions import InvalidRecord, InvalidValue
from otelprogress_collector import app
from otelprogress_collector.app import Collector
from otelprogress_collector.config import load
from otelprogress_collector.exporters.forward_queue import QueueUnavailable
from otelprogress_collector.listening import PortTaken
from otelprogress_collector.store.factory import open_store
from otelprogress_collector.store.interface import StoreUnavailable
from tests.collector.collecting import free_port
from tests.waiting import aeventually


class Stage:
    """What stands in the way of a start."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder
        self.settings = settings


@contextlib.contextmanager
def http_port_taken(stage: Stage) -> Iterator[None]:
    with socket.create_server(("127.0.0.1", stage.settings["http_port"])):
        yield


@contextlib.contextmanager
def grpc_port_taken(stage: Stage) -> Iterator[None]:
    with socket.create_server(("127.0.0.1", stage.settings["grpc_port"])):
        yield


@contextlib.contextmanager
def tokens_for_everybody_to_read(stage: Stage) -> Iterator[None]:
    tokens = Path(stage.settings["tokens_file"])
    tokens.chmod(0o644)
    yield
    tokens.chmod(0o600)


@contextlib.contextmanager
def a_folder_in_use(stage: Stage) -> Iterator[None]:
    other = open_store("disk", stage.folder)
    yield
    other.close()


@contextlib.contextmanager
def state_that_cannot_be_read(stage: Stage) -> Iterator[None]:
    def fail(*_: Any, **__: Any) -> None:
        raise InvalidRecord("a run that was kept cannot be read")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "open_hub", fail)
        yield


@contextlib.contextmanager
def a_file_instead_of_the_queues(stage: Stage) -> Iterator[None]:
    queues, aside = stage.folder / "forward", stage.folder / "aside"
    queues.rename(aside)
    queues.write_text("in the way")
    yield
    queues.unlink()
    aside.rename(queues)


@contextlib.contextmanager
def a_rule_that_is_none(stage: Stage) -> Iterator[None]:
    stage.settings["rules"] = "no rule at all"
    yield
    del stage.settings["rules"]


@contextlib.contextmanager
def no_room_for_a_listener(stage: Stage) -> Iterator[None]:
    async def fail(*_: Any, **__: Any) -> None:
        raise OSError("no buffer space available")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app.uvicorn.Server, "startup", fail)
        yield


@contextlib.contextmanager
def a_grpc_server_that_does_not_start(stage: Stage) -> Iterator[None]:
    async def fail(*_: Any, **__: Any) -> None:
        raise OSError("cannot listen for gRPC")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app.GrpcReceiver, "start", fail)
        yield


STAGES = {
    http_port_taken: PortTaken,
    tokens_for_everybody_to_read: InvalidValue,
    a_folder_in_use: StoreUnavailable,
    state_that_cannot_be_read: InvalidRecord,
    a_file_instead_of_the_queues: QueueUnavailable,
    a_rule_that_is_none: InvalidValue,
    no_room_for_a_listener: OSError,
    grpc_port_taken: PortTaken,
    a_grpc_server_that_does_not_start: OSError,
}


def held() -> tuple[int, set[str]]:
    """Descriptors of this process, and its threads, but for those of executors that are the loop's."""
    gc.collect()
    threads = {each.name for each in threading.enumerate() if not each.name.startswith("asyncio_")}
    return len(list(Path("/proc/self/fd").iterdir())), threads


def beyond(before: tuple[int, set[str]]) -> tuple[int, set[str]]:
    """What is held now and was not before."""
    (descriptors, threads), (descriptors_before, threads_before) = held(), before
    return max(0, descriptors - descriptors_before), threads - threads_before


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__name__)
async def test_a_start_that_fails_gives_everything_back_and_the_next_one_works(tmp_path, stage):
    settings = {
        "data_dir": str(tmp_path),
        "http_port": free_port(),
        "grpc_port": free_port(),
        "runtime_file": False,
        "tokens_file": str(tmp_path / "tokens.json"),
        "export_otlp": [f"http://127.0.0.1:{free_port()}"],
        "self_otlp": f"http://127.0.0.1:{free_port()}",
    }
    # What the first start of a process makes once and keeps is there.
    await _started_and_stopped(settings)
    with stage(Stage(tmp_path, settings)):
        before, tasks = held(), asyncio.all_tasks()
        for _ in range(2):
            with pytest.raises(STAGES[stage]):
                await Collector(load(None, settings)).start()
            await aeventually(lambda: beyond(before) == (0, set()))
            assert asyncio.all_tasks() == tasks
    await _started_and_stopped(settings)


async def _started_and_stopped(settings: dict[str, Any]) -> None:
    collector = Collector(load(None, settings))
    await collector.start()
    try:
        async with aiohttp.ClientSession() as http:
            async with http.get(f"http://127.0.0.1:{collector.http_port}/readyz") as answer:
                assert answer.status == 200
    finally:
        await collector.stop()


async def test_a_start_that_is_cancelled_gives_everything_back(tmp_path, monkeypatch):
    settings = {"data_dir": str(tmp_path), "http_port": 0, "grpc_port": 0, "runtime_file": False}
    await _started_and_stopped(settings)
    before, tasks = held(), asyncio.all_tasks()
    waits = asyncio.Event()

    async def wait(*_: Any, **__: Any) -> None:
        waits.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(app.GrpcReceiver, "start", wait)
    starting = asyncio.create_task(Collector(load(None, settings)).start())
    await waits.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await aeventually(lambda: beyond(before) == (0, set()))
    assert asyncio.all_tasks() == tasks
