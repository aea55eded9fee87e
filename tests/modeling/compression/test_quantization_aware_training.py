import torch
import torch.nn.functional as F

from modeling.compression.integers import quantize_packed
from modeling.compression.quantization_aware_training import QuantizationAwareTraining, weight_grids
from modeling.layers.integer_grid import IntegerGrid, round_trip
from tests.modeling.networks import random_tokens, small_network

INT2 = IntegerGrid(2, 32)


def train(model, rounded, steps):
    text = random_tokens(8, 17)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(steps):
        logits = model(text[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rounded.after_step(model)
    return float(loss.detach())


def test_one_step_moves_the_floats_by_the_gradient_at_the_rounded_weights():
    model, grids = small_network(), None
    name = "layers.0.attention.output.weight"
    grids = weight_grids(model, INT2, IntegerGrid(8))
    before = model.get_parameter(name).detach().clone()
    rounded = QuantizationAwareTraining(model, grids)
    assert torch.equal(model.get_parameter(name), round_trip(before, INT2))
    text = random_tokens(2, 9)
    F.cross_entropy(model(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten()).backward()
    gradient = model.get_parameter(name).grad
    torch.optim.SGD(model.parameters(), 0.5).step()
    rounded.after_step(model)
    expected = before - 0.5 * gradient
    torch.testing.assert_close(rounded.tensors[f"float.{name}"], expected)
    torch.testing.assert_close(model.get_parameter(name), round_trip(expected, INT2))


def test_training_makes_two_bits_usable_and_what_is_packed_is_what_was_trained():
    model, text = small_network(), random_tokens(8, 17)
    table = IntegerGrid(4, 32)
    rounded = QuantizationAwareTraining(model, weight_grids(model, INT2, table))
    first, last = train(model, rounded, 1), train(model, rounded, 30)
    assert last < 0.9 * first
    with torch.no_grad():
        seen = model(text[:, :-1])
        rounded.finish(model)
        packed = quantize_packed(model, INT2, table)
        error = (packed(text[:, :-1]) - seen).norm() / seen.norm()
    assert float(error) < 0.02  # of int8 activations and bfloat16 biases


def test_what_was_pruned_stays_zero_with_four_bits():
    model = small_network()
    name = "layers.0.feed_forward.up.weight"
    gone = torch.rand_like(model.get_parameter(name)) < 0.5
    with torch.no_grad():
        model.get_parameter(name)[gone] = 0
    rounded = QuantizationAwareTraining(model, weight_grids(model, IntegerGrid(4, 32), IntegerGrid(8)))
    train(model, rounded, 3)
    assert not model.get_parameter(name)[gone].any()


def test_a_tied_table_is_rounded_once():
    model = small_network()
    grids = weight_grids(model, INT2, IntegerGrid(8))
    assert "embedding.weight" in grids and "head.weight" not in grids
    untied = weight_grids(small_network(tied_embeddings=False), INT2, IntegerGrid(8))
    assert {"embedding.weight", "head.weight"} < untied.keys()
