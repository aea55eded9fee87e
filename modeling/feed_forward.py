"""The position-wise feed-forward network (Vaswani et al. 2017, 1706.03762, equation 2)."""

from torch import Tensor, nn


class FeedForward(nn.Module):
    """FF(x) = max(0, x W1 + b1) W2 + b2; W1 is `up.weight` transposed, W2 `down.weight` transposed."""

    def __init__(self, width: int, neurons: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, neurons)
        self.down = nn.Linear(neurons, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., width), normed -> (..., width), to be added to the residual stream."""
        return self.down(self.up(hidden).relu())  # type: ignore[no-any-return]
