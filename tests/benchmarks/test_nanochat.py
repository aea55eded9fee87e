"""nanochat's recipe as a peer: that it is what its source describes, by hand-computed values."""

import math

import pytest
import torch

from benchmarks.common.nanochat import (
    Nanochat,
    NanochatOptimizer,
    NanochatSettings,
    polar_update,
    schedule_at,
    train_step,
)
from benchmarks.common.nanogpt import NanoShape

SHAPE = NanoShape(layers=4, width=32, heads=2, context_length=16, vocabulary_size=64)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Nanochat(SHAPE)


def test_schedules_have_the_published_corners():
    settings = NanochatSettings(warmup_share=0.1, momentum_share=0.2)
    assert schedule_at(0.05, settings).rate == pytest.approx(0.5)
    assert schedule_at(0.35, settings).rate == pytest.approx(1.0)
    assert schedule_at(0.675, settings).rate == pytest.approx(0.525)
    assert schedule_at(1.0, settings).rate == pytest.approx(0.05)
    momenta = [schedule_at(progress, settings).momentum for progress in (0, 0.1, 0.2, 0.35, 1)]
    assert momenta == pytest.approx([0.85, 0.91, 0.97, 0.97, 0.90])
    assert [schedule_at(progress, settings).weight_decay for progress in (0, 0.5, 1)] == pytest.approx([1, 0.5, 0])


def test_the_network_starts_as_the_source_says(model):
    tokens = torch.arange(16)[None] % 64
    logits = model.logits(tokens)
    assert logits.abs().max() < 0.1  # std 0.001 of the head
    assert model(tokens, tokens).item() == pytest.approx(math.log(64), abs=0.01)
    assert list(model.token_values) == ["1", "3"]
    matrices = 4 * (4 * 32**2 + 8 * 32**2) + 2 * 12 * 2
    assert sum(p.numel() for p in model.layers.parameters()) == matrices
    assert sum(p.numel() for p in model.parameters()) == matrices + 4 * 64 * 32 + 2 * 4 + 24 + 2


def test_no_position_sees_the_future_and_logits_are_capped(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
        model.head.weight *= 4
    tokens = torch.arange(16)[None] % 64
    changed = tokens.clone()
    changed[0, 9] = 63
    before, after = model.logits(tokens), model.logits(changed)
    assert torch.equal(before[:, :9], after[:, :9]) and not torch.equal(before[:, 9:], after[:, 9:])
    assert 14 < before.abs().max() <= 15


def test_an_update_is_orthogonal_up_to_the_iteration():
    torch.manual_seed(0)
    for rows, columns in ((16, 48), (48, 16), (16, 16)):
        update = polar_update(torch.randn(3, rows, columns))
        assert torch.linalg.matrix_norm(update).tolist() == pytest.approx([4.0] * 3, rel=1e-5)  # root of 16
        if rows != columns:
            assert (torch.linalg.svdvals(update) - 1).abs().max() < 0.2


def test_a_step_has_the_rates_of_its_batch_and_width(model):
    settings = NanochatSettings(rate=1.0, weight_decay=0.0, warmup_share=0.0, momentum_share=0.0)
    optimizer = NanochatOptimizer(model, settings, batch_tokens=2**15)  # a quarter of the rates at 2^19
    wide, layer = math.sqrt(768 / 32), model.layers[0]
    assert optimizer.rates == pytest.approx([0.002 * wide, 0.075 * wide, 0.0375 * wide, 0.00125, 0.125, 0.2])
    weights = [matrix.detach().clone() for matrix in (layer.query.weight, layer.up.weight)]
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step(0.1)
    # 0.02 / 4, the norm of 32 singular values of 1, and the root of 4 for a matrix four times as high as wide
    norms = [
        (matrix - old).norm().item() for matrix, old in zip((layer.query.weight, layer.up.weight), weights, strict=True)
    ]
    assert norms == pytest.approx([0.005 * math.sqrt(32), 0.005 * math.sqrt(32) * 2], rel=1e-4)


def test_training_learns(model):
    torch.manual_seed(0)
    optimizer = NanochatOptimizer(model, NanochatSettings(rate=4), batch_tokens=4 * 16)
    batch = torch.randint(64, (4, 17))
    losses = [train_step(model, model, optimizer, batch, step / 40) for step in range(40)]
    assert losses[-1] < 0.7 * losses[0]
