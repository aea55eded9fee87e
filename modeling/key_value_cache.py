"""What attention keeps of the tokens it has seen, so that the next one costs one position and not all."""

import torch
from torch import Tensor


class KeyValueCache:
    """Keys and values of one attention layer, in room made once for `capacity` positions; for use without gradient."""

    def __init__(self, batch: int, heads: int, capacity: int, head_width: int, like: Tensor) -> None:
        """Make an empty cache on the device and in the dtype of `like`."""
        self.length = 0
        self.capacity = capacity
        self._keys = like.new_empty(batch, heads, capacity, head_width)
        self._values = torch.empty_like(self._keys)

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add (batch, heads, new, head_width) keys and values; returns all there are, as views."""
        start, self.length = self.length, self.length + keys.shape[2]
        assert self.length <= self.capacity, "generation starts a new cache before one overflows"
        self._keys[:, :, start : self.length] = keys
        self._values[:, :, start : self.length] = values
        return self._keys[:, :, : self.length], self._values[:, :, : self.length]


def causal_mask(queries: int, keys: int, device: torch.device) -> Tensor:
    """(queries, keys) bool, True where a query may look: the queries are the newest of the keys' positions."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)
