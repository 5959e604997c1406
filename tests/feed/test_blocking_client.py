from __future__ import annotations

import inspect
import threading

import pytest

from otelprogress.exceptions import FeedDenied, FeedUnavailable
from otelprogress.feed.blocking_client import Client
from otelprogress.feed.client import AsyncClient
from tests.feed.fakes import ended, noted, started
from tests.feed.serving import TOKEN, real_host, serving
from tests.waiting import eventually


def test_the_blocking_client_reads_like_the_asynchronous_one():
    host = real_host()
    host.submit(started())
    with serving(host) as server, Client(server.url, TOKEN) as client:
        assert [view.handle for view in client.list(ended_within_s=1e9)] == ["nightly_load-1"]
        assert client.get("nightly").handle == "nightly_load-1"
        assert client.wait("nightly", timeout_s=0.05).reason == "timeout"
        with client.watch() as watching:
            assert next(watching).kind == "snapshot"
            host.submit(noted(2, message="two"))
            assert next(watching).message == "two"
            assert watching.poll(0.05) is None
            host.submit(ended(3))
            event = watching.poll(20)
            assert event is not None
            assert not event.operation.live
            assert watching.gaps == 0
            cursor = watching.cursor
        assert list(watching) == []
        host.submit(noted(4, run=1, message="late"))
        assert next(client.watch(cursor=cursor)).late


def test_digests_come_one_after_the_other():
    host = real_host()
    host.submit(started())
    with serving(host) as server, Client(server.url, TOKEN) as client:
        with client.digests() as digests:
            assert "nightly_load-1 RUN" in next(digests).text
            assert digests.poll(0.05) is None
            host.submit(ended(2))
            assert "nightly_load-1 DONE" in next(digests).text
            cursor = digests.cursor
        assert list(digests) == []
        assert client.digests(cursor=cursor).poll(0.05) is None


def test_both_clients_have_the_same_names_and_arguments():
    members = {name: each for name, each in vars(Client).items() if not name.startswith("_")}
    assert [name for name, each in members.items() if isinstance(each, property)] == ["unanswered"]
    public = [name for name, each in members.items() if inspect.isfunction(each) and name != "close"]
    assert public == ["watch", "digests", "list", "get", "wait", "command", "command_and_wait"]
    for name in [*public, "__init__"]:
        ours, theirs = (inspect.signature(getattr(kind, name)).parameters for kind in (Client, AsyncClient))
        assert list(ours) == list(theirs)
        assert [each.default for each in ours.values()] == [each.default for each in theirs.values()]


def test_errors_come_out_of_the_thread():
    with Client("ws://127.0.0.1:9", "t") as client, pytest.raises(FeedUnavailable):
        client.list()
    with serving() as server, Client(server.url, "wrong") as client, pytest.raises(FeedDenied):
        next(client.watch())


def test_a_closed_client_leaves_no_thread_and_no_connection():
    with serving() as server:
        client = Client(server.url, TOKEN)
        client.list()
        watching = client.watch()
        assert watching.poll(0.1) is None
        eventually(lambda: server.client_count == 1)
        client.close()
        eventually(lambda: server.client_count == 0)
    assert not [thread for thread in threading.enumerate() if thread.name == "otelprogress-client"]


def test_several_threads_may_use_one_client():
    host = real_host()
    host.submit(started())
    with serving(host) as server, Client(server.url, TOKEN) as client:
        found: list[str] = []
        threads = [
            threading.Thread(target=lambda: found.append(client.get("nightly_load-1").handle))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == ["nightly_load-1"] * 4
