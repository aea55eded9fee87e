from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modeling import int8_linear
from modeling.int8_linear import Int8Embedding, Int8Linear, quantize_int8, quantize_rows
from tests.modeling.networks import random_tokens, small_network

sizes = st.integers(1, 70)
inner_sizes = st.integers(2, 70)


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(0, 70), inputs=inner_sizes, outputs=sizes, seed=st.integers(0, 99), in_c=st.booleans())
def test_the_integer_product_is_exact_for_every_shape(rows, inputs, outputs, seed, in_c):
    generator = torch.Generator().manual_seed(seed)
    activations = torch.randint(-127, 128, (rows, inputs), generator=generator, dtype=torch.int8)
    linear = Int8Linear(inputs, outputs, bias=False)
    linear.weight = torch.randint(-127, 128, (outputs, inputs), generator=generator, dtype=torch.int8)
    linear.scale = torch.ones(outputs)
    # Rows whose largest magnitude is 127 keep their integers, so that the layer's result is the integer product.
    activations[:, 0] = 127
    exact = activations.double() @ linear.weight.double().T
    with patch.object(int8_linear, "ROWS_IN_C", 2**31 if in_c else 0):
        assert torch.equal(linear(activations.float()).double(), exact)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 9),
    inputs=inner_sizes,
    outputs=sizes,
    magnitude=st.sampled_from([1e-6, 1.0, 1e6]),
    in_c=st.booleans(),
)
def test_error_is_bounded_by_half_a_step_of_each_operand(rows, inputs, outputs, magnitude, in_c):
    linear = nn.Linear(inputs, outputs, bias=False).double()
    hidden = torch.randn(rows, inputs, dtype=torch.float64) * magnitude
    weight, scales = quantize_rows(linear.weight.detach())
    quantized = Int8Linear(inputs, outputs, bias=False)
    quantized.weight, quantized.scale = weight, scales[:, 0]
    weight_step = linear.weight.detach().abs().amax(1) / 127
    hidden_step = hidden.abs().amax(1, keepdim=True) / 127
    bound = (
        hidden.abs().sum(1, keepdim=True) * weight_step / 2
        + linear.weight.detach().abs().sum(1) * hidden_step / 2
        + inputs * weight_step * hidden_step / 4
    )
    exact = linear(hidden).detach()
    with patch.object(int8_linear, "ROWS_IN_C", 2**31 if in_c else 0):
        error = (quantized(hidden.float()).double() - exact).abs()
    assert (error <= bound * 1.0001 + exact.abs() * 1e-6).all()


def test_rows_of_zeros_stay_zeros():
    quantized, scales = quantize_rows(torch.zeros(2, 3))
    assert not quantized.any() and not scales.any()


@pytest.mark.parametrize("tied", [True, False])
def test_a_quantised_network_stays_near_and_holds_no_other_matrix(tied):
    model = small_network(tied_embeddings=tied)
    state_before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    quantized = quantize_int8(model)
    torch.testing.assert_close(model.state_dict(), state_before, rtol=0, atol=0)
    assert all(tensor.dtype == torch.int8 for tensor in quantized.state_dict().values() if tensor.ndim == 2)
    assert not any(isinstance(module, nn.Linear | nn.Embedding) for module in quantized.modules())
    assert not list(quantized.parameters()) or not any(p.requires_grad for p in quantized.parameters())
    assert isinstance(quantized.embedding, Int8Embedding)
    assert (quantized.head.weight is quantized.embedding.weight) == tied

    tokens = random_tokens(4, 20)
    exact, found = model(tokens), quantized(tokens)
    assert ((found - exact).norm() / exact.norm()).item() < 0.05


@torch.no_grad()
def test_prefill_and_decode_equal_the_full_forward():
    model, tokens = quantize_int8(small_network()), random_tokens(1, 20)
    cache = model.new_cache(batch=1)
    pieces = [model(tokens[:, :9], cache=cache)] + [model(tokens[:, i : i + 1], cache=cache) for i in range(9, 20)]
    # Rounding may fall the other way where float32 sums differ in their last bit.
    full = model(tokens)
    assert float((torch.cat(pieces, dim=1) - full).norm() / full.norm()) < 0.02
