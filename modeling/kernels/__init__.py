"""Matrix products of few rows in C, which skip the weights of neurons with activation zero.

- `sparse_product`: float activations times the second matrix
- `feed_forward_int8`: a whole int8 feed-forward
- `available`: whether the library could be compiled; the others require it

torch's alternatives are slower than dense products: a gather copies the selected rows, and `_int_mm` is made for many
rows. The system's C compiler builds the library at first use. (A float feed-forward in a single call was tried: as fast
as torch's first product and `sparse_product` for one row, slower for more.)
"""

import torch
from torch import Tensor

from modeling.kernels.compilation import library


def available() -> bool:
    """Whether the kernels are available; if not, the first call warns."""
    return library() is not None


def sparse_product(active: Tensor, down: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear(active, down.T, bias)`, reading only the weights of active neurons. On the CPU, without gradient.

    Args:
        active: (rows, neurons) float32.
        down: (neurons, width) float32, contiguous.
        bias: (width) float32.

    Returns:
        (rows, width) float32; the summation order, and thus the last bits, differ from the dense product.
    """
    kernels = library()
    assert kernels is not None and down.is_contiguous() and active.dtype == down.dtype == torch.float32
    active = active.contiguous()
    (rows, neurons), width = active.shape, down.shape[1]
    result = torch.empty(rows, width)
    kernels.sparse_product(active.data_ptr(), down.data_ptr(), _address(bias), result.data_ptr(), rows, neurons, width)
    return result


def feed_forward_int8(
    hidden: Tensor,
    up: tuple[Tensor, Tensor, Tensor | None],
    threshold: float,
    down: tuple[Tensor, Tensor, Tensor | None],
) -> Tensor:
    """FATReLU(hidden up^T + up_bias) down + down_bias, quantized as in `modeling.layers.int8.Int8Linear`.

    Args:
        hidden: (rows, width) float32.
        up: int8 (neurons, width), contiguous, without -128; scales and biases (neurons) float32.
        threshold: 0 or more; activations up to it are set to zero.
        down: int8 (neurons, width), contiguous, without -128; scales and biases (width) float32.

    Returns:
        (rows, width) float32; sums are exact, scaling may differ in the last bit.
    """
    kernels = library()
    assert kernels is not None and up[0].is_contiguous() and down[0].is_contiguous()
    hidden = hidden.contiguous()
    (rows, width), neurons = hidden.shape, up[0].shape[0]
    result = torch.empty(rows, width)
    failed = kernels.feed_forward_int8(
        hidden.data_ptr(), *map(_address, up), threshold, *map(_address, down), result.data_ptr(), rows, neurons, width
    )
    if failed:
        raise MemoryError(f"no memory for {neurons} activations")
    return result


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
