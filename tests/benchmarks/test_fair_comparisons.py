"""The arithmetic of the benchmarks that compare training; the measurements themselves are no tests."""

import pytest

from benchmarks.common.recipes import NanogptSettings, rate_at, with_overrides
from benchmarks.quality_vs_time import summarize
from benchmarks.train_throughput import CEILING, OURS, PEER, ceiling_share, median_ratio


def test_a_step_never_exceeds_its_ceiling():
    rounds = [{OURS: 1.0, CEILING: ceiling, PEER: 1.1} for ceiling in (0.7, 0.8, 1.4)]
    assert ceiling_share(rounds) == 0.8
    assert ceiling_share([{OURS: 1.0, CEILING: 3.0, PEER: 1.0}]) == 1.0  # other work slowed the products


def test_ratios_are_of_rounds_and_not_of_medians():
    seconds = [(1.0, 2.0), (10.0, 20.0), (4.0, 2.0)]
    rounds = [{OURS: ours, PEER: peer, CEILING: 1.0} for ours, peer in seconds]
    assert median_ratio(rounds, PEER, OURS) == 2.0


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_warm_up_is_a_share_of_the_time_however_few_steps_it_has(schedule):
    for steps in (20, 2_000):
        rates = [rate_at(step / steps, schedule, 1.0, 0.1, 0.05) for step in range(1, steps + 1)]
        assert rates.index(max(rates)) + 1 == round(0.05 * steps)
        assert max(rates) == pytest.approx(1.0) and rates[-1] == pytest.approx(0.1)


def test_the_better_peer_is_chosen_in_every_round():
    bits = {"nanogpt": [2.0, 1.0, 2.0], "nanochat": [1.0, 2.0, 4.0], "headrace": [1.0, 1.0, 1.0]}
    rounds = [{name: {"bits_per_byte": values[n]} for name, values in bits.items()} for n in range(3)]
    summary = summarize(rounds)
    assert summary["bpb_ratio_vs_nanogpt"] == 0.5 and summary["bpb_ratio_vs_nanochat"] == 0.5
    assert summary["bpb_ratio_vs_best"] == 1.0  # 1/1, 1/1, 1/2
    assert "bpb_ratio_vs_nanogpt" not in summarize([{"headrace": {"bits_per_byte": 1.0}}])


def test_settings_of_a_peer_keep_their_types():
    settings = with_overrides(NanogptSettings(), ["rows=4", "rate=1e-2"])
    assert settings == NanogptSettings(rows=4, rate=0.01)
    with pytest.raises(ValueError, match="accepted are rows=, rate=, warmup_share="):
        with_overrides(NanogptSettings(), ["rats=4"])
