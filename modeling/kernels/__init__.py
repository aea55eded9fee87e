"""Products of few rows, in C: the weights of neurons that are zero are not read, and int8 ones not converted.

- `sparse_product`: float activations with the second matrix
- `feed_forward_int8`: both matrices and what is between them
- `available`: whether there is a library; the others need it

torch's own ways are slower than dense products: a gather copies the rows it picks, and `_int_mm` is for many rows. The
system's C compiler builds the library at first use. (A float feed-forward in one call was tried: as fast as torch's
first product and `sparse_product` for one row, slower for more.)
"""

import torch
from torch import Tensor

from modeling.kernels.compilation import library


def available() -> bool:
    """Whether the kernels are there; where they are not, the first call says so in a warning."""
    return library() is not None


def sparse_product(active: Tensor, down: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear(active, down.T, bias)`, reading the weights of living neurons only. On the CPU, without gradient.

    Args:
        active: (rows, neurons) float32.
        down: (neurons, width) float32, contiguous.
        bias: (width) float32.

    Returns:
        (rows, width) float32; the order of adding, and so the last bits, differ from the dense product's.
    """
    kernels = library()
    assert kernels is not None and down.is_contiguous() and active.dtype == down.dtype == torch.float32
    active = active.contiguous()
    (rows, neurons), width = active.shape, down.shape[1]
    result = torch.empty(rows, width)
    kernels.sparse_product(active.data_ptr(), down.data_ptr(), _at(bias), result.data_ptr(), rows, neurons, width)
    return result


def feed_forward_int8(
    hidden: Tensor,
    up: tuple[Tensor, Tensor, Tensor | None],
    threshold: float,
    down: tuple[Tensor, Tensor, Tensor | None],
) -> Tensor:
    """FATReLU(hidden up^T + up_bias) down + down_bias, quantized as `modeling.layers.int8.Int8Linear` does it.

    Args:
        hidden: (rows, width) float32.
        up: int8 (neurons, width), contiguous, without -128; its scales and biases (neurons) float32.
        threshold: 0 or more; activations up to it are zero.
        down: int8 (neurons, width), contiguous, without -128; its scales and biases (width) float32.

    Returns:
        (rows, width) float32; sums are exact, scaling may differ in the last bit.
    """
    kernels = library()
    assert kernels is not None and up[0].is_contiguous() and down[0].is_contiguous()
    hidden = hidden.contiguous()
    (rows, width), neurons = hidden.shape, up[0].shape[0]
    result = torch.empty(rows, width)
    failed = kernels.feed_forward_int8(
        hidden.data_ptr(), *map(_at, up), threshold, *map(_at, down), result.data_ptr(), rows, neurons, width
    )
    if failed:
        raise MemoryError(f"no memory for {neurons} activations")
    return result


def _at(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
