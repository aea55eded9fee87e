"""A feed-forward that skips zero activations: in decode, the weights of inactive neurons are not read.

Most activations of a ReLU network are zero, and more after training for it (ProSparse, Song et al. 2024, 2402.13516;
`modeling.compression.activation_sparsity`). The product of few rows is bound by reading its weights, so that the second
product takes time in proportion to the active neurons; for many rows, whose zeros differ, it is dense.

Measured (Zen 1, one thread, busy machine, one row) at 50 / 75 / 90 % zeros, times faster than dense float32:

    (width, neurons)         (128, 512)         (256, 1024)        (1024, 4096)
    second product           1.2 / 1.3 / 1.5    1.3 / 1.8 / 2.0    1.9 / 2.5 / 5.1
    kernel without Python    1.8 / 2.3 / 2.9    2.0 / 3.2 / 4.4    1.7 / 3.5 / 7.3
    both products            1.1 / 1.1 / 1.1    1.2 / 1.2 / 1.3    1.3 / 1.4 / 1.5
    int8 over `Int8Linear`s  3.9 / 5.1 / 4.5    5.6 / 6.2 / 6.9    11 / 11 / 11

A low-rank predictor of active neurons for the first product (Deja Vu, Liu et al. 2023, 2310.17157) is not used: with
rank 64 and a fifth of the rows read it took 2.2, 1.6 and 0.45 times the dense first product, so that it pays off only
at the largest width, and each active neuron that it misses is an error.
"""

from typing import Any

import torch
from torch import Tensor, nn

from modeling import kernels
from modeling.feed_forward import FeedForward
from modeling.layers.int8 import Int8Linear
from modeling.layers.linear import Replacement

FEW_ROWS = 8
"""Rows up to which the sparse product is used; at 90 % zeros it is faster than the dense one for all of them."""


def thresholded_relu(hidden: Tensor, threshold: float) -> Tensor:
    """FATReLU (Kurtz et al. 2020; ProSparse, 2402.13516, section 3.3): values up to the threshold become zero."""
    return torch.threshold(hidden, threshold, 0.0)


class SparseFeedForward(nn.Module):
    """FF(x) = FATReLU(x W1 + b1) W2 + b2; either matrix may be float, int8 or low-rank."""

    def __init__(self, width: int, neurons: int, threshold: float) -> None:
        """Allocate the tensors.

        Args:
            width: numbers per token.
            neurons: activations per token.
            threshold: 0 or more; activations up to it are zero. 0 is plain ReLU.
        """
        super().__init__()
        self._sizes = {"width": width, "neurons": neurons}
        self.threshold = threshold
        self.up: nn.Module = nn.Linear(width, neurons)
        self.down: nn.Module = nn.Linear(neurons, width)
        self._by_neuron: tuple[tuple[int, int], Tensor] | None = None

    @classmethod
    def from_feed_forward(cls, feed_forward: FeedForward, threshold: float = 0.0) -> "SparseFeedForward":
        """Share the modules of `feed_forward`; the same function if the threshold is 0."""
        with torch.device("meta"):
            sparse = cls(*_widths(feed_forward), threshold)
        sparse.up, sparse.down = feed_forward.up, feed_forward.down
        return sparse.train(feed_forward.training)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., width), normed -> (..., width), to be added to the residual stream."""
        # For many rows too: the order in memory decides the last bits of a sum.
        down = self.neuron_major() if self._has_kernel(hidden) else None
        if down is None or hidden.numel() > FEW_ROWS * hidden.shape[-1]:
            return self.down(thresholded_relu(self.up(hidden), self.threshold))  # type: ignore[no-any-return]
        return self._few_rows(hidden.reshape(-1, hidden.shape[-1]), down).view_as(hidden)

    def sizes(self) -> dict[str, Any]:
        """As in `modeling.layers.linear.Replacement`."""
        return {**self._sizes, "threshold": self.threshold}

    def _has_kernel(self, hidden: Tensor) -> bool:
        """Whether the kernels can process a few rows of `hidden`."""
        needs_gradient = hidden.requires_grad or any(parameter.requires_grad for parameter in self.parameters())
        if torch.is_grad_enabled() and needs_gradient:
            return False
        plain = hidden.dtype == torch.float32 and hidden.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
        return plain and hidden.numel() > 0 and kernels.available()

    def _few_rows(self, rows: Tensor, by_neuron: Tensor) -> Tensor:
        """(rows, width) -> (rows, width), without reading inactive neurons of the second matrix (neurons, width)."""
        up, down = self.up, self.down
        if isinstance(up, Int8Linear) and isinstance(down, Int8Linear):
            first, second = (up.weight, up.scale, up.bias), (by_neuron, down.scale, down.bias)
            return kernels.feed_forward_int8(rows, first, self.threshold, second)
        assert isinstance(down, nn.Linear)
        return kernels.sparse_product(thresholded_relu(up(rows), self.threshold), by_neuron, down.bias)

    def neuron_major(self) -> Tensor | None:
        """The second matrix as (neurons, width), contiguous; None if there is no kernel for this kind of layer.

        A float matrix itself is stored in this order from then on, which is as fast in a dense product. An int8 matrix
        gets a copy, a quarter of a float matrix in size: `_int_mm` takes up to twice as long in this order.
        """
        down = self.down
        if isinstance(down, nn.Linear):
            if not down.weight.T.is_contiguous():
                _store_by_column(down)
            return down.weight.T
        if not isinstance(down, Int8Linear) or not isinstance(self.up, Int8Linear):
            return None
        weight = down.weight
        # In-place changes raise the version; inference tensors have none, and are not changed.
        key = (weight.data_ptr(), 0 if weight.is_inference() else weight._version)
        if self._by_neuron is None or self._by_neuron[0] != key:
            self._by_neuron = (key, weight.T.contiguous())
        return self._by_neuron[1]


def _store_by_column(linear: nn.Linear) -> None:
    """Change the order in memory of a matrix; its values stay."""
    weight = linear.weight
    # A tensor created in inference mode could not be trained afterwards.
    with torch.inference_mode(False), torch.no_grad():
        stored = weight.T.contiguous().T
        if weight.is_inference():
            linear.weight = nn.Parameter(stored, requires_grad=weight.requires_grad)
        else:
            weight.data = stored


def _widths(feed_forward: FeedForward) -> tuple[int, int]:
    """Width and neurons, also if its matrices have been replaced."""
    up: nn.Module = feed_forward.up
    if isinstance(up, nn.Linear):
        return up.in_features, up.out_features
    assert isinstance(up, Replacement)
    sizes = up.sizes()
    return sizes["inputs"], sizes["outputs"]
