import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from modeling.int8_linear import quantize_int8
from modeling.loss import CHUNK_ROWS, linear_cross_entropy, next_token_loss, token_losses
from tests.modeling.networks import random_tokens, small_network

ROWS = 2 * CHUNK_ROWS + 3


class LargestTensor(TorchDispatchMode):
    """Records the most elements that any operation returns."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, list | tuple) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


@pytest.fixture
def problem():
    torch.manual_seed(0)
    hidden = torch.randn(ROWS, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(50, 8, dtype=torch.float64, requires_grad=True)
    return hidden, weight, torch.randint(50, (ROWS,))


def test_equals_cross_entropy_with_gradients(problem):
    hidden, weight, targets = problem
    found = linear_cross_entropy(hidden, weight, targets)
    expected = F.cross_entropy(hidden @ weight.T, targets)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    gradients, expected_gradients = (torch.autograd.grad(3 * loss, (hidden, weight)) for loss in (found, expected))
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-9, atol=1e-14)


def test_under_autocast_products_are_short_and_sums_are_not(problem):
    hidden, weight, targets = (part.detach().float() if part.is_floating_point() else part for part in problem)
    hidden.requires_grad_(), weight.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = linear_cross_entropy(hidden, weight, targets)
    expected = F.cross_entropy(hidden @ weight.T, targets)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=3e-3, atol=0)
    gradient, expected_gradient = (torch.autograd.grad(loss, weight)[0] for loss in (found, expected))
    assert gradient.dtype == torch.float32
    assert float((gradient - expected_gradient).norm() / expected_gradient.norm()) < 0.01


def test_logits_of_all_tokens_are_never_held():
    model, tokens = small_network(vocabulary_size=500), random_tokens(40, 25)
    everything = 40 * 24 * model.config.vocabulary_size
    with LargestTensor() as largest:
        next_token_loss(model, tokens).backward()
    assert CHUNK_ROWS * model.config.vocabulary_size <= largest.elements < everything
    with LargestTensor() as largest:
        token_losses(model, tokens)
    assert largest.elements < everything


@pytest.mark.parametrize("tied", [True, False])
def test_next_token_loss_and_token_losses_equal_the_logits_cross_entropy(tied):
    model, tokens = small_network(tied_embeddings=tied).double(), random_tokens(3, 12)
    expected = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    torch.testing.assert_close(next_token_loss(model, tokens), expected.mean())
    torch.testing.assert_close(token_losses(model, tokens), expected.detach().view(3, 11))
    gradients = torch.autograd.grad(next_token_loss(model, tokens), tuple(model.parameters()))
    torch.testing.assert_close(gradients, torch.autograd.grad(expected.mean(), tuple(model.parameters())))


def test_an_int8_network_has_a_loss_too():
    model, tokens = quantize_int8(small_network()), random_tokens(3, 12)
    expected = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    torch.testing.assert_close(next_token_loss(model, tokens), expected)
    torch.testing.assert_close(token_losses(model, tokens).mean(), expected)
