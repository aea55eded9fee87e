import math

import numpy as np
import pytest

from stages.pretrain.loss_spikes import MIN_STEPS, PATIENCE, SpikeDetector, Verdict


def trained_detector(on_spike: str) -> SpikeDetector:
    detector = SpikeDetector(on_spike, 20.0)
    noise = np.random.default_rng(0)
    for step in range(2 * MIN_STEPS):
        loss = 5 - step / 100 + noise.normal() * 0.05
        assert detector.judge(loss, 1 + noise.normal() * 0.2) is Verdict.TAKE
    return detector


def test_ordinary_training_is_never_disturbed():
    """A loss that falls like a real one, with heavy noise on the gradient, over 5,000 steps."""
    detector, noise = SpikeDetector("rewind", 20.0), np.random.default_rng(1)
    for step in range(5_000):
        loss = 2 + 6 / (1 + step / 50) + noise.normal() * 0.2
        assert detector.judge(loss, math.exp(noise.normal() * 0.6)) is Verdict.TAKE


@pytest.mark.parametrize("bad", [(math.nan, math.nan), (5.0, math.inf), (5.0, 1e4)])
def test_one_bad_step_is_skipped(bad):
    detector = trained_detector("skip")
    assert detector.judge(*bad) is Verdict.SKIP
    assert detector.judge(4.4, 1.0) is Verdict.TAKE


def test_a_loss_that_stays_high_rewinds():
    detector = trained_detector("rewind")
    verdicts = [detector.judge(9.0, 2.0) for _ in range(PATIENCE)]
    assert verdicts == [Verdict.TAKE] * (PATIENCE - 1) + [Verdict.REWIND]


def test_a_loss_that_comes_down_again_does_not():
    detector = trained_detector("rewind")
    for _ in range(5):
        assert {detector.judge(9.0, 2.0) for _ in range(PATIENCE - 1)} == {Verdict.TAKE}
        assert detector.judge(4.4, 1.0) is Verdict.TAKE


def test_without_rewinding_a_lasting_change_is_the_new_normal_and_nan_the_end():
    detector = trained_detector("skip")
    assert {detector.judge(9.0, 2.0) for _ in range(3 * PATIENCE)} == {Verdict.TAKE}
    detector = trained_detector("skip")
    assert [detector.judge(math.nan, math.nan) for _ in range(PATIENCE)][-1] is Verdict.DIVERGED


def test_stop_ends_at_the_first_non_finite_gradient():
    detector = trained_detector("stop")
    assert detector.judge(9.0, 1e6) is Verdict.TAKE
    assert detector.judge(9.0, math.inf) is Verdict.DIVERGED
