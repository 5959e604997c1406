from __future__ import annotations

from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelprogress.exceptions import InvalidValue
from otelprogress.feed.admission import bearer_item
from otelprogress_collector.auth.admission import CollectorAdmission, token_of

LOOPBACK = CollectorAdmission("127.0.0.1", 4318)
PUBLIC = CollectorAdmission(
    "192.0.2.7",
    4318,
    tls=True,
    hosts=["otel.example", "proxy.example:443"],
    origins=["https://board.example"],
)
ANY_IPV4 = CollectorAdmission("0.0.0.0", 4318)
ANY_IPV6 = CollectorAdmission("::", 4318)


@pytest.mark.parametrize("host", ["127.0.0.1:4318", "localhost:4318", "LocalHost:4318", "[::1]:4318"])
@pytest.mark.parametrize("admission", [LOOPBACK, ANY_IPV4, ANY_IPV6], ids=["loopback", "any", "any v6"])
def test_the_names_of_loopback_are_answered_with_the_own_port(admission, host):
    assert admission.refusal([host], []) is None
    assert admission.refusal([host], [f"http://{host}"]) is None


@pytest.mark.parametrize(
    "hosts",
    [
        [],
        [""],
        ["evil.example"],
        ["evil.example:4318"],
        ["127.0.0.1"],
        ["127.0.0.1:4317"],
        ["127.0.0.1:04318"],
        ["127.0.0.1:4318:4318"],
        ["127.0.0.1.:4318"],
        ["127.1:4318"],
        ["2130706433:4318"],
        ["0x7f000001:4318"],
        ["127.0.0.2:4318"],
        ["0.0.0.0:4318"],
        ["::1:4318"],
        ["[::1]"],
        ["[::ffff:127.0.0.1]:4318"],
        ["[0:0:0:0:0:0:0:1]:4318"],
        ["localhost.:4318"],
        ["localhost.evil.example:4318"],
        ["evil-localhost:4318"],
        ["evil.localhost:4318"],
        ["127.0.0.1:4318.evil.example"],
        ["127.0.0.1:4318@evil.example"],
        ["evil.example@127.0.0.1:4318"],
        ["http://127.0.0.1:4318"],
        ["127.0.0.1:4318/"],
        ["127.0.0.1:4318 "],
        ["127.0.0.1:4318, evil.example"],
        ["127.0.0.1:4318", "127.0.0.1:4318"],
        ["127.0.0.1:4318", "evil.example"],
        ["ⅼocalhost:4318"],
        ["*"],
    ],
)
@pytest.mark.parametrize("admission", [LOOPBACK, PUBLIC, ANY_IPV4], ids=["loopback", "public", "any"])
def test_a_forged_absent_or_doubled_host_is_forbidden(admission, hosts):
    refusal = admission.refusal(hosts, [])
    assert refusal is not None
    assert refusal.status == HTTPStatus.FORBIDDEN
    assert "list it among its hosts" in refusal.text
    assert not any(host in refusal.text for host in hosts if host not in ("", "*"))


@pytest.mark.parametrize(
    "origins",
    [
        [""],
        ["null"],
        ["NULL"],
        ["*"],
        ["https://evil.example"],
        ["https://127.0.0.1:4318"],
        ["http://127.0.0.1"],
        ["http://127.0.0.1:4317"],
        ["http://127.0.0.1:4318/"],
        ["http://127.0.0.1:4318.evil.example"],
        ["http://evil-127.0.0.1:4318"],
        ["http://localhost.evil.example:4318"],
        ["http://user@127.0.0.1:4318"],
        ["127.0.0.1:4318"],
        ["file://"],
        ["chrome-extension://abcdef"],
        ["http://127.0.0.1:4318 https://evil.example"],
        ["http://127.0.0.1:4318", "http://127.0.0.1:4318"],
        ["http://127.0.0.1:4318", "null"],
    ],
)
def test_a_page_from_elsewhere_is_forbidden(origins):
    refusal = LOOPBACK.refusal(["127.0.0.1:4318"], origins)
    assert refusal is not None
    assert refusal.status == HTTPStatus.FORBIDDEN
    assert "list it among its origins" in refusal.text


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("192.0.2.7:4318", None),
        ("otel.example", None),
        ("otel.example:4318", "https://otel.example:4318"),
        ("otel.example", "https://otel.example"),
        ("OTEL.example", "https://board.example"),
        ("proxy.example:443", "https://proxy.example:443"),
    ],
)
def test_what_is_listed_is_answered(host, origin):
    assert PUBLIC.refusal([host], [] if origin is None else [origin]) is None


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("proxy.example", None),
        ("otel.example:443", None),
        ("sub.otel.example", None),
        ("otel.example.evil.example", None),
        ("notel.example", None),
        ("board.example", None),
        ("otel.example", "http://otel.example"),
        ("otel.example", "https://board.example:443"),
        ("otel.example", "https://board.example.evil.example"),
        ("otel.example", "https://evil-board.example"),
        ("otel.example", "https://evil.example/https://board.example"),
    ],
)
def test_what_is_nearly_listed_is_not(host, origin):
    assert PUBLIC.refusal([host], [] if origin is None else [origin]) is not None


