import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling.compression.sparse_gpt import drop_columns, inverse_factor, sparse_gpt
from modeling.compression.sparsity import GroupSparsity, kept_largest


def inputs_of(seed, rows=200, inputs=16):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(inputs, inputs, generator=generator, dtype=torch.float64)
    return torch.randn(rows, inputs, generator=generator, dtype=torch.float64) @ mixing


def test_golden_two_inputs():
    # H = [[2, 1], [1, 2]]: dropping w0 = 3 is best made up for by w1 + w0 H01 / H11 = 4 + 1.5.
    hessian = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    weight = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    drop_columns(weight, torch.tensor([[False, True]]), inverse_factor(hessian, 0.0), start=0)
    torch.testing.assert_close(weight, torch.tensor([[0.0, 5.5]], dtype=torch.float64))


@settings(max_examples=15, deadline=None)
@given(dropped=st.integers(1, 15), seed=st.integers(0, 50))
def test_dropping_the_first_inputs_leaves_the_least_squares_fit_on_the_others(dropped, seed):
    x = inputs_of(seed)
    weight = torch.randn(3, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    fitted = weight.clone()
    kept = torch.arange(16).expand(3, -1) >= dropped
    drop_columns(fitted, kept, inverse_factor(x.T @ x, 0.0), start=0)
    expected = torch.linalg.lstsq(x[:, dropped:], x @ weight.T).solution.T
    torch.testing.assert_close(fitted[:, dropped:], expected, rtol=1e-6, atol=1e-6)
    assert not fitted[:, :dropped].any()


@settings(max_examples=15, deadline=None)
@given(
    sparsity=st.one_of(st.floats(0, 1), st.sampled_from([GroupSparsity(2, 4), GroupSparsity(1, 8)])),
    seed=st.integers(0, 50),
)
def test_zeros_are_as_many_as_asked_and_lie_in_one_another(sparsity, seed):
    x = inputs_of(seed)
    weight = torch.randn(5, 16, generator=torch.Generator().manual_seed(seed))
    pruned = sparse_gpt(weight, x.T @ x, sparsity)
    assert pruned.dtype == weight.dtype
    by_magnitude = weight * kept_largest(weight.abs(), sparsity)
    assert (pruned == 0).sum() == (by_magnitude == 0).sum()
    if isinstance(sparsity, GroupSparsity):
        assert ((pruned.view(5, -1, sparsity.group) != 0).sum(-1) == sparsity.kept).all()
    again = sparse_gpt(pruned, x.T @ x, 0.9)
    assert not again[pruned == 0].any()


@pytest.mark.parametrize("sparsity", [0.5, GroupSparsity(2, 4)])
def test_zeros_cost_less_than_by_magnitude_where_inputs_say_much_of_one_another(sparsity):
    # Greed, so that single matrices may come out worse: a sum over many.
    by_criterion = torch.zeros(2, dtype=torch.float64)
    for seed in range(20):
        x = inputs_of(seed)
        x = x[:, :6] @ torch.randn(6, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 0.3 * x
        weight = torch.randn(5, 16, generator=torch.Generator().manual_seed(seed))
        changed = sparse_gpt(weight, x.T @ x, sparsity), weight * kept_largest(weight.abs(), sparsity)
        by_criterion += torch.stack([(x @ (one - weight).double().T).square().sum() for one in changed])
    ours, magnitude = by_criterion.tolist()
    assert ours < 0.5 * magnitude


@pytest.mark.parametrize("block", [4, 5, 16, 128])
def test_blocks_of_any_size_have_their_share(block):
    x = inputs_of(0)
    weight = torch.randn(6, 16)
    pruned = sparse_gpt(weight, x.T @ x, 0.5, block=block)
    for part in pruned.split(block, dim=1):
        assert int((part == 0).sum()) == round(0.5 * part.numel())


def test_without_inputs_it_is_magnitude():
    weight = torch.randn(4, 8)
    expected = weight * kept_largest(weight.abs(), 0.5)
    torch.testing.assert_close(sparse_gpt(weight, torch.zeros(8, 8), 0.5), expected)
