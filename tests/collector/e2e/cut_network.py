"""A worker on another host than the collector, and the network between them: cut, as by a cable, and mended.

Run inside network and user namespaces of its own (`unshare --user --map-root-user --net`); the worker gets another
one. Packets are lost both ways without a word: each kernel is given a wrong hardware address for the other. argv: a
JSON object (`Scene`); prints another one (`Seen`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from otelprogress.feed import link_wire
from otelprogress.model.events import State
from otelprogress_collector.app import Collector
from otelprogress_collector.auth.principal import WRITE
from otelprogress_collector.auth.tokens import create_token
from otelprogress_collector.monitor.worker_links import Connection
from tests.collector.collecting import collecting
from tests.waiting import aeventually, eventually

ROOT = Path(__file__).parents[3]
PROGRAM = Path(__file__).with_name("steady_program.py")
HERE, THERE = "10.99.0.1", "10.99.0.2"


class Scene(msgspec.Struct):
    keepalive_s: tuple[int, int, float] | None = None
    """Idle time, interval, and how long bytes may be unacknowledged; `None`: those of the product."""
    watched_after_s: float | None = None
    """So long after the cut the collector has something to say to the worker; `None`: never."""
    watch_hz: float = 7.0


class Seen(msgspec.Struct):
    detector: str
    cause: str
    lost_after_s: float
    revived_after_s: float
    """After the network was mended."""
    longest_pause_s: float
    """Of the worker's application."""
    state: str
    """At the end of the worker."""


def run(command: str) -> None:
    subprocess.run(command.split(), check=True)


class Network:
    """Two hosts and a cable."""

    def __init__(self, pid: int) -> None:
        self._there = f"nsenter --target {pid} --net "
        run("ip link set lo up")
        run("ip link add here type veth peer name there")
        run(f"ip link set there netns {pid}")
        for at, address, name in (("", HERE, "here"), (self._there, THERE, "there")):
            run(f"{at}ip addr add {address}/24 dev {name}")
            run(f"{at}ip link set {name} up")

    def there(self, *command: str) -> list[str]:
        return [*self._there.split(), *command]

    def cut(self) -> None:
        for at, other, name in (("", THERE, "here"), (self._there, HERE, "there")):
            run(f"{at}ip neigh replace {other} lladdr 02:00:00:00:00:99 dev {name} nud permanent")

    def mend(self) -> None:
        for at, other, name in (("", THERE, "here"), (self._there, HERE, "there")):
            run(f"{at}ip neigh del {other} dev {name}")


@contextlib.contextmanager
def another_host() -> Iterator[Network]:
    holder = subprocess.Popen(["unshare", "--net", "sleep", "3600"])
    try:
        own = Path("/proc/self/ns/net").readlink()
        eventually(lambda: Path(f"/proc/{holder.pid}/ns/net").readlink() != own)
        yield Network(holder.pid)
    finally:
        holder.kill()
        holder.wait()


async def seen(scene: Scene, folder: Path, network: Network) -> Seen:
    tokens = folder / "tokens.json"
    token = create_token(tokens, "worker", scopes=[WRITE], now_unix_s=time.time())
    (folder / "token").write_text(token)
    (folder / "token").chmod(0o600)
    settings = {"host": HERE, "insecure": True, "tokens_file": str(tokens), "grpc": False}
    async with collecting(folder / "data", **settings) as collector:
        worker = subprocess.Popen(
            network.there(sys.executable, str(PROGRAM)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ
            | {
                "PYTHONPATH": f"{ROOT}:{ROOT / 'collector'}",
                "OTELPROGRESS_COLLECTOR": f"http://{HERE}:{collector.http_port}",
                "OTELPROGRESS_TOKEN_FILE": str(folder / "token"),
            },
        )
        try:
            return await _watched(scene, network, collector, worker)
        finally:
            worker.kill()
            await asyncio.to_thread(worker.wait)


async def _watched(
    scene: Scene, network: Network, collector: Collector, worker: subprocess.Popen[str]
) -> Seen:
    run_id = (await asyncio.to_thread(worker.stdout.readline)).strip()
    links = collector.monitor.links

    def view():
        return collector.host.hub.tree.view(run_id, time.time_ns())

    def state_is(*states: State) -> Callable[[], bool]:
        return lambda: (found := view()) is not None and found.state in states

    await aeventually(lambda: links.connected and state_is(State.RUNNING)(), 30)
    await aeventually(lambda: view().step is not None)
    # What a new writer is told is on its way no more: from here on nothing is said unless the scene has it.
    [writer] = links._writers.values()
    await aeventually(lambda: writer.rate_hz and not _unacknowledged(writer.connection))
    network.cut()
    cut_at_s = time.monotonic()
    if scene.watched_after_s is not None:
        await asyncio.sleep(scene.watched_after_s)
        [(writer_id, tenant)] = links.connected_of_tenants()
        links.interest(writer_id, tenant, scene.watch_hz)
    await aeventually(state_is(State.LOST), 90)
    lost_after_s = time.monotonic() - cut_at_s
    lost = view()
    heard = collector.ingest.stats.requests
    network.mend()
    mended_at_s = time.monotonic()
    await aeventually(state_is(State.RUNNING), 120)
    revived_after_s = time.monotonic() - mended_at_s
    # The sender may still sit in an attempt of the dark time: an end before that one is over would be its own subject.
    await aeventually(lambda: collector.ingest.stats.requests > heard, 60)
    worker.stdin.close()
    longest_pause_s = float(await asyncio.to_thread(worker.stdout.readline))
    await aeventually(lambda: not view().live, 60)
    return Seen(
        detector=lost.lost_detector,
        cause=lost.lost_cause,
        lost_after_s=lost_after_s,
        revived_after_s=revived_after_s,
        longest_pause_s=longest_pause_s,
        state=view().state,
    )


def _unacknowledged(connection: Connection) -> int:
    """Segments, of Linux's `struct tcp_info`."""
    sock = connection.transport.get_extra_info("socket")
    (segments,) = struct.unpack_from("I", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 24)
    return segments


def main() -> None:
    scene = msgspec.json.decode(sys.argv[1], type=Scene)
    if scene.keepalive_s is not None:
        idle_s, interval_s, unacknowledged_s = scene.keepalive_s
        link_wire.KEEPALIVE_IDLE_S, link_wire.KEEPALIVE_INTERVAL_S = idle_s, interval_s
        link_wire.UNACKNOWLEDGED_S = unacknowledged_s
    with tempfile.TemporaryDirectory() as folder, another_host() as network:
        found = asyncio.run(seen(scene, Path(folder), network))
    print(msgspec.json.encode(found).decode())


if __name__ == "__main__":
    main()
