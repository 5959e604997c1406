"""The collector's feed: what it promises beyond the contract of every host of the feed."""

from __future__ import annotations

import contextlib
import gc
import logging
import socket
import time
from http import HTTPStatus

import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from otelprogress.feed.connection import ServerLimits
from otelprogress.protocol.messages import Limits
from otelprogress_collector.api import delivery as delivery_module
from otelprogress_collector.api import feed as feed_module
from otelprogress_collector.auth.rate import Doorstep
from tests.collector.api.kit import TOKEN, FakeAuthority, reader, serving
from tests.collector.api.test_feed_contract import close_code, refused_status
from tests.faults.proxy import FaultProxy, Plan
from tests.feed.fakes import noted, progressed, started
from tests.feed.serving import dial, hear, hear_until, hello, say, subscribe
from tests.waiting import eventually

# --- nothing that is not durable ---------------------------------------------------------------------------


def test_nothing_is_answered_while_a_commit_is_under_way():
    with serving() as server, dial(server) as client:
        hello(client)
        server.call(server.host.begin)
        server.call(server.host.hub.publish, started(), time.time_ns())
        say(client, "subscribe", id="s1")
        with pytest.raises(TimeoutError):
            client.recv(timeout=0.2)
        server.call(server.host.commit)
        heard = hear_until(client, "snapshot_end")
        assert [message["type"] for message in heard] == ["subscribed", "snapshot", "snapshot_end"]


def test_an_event_is_sent_only_once_its_commit_has_ended():
    with serving() as server, dial(server) as client:
        subscribe(client)
        server.call(server.host.begin)
        server.call(server.host.hub.publish, started(), time.time_ns())
        with pytest.raises(TimeoutError):
            client.recv(timeout=0.2)
        server.call(server.host.commit)
        assert hear(client)["events"][0]["kind"] == "operation.started"


# --- many ------------------------------------------------------------------------------------------------


def test_clients_that_follow_the_same_share_one_encoding_and_one_write_each(monkeypatch: pytest.MonkeyPatch):
    with serving() as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(dial(server)) for _ in range(20)]
        for client in clients:
            subscribe(client)
        encoded = []
        wire = server.reading.feed._wire

        def counted(payloads):
            encoded.append(payloads)
            return feed_module.text_frames(payloads)

        monkeypatch.setattr(wire, "_encode", counted)
        server.call(server.host.publish, started(), noted(2), noted(3))
        for client in clients:
            assert len(hear(client)["events"]) == 3
        assert len(encoded) == 1


def test_a_connection_costs_less_than_30_kb():
    process = psutil.Process()
    with (
        serving(doorstep=Doorstep(per_address=10_000, total=10_000)) as server,
        contextlib.ExitStack() as stack,
    ):
        server.submit(started())
        request = (
            f"GET /v1/feed HTTP/1.1\r\nHost: 127.0.0.1:{server.address[1]}\r\nUpgrade: websocket\r\n"
            f"Authorization: Bearer {TOKEN}\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: otelprogress.v1.json\r\n\r\n"
        ).encode()

        def join(count: int) -> None:
            for _ in range(count):
                sock = stack.enter_context(socket.create_connection(server.address, timeout=10))
                sock.sendall(request)
                sock.recv(4096)
                for text in (b'{"type":"hello","version":1}', b'{"type":"subscribe","id":"1"}'):
                    sock.sendall(bytes([0x81, 0x80 | len(text)]) + b"\0\0\0\0" + text)
                heard = b""
                while b"snapshot_end" not in heard:
                    heard += sock.recv(65_536)

        join(50)  # what the first ones warm up is nobody's share
        gc.collect()
        before = process.memory_info().rss
        join(400)
        gc.collect()
        assert (process.memory_info().rss - before) / 400 <= 30 * 1024


def test_a_slow_reader_stalls_in_place_costs_nothing_more_and_goes_on_where_it_stood():
    """The server's own memory; what the kernel may hold for a connection is bounded by `TCP_NOTSENT_LOWAT`."""
    with FaultProxy(("", 0), lambda _: Plan(stall_down_at=2_000)) as proxy:
        with serving(hosts=[f"127.0.0.1:{proxy.port}"]) as server:
            proxy.target = server.address
            with dial(server) as good, dial_port(proxy.port) as slow:
                subscribe(good)
                subscribe(slow)
                server.call(server.host.publish, started())
                (stalled,) = [
                    each.connection
                    for each in server.reading.feed._readers
                    if each.connection.client[1] != good.local_address[1]
                ]
                sent = publish_until(server, good, lambda: stalled.paused)
                written = stalled.written_bytes
                buffered = stalled.buffered_bytes
                sent += publish_until(server, good, None)
                # Meanwhile nothing was made for it, and nothing waits for it.
                assert (stalled.written_bytes, stalled.buffered_bytes) == (written, buffered)
                assert buffered < 600_000
                proxy.release()
                numbers = []
                while len(numbers) < sent:
                    for message in hear_until(slow, "events"):
                        numbers += [
                            int(e["message"][:6]) for e in message.get("events", ()) if "message" in e
                        ]
                assert numbers == list(range(2, sent + 2))
                assert server.client_count == 2


