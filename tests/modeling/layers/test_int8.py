from contextlib import contextmanager
from unittest.mock import patch

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modeling.layers import int8 as int8_linear
from modeling.layers.int8 import Int8Linear, StaticInt8Linear, quantize_rows

sizes = st.integers(1, 70)
inner_sizes = st.integers(2, 70)
WAYS = ["loop in C", "floats"]
if int8_linear.HAS_INT8_PRODUCT:  # without int8 instructions torch's product saturates sums of two products at 16 bits
    WAYS.append("int8 instructions")
ways = st.sampled_from(WAYS)


@contextmanager
def product_by(way):
    with (
        patch.object(int8_linear, "ROWS_IN_C", 2**31 if way == "loop in C" else 0),
        patch.object(int8_linear, "HAS_INT8_PRODUCT", way == "int8 instructions"),
        patch.object(int8_linear, "OUTPUTS_AT_ONCE", 32),
    ):
        yield


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(0, 70), inputs=inner_sizes, outputs=sizes, seed=st.integers(0, 99), way=ways)
def test_the_integer_product_is_exact_for_every_shape(rows, inputs, outputs, seed, way):
    generator = torch.Generator().manual_seed(seed)
    activations = torch.randint(-127, 128, (rows, inputs), generator=generator, dtype=torch.int8)
    linear = Int8Linear(inputs, outputs, bias=False)
    linear.weight = torch.randint(-127, 128, (outputs, inputs), generator=generator, dtype=torch.int8)
    linear.scale = torch.ones(outputs)
    # Rows whose largest magnitude is 127 keep their integers, so that the layer's result is the integer product.
    activations[:, 0] = 127
    exact = activations.double() @ linear.weight.double().T
    with product_by(way):
        assert torch.equal(linear(activations.float()).double(), exact)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 9),
    inputs=inner_sizes,
    outputs=sizes,
    magnitude=st.sampled_from([1e-6, 1.0, 1e6]),
    way=ways,
)
def test_error_is_bounded_by_half_a_step_of_each_operand(rows, inputs, outputs, magnitude, way):
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
    with product_by(way):
        error = (quantized(hidden.float()).double() - exact).abs()
    assert (error <= bound * 1.0001 + exact.abs() * 1e-6).all()


def test_rows_of_zeros_stay_zeros():
    quantized, scales = quantize_rows(torch.zeros(2, 3))
    assert not quantized.any() and not scales.any()


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(0, 70), inputs=inner_sizes, outputs=sizes, bias=st.booleans(), way=ways)
def test_a_static_layer_is_the_integer_product_and_cuts_off_what_was_never_seen(rows, inputs, outputs, bias, way):
    linear = StaticInt8Linear(inputs, outputs, bias, input_scale=0.05)
    linear.weight = torch.randint(-127, 128, (outputs, inputs), dtype=torch.int8)
    linear.scale = torch.rand(outputs)
    linear.bias = torch.randn(outputs) if bias else None
    # Far enough from halves that float32 rounds as float64 does.
    hidden = (torch.randint(-150, 151, (rows, inputs)) + torch.rand(rows, inputs) * 0.8 - 0.4) * 0.05
    codes = (hidden.double() / 0.05).round().clamp(-127, 127)
    offset = linear.bias.double() if linear.bias is not None else 0
    exact = codes @ linear.weight.double().T * 0.05 * linear.scale.double() + offset
    with product_by(way):
        found = linear(hidden).double()
    assert ((found - exact).abs() <= (exact.abs() + 10) * 1e-6).all()


def test_float_products_of_many_large_integers_round_as_floats_do():
    codes = torch.full((2, 4_000), 127, dtype=torch.int8)
    weight = torch.full((3, 4_000), 127, dtype=torch.int8)
    weight[1, ::3] = -126
    exact = codes.double() @ weight.double().T
    with product_by("floats"):
        found = int8_linear.integer_product(codes, weight).double()
    assert ((found - exact).abs() <= exact.abs() * 1e-6).all()
