from unittest.mock import patch

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modeling.compression.integers import packed_layer
from modeling.layers import packed as packed_linear
from modeling.layers.integer_grid import IntegerGrid, dequantize, quantize
from modeling.layers.packed import PackedLinear, pack, unpack
from modeling.replacements import KINDS

INT4, INT2 = IntegerGrid(4, 32), IntegerGrid(2, 32)
PER_INT8 = 127 * 2
"""Half a step of an activation, as a share of its token's largest."""


def layer(weight, bias, grid) -> PackedLinear:
    module = nn.Linear(weight.shape[1], len(weight), bias is not None)
    if bias is not None:
        module.bias = nn.Parameter(bias)
    made = packed_layer(module, quantize(weight, grid), grid)
    result = KINDS[made.description["kind"]](**{key: one for key, one in made.description.items() if key != "kind"})
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
