from __future__ import annotations

import asyncio

from otelprogress_collector.exporters.loss_log import LossLog
from tests.collector.exporters.virtual_time import run_virtually


def test_news_is_said_at_once_and_then_once_a_minute(caplog):
    async def test(loop):
        news: list[str] = []
        log = LossLog(lambda: " and ".join(news.pop(0) for _ in range(len(news))))
        for number in range(1, 5):
            news.append(f"{number}")
            log.note()
            await asyncio.sleep(15)
        await asyncio.sleep(100)
        news.append("5")
        log.note()

    run_virtually(test)
    assert [record.getMessage() for record in caplog.records] == ["1", "2 and 3 and 4", "5"]


def test_without_news_nothing_is_said_and_no_timer_runs(caplog):
    async def test(loop):
        log = LossLog(lambda: "")
        log.note()
        before = loop.wake_ups
        await asyncio.sleep(1000)
        assert loop.wake_ups - before == 1  # our own sleep

    run_virtually(test)
    assert caplog.records == []


def test_what_waits_to_be_said_is_said_at_the_end(caplog):
    async def test(loop):
        news = ["1"]
        log = LossLog(lambda: news.pop())
        log.note()
        news.append("2")
        log.note()
        log.close()
        before = loop.wake_ups
        await asyncio.sleep(1000)
        assert loop.wake_ups - before == 1  # our own sleep

    run_virtually(test)
    assert [record.getMessage() for record in caplog.records] == ["1", "2"]


def test_a_flood_of_news_sets_one_timer(caplog):
    async def test(loop):
        news: list[str] = []
        log = LossLog(lambda: f"{len(news)}" * bool(news))
        for _ in range(1000):
            news.append("lost")
            log.note()
            await asyncio.sleep(0.001)
        before = loop.wake_ups
        await asyncio.sleep(1000)
        assert loop.wake_ups - before == 2  # the timer, and our own sleep

    run_virtually(test)
    assert [record.getMessage() for record in caplog.records] == ["1", "1000"]
