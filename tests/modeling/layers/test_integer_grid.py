import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling.layers.integer_grid import IntegerGrid, dequantize, quantize


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