def dial_port(port: int):
    class Server:
        url = f"ws://127.0.0.1:{port}"

    return dial(Server)


def publish_until(server, good, done) -> int:
    """Publish notes that `good` reads, until `done` (a few hundred, where it is `None`); how many."""
    count = 0
    first = server.call(lambda: server.host.hub.head)
    rounds = 0
    while (done is None and rounds < 5) or (done is not None and not done()):
        rounds += 1
        batch = [
            noted(first + count + number, message=f"{first + count + number:06} ".ljust(1_000, "x"))
            for number in range(1, 201)
        ]
        server.call(server.host.publish, *batch)
        count += len(batch)
        seen = 0
        while seen < len(batch):
            seen += len(hear_until(good, "events")[-1]["events"])
        assert count < 60_000, "it never stalled"
    return count


def test_a_reader_that_accepts_nothing_is_closed_4508_and_the_others_go_on():
    limits = ServerLimits(write_stall_timeout_s=0.3)
    with FaultProxy(("", 0), lambda _: Plan(stall_down_at=2_000)) as proxy:
        with serving(hosts=[f"127.0.0.1:{proxy.port}"], limits=limits) as server:
            proxy.target = server.address
            with dial(server) as good, dial_port(proxy.port) as slow:
                subscribe(good)
                subscribe(slow)
                server.call(server.host.publish, started())
                publish_until(server, good, lambda: server.client_count == 1)
                proxy.release()
                assert close_code_or_cut(slow) in (4508, 1006)
                server.submit(progressed(1.0))
                assert good.protocol.state.name == "OPEN"


def close_code_or_cut(connection) -> int:
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            connection.recv(timeout=10)
    return closed.value.rcvd.code if closed.value.rcvd else 1006


# --- who gets in, and how long ---------------------------------------------------------------------------


def test_every_token_is_prepared_before_it_is_judged():
    authority = FakeAuthority()
    with serving(authority=authority) as server:
        with dial(server, token=None) as client:
            hello(client, token=TOKEN)
            say(client, "auth", token="another")
            assert hear(client)["code"] == "unauthorized"
    assert authority.prepared == [None, TOKEN, "another"]


def test_a_token_without_the_scope_is_answered_4403():
    authority = FakeAuthority({TOKEN: reader(scopes=frozenset({"progress:write"}))})
    with serving(authority=authority) as server, dial(server) as client:
        say(client, "hello", version=1)
        assert close_code(client) == 4403


def test_no_event_comes_after_the_token_expired():
    authority = FakeAuthority({TOKEN: reader(expires_at_unix_s=time.time() + 0.5)})
    with serving(authority=authority) as server, dial(server) as client:
        assert 0 < hello(client)["token_expires_in_s"] <= 0.5
        say(client, "subscribe", id="s1")
        hear_until(client, "snapshot_end")
        server.submit(started())
        hear_until(client, "events")
        assert close_code(client) == 4501
        server.submit(noted(2))
        assert server.client_count == 0


def test_a_renewed_token_keeps_the_connection():
    authority = FakeAuthority(
        {
            TOKEN: reader(expires_at_unix_s=time.time() + 0.5),
            "longer": reader(expires_at_unix_s=time.time() + 60),
        }
    )
    with serving(authority=authority) as server, dial(server) as client:
        subscribe(client)
        say(client, "auth", token="longer")
        with pytest.raises(TimeoutError):
            client.recv(timeout=0.8)
        server.submit(started())
        assert hear(client)["type"] == "events"


