from __future__ import annotations

import asyncio
import gzip
import logging

import pytest

from otelprogress.exceptions import InvalidValue
from otelprogress_collector.auth.jwks_url import JwksUrl
from tests.collector.auth.certificates import Authority as CertificateAuthority
from tests.collector.auth.issuing import jwk, jwks, oct_jwk
from tests.collector.auth.jwks_server import JwksServer


class Monotonic:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def server():
    with JwksServer(jwks(jwk("EdDSA", 0, kid="first"))) as one:
        yield one


@pytest.fixture
def clock():
    return Monotonic()


@pytest.fixture
async def keys_at(server, clock):
    made = []

    def make(url=None, **settings) -> JwksUrl:
        made.append(JwksUrl(url or server.url, monotonic_s=clock, **settings))
        return made[-1]

    yield make
    for one in made:
        await one.close()


def kids(source: JwksUrl) -> list[str | None]:
    return [one.kid for one in source.keys]


async def fetched(source: JwksUrl, count: int) -> None:
    """Until that many fetches have ended."""
    while source.fetches < count or source._fetching is not None:
        await asyncio.sleep(0.005)


async def test_the_first_token_fetches_the_keys_and_later_ones_do_not(keys_at, server):
    source = keys_at()
    for _ in range(5):
        await source.prepare("EdDSA", "first")
    assert kids(source) == ["first"]
    assert server.requests == source.fetches == 1
    assert not source.down


async def test_all_who_wait_for_a_key_share_one_fetch(keys_at, server):
    source = keys_at()
    await asyncio.gather(*(source.prepare("EdDSA", "first") for _ in range(100)))
    assert server.requests == 1


async def test_a_key_that_is_new_is_fetched_when_a_token_names_it(keys_at, server, clock):
    source = keys_at()
    await source.prepare("EdDSA", "first")
    server.content = jwks(jwk("EdDSA", 1, kid="second"))
    clock.now_s += 10.0
    await source.prepare("EdDSA", "second")
    assert kids(source) == ["second"]


async def test_a_flood_of_unknown_keys_is_no_flood_of_fetches(keys_at, server, clock):
    source = keys_at(retry_every_s=10.0)
    for number in range(1000):
        clock.now_s += 0.05
        await source.prepare("EdDSA", f"made-up-{number}")
    assert server.requests == 5
    assert kids(source) == ["first"]


async def test_withdrawn_keys_go_without_anybody_waiting_for_it(keys_at, server, clock):
    source = keys_at(refresh_every_s=600.0)
    await source.prepare("EdDSA", "first")
    server.content = jwks(jwk("EdDSA", 1, kid="second"))
    clock.now_s += 600.0
    server.misbehave = server.say_nothing
    await source.prepare("EdDSA", "first")  # returns at once: the key is known
    assert kids(source) == ["first"]
    server.misbehave = None
    server.released.set()
    await fetched(source, 2)
    clock.now_s += 10.0
    await source.prepare("EdDSA", "first")
    await fetched(source, 3)
    assert kids(source) == ["second"]


@pytest.mark.parametrize(
    "how", ["down", "status", "redirect", "no json", "too long", "inflates", "never ends"]
)
async def test_while_it_cannot_be_had_the_keys_known_stand_and_one_line_says_so(
    keys_at, server, clock, how, caplog
):
    caplog.set_level(logging.INFO, "otelprogress_collector.auth")
    source = keys_at(max_bytes=20_000)
    await source.prepare("EdDSA", "first")
    caplog.clear()
    good = server.content
    if how == "down":
        server.close()
    elif how == "status":
        server.status = 500
    elif how == "redirect":
        server.status, server.headers = 302, {"Location": server.url}
    elif how == "no json":
        server.content = b"<html>"
    elif how == "too long":
        server.content = b" " * 20_001
    elif how == "inflates":
        server.content, server.headers = gzip.compress(b" " * 10_000_000), {"Content-Encoding": "gzip"}
    else:
        server.misbehave = server.never_end
    for attempt in range(1, 4):
        clock.now_s += 10.0
        await source.prepare("EdDSA", "second")
        assert source.failures == attempt
    assert kids(source) == ["first"]
    assert source.down
    assert [one.levelno for one in caplog.records] == [logging.WARNING]
    if how == "down":
        return
    server.misbehave, server.status, server.headers, server.content = None, 200, {}, good
    clock.now_s += 10.0
    await source.prepare("EdDSA", "second")
    assert not source.down
    assert caplog.records[-1].levelno == logging.INFO


