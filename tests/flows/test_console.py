"""Figures as people read them, and the time left by a clock of our own."""

import pytest

from flows.console import RECENT_ADVANCES, TimeLeft, amount, duration, with_time_left


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0 B"), (999, "999 B"), (999.6, "1 kB"), (999_499, "999 kB"), (999_501, "1 MB"), (1.5e9, "1.5 GB")],
)
def test_three_digits_and_a_prefix(number, shown):
    assert amount(number, "B") == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(7.26, "7.3s"), (125, "2m 05s"), (7_199, "119m 59s"), (7_200, "2h 00m"), (36_061, "10h 01m")]
)
def test_hours_begin_after_two_of_them(seconds, shown):
    assert duration(seconds) == shown


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def tell(time_left, clock, phase, *advances):
    for seconds, done in advances:
        clock.now += seconds
        time_left.advanced(phase, done, 100)


def test_the_pace_leaves_starting_up_and_resumed_work_out(clock):
    time_left = TimeLeft(clock)
    tell(time_left, clock, "train", (0, 0), (30, 50), (2, 50))  # resumed at 50; heard of twice
    assert time_left.seconds is None
    tell(time_left, clock, "train", (2, 52))
    assert time_left.seconds == pytest.approx(48 * 2)
    clock.now += 5
    assert time_left.seconds == pytest.approx(48 * 2 - 5)
    assert with_time_left("loss 3.51", time_left) == "loss 3.51, 1m 31s left"
    clock.now += 500
    assert time_left.seconds == 0


def test_the_latest_pace_counts(clock):
    time_left = TimeLeft(clock)
    tell(time_left, clock, "train", *[(10, done) for done in range(1, 30)])
    tell(time_left, clock, "train", *[(1, done) for done in range(30, 30 + RECENT_ADVANCES)])
    assert time_left.seconds == pytest.approx(100 - 29 - RECENT_ADVANCES)


def test_a_new_phase_a_step_back_and_the_end_have_no_estimate(clock):
    time_left = TimeLeft(clock)
    tell(time_left, clock, "train", (1, 1), (1, 2))
    assert time_left.seconds is not None
    tell(time_left, clock, "train", (1, 1))
    assert time_left.seconds is None
    tell(time_left, clock, "train", (1, 50), (1, 100))
    assert time_left.seconds is None
    tell(time_left, clock, "write", (1, 1))
    assert time_left.seconds is None
    assert with_time_left("1 of 100", time_left) == "1 of 100"
