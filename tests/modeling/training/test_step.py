import copy
import math
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as distributed
import torch.multiprocessing
from torch.nn.parallel import DistributedDataParallel

from data_schemas.errors import TrainingDivergedError
from modeling.loss.cross_entropy import next_token_loss
from modeling.training.optimizer import build_adamw
from modeling.training.step import StepResult, training_step
from modeling.transformer import Transformer
from tests.modeling.networks import SMALL, random_tokens, small_network

NO_CLIPPING = 1e9


def take_step(model, micro_batches, clip_norm=NO_CLIPPING, precision="fp32") -> StepResult:
    optimizer = build_adamw(model, 1e-3, (0.9, 0.95), 0.1)
    return training_step(model, optimizer, micro_batches, 1e-2, clip_norm, precision)


def assert_same_weights(one, other, **tolerances):
    torch.testing.assert_close(dict(one.named_parameters()), dict(other.named_parameters()), **tolerances)


def test_micro_batches_of_unequal_rows_equal_one_batch():
    accumulated = small_network().double()
    at_once = copy.deepcopy(accumulated)
    tokens = random_tokens(8, 13)
    result = take_step(accumulated, [tokens[:3], tokens[3:7], tokens[7:]])
    expected = take_step(at_once, [tokens])
    assert result.loss == pytest.approx(expected.loss, rel=1e-6)
    assert result.gradient_norm == pytest.approx(expected.gradient_norm, rel=1e-12)
    assert_same_weights(accumulated, at_once, rtol=1e-9, atol=1e-9)


def test_measures_before_clipping_and_clips_to_the_norm():
    model, tokens = small_network(), random_tokens(4, 13)
    expected_loss = next_token_loss(model, tokens).total
    expected_loss.backward()
    expected_norm = math.sqrt(sum(parameter.grad.pow(2).sum().item() for parameter in model.parameters()))
    result = take_step(model, [tokens], clip_norm=expected_norm / 4)
    assert result.loss == pytest.approx(expected_loss.item())
    assert result.gradient_norm == pytest.approx(expected_norm, rel=1e-4)
    clipped = math.sqrt(sum(parameter.grad.pow(2).sum().item() for parameter in model.parameters()))
    assert clipped == pytest.approx(expected_norm / 4, rel=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_learns_a_sequence_by_heart(precision):
    torch.manual_seed(0)
    model = Transformer(SMALL)
    optimizer = build_adamw(model, 1e-2, (0.9, 0.95), 0.0)
    tokens = random_tokens(2, 13)
    losses = [training_step(model, optimizer, [tokens], 1e-2, 1.0, precision).loss for _ in range(60)]
    assert losses[0] == pytest.approx(math.log(model.config.vocabulary_size), abs=0.1)
    assert losses[-1] < 0.1


def test_bf16_stays_near_fp32():
    fp32 = small_network()
    bf16 = copy.deepcopy(fp32)
    tokens = random_tokens(4, 13)
    actual, expected = take_step(bf16, [tokens], precision="bf16"), take_step(fp32, [tokens])
    assert actual.loss == pytest.approx(expected.loss, rel=0.01)
    assert actual.gradient_norm == pytest.approx(expected.gradient_norm, rel=0.05)
    assert {parameter.dtype for parameter in bf16.parameters()} == {torch.float32}


def test_divergence_names_the_step_and_leaves_the_model_alone():
    model, tokens = small_network(), random_tokens(2, 13)
    optimizer = build_adamw(model, 1e-3, (0.9, 0.95), 0.0)
    for _ in range(2):
        training_step(model, optimizer, [tokens], 1e-3, 1.0, "fp32")
    with torch.no_grad():
        model.final_norm.weight.fill_(torch.inf)
    before = copy.deepcopy(model)
    with pytest.raises(
        TrainingDivergedError,
        match=r"diverged at step 3: .*nan.* 0.007; .*final_norm.weight has 32 of 32 values .*; lower the peak",
    ):
        training_step(model, optimizer, [tokens], 7e-3, 1.0, "fp32")
    assert_same_weights(model, before)


def test_what_experts_and_large_logits_cost_is_learnt_from_and_not_reported():
    tokens = random_tokens(4, 13)
    plain, with_losses = (
        small_network(experts={"balance_loss": weight, "router_z_loss": weight}).train() for weight in (0, 0.5)
    )
    optimizers = [build_adamw(model, 1e-3, (0.9, 0.95), 0.0) for model in (plain, with_losses)]
    results = [
        training_step(model, optimizer, [tokens], 1e-3, NO_CLIPPING, "fp32", z_loss)
        for model, optimizer, z_loss in zip((plain, with_losses), optimizers, (0.0, 0.1), strict=True)
    ]
    assert results[0].loss == pytest.approx(results[1].loss, rel=1e-6)
    assert results[0].gradient_norm != pytest.approx(results[1].gradient_norm, rel=1e-2)
    assert [len(report.load) for report in with_losses.routing_reports] == [8, 8]


def test_a_wider_network_learns_by_its_own_rates():
    model, tokens = small_network(base_width=8), random_tokens(4, 13)
    optimizer = build_adamw(model, 1e-3, (0.9, 0.95), 0.0)
    training_step(model, optimizer, [tokens], 2e-3, 1.0, "fp32")
    assert {group["lr"] for group in optimizer.param_groups} == {2e-3, 2e-3 / 4}


def _one_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # the machine's own name need not have an address
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    model = small_network().double()
    wrapped = DistributedDataParallel(model)
    tokens = random_tokens(8, 13).chunk(2)[rank]
    result = take_step(wrapped, [tokens[:1], tokens[1:]], clip_norm=0.5)
    torch.save({"model": model.state_dict(), "norm": result.gradient_norm}, f"{folder}/rank-{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_with_accumulation_equal_one_process(tmp_path: Path):
    torch.multiprocessing.spawn(_one_rank, (str(tmp_path),), nprocs=2)
    alone = small_network().double()
    expected = take_step(alone, [random_tokens(8, 13)], clip_norm=0.5)
    for rank in range(2):
        actual = torch.load(tmp_path / f"rank-{rank}.pt")
        assert actual["norm"] == pytest.approx(expected.gradient_norm, rel=1e-9)
        torch.testing.assert_close(actual["model"], dict(alone.state_dict()), rtol=1e-9, atol=1e-9)
