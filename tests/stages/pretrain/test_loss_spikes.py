import math

import numpy as np
import pytest

from stages.pretrain.loss_spikes import LEARNED_AFTER, PATIENCE, SpikeWatch, Verdict


def learned(on_spike: str) -> SpikeWatch:
    watch = SpikeWatch(on_spike, 20.0)
    noise = np.random.default_rng(0)
    for step in range(2 * LEARNED_AFTER):
        loss = 5 - step / 100 + noise.normal() * 0.05
        assert watch.judge(loss, 1 + noise.normal() * 0.2) is Verdict.TAKE
    return watch


def test_ordinary_training_is_never_disturbed():
    """A loss that falls like a real one, with heavy noise on the gradient, over 5,000 steps."""
    watch, noise = SpikeWatch("rewind", 20.0), np.random.default_rng(1)
    for step in range(5_000):
        loss = 2 + 6 / (1 + step / 50) + noise.normal() * 0.2
        assert watch.judge(loss, math.exp(noise.normal() * 0.6)) is Verdict.TAKE


@pytest.mark.parametrize("bad", [(math.nan, math.nan), (5.0, math.inf), (5.0, 1e4)])
def test_one_bad_step_is_skipped(bad):
    watch = learned("skip")
    assert watch.judge(*bad) is Verdict.SKIP
    assert watch.judge(4.4, 1.0) is Verdict.TAKE


def test_a_loss_that_stays_high_sends_training_back():
    watch = learned("rewind")
    verdicts = [watch.judge(9.0, 2.0) for _ in range(PATIENCE)]
    assert verdicts == [Verdict.TAKE] * (PATIENCE - 1) + [Verdict.REWIND]


def test_a_loss_that_comes_down_again_does_not():
    watch = learned("rewind")
    for _ in range(5):
        assert {watch.judge(9.0, 2.0) for _ in range(PATIENCE - 1)} == {Verdict.TAKE}
        assert watch.judge(4.4, 1.0) is Verdict.TAKE


def test_without_rewinding_a_lasting_change_is_the_new_ordinary_and_nan_the_end():
    watch = learned("skip")
    assert {watch.judge(9.0, 2.0) for _ in range(3 * PATIENCE)} == {Verdict.TAKE}
    watch = learned("skip")
    assert [watch.judge(math.nan, math.nan) for _ in range(PATIENCE)][-1] is Verdict.DIVERGED


def test_stop_ends_at_the_first_gradient_that_is_not_finite():
    watch = learned("stop")
    assert watch.judge(9.0, 1e6) is Verdict.TAKE
    assert watch.judge(9.0, math.inf) is Verdict.DIVERGED
