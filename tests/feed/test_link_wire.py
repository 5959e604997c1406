from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from otelprogress.exceptions import FeedDenied, FeedUnavailable
from otelprogress.feed.link_wire import LinkWire, probed_in_vain
from otelprogress.protocol.messages import SUBPROTOCOL
from tests.feed.fakes import ended, noted, started
from tests.feed.family import Parent, reporting, serving_parent
from tests.feed.serving import TOKEN
from tests.waiting import eventually


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[Parent]:
    with serving_parent(tmp_path) as parent:
        yield parent


def opened(url: str, token: str | None = TOKEN) -> LinkWire:
    wire = LinkWire(url, token, subprotocols=(SUBPROTOCOL,))
    assert eventually(lambda: (wire.read() is not None and wire.open) or wire.closed)
    return wire


def test_frames_go_both_ways(parent: Parent):
    wire = opened(parent.server.url + "/v1/worker")
    wire.send(b'{"type":"register","version":1,"writer":"w"}')
    wire.write()
    (welcome,) = eventually(wire.read)
    assert msgspec.json.decode(welcome)["type"] == "welcome"
    wire.close()
    assert wire.closed
    assert not wire.open


def test_a_goodbye_is_answered_by_the_end_of_the_stream(parent: Parent):
    wire = opened(parent.server.url + "/v1/worker")
    wire.say_goodbye()
    wire.write()
    assert eventually(lambda: wire.read() is not None and wire.closed)
    assert wire.close_code == 1000


def test_where_nobody_listens_it_says_so():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    with pytest.raises(FeedUnavailable, match="nobody listens"):
        LinkWire(f"ws://127.0.0.1:{port}/v1/worker", TOKEN, subprotocols=(SUBPROTOCOL,))


def test_an_upgrade_that_is_refused_for_good_is_a_denial(parent: Parent):
    wire = LinkWire(parent.server.url + "/v1/worker", TOKEN, subprotocols=("some.other.protocol",))
    with pytest.raises(FeedDenied):
        eventually(lambda: wire.read() or wire.closed)
    assert wire.closed


def test_what_the_socket_does_not_take_at_once_is_sent_later(parent: Parent):
    wire = opened(parent.server.url + "/v1/worker")
    wire.send(b'{"type":"register","version":1,"writer":"w"}')
    event = msgspec.json.encode(noted(2, message="x" * 1000)).decode()
    for n in range(1, 200):
        wire.send(f'{{"type":"events","n":{n * 100},"events":[{",".join([event] * 100)}]}}'.encode())
    assert eventually(lambda: (wire.write(), wire.read(), not wire.wants_write)[-1])
    assert eventually(lambda: parent.links.stats.events == 199 * 100)
    wire.close()


@pytest.mark.skipif(not hasattr(socket, "TCP_KEEPIDLE"), reason="other names elsewhere")
def test_both_ends_let_the_kernel_look_after_five_seconds_of_silence(parent: Parent):
    with reporting(parent) as (host, link):
        host.submit(started())
        assert link.flush(10, acknowledged=True)
        theirs = socket.socket(
            fileno=os.dup(parent.connections()[0].transport.get_extra_info("socket").fileno())
        )
        assert link._wire is not None
        ours = socket.socket(fileno=os.dup(link._wire.fileno()))
        with theirs, ours:
            for sock in (theirs, ours):
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert [
                    sock.getsockopt(socket.IPPROTO_TCP, option)
                    for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
                ] == [5, 5, 3]
        host.submit(ended(2))


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="a system that cannot do it")
@pytest.mark.parametrize(("says_little", "milliseconds"), [(True, 16_000), (False, 0)])
def test_only_where_little_is_said_a_host_that_acknowledges_nothing_is_given_up_soon(
    parent: Parent, says_little: bool, milliseconds: int
):
    wire = LinkWire(
        parent.server.url + "/v1/worker", TOKEN, subprotocols=(SUBPROTOCOL,), says_little=says_little
    )
    with socket.socket(fileno=os.dup(wire.fileno())) as ours:
        assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == milliseconds
        assert not probed_in_vain(ours)
    wire.close()
    assert not probed_in_vain(ours)
