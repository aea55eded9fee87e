import math

import pytest

from modeling.training.schedule import cosine_with_warmup, learning_rate_at

KINDS = ("cosine", "linear", "constant_then_decay")


@pytest.mark.parametrize(
    ("kind", "step", "expected"),
    [
        ("cosine", 6, 0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2),  # a quarter of the cosine: cos(pi / 4)
        ("cosine", 8, 0.55),  # its middle, half way between peak and floor
        ("linear", 6, 0.775),  # a quarter of the way
        ("linear", 8, 0.55),
        ("linear", 11, 0.2125),  # an eighth before the end
    ],
)
def test_golden_learning_rates(kind, step, expected):
    rate = learning_rate_at(step, kind, peak=1.0, floor=0.1, warmup_steps=4, total_steps=12)
    assert rate == pytest.approx(expected)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (10, 1.0),  # the end of the warm-up
        (80, 1.0),  # four fifths
        (85, 0.1 + 0.9 / 2),  # a quarter of the decay: 1 - sqrt(1 / 4)
        (96, 0.1 + 0.9 * (1 - math.sqrt(0.8))),
        (100, 0.1),
    ],
)
def test_golden_learning_rates_of_constant_then_decay(step, expected):
    rate = learning_rate_at(step, "constant_then_decay", peak=1.0, floor=0.1, warmup_steps=10, total_steps=100)
    assert rate == pytest.approx(expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("warmup_steps", "total_steps"), [(4, 12), (0, 10), (0, 1), (1, 2), (3, 3), (95, 100)])
def test_every_schedule_rises_to_the_peak_and_falls_to_the_floor(kind, warmup_steps, total_steps):
    rates = [learning_rate_at(step, kind, 2.0, 0.5, warmup_steps, total_steps) for step in range(1, total_steps + 1)]
    rising, falling = rates[:warmup_steps], rates[warmup_steps:]
    assert rising == pytest.approx([2.0 * step / warmup_steps for step in range(1, warmup_steps + 1)])
    assert falling == sorted(falling, reverse=True)
    assert max(falling, default=2.0) <= 2.0
    assert rates[-1] == pytest.approx(0.5 if warmup_steps < total_steps else 2.0)


def test_cosine_without_warmup_and_of_warmup_alone():
    assert cosine_with_warmup(5, peak=2.0, floor=0.0, warmup_steps=0, total_steps=10) == pytest.approx(1.0)
    assert cosine_with_warmup(3, peak=2.0, floor=0.0, warmup_steps=3, total_steps=3) == pytest.approx(2.0)


def test_there_is_no_other_schedule():
    with pytest.raises(ValueError, match="schedule is 'step'; accepted are cosine, linear, constant_then_decay"):
        learning_rate_at(1, "step", 1.0, 0.0, 0, 1)
