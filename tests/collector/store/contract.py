"""What every store does. A test module subclasses `StoreContract` and gives it the fixture `make`."""

from __future__ import annotations

import threading

import pytest

from otelprogress.model.estimate import Baseline
from otelprogress_collector.store import durations, interface
from otelprogress_collector.store.interface import Batch, StoreUnavailable, rows_size
from tests.collector.store.rows import ALL, append_each, offsets, row, rows, run, took


class StoreContract:
    """`make()` gives a store that is not open; what it gives is closed after the test."""

    @pytest.fixture
    def store(self, make):
        store = make()
        store.open()
        return store

    # --- opening and closing

    def test_a_new_store_is_empty_and_has_a_secret_of_its_own(self, make):
        opened = make().open()
        assert (opened.head, opened.first, opened.notes) == (0, 1, ())
        assert len(opened.cursor_secret) == 32
        assert opened.previous_cursor_secret is None
        assert opened.epoch

    def test_opening_again_says_the_same_again(self, make):
        store = make()
        assert store.open() == store.open()

    def test_a_closed_store_takes_and_gives_nothing_and_closing_again_does_nothing(self, store):
        store.append(Batch(journal=rows(1, 3)))
        store.close()
        store.close()
        with pytest.raises(StoreUnavailable):
            store.append(Batch(journal=rows(4, 4)))
        with pytest.raises(StoreUnavailable):
            list(store.journal_from(0))
        with pytest.raises(StoreUnavailable):
            store.open()
        assert not store.probe()

    def test_a_store_that_was_never_opened_takes_nothing(self, make):
        store = make()
        with pytest.raises(StoreUnavailable):
            store.append(Batch())
        assert not store.probe()

    def test_the_epoch_and_the_secret_of_two_stores_differ(self, make):
        first, second = make().open(), make(elsewhere=True).open()
        assert first.epoch != second.epoch
        assert first.cursor_secret != second.cursor_secret

    # --- the journal

    def test_rows_come_back_as_they_were_given(self, store):
        given = [
            *rows(1, 3),
            row(4, terminal=True),
            row(5, evicted=True, run_id="ünï-\N{SNOWMAN}\0"),
            row(6, size=100_000),
        ]
        store.append(Batch(journal=given))
        assert list(store.journal_from(0)) == given
        assert store.journal_tail(10) == given

    @pytest.mark.parametrize("count", [1, 255, 256, 257, 1000])
    def test_any_number_of_rows_can_be_appended_at_once(self, store, count):
        given = rows(1, count)
        store.append(Batch(journal=given))
        assert list(store.journal_from(0)) == given

    def test_the_journal_is_read_from_any_offset(self, store):
        store.append(Batch(journal=rows(1, 300)))
        append_each(store, rows(301, 310))
        for offset in (0, 1, 128, 255, 256, 257, 299, 300, 305, 309):
            assert offsets(store.journal_from(offset)) == list(range(offset + 1, 311))
        assert offsets(store.journal_from(310)) == []
        assert offsets(store.journal_from(10_000)) == []

    def test_the_tail_is_the_newest_rows_oldest_first(self, store):
        store.append(Batch(journal=rows(1, 300)))
        append_each(store, rows(301, 303))
        for count in (1, 3, 4, 46, 48, 302, 303):
            assert offsets(store.journal_tail(count)) == list(range(304 - count, 304))
        assert offsets(store.journal_tail(1_000)) == list(range(1, 304))
        assert store.journal_tail(0) == []

    @pytest.mark.parametrize("wrong", [[2], [1, 3], [0], [1, 1], [1, 2, 2]])
    def test_a_hole_or_a_repetition_is_refused_and_nothing_of_the_batch_is_kept(self, store, wrong):
        before = store.open().head
        with pytest.raises(ValueError, match="goes on at offset"):
            store.append(
                Batch(
                    journal=[row(one) for one in wrong],
                    runs=[run("a")],
                    numbers={"load": 1},
                    durations=[took(1.0)] * 3,
                    closed=["a"],
                )
            )
        assert list(store.journal_from(0)) == []
        assert list(store.runs()) == []
        assert store.numbers() == {}
        assert store.closed() == []
        assert store.baseline("", "load", "") is None
        store.append(Batch(journal=[row(before + 1)]))
        assert offsets(store.journal_from(0)) == [before + 1]

    def test_an_empty_batch_changes_nothing(self, store):
        store.append(Batch())
        assert list(store.journal_from(0)) == []

    def test_a_reader_sees_what_was_there_when_it_began_although_more_is_appended(self, store):
        store.append(Batch(journal=rows(1, 600)))
        reader = store.journal_from(0)
        seen = [next(reader)]
        append_each(store, rows(601, 620))
        seen.extend(reader)
        assert offsets(seen)[:600] == list(range(1, 601))
        assert offsets(seen) == list(range(1, len(seen) + 1))

    # --- runs

    def test_runs_come_back_in_the_order_in_which_they_were_first_kept(self, store):
        store.append(Batch(runs=[run("b"), run("a"), run("c")]))
        store.append(Batch(runs=[run("a", b"newer"), run("d", ended_at_unix_ns=7)]))
        assert list(store.runs()) == [
            run("b"),
            run("a", b"newer"),
            run("c"),
            run("d", ended_at_unix_ns=7),
        ]

    def test_the_last_of_several_states_in_one_batch_stays(self, store):
        store.append(Batch(runs=[run("a", b"1"), run("b"), run("a", b"2")]))
        assert list(store.runs()) == [run("a", b"2"), run("b")]

    def test_what_is_forgotten_is_gone_and_comes_back_as_new(self, store):
        store.append(Batch(runs=[run("a"), run("b")]))
        store.append(Batch(forgotten=["a", "never there"]))
        assert list(store.runs()) == [run("b")]
        store.append(Batch(runs=[run("a")]))
        assert list(store.runs()) == [run("b"), run("a")]

    def test_a_run_that_is_forgotten_and_kept_in_one_batch_is_kept(self, store):
        store.append(Batch(runs=[run("a"), run("b")]))
        store.append(Batch(runs=[run("a", b"again")], forgotten=["a"]))
        assert list(store.runs()) == [run("b"), run("a", b"again")]

    def test_many_runs_at_once(self, store):
        many = [run(f"run-{number}", b"%d" % number) for number in range(1_234)]
        store.append(Batch(runs=many))
        assert list(store.runs()) == many
        store.append(Batch(forgotten=[one.run_id for one in many[:-1]]))
        assert list(store.runs()) == many[-1:]

    def test_runs_may_be_appended_while_they_are_read(self, store):
        many = [run(f"run-{number}") for number in range(1_200)]
        store.append(Batch(runs=many))
        reader = store.runs()
        seen = [next(reader)]
        store.append(Batch(runs=[run("run-0", b"newer")], forgotten=["run-1199"]))
        seen.extend(reader)
        assert [one.run_id for one in seen][:1_199] == [one.run_id for one in many][:1_199]

    # --- numbers and closed spans

    def test_the_last_number_of_a_slug_stands(self, store):
        store.append(Batch(numbers={"load": 1, "save": 5}))
        store.append(Batch(numbers={"load": 2}))
        assert store.numbers() == {"load": 2, "save": 5}

    def test_a_number_of_0_is_forgotten(self, store):
        store.append(Batch(numbers={"load": 1, "save": 5}))
        store.append(Batch(numbers={"load": 0, "never there": 0, "keep": 3}))
        assert store.numbers() == {"save": 5, "keep": 3}

    def test_closed_spans_are_remembered_once_in_the_order_in_which_they_came(self, store):
        store.append(Batch(closed=["a", "b"]))
        store.append(Batch(closed=["c", "a"]))
        assert store.closed() == ["a", "b", "c"]

    def test_of_too_many_closed_spans_the_oldest_are_forgotten(self, store, monkeypatch):
        for module in ("memory", "writing"):
            monkeypatch.setattr(f"otelprogress_collector.store.{module}.KEPT_CLOSED", 5)
        for number in range(12):
            store.append(Batch(closed=[f"run-{number}"]))
        assert store.closed() == ["run-7", "run-8", "run-9", "run-10", "run-11"]
        store.append(Batch(closed=[f"later-{number}" for number in range(7)]))
        assert store.closed() == ["later-2", "later-3", "later-4", "later-5", "later-6"]

    # --- durations

    def test_a_baseline_needs_three_successful_durations(self, store):
        store.append(Batch(durations=[took(1.0, 1), took(3.0, 2)]))
        store.append(Batch(durations=[took(99.0, 3, outcome="failed"), took(99.0, 4, outcome="lost")]))
        assert store.baseline("", "load", "") is None
        store.append(Batch(durations=[took(2.0, 5)]))
        assert store.baseline("", "load", "") == Baseline(2.0, 1.5, 2.5, 3)

    def test_tenants_names_and_steps_have_baselines_of_their_own(self, store):
        keys = [
            {"tenant": "t", "name": "load", "step_name": ""},
            {"tenant": "t", "name": "load", "step_name": "read"},
            {"tenant": "t", "name": "loa", "step_name": "dread"},
            {"tenant": "", "name": "tload", "step_name": ""},
        ]
        for number, key in enumerate(keys):
            store.append(Batch(durations=[took(float(number), at, **key) for at in range(3)]))
        for number, key in enumerate(keys):
            assert store.baseline(**key) == Baseline(number, number, number, 3)
        assert store.baseline("t", "load", "write") is None

    def test_only_the_newest_hundred_count_whenever_they_are_told(self, store):
        store.append(Batch(durations=[took(1.0, at) for at in range(200, 260)]))
        store.append(Batch(durations=[took(5.0, at) for at in range(60)]))
        store.append(Batch(durations=[took(1.0, at) for at in range(260, 300)]))
        assert store.baseline("", "load", "") == Baseline(1.0, 1.0, 1.0, 100)

    @pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -1.0])
    def test_a_duration_that_is_none_is_left_out(self, store, wrong):
        store.append(Batch(durations=[took(1.0, 1), took(1.0, 2), took(wrong, 3)], numbers={"load": 1}))
        assert store.baseline("", "load", "") is None
        assert store.numbers() == {"load": 1}

    def test_of_too_many_names_those_go_that_ended_longest_ago(self, store, monkeypatch):
        for module in ("memory", "writing"):
            monkeypatch.setattr(f"otelprogress_collector.store.{module}.KEPT_NAMES", 10)
            monkeypatch.setattr(f"otelprogress_collector.store.{module}.FORGOTTEN_AT_ONCE", 4)
        for number in range(11):
            store.append(Batch(durations=[took(1.0, 100 - number, name=f"name-{number}")] * 3))
        kept = [number for number in range(11) if store.baseline("", f"name-{number}", "") is not None]
        assert kept == [0, 1, 2, 3, 4, 5, 6]
        assert durations.KEPT_NAMES > durations.FORGOTTEN_AT_ONCE

    # --- retention

    def trim_all(
        self, store, *, older_than_unix_ns: int = 0, max_bytes: int = ALL, keep_from: int = ALL
    ) -> int:
        dropped = 0
        while now := store.trim(
            older_than_unix_ns=older_than_unix_ns, max_bytes=max_bytes, keep_from=keep_from
        ):
            dropped += now
        return dropped

    def test_old_rows_go_and_young_ones_stay(self, store):
        append_each(store, rows(1, 50))
        assert self.trim_all(store, older_than_unix_ns=20_000) == 19
        assert offsets(store.journal_from(0)) == list(range(20, 51))
        assert offsets(store.journal_tail(100)) == list(range(20, 51))
        assert offsets(store.journal_from(30)) == list(range(31, 51))

    def test_rows_that_were_appended_together_go_when_all_of_them_may(self, store):
        store.append(Batch(journal=rows(1, 10)))
        store.append(Batch(journal=rows(11, 20)))
        self.trim_all(store, older_than_unix_ns=15_000)
        left = offsets(store.journal_from(0))
        assert left[0] in range(11, 16)
        assert left == list(range(left[0], 21))

    def test_nothing_at_or_after_the_offset_to_keep_goes(self, store):
        append_each(store, rows(1, 20))
        assert self.trim_all(store, older_than_unix_ns=ALL, max_bytes=0, keep_from=15) == 14
        assert offsets(store.journal_from(0)) == list(range(15, 21))

    def test_a_row_from_the_future_keeps_what_follows_it(self, store):
        append_each(store, [row(1), row(2, time_unix_ns=10**18), row(3)])
        assert self.trim_all(store, older_than_unix_ns=10_000) == 1
        assert offsets(store.journal_from(0)) == [2, 3]

    def test_all_rows_may_go_and_the_log_goes_on_where_it_was(self, store):
        append_each(store, rows(1, 5))
        assert self.trim_all(store, older_than_unix_ns=ALL) == 5
        assert list(store.journal_from(0)) == []
        assert store.journal_tail(5) == []
        with pytest.raises(ValueError):
            store.append(Batch(journal=[row(1)]))
        store.append(Batch(journal=[row(6)]))
        assert offsets(store.journal_from(0)) == [6]

    def test_beyond_its_size_the_oldest_rows_go_until_it_fits(self, store):
        empty = store.size_bytes()
        for first in range(1, 2_001, 20):
            store.append(Batch(journal=rows(first, first + 19, size=1_000)))
        full = store.size_bytes()
        assert full - empty >= rows_size(store.journal_tail(2_000)) * 0.9
        limit = empty + (full - empty) // 2
        dropped = self.trim_all(store, max_bytes=limit)
        assert store.size_bytes() <= limit
        assert 900 <= dropped <= 1_150
        assert offsets(store.journal_from(0)) == list(range(dropped + 1, 2_001))

    def test_trimming_leaves_runs_numbers_and_durations_alone(self, store):
        store.append(
            Batch(
                journal=rows(1, 5),
                runs=[run("a")],
                numbers={"load": 1},
                durations=[took(1.0, at) for at in range(3)],
                closed=["b"],
            )
        )
        self.trim_all(store, older_than_unix_ns=ALL, max_bytes=0)
        assert list(store.runs()) == [run("a")]
        assert store.numbers() == {"load": 1}
        assert store.closed() == ["b"]
        assert store.baseline("", "load", "") is not None

    def test_rows_are_appended_trimmed_and_read_at_the_same_time(self, store):
        done = threading.Event()
        failures = []

        def trim_on():
            try:
                while not done.is_set():
                    store.trim(older_than_unix_ns=ALL, max_bytes=ALL, keep_from=store.kept)
                    store.verify()
            except BaseException as error:
                failures.append(error)

        store.kept = 1
        trimmer = threading.Thread(target=trim_on)
        trimmer.start()
        try:
            for first in range(1, 3_001, 10):
                store.append(Batch(journal=rows(first, first + 9), runs=[run(f"run-{first % 50}")]))
                store.kept = max(1, first - 100)
                tail = offsets(store.journal_tail(50))
                assert tail == list(range(first + 10 - len(tail), first + 10))
                assert len(tail) == min(50, first + 9)
        finally:
            done.set()
            trimmer.join()
        assert not failures
        left = offsets(store.journal_from(0))
        assert left == list(range(left[0], 3_001))

    # --- the rest

    def test_a_healthy_store_has_room_and_verifies(self, store):
        assert store.probe()
        store.append(Batch(journal=rows(1, 700)))
        append_each(store, rows(701, 710))
        assert store.probe()
        after, found = 0, None
        while found is None or not found.done:
            found = store.verify(after)
            assert found.first_bad is None
            after = found.through
        assert after == 710

    def test_an_empty_store_verifies(self, store):
        assert store.verify().done
        assert store.verify().first_bad is None

    def test_a_new_cursor_secret_keeps_the_one_before(self, store):
        first = store.open().cursor_secret
        second, previous = store.rotate_cursor_secret()
        assert previous == first
        third, previous = store.rotate_cursor_secret()
        assert previous == second
        assert len({first, second, third}) == 3
        assert {len(first), len(second), len(third)} == {32}

    def test_size_grows_with_what_is_kept(self, store):
        empty = store.size_bytes()
        store.append(Batch(runs=[run(f"run-{number}", b"x" * 1_000) for number in range(500)]))
        assert store.size_bytes() >= empty + 500_000


def test_the_interface_counts_what_rows_take():
    assert interface.rows_size(rows(1, 10, size=100)) >= 1_000
