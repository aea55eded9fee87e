import ctypes
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modeling.evaluation.network_counts import (
    bit_operations_per_token,
    dense_macs_per_token,
    network_parameters,
    nonzero_parameters,
)
from modeling.export.model_files import model_from_files, model_to_files
from modeling.kernels import compilation
from modeling.layers import packed as packed_linear
from modeling.layers.int8 import Int8Embedding, Int8Linear
from modeling.layers.integer_grid import IntegerGrid, dequantize, quantize
from modeling.layers.packed import PackedEmbedding, PackedLinear, pack, packed_layer, quantize_packed, unpack
from modeling.replacements import kinds
from tests.modeling.networks import random_tokens, small_network

INT4, INT2 = IntegerGrid(4, 32), IntegerGrid(2, 32)
PER_INT8 = 127 * 2
"""Half a step of an activation, as a share of its token's largest."""


def layer(weight, bias, grid) -> PackedLinear:
    module = nn.Linear(weight.shape[1], len(weight), bias is not None)
    if bias is not None:
        module.bias = nn.Parameter(bias)
    made = packed_layer(module, quantize(weight, grid), grid)
    result = kinds[made.description["kind"]](**{key: one for key, one in made.description.items() if key != "kind"})
    result.load_state_dict(made.tensors, assign=True)
    return result


def test_weights_lie_in_a_byte_as_written():
    codes = torch.zeros(1, 34, dtype=torch.int8)
    codes[0, 0], codes[0, 16], codes[0, 33] = 5, -3, -7
    packed = pack(codes, INT4)
    assert packed.shape == (1, 32)
    assert packed[0, 0] == 0x5D  # 5 + 8 below, -3 + 8 above
    assert packed[0, 17] == 0x81  # -7 + 8; what is behind it is missing, and 0 + 8
    codes = torch.zeros(1, 32, dtype=torch.int8)
    codes[0, 1], codes[0, 9], codes[0, 17], codes[0, 25] = 1, -2, -1, 0
    assert pack(codes, INT2)[0, 1] == 0b10_01_00_11


@settings(max_examples=60, deadline=None)
@given(
    grid=st.sampled_from([INT4, INT2, IntegerGrid(4, 96), IntegerGrid(2, 320), IntegerGrid(4, 640)]),
    rows=st.integers(0, 5),
    inputs=st.integers(1, 700),
    outputs=st.integers(1, 20),
    bias=st.booleans(),
    at_once=st.sampled_from([32, 4000, 1 << 18]),
    in_c=st.booleans(),
)
def test_the_product_is_that_of_the_same_integers(grid, rows, inputs, outputs, bias, at_once, in_c):
    weight = torch.randn(outputs, inputs)
    offset = torch.randn(outputs) if bias else None
    made, hidden = layer(weight, offset, grid), torch.randn(rows, inputs)
    codes, scales = quantize(weight, grid)
    assert torch.equal(unpack(made.packed, made.grid, inputs), codes)
    assert torch.equal(scales.bfloat16().float(), scales), "what is stored is what was rounded with"
    steps = hidden.abs().amax(1, keepdim=True) / 127 if rows else hidden[:, :1]
    seen = (hidden / steps).round().double() * steps.double()
    exact = seen @ dequantize(codes, scales, grid).double().T + (offset.bfloat16().double() if bias else 0)
    bound = 1e-5 * (seen.abs() @ weight.double().abs().T + 10)
    with (
        patch.object(packed_linear, "WEIGHTS_AT_ONCE", at_once),
        patch.object(packed_linear, "ROWS_IN_C", 2**31 if in_c else 0),
    ):
        assert ((made(hidden).double() - exact).abs() <= bound).all()


def test_sums_of_the_largest_numbers_do_not_overflow():
    for grid, value in ((IntegerGrid(4, 1024), 7.0), (IntegerGrid(2, 1024), 1.5)):
        made = layer(torch.full((2, 1024), value), None, grid)
        hidden = torch.full((1, 1024), -127.0)
        assert made(hidden).tolist() == [[-127 * 1024 * value] * 2]


