import pytest
import torch

from modeling.compression.gptq import gptq, gptq_network
from modeling.compression.integers import quantize_int8, quantize_packed
from modeling.compression.low_rank import factorize
from modeling.layers.integer_grid import IntegerGrid, dequantize, quantize
from tests.modeling.networks import random_tokens, small_network

INT8_ROWS, INT4_GROUPS = IntegerGrid(8), IntegerGrid(4, 32)


def correlated(inputs, rows=600):
    """Inputs of few directions, some far larger than others."""
    torch.manual_seed(0)
    mixing = torch.randn(inputs // 4, inputs, dtype=torch.float64)
    return torch.randn(rows, inputs // 4, dtype=torch.float64) @ mixing + 0.1 * torch.randn(rows, inputs).double()


def reference(weight, hessian, scales, grid, damping):
    """By its definition (2210.17323, equation 2): the inverse of what is left of H, anew for each column."""
    weight, codes = weight.double().clone(), torch.zeros_like(weight, dtype=torch.int8)
    damped = hessian + damping * hessian.diagonal().mean() * torch.eye(len(hessian)).double()
    for column in range(weight.shape[1]):
        scale = scales[:, column // (grid.group or 40)].double()
        code = (weight[:, column] / scale - grid.offset).round().clamp(grid.lowest, grid.highest)
        inverse = torch.linalg.inv(damped[column:, column:])
        error = (weight[:, column] - (code + grid.offset) * scale) / inverse[0, 0]
        weight[:, column:] -= torch.outer(error, inverse[0])
        codes[:, column] = code.to(torch.int8)
    return codes


@pytest.mark.parametrize("grid", [INT8_ROWS, INT4_GROUPS])
def test_without_correlation_it_is_rounding_to_the_nearest(grid):
    weight = torch.randn(5, 70)
    codes, scales = gptq(weight, torch.zeros(70, 70), grid)
    nearest, nearest_scales = quantize(weight, grid)
    assert torch.equal(codes, nearest)
    torch.testing.assert_close(scales, nearest_scales)


@pytest.mark.parametrize("block", [1, 7, 128])
@pytest.mark.parametrize("grid", [IntegerGrid(4), INT4_GROUPS, IntegerGrid(2, 32)])
def test_it_is_the_method_by_its_definition_whatever_the_block(block, grid):
    hidden, weight = correlated(40), torch.randn(6, 40, dtype=torch.float64)
    hessian = hidden.T @ hidden
    codes, scales = gptq(weight, hessian, grid, damping=0.02, block=block)
    assert torch.equal(codes, reference(weight, hessian, scales, grid, 0.02))


@pytest.mark.parametrize(("grid", "gain"), [(INT8_ROWS, 0.6), (INT4_GROUPS, 0.6)])
def test_outputs_on_correlated_inputs_are_nearer_than_by_rounding(grid, gain):
    hidden, weight = correlated(96), torch.randn(24, 96)

    def error(codes, scales):
        return float((hidden @ (dequantize(codes, scales, grid) - weight).double().T).norm())

    nearest = quantize(weight, grid)
    assert error(*gptq(weight, hidden.T @ hidden, grid)) < gain * error(*nearest)


def test_what_was_pruned_stays_zero_and_others_make_up_for_it():
    hidden, weight = correlated(64), torch.randn(8, 64)
    weight[torch.rand(8, 64) < 0.5] = 0
    codes, _ = gptq(weight, hidden.T @ hidden, INT4_GROUPS)
    assert not codes[weight == 0].any() and codes.any()


@torch.no_grad()
def test_a_network_with_low_rank_layers_is_rounded_and_nearer_than_by_rounding():
    text = random_tokens(32, 24)
    model = factorize(small_network(), 1.3, text)
    exact = model(text)
    nearest = quantize_packed(model, INT4_GROUPS, INT8_ROWS)
    work = small_network()
    work = factorize(work, 1.3, text)
    codes = gptq_network(work, text, INT4_GROUPS)
    assert set(codes) == {
        name for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, torch.nn.Linear) and name.startswith("layers.")
    }  # fmt: skip
    rounded = quantize_packed(work, INT4_GROUPS, INT8_ROWS, codes)
    assert float((rounded(text) - exact).norm()) < 0.8 * float((nearest(text) - exact).norm())
    # The float network that is left says what the codes stand for.
    work_head = quantize_int8(work).head
    assert torch.equal(work_head.weight, rounded.head.weight)
    name = "layers.1.feed_forward.up"
    inner = next(one for one in codes if one.startswith(name))
    torch.testing.assert_close(work.get_parameter(f"{inner}.weight"), dequantize(*codes[inner], INT4_GROUPS))
