"""Linear layers of other shapes than the network's config gives, and the protocol of all replacement layers.

- `ResizedLinear`: fewer inputs or outputs
- `LowRankLinear`: a product of two thin matrices
- `Replacement`, `Description`: a layer that may replace another, and its entry in a model's files
"""

from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

Description = dict[str, Any]
"""{"kind": key of the class in `modeling.replacements.KINDS`, and the arguments of its constructor, as JSON}."""


@runtime_checkable
class Replacement(Protocol):
    """A module that may replace another: its constructor allocates the tensors, without values."""

    def sizes(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON."""


class ResizedLinear(nn.Linear):
    """A linear layer that has lost inputs or outputs."""

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__(inputs, outputs, bias)

    def sizes(self) -> dict[str, Any]:
        """As in `Replacement`."""
        return {"inputs": self.in_features, "outputs": self.out_features, "bias": self.bias is not None}


class LowRankLinear(nn.Module):
    """up (down x), of two linear layers that may be quantized or pruned like any other."""

    def __init__(self, inputs: int, outputs: int, rank: int, bias: bool) -> None:
        """Allocate `down` (rank, inputs) and `up` (outputs, rank), which has the bias."""
        super().__init__()
        self._sizes = {"inputs": inputs, "outputs": outputs, "rank": rank, "bias": bias}
        self.down = nn.Linear(inputs, rank, bias=False)
        self.up = nn.Linear(rank, outputs, bias=bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        return self.up(self.down(hidden))  # type: ignore[no-any-return]

    def sizes(self) -> dict[str, Any]:
        """As in `Replacement`."""
        return dict(self._sizes)