@settings(max_examples=30, deadline=None)
@given(bits=st.sampled_from([2, 4]), inputs=st.integers(1, 100), magnitude=st.sampled_from([0.0, 1e-6, 1.0, 1e6]))
def test_scales_are_no_worse_than_those_that_leave_nothing_out(bits, inputs, magnitude):
    grid = IntegerGrid(bits, 32)
    weight = grid.grouped(torch.randn(7, inputs) * magnitude)
    scales = grid.scales(weight)[..., None]
    largest = (weight.abs().amax(-1, keepdim=True) / (grid.highest + grid.offset)).bfloat16().float()
    errors = [((grid.values(grid.codes(weight, one), one) - weight) ** 2).sum(-1) for one in (scales, largest)]
    assert (errors[0] <= errors[1]).all()
    codes = grid.codes(weight, scales)
    assert codes.min() >= grid.lowest and codes.max() <= grid.highest


@pytest.mark.parametrize(("bits", "low", "high"), [(8, 0.005, 0.01), (4, 0.05, 0.1), (2, 0.3, 0.36)])
def test_gaussian_weights_are_off_as_much_as_bits_allow(bits, low, high):
    # The best four evenly spaced levels leave 0.345 of a Gaussian's norm (Max 1960), sixteen 0.107.
    torch.manual_seed(0)
    weight = torch.randn(64, 512)
    grid = IntegerGrid(bits, 32)
    error = (dequantize(*quantize(weight, grid), grid) - weight).norm() / weight.norm()
    assert low < float(error) < high


@pytest.mark.parametrize("changes", [{}, {"tied_embeddings": False}, {"experts": {"experts": 3, "active": 1}}])
@pytest.mark.parametrize("table", [IntegerGrid(8), INT4])
@torch.no_grad()
def test_a_network_comes_back_smaller_and_is_counted_in_bits(changes, table):
    model, tokens = small_network(**changes), random_tokens(4, 20)
    quantized = quantize_packed(model, INT4, table)
    decoder = [module for module in quantized.layers.modules() if isinstance(module, PackedLinear)]
    assert decoder and not any(isinstance(module, nn.Linear | nn.Embedding) for module in quantized.modules())
    expected = (Int8Embedding, Int8Linear) if table.bits == 8 else (PackedEmbedding, PackedLinear)
    assert (type(quantized.embedding), type(quantized.head)) == expected
    files = model_to_files(quantized)
    read = model_from_files(files["config.json"], files["model.safetensors"])
    assert torch.equal(read(tokens), quantized(tokens)) and model_to_files(read) == files
    assert network_parameters(quantized) == network_parameters(model)
    assert 0.8 * network_parameters(model) < nonzero_parameters(quantized) < network_parameters(model)
    head = 61 * 32
    matrices = sum(one.sizes()["inputs"] * one.sizes()["outputs"] for one in decoder)
    if not changes:
        attention = dense_macs_per_token(model, 20) - matrices - head
        expected = 32 * matrices + 8 * table.bits * head + 1024 * attention
        assert bit_operations_per_token(quantized, 20) == pytest.approx(expected)
        exact = model(tokens)
        assert float((quantized(tokens) - exact).norm() / exact.norm()) < 0.3


def test_the_plain_loops_give_what_the_vector_instructions_give(monkeypatch, tmp_path):
    if compilation.library() is None:
        pytest.skip("needs a C compiler")
    monkeypatch.setattr(compilation, "FLAGS", (*compilation.FLAGS, "-DPLAIN_C"))
    plain = compilation._declared(ctypes.CDLL(str(compilation.build(tmp_path))))
    for grid in (INT4, IntegerGrid(2, 64)):
        made, hidden = layer(torch.randn(40, 200), torch.randn(40), grid), torch.randn(3, 200)
        found = made(hidden)
        with patch.object(packed_linear, "library", lambda: plain):
            torch.testing.assert_close(made(hidden), found)