@pytest.mark.parametrize(
    ("admission", "arrived_at", "host"),
    [
        (ANY_IPV4, "10.1.2.3", "10.1.2.3:4318"),
        (ANY_IPV6, "2001:db8::1", "[2001:db8::1]:4318"),
        (ANY_IPV6, "::ffff:10.1.2.3", "10.1.2.3:4318"),
        (CollectorAdmission("", 4318), "10.1.2.3", "10.1.2.3:4318"),
        (CollectorAdmission("0.0.0.0", 80), "10.1.2.3", "10.1.2.3"),
        (CollectorAdmission("0.0.0.0", 443, tls=True), "10.1.2.3", "10.1.2.3"),
    ],
)
def test_where_every_address_is_listened_on_the_one_arrived_at_is_answered(admission, arrived_at, host):
    scheme = "https" if admission._scheme == "https" else "http"
    assert admission.refusal([host], [], arrived_at=arrived_at) is None
    assert admission.refusal([host], [f"{scheme}://{host}"], arrived_at=arrived_at) is None
    assert admission.refusal([host], ["https://evil.example"], arrived_at=arrived_at) is not None
    assert admission.refusal([host], ["null"], arrived_at=arrived_at) is not None
    assert admission.refusal([host], []) is not None
    assert admission.refusal([host], [], arrived_at="10.9.9.9") is not None
    assert admission.refusal([host, host], [], arrived_at=arrived_at) is not None


def test_an_address_arrived_at_counts_for_nothing_where_one_address_is_listened_on():
    assert LOOPBACK.refusal(["10.1.2.3:4318"], [], arrived_at="10.1.2.3") is not None


@pytest.mark.parametrize("arrived_at", ["", "not an address", "evil.example"])
def test_an_address_that_is_none_lets_nobody_in(arrived_at):
    assert ANY_IPV4.refusal([arrived_at], [], arrived_at=arrived_at) is not None
    assert ANY_IPV4.refusal([":4318"], [], arrived_at=arrived_at) is not None


@pytest.mark.parametrize(("port", "tls"), [(80, False), (443, True)])
def test_a_default_port_may_be_left_out_as_browsers_do(port, tls):
    admission = CollectorAdmission("127.0.0.1", port, tls=tls, hosts=["otel.example"])
    scheme = "https" if tls else "http"
    for host in ("localhost", f"localhost:{port}", "otel.example", "[::1]"):
        assert admission.refusal([host], [f"{scheme}://{host}"]) is None
    assert admission.refusal(["evil.example"], []) is not None


@pytest.mark.parametrize(
    "host",
    ["", "*", "*.example", "https://otel.example", "a/b", "user@otel.example", "a b", "ötel.example", "a,b"],
)
def test_a_host_that_would_stand_for_many_or_none_cannot_be_listed(host):
    with pytest.raises(InvalidValue, match="allowed host"):
        CollectorAdmission("127.0.0.1", 4318, hosts=[host])


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "*",
        "otel.example",
        "https://*",
        "https://",
        "ftp://a.example",
        "https://a.example/",
        "https:/a",
    ],
)
def test_an_origin_that_would_stand_for_many_or_none_cannot_be_listed(origin):
    with pytest.raises(InvalidValue, match="allowed origin"):
        CollectorAdmission("127.0.0.1", 4318, origins=[origin])


@given(
    st.lists(st.text(max_size=30), max_size=2),
    st.lists(st.text(max_size=30), max_size=2),
    st.text(max_size=10),
)
def test_only_exact_values_are_let_in(hosts, origins, arrived_at):
    for admission in (LOOPBACK, ANY_IPV4):
        if admission.refusal(hosts, origins, arrived_at=arrived_at) is None:
            assert hosts[0].lower() in {"127.0.0.1:4318", "localhost:4318", "[::1]:4318"}


# --- tokens -------------------------------------------------------------------------------------------------


def test_over_http_the_token_is_read_as_in_the_feed_of_a_process():
    assert token_of(["Bearer otpc_x"], []) == ("otpc_x", None)
    assert token_of([], [f"otelprogress.v1.json, {bearer_item('otpc_x')}"]) == ("otpc_x", None)
