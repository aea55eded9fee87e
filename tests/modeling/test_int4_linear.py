import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modeling import int4_linear
from modeling.checkpoint import model_from_files, model_to_files
from modeling.int4_linear import Int4Linear, pack, quantize_groups, quantize_int4, unpack
from modeling.int8_linear import Int8Embedding, Int8Linear
from modeling.network_counting import bit_operations_per_token, dense_macs_per_token, network_parameters
from tests.modeling.networks import random_tokens, small_network


def layer(codes, scales, bias=None) -> Int4Linear:
    made = Int4Linear(codes.shape[1], len(codes), bias is not None)
    made.packed, made.scale, made.bias = pack(codes), scales, bias
    return made


def test_two_weights_lie_in_a_byte_as_written():
    codes = torch.zeros(1, 34, dtype=torch.int8)
    codes[0, 0], codes[0, 16], codes[0, 33] = 5, -3, -7
    packed = pack(codes)
    assert packed.shape == (1, 32)
    assert packed[0, 0] == 0xD5  # -3 is 1101 in the upper half
    assert packed[0, 17] == 0x09  # -7 is 1001; input 33 is the second of the second group
    assert packed.count_nonzero() == 2


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(0, 9),
    inputs=st.integers(1, 100),
    outputs=st.integers(1, 70),
    bias=st.booleans(),
    at_once=st.sampled_from([32, 400, 1 << 18]),
)
def test_the_product_is_that_of_the_same_integers(rows, inputs, outputs, bias, at_once):
    codes = torch.randint(-8, 8, (outputs, inputs), dtype=torch.int8)
    scales = torch.rand(outputs, -(-inputs // 32))
    offset = torch.randn(outputs) if bias else None
    made, hidden = layer(codes, scales, offset), torch.randn(rows, inputs)
    assert torch.equal(unpack(made.packed, inputs), codes)
    weight = codes.double() * scales.double().repeat_interleave(32, 1)[:, :inputs]
    exact = hidden.double() @ weight.T + (offset.double() if bias else 0)
    bound = 1e-6 * (hidden.double().abs() @ weight.abs().T + 10)
    before, int4_linear.WEIGHTS_AT_ONCE = int4_linear.WEIGHTS_AT_ONCE, at_once
    try:
        assert ((made(hidden).double() - exact).abs() <= bound).all()
    finally:
        int4_linear.WEIGHTS_AT_ONCE = before


@settings(max_examples=30, deadline=None)
@given(inputs=st.integers(1, 100), magnitude=st.sampled_from([0.0, 1e-6, 1.0, 1e6]))
def test_weights_are_off_by_half_a_step_of_their_group_at_most(inputs, magnitude):
    weight = torch.randn(7, inputs) * magnitude
    codes, scales = quantize_groups(weight)
    step = scales.double().repeat_interleave(32, 1)[:, :inputs]
    assert ((codes * step - weight).abs() <= step / 2 * 1.0001).all()
    assert codes.abs().max() <= 7


@torch.no_grad()
def test_gaussian_weights_are_off_by_a_tenth_at_most():
    torch.manual_seed(0)
    linear = nn.Linear(512, 256, bias=False)
    nn.init.normal_(linear.weight)
    hidden = torch.randn(64, 512)
    exact = linear(hidden)
    error = (layer(*quantize_groups(linear.weight.detach()))(hidden) - exact).norm() / exact.norm()
    assert 0.05 < float(error) < 0.1


@pytest.mark.parametrize("changes", [{}, {"tied_embeddings": False}, {"experts": {"experts": 3, "active": 1}}])
@torch.no_grad()
def test_a_network_comes_back_smaller_and_is_counted_in_bits(changes):
    model, tokens = small_network(**changes), random_tokens(4, 20)
    quantized = quantize_int4(model)
    decoder = [module for module in quantized.layers.modules() if isinstance(module, Int4Linear)]
    assert decoder and not any(isinstance(module, nn.Linear | nn.Embedding) for module in quantized.modules())
    assert isinstance(quantized.embedding, Int8Embedding) and isinstance(quantized.head, Int8Linear)
    files = model_to_files(quantized)
    read = model_from_files(files["config.json"], files["model.safetensors"])
    assert torch.equal(read(tokens), quantized(tokens)) and model_to_files(read) == files
    assert network_parameters(quantized) == network_parameters(model)
    head = 61 * 32
    matrices = sum(one.sizes()["inputs"] * one.sizes()["outputs"] for one in decoder)
    if not changes:
        attention = dense_macs_per_token(model, 20) - matrices - head
        assert bit_operations_per_token(quantized, 20) == pytest.approx(128 * matrices + 64 * head + 1024 * attention)
        exact = model(tokens)
        assert float((quantized(tokens) - exact).norm() / exact.norm()) < 0.3
