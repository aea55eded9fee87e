import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from modeling.compression.integers import quantize_int8
from modeling.embeddings import AdaptiveHead
from modeling.evaluation.bits_per_byte import token_losses
from modeling.loss.cross_entropy import chunked_token_losses, linear_cross_entropy, next_token_loss
from modeling.loss.logit_tiles import TILING, Tiling
from tests.modeling.networks import random_tokens, small_network

ROWS = 2 * TILING.rows + 3
ONE_PASS = Tiling(rows=5, entries=4, max_logits=10_000, min_rows=1)
TWO_PASSES = Tiling(rows=5, entries=4, max_logits=1, min_rows=2)
"""Every tile but the last of a row or band is 5 x 4."""


class LargestTensor(TorchDispatchMode):
    """Records the most elements that any operation returns."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, list | tuple) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def make_problem(rows, bands, seed=0, dtype=torch.float64):
    """Leaves [(hidden, weight)] of each (entries, width), and targets among all entries."""
    generator = torch.Generator().manual_seed(seed)

    def leaf(*shape):
        return torch.randn(*shape, dtype=dtype, generator=generator).requires_grad_()

    targets = torch.randint(sum(entries for entries, _ in bands), (rows,), generator=generator)
    return [(leaf(rows, width), leaf(entries, width)) for entries, width in bands], targets


def full_loss(bands, targets, z_loss=0.0):
    """From the logits of all rows, by torch's own functions."""
    logits = torch.cat([hidden @ weight.T for hidden, weight in bands], -1)
    cross_entropy = F.cross_entropy(logits, targets)
    return cross_entropy + z_loss * logits.logsumexp(-1).square().mean(), cross_entropy.detach()


def gradients_of(loss, bands, **options):
    return torch.autograd.grad(loss, [tensor for band in bands for tensor in band], **options)


tilings = st.builds(
    Tiling,
    rows=st.integers(1, 9),
    entries=st.integers(1, 9),
    max_logits=st.integers(1, 200),
    min_rows=st.integers(1, 5),
)
band_shapes = st.lists(st.tuples(st.integers(1, 20), st.integers(1, 6)), min_size=1, max_size=3)


