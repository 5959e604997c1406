"""The text that Prometheus reads."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from otelprogress_collector.api.metrics import MEDIA_TYPE, render
from tests.collector.api.kit import FakeAuthority, get, reader, serving


def lines(*samples) -> list[str]:
    return render(samples).decode().splitlines()


def test_a_family_has_its_help_and_type_once():
    assert lines(
        ("requests_total", "Requests\ntaken", "counter", {"signal": "logs"}, 3),
        ("requests_total", "Requests\ntaken", "counter", {"signal": "traces"}, 4.5),
        ("up", "", "gauge", {}, 1.0),
    ) == [
        "# HELP requests_total Requests\\ntaken",
        "# TYPE requests_total counter",
        'requests_total{signal="logs"} 3',
        'requests_total{signal="traces"} 4.5',
        "# HELP up ",
        "# TYPE up gauge",
        "up 1",
    ]


def test_the_series_of_a_histogram_stand_under_one_name():
    assert lines(
        ("duration_seconds_bucket", "How long", "histogram", {"le": "0.5"}, 1),
        ("duration_seconds_bucket", "How long", "histogram", {"le": "+Inf"}, 2),
        ("duration_seconds_sum", "How long", "histogram", {}, 3.25),
        ("duration_seconds_count", "How long", "histogram", {}, 2),
    )[:3] == [
        "# HELP duration_seconds How long",
        "# TYPE duration_seconds histogram",
        'duration_seconds_bucket{le="0.5"} 1',
    ]


def test_labels_are_escaped_and_names_made_valid():
    assert lines(("otel.items-done", "", "counter", {"operation.name": 'a\\b"c\nd\re'}, 1))[-1] == (
        'otel_items_done{operation_name="a\\\\b\\"c\\nd e"} 1'
    )
    assert lines(("9lives", "", "gauge", {"": "x"}, 1))[-1] == '_9lives{_="x"} 1'


def test_numbers_that_are_none_are_written_as_the_format_has_them():
    values = [math.nan, math.inf, -math.inf, 1e20, 0.1, -0.0]
    assert [line.split(" ")[-1] for line in lines(*(("x", "", "gauge", {}, v) for v in values))[2:]] == [
        "NaN",
        "+Inf",
        "-Inf",
        "1e+20",
        "0.1",
        "0",
    ]


@given(st.text(), st.text(), st.floats())
def test_no_text_of_an_operation_can_begin_a_line_of_its_own(label: str, text: str, value: float):
    rendered = render([("x", text, "gauge", {"name": label}, value)])
    assert rendered.count(b"\n") == 3
    assert b"\r" not in rendered


async def test_a_scrape_has_what_was_collected_and_what_the_feed_says_of_itself():
    with serving(collect=lambda: [("events_total", "Events", "counter", {}, 12)]) as server:
        answer = await get(server, "/metrics")
        assert (answer.status, answer.headers["Content-Type"]) == (200, MEDIA_TYPE)
        text = answer.body.decode()
        assert "events_total 12" in text
        assert 'otelprogress_feed_clients{transport="websocket"} 0' in text


async def test_metrics_of_all_tenants_need_a_token_that_may_see_all():
    tenants = FakeAuthority({"all": reader(), "one": reader(tenant="a"), "few": reader(services=("etl",))})
    with serving(authority=tenants) as server:
        statuses = [
            (await get(server, "/metrics", token=token)).status for token in (None, "all", "one", "few")
        ]
    assert statuses == [401, 200, 403, 403]


async def test_metrics_can_be_opened_to_everybody():
    with serving(open_metrics=True) as server:
        assert (await get(server, "/metrics", token=None)).status == 200
