import copy

import pytest
import torch

from modeling.compression.activation_sparsity import (
    RisingPenalty,
    choose_thresholds,
    feed_forwards,
    mean_activations,
    measure_zeros,
    use_sparse_feed_forwards,
    with_penalty,
)
from modeling.compression.integers import quantize_int8
from modeling.layers.sparse_feed_forward import SparseFeedForward
from modeling.loss.cross_entropy import TrainingLoss, next_token_loss
from modeling.training.optimizer import build_adamw
from tests.modeling.networks import random_tokens, small_network


def sparse_network(**changes):
    model = small_network(**changes)
    use_sparse_feed_forwards(model)
    return model


@pytest.mark.parametrize("experts", [None, {"experts": 3, "shared_width": 6}])
def test_taking_the_place_changes_nothing(experts):
    plain, model = small_network(experts=experts), sparse_network(experts=experts)
    assert all(isinstance(module, SparseFeedForward) for module in feed_forwards(model).values())
    tokens = random_tokens(2, 24)
    assert torch.equal(model(tokens), plain(tokens))
    assert measure_zeros(model, tokens) == measure_zeros(plain, tokens)
    assert list(model.state_dict()) == list(plain.state_dict())


def test_zeros_are_counted_exactly():
    model = small_network()
    found = []
    layer = model.layers[1].feed_forward
    layer.down.register_forward_pre_hook(lambda module, given: found.append(given[0]))
    tokens = random_tokens(5, 24)
    shares = measure_zeros(model, tokens, batch_rows=2)
    assert shares["layers.1.feed_forward"] == pytest.approx(float((torch.cat(found) == 0).float().mean()))
    with torch.no_grad():
        layer.up.bias.fill_(-100)
    assert measure_zeros(model, tokens)["layers.1.feed_forward"] == 1
    assert measure_zeros(quantize_int8(model), tokens).keys() == shares.keys()


def test_thresholds_give_the_target_layer_behind_layer():
    model, tokens = sparse_network(), random_tokens(16, 24)
    thresholds = choose_thresholds(model, tokens, 0.9)
    assert min(thresholds.values()) > 0
    assert measure_zeros(model, tokens) == pytest.approx(dict.fromkeys(thresholds, 0.9), abs=0.002)
    assert set(choose_thresholds(model, tokens, 0.1).values()) == {0.0}, "there were more zeros without one"
    assert set(choose_thresholds(model, tokens, 0.9, largest=0.01).values()) == {0.01}


def test_the_penalty_by_hand():
    penalty = RisingPenalty(2.0, steps=4, target=0.75, scales={"a": 0.5, "b": 2.0})
    found = {"a": (torch.tensor(1.0), torch.tensor(0.5)), "b": (torch.tensor(1.0), torch.tensor(0.7))}
    assert penalty(found) == 0 and penalty.weight == 0
    weights = []
    for _ in range(6):
        penalty.advance(torch.nn.Module())
        weights.append(penalty.weight)
    assert weights == pytest.approx([2 * 0.146447, 1.0, 2 * 0.853553, 2.0, 2.0, 2.0], abs=1e-5), "half a cosine"
    assert penalty(found).item() == pytest.approx(2.0 * (1 / 0.5 + 1 / 2.0) / 2)
    before = penalty.zeros.item()
    more = {name: (mean, torch.tensor(1.0)) for name, (mean, _) in found.items()}
    penalty(more, rows=3)
    penalty.advance(torch.nn.Module())
    seen = (0.6 + 3 * 1.0) / 4
    assert penalty.zeros.item() == pytest.approx(0.9 * before + 0.1 * seen), "of a step's batches, by their rows"
    penalty.zeros.fill_(0.8)
    penalty.advance(torch.nn.Module())
    assert penalty.weight < 2.0, "it falls where there are more zeros than wanted"


def test_the_penalty_is_added_and_only_to_what_is_minimized():
    model, tokens = sparse_network(), random_tokens(3, 25)
    penalty = RisingPenalty(0.5, 1, 0.99, mean_activations(model, tokens[:, :-1]))
    penalty.advance(model)
    plain, loss = next_token_loss(model, tokens), with_penalty(next_token_loss, penalty)(model, tokens, 0.0)
    assert isinstance(loss, TrainingLoss)
    assert (loss.total - plain.total).item() == pytest.approx(0.5, rel=1e-4), "all is as it was at the beginning"
    assert torch.equal(loss.cross_entropy, plain.cross_entropy)
    assert not any(module._forward_hooks for module in model.modules())


def test_training_under_the_penalty_makes_zeros():
    model, tokens = sparse_network(), random_tokens(8, 25)
    before = measure_zeros(model, tokens)
    penalty = RisingPenalty(0.5, 20, 0.9, mean_activations(model, tokens[:, :-1]))
    loss_of, optimizer = with_penalty(next_token_loss, penalty), build_adamw(model, 3e-3, (0.9, 0.95), 0.0)
    with penalty.attached(model):
        assert "activation_penalty.level" in model.state_dict()
        resumed = copy.deepcopy(model.state_dict())
        for _ in range(40):
            optimizer.zero_grad()
            loss_of(model, tokens, 0.0).total.backward()
            optimizer.step()
            penalty.advance(model)
        assert int(penalty.level) > 0 and int(resumed["activation_penalty.level"]) == 0
    after = measure_zeros(model, tokens)
    assert "activation_penalty.level" not in model.state_dict()
    assert all(after[name] > before[name] + 0.1 for name in before)
