"""Rotary positions (Su et al. 2021, RoFormer, 2104.09864), pairing number i of a head with number i + head_width / 2.

That pairing is GPT-NeoX's; the paper's own pairs neighbours. The two differ by a fixed permutation of each head.
"""

import torch
from torch import Tensor

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines, each (positions, 1, 1, head_width / 2): they broadcast over heads and over queries and keys."""


def rotation_at(start: int, length: int, head_width: int, base: float, like: Tensor) -> Rotation:
    """Rotation for positions start ... start + length, on the device of `like`, in float32 or its wider dtype.

    Computed anew in each forward pass, once for all layers: at 256 positions that is 8,192 angles, and it spares the
    network buffers that every load, cast and move would have to carry. Never in bfloat16: it cannot tell neighbouring
    positions beyond 256 apart.
    """
    exact = torch.promote_types(like.dtype, torch.float32)
    pairs = torch.arange(0, head_width, 2, device=like.device, dtype=exact)
    positions = torch.arange(start, start + length, device=like.device, dtype=exact)
    angles = torch.outer(positions, base ** (-pairs / head_width))[:, None, None]
    return angles.cos(), angles.sin()


def rotate(vectors: Tensor, rotation: Rotation) -> Tensor:
    """Turn each pair of numbers by its position's angle.

    Args:
        vectors: (batch, positions, heads, kinds, head_width), kinds being queries and keys.
        rotation: for those positions.

    Returns:
        A tensor like `vectors`.
    """
    cosines, sines = (part.to(vectors.dtype) for part in rotation)
    first, second = vectors.chunk(2, dim=-1)
    return torch.cat((first * cosines - second * sines, second * cosines + first * sines), dim=-1)
