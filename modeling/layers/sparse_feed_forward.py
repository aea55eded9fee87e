"""A feed-forward whose zeros save time: in decode, what a dead neuron would multiply is not read.

Most activations of a ReLU network are zero, and more after training for it (ProSparse, Song et al. 2024, 2402.13516;
`modeling.compression.activation_sparsity`). For few rows a product takes as long as reading its weights, so that the
second one takes the share of living neurons; for many rows, of which each has other zeros, it is dense.

Measured (Zen 1, one thread, busy machine, one row) at 50 / 75 / 90 % zeros, times faster than dense float32:

    (width, neurons)         (128, 512)         (256, 1024)        (1024, 4096)
    second product           1.2 / 1.3 / 1.5    1.3 / 1.8 / 2.0    1.9 / 2.5 / 5.1
    kernel without Python    1.8 / 2.3 / 2.9    2.0 / 3.2 / 4.4    1.7 / 3.5 / 7.3
    both products            1.1 / 1.1 / 1.1    1.2 / 1.2 / 1.3    1.3 / 1.4 / 1.5
    int8 over `Int8Linear`s  3.9 / 5.1 / 4.5    5.6 / 6.2 / 6.9    11 / 11 / 11

A low-rank predictor of living neurons for the first product (Deja Vu, Liu et al. 2023, 2310.17157) is not here: with
rank 64 and a fifth of the rows read it took 2.2, 1.6 and 0.45 times the dense first product, so that it pays at the
largest width alone, and there it errs wherever it misses a neuron.
"""

from typing import Any

import torch
from torch import Tensor, nn

from modeling import kernels
from modeling.feed_forward import FeedForward
from modeling.layers.int8 import Int8Linear
from modeling.layers.linear import Replacement

FEW_ROWS = 8
"""Most rows that the skipping product takes one by one; at 90 % zeros it is the faster one for all of them."""


def thresholded_relu(hidden: Tensor, threshold: float) -> Tensor:
    """FATReLU (Kurtz et al. 2020; ProSparse, 2402.13516, section 3.3): what is not above the threshold is zero."""
    return torch.threshold(hidden, threshold, 0.0)


class SparseFeedForward(nn.Module):
    """FF(x) = FATReLU(x W1 + b1) W2 + b2; either matrix may be float, int8 or low-rank."""

    def __init__(self, width: int, neurons: int, threshold: float) -> None:
        """Make room.

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
    def from_feed_forward(cls, given: FeedForward, threshold: float = 0.0) -> "SparseFeedForward":
        """The same function where the threshold is 0, with the very modules of `given`."""
        with torch.device("meta"):
            made = cls(*_widths(given), threshold)
        made.up, made.down = given.up, given.down
        return made.train(given.training)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., width), normed -> (..., width), to be added to the residual stream."""
        skipping = self._can_skip(hidden)
        down = self.neuron_major() if skipping else None  # for many rows too: the order decides the last bits
        if down is None or hidden.numel() > FEW_ROWS * hidden.shape[-1]:
            return self.down(thresholded_relu(self.up(hidden), self.threshold))  # type: ignore[no-any-return]
        return self._few_rows(hidden.reshape(-1, hidden.shape[-1]), down).view_as(hidden)

    def sizes(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**self._sizes, "threshold": self.threshold}

    def _can_skip(self, hidden: Tensor) -> bool:
        """Whether the kernels can take a few rows of this."""
        if torch.is_grad_enabled() and (hidden.requires_grad or any(one.requires_grad for one in self.parameters())):
            return False
        plain = hidden.dtype == torch.float32 and hidden.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
        return plain and hidden.numel() > 0 and kernels.available()

    def _few_rows(self, rows: Tensor, by_neuron: Tensor) -> Tensor:
        """(rows, width) -> (rows, width), skipping dead neurons of the second matrix (neurons, width)."""
        up, down = self.up, self.down
        if isinstance(up, Int8Linear) and isinstance(down, Int8Linear):
            first, second = (up.weight, up.scale, up.bias), (by_neuron, down.scale, down.bias)
            return kernels.feed_forward_int8(rows, first, self.threshold, second)
        assert isinstance(down, nn.Linear)
        return kernels.sparse_product(thresholded_relu(up(rows), self.threshold), by_neuron, down.bias)

    def neuron_major(self) -> Tensor | None:
        """The second matrix as (neurons, width), contiguous; None where its kind, or that of both, has no kernel.

        A float matrix is itself stored so from then on, which a dense product takes as well as the other order. An
        int8 one has a copy, a quarter of a float matrix: `_int_mm` takes up to twice as long with this order.
        """
        down = self.down
        if isinstance(down, nn.Linear):
            if not down.weight.T.is_contiguous():
                _store_by_column(down)
            return down.weight.T
        if not isinstance(down, Int8Linear) or not isinstance(self.up, Int8Linear):
            return None
        weight = down.weight
        # In-place changes raise the version; an inference tensor has none, and none is written to here.
        key = (weight.data_ptr(), 0 if weight.is_inference() else weight._version)
        if self._by_neuron is None or self._by_neuron[0] != key:
            self._by_neuron = (key, weight.T.contiguous())
        return self._by_neuron[1]


def _store_by_column(linear: nn.Linear) -> None:
    """Change the order in memory of a matrix, and nothing else."""
    weight = linear.weight
    # A tensor made in inference mode could not be trained afterwards.
    with torch.inference_mode(False), torch.no_grad():
        stored = weight.T.contiguous().T
        if weight.is_inference():
            linear.weight = nn.Parameter(stored, requires_grad=weight.requires_grad)
        else:
            weight.data = stored


def _widths(given: FeedForward) -> tuple[int, int]:
    """Width and neurons, whatever its matrices have become: low-rank layers and such say their own sizes."""
    up: nn.Module = given.up
    if isinstance(up, nn.Linear):
        return up.in_features, up.out_features
    assert isinstance(up, Replacement)
    sizes = up.sizes()
    return sizes["inputs"], sizes["outputs"]
