"""Forecast of the final loss, and the progress line."""

import numpy as np
import pytest

from modeling.training.schedule import learning_rate_at
from stages.pretrain.progress import loss_forecast
from stages.pretrain.progress.loss_forecast import Forecast, annealing_areas, forecast_final_loss
from stages.pretrain.progress.progress_text import progress_text, recent_tokens_per_second

STEPS, WARMUP, EVERY = 2_000, 40, 10


def schedule(kind):
    return lambda step: learning_rate_at(step, kind, 1e-3, 1e-4, WARMUP, STEPS)


def law(kind, alpha=0.4, annealing=0.03, noise=0.02, seed=0):
    """Rows that follow the law, S1 and S2 as shares of the whole run's, and the loss it ends at without noise."""
    steps = np.arange(1, STEPS + 1)
    forward, annealed = annealing_areas(steps, np.array([schedule(kind)(step) for step in steps]))
    losses = 2.0 + 1.2 * (forward / forward[-1]) ** -alpha - 3.2 * annealing * annealed / annealed[-1]
    noisy = losses + np.random.default_rng(seed).normal(0, noise, STEPS)
    return [{"step": step, "loss": float(noisy[step - 1])} for step in range(EVERY, STEPS + 1, EVERY)], float(
        losses[-1]
    )


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant_then_decay"])
def test_a_curve_of_the_law_ends_within_the_interval_which_narrows(kind):
    hits, errors, widths = 0, [], []
    for seed in range(6):
        rows, final = law(kind, alpha=0.3 + 0.05 * seed, annealing=0.01 * (1 + seed % 5), seed=seed)
        for share in (0.3, 0.6, 0.9):
            forecast = forecast_final_loss(rows[: int(share * len(rows))], STEPS, schedule(kind))
            hits += forecast.low <= final <= forecast.high
            errors.append(abs(forecast.loss - final))
            widths.append(forecast.high - forecast.low)
    assert hits >= 0.8 * 18
    assert np.mean(errors) < 0.05
    early, middle, late = np.array(widths).reshape(6, 3).mean(0)
    assert early > middle > late
    assert early < 0.5


def test_a_decay_to_come_is_part_of_the_forecast(monkeypatch):
    rows, final = law("constant_then_decay", annealing=0.05)
    half = rows[: len(rows) // 2]
    forecast = forecast_final_loss(half, STEPS, schedule("constant_then_decay"))
    assert forecast.low <= final <= forecast.high
    monkeypatch.setattr(loss_forecast, "ANNEALING_SHARE", 0.0)
    unaware = forecast_final_loss(half, STEPS, schedule("constant_then_decay"))
    # A share of 0.03 of the loss at a rate of 0; the schedule's floor is a tenth.
    assert unaware.loss - forecast.loss == pytest.approx(0.03 * 0.9 * half[-1]["loss"], rel=0.1)
    assert unaware.high - unaware.low < forecast.high - forecast.low


def test_spikes_and_lost_rows_do_not_count():
    rows, _ = law("cosine")
    half = rows[: len(rows) // 2]
    calm = forecast_final_loss(half, STEPS, schedule("cosine"))
    spiky = [{**row, "loss": row["loss"] + 3 * (number % 17 == 0)} for number, row in enumerate(half)]
    spiky[5] = {**spiky[5], "loss": float("nan")}
    assert forecast_final_loss(spiky, STEPS, schedule("cosine")).loss == pytest.approx(calm.loss, abs=0.03)


def test_there_is_no_forecast_too_early_nor_at_the_end():
    rows, _ = law("cosine")
    assert forecast_final_loss([], STEPS, schedule("cosine")) is None
    assert forecast_final_loss(rows[: len(rows) // 5 - 1], STEPS, schedule("cosine")) is None
    assert forecast_final_loss(rows[: len(rows) // 5], STEPS, schedule("cosine")) is not None
    assert forecast_final_loss(rows[:-1:20], STEPS, schedule("cosine")) is None
    assert forecast_final_loss(rows, STEPS, schedule("cosine")) is None


def test_areas_are_those_of_the_definition_and_few_points_do():
    steps = np.arange(1, 301)
    rates = np.array([learning_rate_at(int(step), "cosine", 1.0, 0.1, 30, 300) for step in steps])
    forward, annealing = annealing_areas(steps, rates)
    decay = 1 - 10 / 300
    falls = [max(rates[i - 1] - rates[i], 0) if i else 0 for i in range(300)]
    momenta = [sum(falls[k] * decay ** (i - k) for k in range(i + 1)) for i in range(300)]
    assert forward[-1] == pytest.approx(rates.sum())
    assert annealing[-1] == pytest.approx(sum(momenta))
    coarse = np.union1d(steps[::2], [300])
    assert annealing_areas(coarse, rates[coarse - 1])[1][-1] == pytest.approx(annealing[-1], rel=0.04)


def test_the_progress_line():
    row = {"step": 880, "loss": 3.514}
    assert progress_text(row, 1343) == "step 880 of 1343, loss 3.51"
    line = progress_text(row, 1343, 12_345.6, Forecast(3.2, 3.1, 3.31))
    assert line == "step 880 of 1343, loss 3.51, 12,300 tokens/s, final loss about 3.2 (3.1 to 3.3)"


def test_throughput_is_that_of_the_last_process_group():
    rows = [{"tokens": 100 * n, "seconds": seconds} for n, seconds in enumerate([10.0, 20.0, 5.0, 7.0, 9.0], start=1)]
    assert recent_tokens_per_second(rows) == pytest.approx(50)
    assert recent_tokens_per_second(rows[:3]) is None
    assert recent_tokens_per_second([]) is None
