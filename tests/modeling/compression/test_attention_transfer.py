import copy

import pytest
import torch

from modeling.attention.linear_attention import LinearAttention
from modeling.attention.lsh_attention import LshAttention
from modeling.compression.attention_transfer import match_norms, share_query_key, transfer_attention, transfer_loss
from tests.modeling.networks import random_tokens, small_network


def test_transfer_brings_weights_near_the_softmax_and_changes_nothing_else():
    model = small_network()
    for layer in model.layers:
        torch.nn.init.normal_(layer.attention.query_key_value.weight, std=1.5)  # weights that are far from uniform
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    made = {layer: LinearAttention.from_attention(model.layers[layer].attention, 32, 2, 16) for layer in (0, 1)}
    losses = transfer_attention(model, made, [random_tokens(4, 24, seed) for seed in range(60)], 1e-2)

    assert len(losses) == 60 and sum(losses[-5:]) < 0.9 * sum(losses[:5])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_transfer_loss_is_the_entropy_where_the_weights_agree():
    """One token looks at itself: weight 1 on both sides, cross-entropy 0; by hand."""
    model = small_network()
    made = LinearAttention.from_attention(model.layers[0].attention, 32, 2, 4)
    found = []
    model.layers[0].attention.register_forward_pre_hook(lambda module, given: found.append(given))
    model.hidden_states(random_tokens(2, 1))
    assert float(transfer_loss(made, found[0][0].detach(), found[0][1], 1.0).detach()) == pytest.approx(0, abs=1e-6)


def test_a_layer_that_shared_already_is_kept():
    """Where queries are keys, sharing loses nothing but the keys' lengths, which are made equal here."""
    model = small_network()
    given = copy.deepcopy(model.layers[0].attention)
    made = LshAttention(32, 2, 16, 1, 12, 2, seed=0, scale=given.scale)
    with torch.no_grad():
        for tensor in (given.query_key_value.weight, given.query_key_value.bias):
            parts = tensor.unflatten(0, (2, 3, 16))
            parts[:, 1] = parts[:, 0]
    share_query_key(given, made)
    shared = made.shared_key_value.weight.unflatten(0, (2, 2, 16))
    theirs = given.query_key_value.weight.unflatten(0, (2, 3, 16))
    assert torch.equal(shared[:, 0], theirs[:, 0]) and torch.equal(shared[:, 1], theirs[:, 2])
    found = []
    model.layers[0].attention.register_forward_pre_hook(lambda module, call: found.append(call))
    model.hidden_states(random_tokens(4, 24))
    match_norms(given, made, *found[0][:2])
    assert (made.key_norms > 0).all()