@settings(deadline=None)
@given(
    rows=st.integers(1, 20),
    shapes=band_shapes,
    tiling=tilings,
    z_loss=st.sampled_from([0.0, 1e-4, 0.3]),
    gradient=st.sampled_from([1.0, -2.5, 0.0]),
    seed=st.integers(0, 100),
)
def test_equals_cross_entropy_with_gradients(rows, shapes, tiling, z_loss, gradient, seed):
    bands, targets = make_problem(rows, shapes, seed)
    actual, expected = linear_cross_entropy(bands, targets, z_loss, tiling), full_loss(bands, targets, z_loss)
    torch.testing.assert_close(tuple(actual), expected, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(
        gradients_of(gradient * actual.total, bands),
        gradients_of(gradient * expected[0], bands),
        rtol=1e-9,
        atol=1e-12,
    )


def test_tiles_of_the_usual_size_equal_cross_entropy():
    bands, targets = make_problem(ROWS, [(50, 8)])
    actual, expected = linear_cross_entropy(bands, targets), full_loss(bands, targets)
    torch.testing.assert_close(tuple(actual), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        gradients_of(actual.total, bands), gradients_of(expected[0], bands), rtol=1e-9, atol=1e-14
    )


@pytest.mark.parametrize("tiling", [ONE_PASS, TWO_PASSES])
def test_z_loss_is_the_weighted_mean_square_of_the_log_sum_exp(tiling):
    bands, targets = make_problem(13, [(11, 3), (6, 2)])
    with_z, without = (linear_cross_entropy(bands, targets, z_loss, tiling) for z_loss in (0.25, 0.0))
    logits = torch.cat([hidden @ weight.T for hidden, weight in bands], -1)
    torch.testing.assert_close(with_z.total - without.total, 0.25 * logits.exp().sum(-1).log().square().mean())
    torch.testing.assert_close(with_z.cross_entropy, without.total)
    assert not with_z.cross_entropy.requires_grad


@pytest.mark.parametrize("tiling", [ONE_PASS, TWO_PASSES])
def test_large_logits_do_not_overflow(tiling):
    bands, targets = make_problem(7, [(9, 2)], dtype=torch.float32)
    with torch.no_grad():
        bands[0][0].mul_(300)
    actual, expected = linear_cross_entropy(bands, targets, 0.0, tiling), full_loss(bands, targets)
    torch.testing.assert_close(actual.total, expected[0])
    gradients, expected_gradients = gradients_of(actual.total, bands), gradients_of(expected[0], bands)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("tiling", [ONE_PASS, TWO_PASSES])
def test_backward_of_a_kept_graph_can_be_repeated(tiling):
    bands, targets = make_problem(7, [(9, 2)])
    expected = gradients_of(full_loss(bands, targets)[0], bands)
    loss = linear_cross_entropy(bands, targets, tiling=tiling).total
    for gradient, keeps in [(1.0, True), (3.0, True), (0.5, False)]:
        actual = gradients_of(loss, bands, grad_outputs=torch.tensor(gradient).double(), retain_graph=keeps)
        torch.testing.assert_close(actual, tuple(gradient * part for part in expected))
    with pytest.raises(RuntimeError, match="second time"):
        gradients_of(loss, bands)


def test_gradients_add_up_over_micro_batches():
    bands, targets = make_problem(7, [(9, 2)])
    for share in (0.25, 0.75):
        (share * linear_cross_entropy(bands, targets).total).backward()
    expected = gradients_of(full_loss(bands, targets)[0], bands)
    torch.testing.assert_close(tuple(tensor.grad for band in bands for tensor in band), expected)


def test_the_gradient_of_a_gradient_is_refused():
    bands, targets = make_problem(7, [(9, 2)])
    weight_of_loss = torch.ones((), dtype=torch.float64, requires_grad=True)
    loss = weight_of_loss * linear_cross_entropy(bands, targets).total
    gradient = gradients_of(loss, bands, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("tiling", [ONE_PASS, TWO_PASSES])
@pytest.mark.parametrize("frozen", [0, 1])
def test_what_is_frozen_gets_no_gradient(tiling, frozen):
    bands, targets = make_problem(7, [(9, 2)])
    bands[0][frozen].requires_grad_(False)
    free = bands[0][1 - frozen]
    actual, expected = linear_cross_entropy(bands, targets, tiling=tiling).total, full_loss(bands, targets)[0]
    torch.testing.assert_close(torch.autograd.grad(actual, free), torch.autograd.grad(expected, free))
    actual = linear_cross_entropy(bands, targets, tiling=tiling).total
    actual.backward()
    assert bands[0][frozen].grad is None


def test_without_gradients_there_is_a_loss_all_the_same():
    bands, targets = make_problem(7, [(9, 2), (5, 3)])
    with torch.no_grad():
        actual = linear_cross_entropy(bands, targets, 0.1, TWO_PASSES)
    torch.testing.assert_close(tuple(actual), full_loss(bands, targets, 0.1))
    assert not actual.total.requires_grad


@pytest.mark.parametrize("tiling", [ONE_PASS, TWO_PASSES])
@pytest.mark.parametrize("stray", [-100, 14])
def test_a_target_outside_the_vocabulary_makes_the_loss_infinite(tiling, stray):
    bands, targets = make_problem(7, [(9, 2), (5, 3)])
    targets[4] = stray
    assert linear_cross_entropy(bands, targets, tiling=tiling).total == torch.inf


@pytest.mark.parametrize("tiling", [TILING, Tiling(rows=100, entries=7, max_logits=1, min_rows=2)])
def test_under_autocast_products_are_short_and_sums_are_not(tiling):
    bands, targets = make_problem(ROWS, [(30, 8), (20, 8)], dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        actual = linear_cross_entropy(bands, targets, 1e-4, tiling).total
    expected = full_loss(bands, targets, 1e-4)[0]
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, expected, rtol=3e-3, atol=0)
    for gradient, exact in zip(gradients_of(actual, bands), gradients_of(expected, bands), strict=True):
        assert gradient.dtype == torch.float32
        assert float((gradient - exact).norm() / exact.norm()) < 0.01


def test_autocast_leaves_float64_alone():
    bands, targets = make_problem(9, [(30, 8)])
    with torch.autocast("cpu", torch.bfloat16):
        actual = linear_cross_entropy(bands, targets).total
    torch.testing.assert_close(actual, full_loss(bands, targets)[0], rtol=1e-12, atol=0)


@pytest.mark.parametrize("tiling", [ONE_PASS, TWO_PASSES])
def test_bfloat16_tensors_have_gradients_of_their_own_dtype(tiling):
    bands, targets = make_problem(40, [(30, 8)], dtype=torch.bfloat16)
    actual = linear_cross_entropy(bands, targets, tiling=tiling).total
    exact = [tuple(part.detach().double().requires_grad_() for part in band) for band in bands]
    expected = full_loss(exact, targets)[0]
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual.double(), expected, rtol=0.01, atol=0)
    for gradient, other in zip(gradients_of(actual, bands), gradients_of(expected, exact), strict=True):
        assert gradient.dtype == torch.bfloat16
        assert float((gradient.double() - other).norm() / other.norm()) < 0.02


@pytest.mark.parametrize("tiling", [Tiling(8, 16, 8 * 90, 4), Tiling(8, 16, 8 * 90 - 1, 8), Tiling(8, 16, 1, 2)])
def test_no_tensor_is_larger_than_a_tile_and_the_gradients(tiling):
    bands, targets = make_problem(100, [(60, 2), (30, 3)])
    tile = 8 * 90 if tiling.one_pass(90) else 8 * 16
    gradients = max(tensor.numel() for band in bands for tensor in band)
    with LargestTensor() as largest:
        linear_cross_entropy(bands, targets, 1e-4, tiling).total.backward()
    assert largest.elements <= max(tile, gradients)
    head = AdaptiveHead([(60, 2), (30, 3)], 4).double()
    with LargestTensor() as largest:
        chunked_token_losses(torch.randn(100, 4).double(), head, targets, tiling)
    assert largest.elements <= max(tiling.max_logits, 100 * 4, 90)


def test_the_gradient_of_the_weights_is_not_copied_in_backward():
    bands, targets = make_problem(4, [(300, 8)])
    loss = 0.5 * linear_cross_entropy(bands, targets).total
    made_with_the_loss = loss.grad_fn.next_functions[0][0].saved_tensors[1].data_ptr()
    loss.backward()
    assert bands[0][1].grad.data_ptr() == made_with_the_loss


def test_logits_of_all_tokens_are_never_held():
    model, tokens = small_network(vocabulary_size=500), random_tokens(40, 25)
    everything = 40 * 24 * model.config.vocabulary_size
    with LargestTensor() as largest:
        next_token_loss(model, tokens).total.backward()
    assert TILING.rows * model.config.vocabulary_size <= largest.elements < everything
    with LargestTensor() as largest:
        token_losses(model, tokens)
    assert largest.elements < everything


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("bands", [(), ({"width": 8},), ({"entries": 11, "width": 32}, {"width": 8})])
def test_next_token_loss_and_token_losses_equal_the_logits_cross_entropy(tied, bands):
    model, tokens = small_network(tied_embeddings=tied, embedding_bands=bands).double(), random_tokens(3, 12)
    logits = model(tokens[:, :-1]).flatten(0, 1)
    expected = F.cross_entropy(logits, tokens[:, 1:].flatten(), reduction="none")
    expected_total = expected.mean() + 0.01 * logits.logsumexp(-1).square().mean()
    actual = next_token_loss(model, tokens, z_loss=0.01)
    torch.testing.assert_close(tuple(actual), (expected_total, expected.mean().detach()))
    torch.testing.assert_close(token_losses(model, tokens), expected.detach().view(3, 11))
    gradients = torch.autograd.grad(actual.total, tuple(model.parameters()))
    torch.testing.assert_close(gradients, torch.autograd.grad(expected_total, tuple(model.parameters())))


@pytest.mark.parametrize("bands", [(), ({"entries": 11, "width": 32}, {"width": 8})])
def test_an_int8_network_has_a_loss_too(bands):
    model, tokens = quantize_int8(small_network(embedding_bands=bands)), random_tokens(3, 12)
    expected = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    torch.testing.assert_close(next_token_loss(model, tokens).cross_entropy, expected)
    torch.testing.assert_close(token_losses(model, tokens).mean(), expected)