@pytest.mark.parametrize("how", ["say_nothing", "drip"])
async def test_a_slow_server_is_given_up_at_the_deadline(keys_at, server, how):
    source = keys_at(deadline_s=0.2)
    server.misbehave = getattr(server, how)
    await source.prepare("EdDSA", "first")
    await fetched(source, 1)
    assert source.failures == 1
    assert source.keys == ()


async def test_one_who_hangs_up_does_not_end_the_fetch_of_the_others(keys_at, server):
    source = keys_at()
    server.misbehave = lambda handler: (server.released.wait(10), server.answer(handler))
    first = asyncio.create_task(source.prepare("EdDSA", "first"))
    second = asyncio.create_task(source.prepare("EdDSA", "first"))
    while not server.requests:
        await asyncio.sleep(0.005)
    first.cancel()
    server.released.set()
    await second
    assert kids(source) == ["first"]


async def test_a_set_without_a_usable_key_is_the_issuers_word(keys_at, server, clock):
    source = keys_at()
    await source.prepare("EdDSA", "first")
    server.content = jwks(oct_jwk(kid="first"), {"kty": "RSA", "kid": "first"})
    clock.now_s += 10.0
    await source.prepare("EdDSA", "second")
    assert source.keys == ()
    assert not source.down


async def test_https_is_verified_against_the_given_authority(tmp_path, keys_at):
    import ssl

    from aiohttp import web

    ours, other = CertificateAuthority(tmp_path / "ours"), CertificateAuthority(tmp_path / "other")
    cert, key = ours.issue("localhost")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    app = web.Application()

    async def answer(request):
        return web.Response(body=jwks(jwk("EdDSA", kid="tls")))

    app.router.add_get("/keys", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    port = runner.addresses[0][1]
    try:
        trusted = keys_at(f"https://localhost:{port}/keys", ca_file=str(ours.path))
        await trusted.prepare("EdDSA", "tls")
        assert kids(trusted) == ["tls"]
        for ca_file in (str(other.path), None):
            stranger = keys_at(f"https://localhost:{port}/keys", ca_file=ca_file)
            await stranger.prepare("EdDSA", "tls")
            assert stranger.keys == ()
            assert stranger.failures == 1
    finally:
        await runner.cleanup()


async def test_the_query_of_the_url_is_not_logged(keys_at, server, caplog):
    server.status = 500
    source = keys_at(server.url + "?key=c4n4ry")
    await source.prepare("EdDSA", "first")
    assert "c4n4ry" not in caplog.text
    assert server.url in caplog.text


@pytest.mark.parametrize(
    "url",
    [
        "",
        "issuer.example/keys",
        "ftp://issuer.example/keys",
        "file:///etc/passwd",
        "http://issuer.example/keys",
        "http://127.0.0.1.evil.example/keys",
        "http://localhost.evil.example/keys",
        "https://",
        "https://user:secret@issuer.example/keys",
        "https://issuer.example:99999/keys",
        "https://[::1/keys",
    ],
)
def test_a_url_that_is_not_safe_is_refused(url):
    with pytest.raises(InvalidValue, match="JWKS URL") as caught:
        JwksUrl(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://localhost:1/k", "http://127.0.0.1:1/k", "http://[::1]:1/k", "https://a.example/k"]
)
def test_plain_http_is_for_loopback(url):
    assert JwksUrl(url).keys == ()
