"""Figures as people read them."""

import pytest

from flows.console import amount, duration


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