def test_a_revoked_token_ends_at_its_next_word_and_at_the_latest_with_the_next_look(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(delivery_module, "SWEEP_S", 0.05)
    authority = FakeAuthority({TOKEN: reader("ada"), "bobs": reader("bob")})
    with serving(authority=authority) as server:
        with dial(server) as ada, dial(server, token="bobs") as bob:
            subscribe(ada)
            subscribe(bob)
            authority.denied.add("ada")
            assert close_code(ada) == 4401
            server.submit(started())
            assert hear(bob)["type"] == "events"
        with dial(server) as again:
            say(again, "hello", version=1)
            assert close_code(again) == 4401


def test_a_revoked_token_gets_no_further_subscription(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(delivery_module, "SWEEP_S", 60.0)
    authority = FakeAuthority()
    with serving(authority=authority) as server, dial(server) as client:
        hello(client)
        authority.denied.add("ada")
        say(client, "subscribe", id="s1")
        assert close_code(client) == 4401


def test_connections_that_show_no_token_cannot_pile_up():
    with serving(doorstep=Doorstep(per_address=3)) as server, contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(dial(server, token=None)) for _ in range(3)]
        assert refused_status(server, token=None) == HTTPStatus.SERVICE_UNAVAILABLE
        # Who shows a good token with the request does not wait behind strangers, who shows a wrong one does.
        with dial(server) as known:
            assert hello(known)["type"] == "welcome"
        assert refused_status(server, token="wrong") == HTTPStatus.SERVICE_UNAVAILABLE
        hello(waiting[0], token=TOKEN)
        with dial(server, token=None) as fourth:
            assert hello(fourth, token=TOKEN)["type"] == "welcome"
        waiting[1].close()
        with dial(server, token=None):
            pass
    assert server.reading.feed._doorstep.count == 0


def test_a_refusal_before_the_upgrade_is_a_problem_document_that_says_when_to_come_back():
    with serving(limits=ServerLimits(max_feed_clients=0)) as server:
        with pytest.raises(InvalidStatus) as refusal:
            dial(server)
        response = refusal.value.response
        assert response.status_code == HTTPStatus.SERVICE_UNAVAILABLE
        assert response.headers["Retry-After"] == "5"
        assert response.headers["Content-Type"] == "application/problem+json"
        assert b'"status":503' in response.body


# --- ending ----------------------------------------------------------------------------------------------


def test_while_it_drains_upgrades_are_refused_and_readiness_says_so():
    with serving() as server:
        with dial(server) as client:
            subscribe(client)
            server.run(server.reading.drain(1.0))
            assert hear(client)["type"] == "drain"
            assert close_code(client) == 1012
        assert refused_status(server) == HTTPStatus.SERVICE_UNAVAILABLE
        assert server.reading.feed.stats.refused == 1


def test_a_client_that_does_not_read_is_cut_when_the_feed_ends():
    with FaultProxy(("", 0), lambda _: Plan(stall_down_at=2_000)) as proxy:
        with serving(hosts=[f"127.0.0.1:{proxy.port}"]) as server:
            proxy.target = server.address
            with dial(server) as good, dial_port(proxy.port) as slow:
                subscribe(good)
                subscribe(slow)
                server.call(server.host.publish, started())
                paused = [each.connection for each in server.reading.feed._readers]
                publish_until(server, good, lambda: any(each.paused for each in paused))
                server.run(server.reading.drain(0.2))
                assert close_code(good) == 1012
                eventually(lambda: not server.reading.feed._readers)
                proxy.release()
                assert close_code_or_cut(slow) in (1006, 1012)


def test_a_fault_of_our_own_is_4500_and_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    with serving() as server, dial(server) as client, caplog.at_level(logging.CRITICAL):
        hello(client)
        monkeypatch.setattr(feed_module.ServerSession, "receive", lambda *_: 1 / 0)
        say(client, "subscribe", id="s1")
        assert close_code(client) == 4500
        assert server.failures == 1


def test_tokens_are_in_no_log(caplog: pytest.LogCaptureFixture):
    secret = "canary-7f3a"
    with caplog.at_level(logging.DEBUG), serving() as server:
        with dial(server, token=secret) as client:
            say(client, "hello", version=1, token=secret)
            close_code(client)
    ours = [record for record in caplog.records if not record.name.startswith("websockets.client")]
    assert all(secret not in record.getMessage() for record in ours)


def test_the_limits_that_are_told_are_those_that_are_kept():
    told, kept = Limits(), feed_module.FEED_LIMITS
    assert (told.ping_interval_s, told.pong_timeout_s) == (kept.ping_interval_s, kept.pong_timeout_s)
    assert told.hello_frame_bytes == kept.max_frame_before_auth_bytes
    assert told.client_frame_bytes == kept.max_client_frame_bytes


def test_a_server_that_ends_without_a_drain_still_says_goodbye():
    with serving() as server, dial(server) as client:
        subscribe(client)
        server.submit(started())
        (one,) = server.reading.feed._readers
        server.call(one.connection.shutdown)  # what uvicorn calls
        heard = [message["type"] for message in hear_until(client, "drain")]
        assert heard[-1] == "drain"
        assert close_code(client) == 1012
