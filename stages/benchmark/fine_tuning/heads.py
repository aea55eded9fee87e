"""Task heads on a network's hidden states, with their losses.

- `ClassHead`, `ScaleHead`: classification and regression of a row from its last token, which attends to all of it
- `SpanHead`: first and last token of an answer (Devlin et al. 2019, 1810.04805, sections 4.2 and 4.3)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD_STD = 0.02


class Head(nn.Module):
    """A linear layer from hidden states to a few outputs."""

    def __init__(self, width: int, outputs: int, seed: int) -> None:
        """Initialize weights with N(0, 0.02) from the seed and biases with 0, as in BERT (1810.04805, appendix A.2)."""
        super().__init__()
        self.linear = nn.Linear(width, outputs)
        weight = torch.empty(outputs, width)
        nn.init.normal_(weight, std=HEAD_STD, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            self.linear.weight.copy_(weight)
            self.linear.bias.zero_()

    def outputs(self, hidden: Tensor, lengths: Tensor) -> list[Tensor]:
        """Predictions for each row, from hidden states (rows, tokens, width) and row lengths, int64 (rows,)."""
        raise NotImplementedError

    def loss(self, hidden: Tensor, lengths: Tensor, targets: Tensor) -> Tensor:
        """Mean loss over the rows with equal weights; `targets` (rows, ...)."""
        raise NotImplementedError


class ClassHead(Head):
    """Classification: logits (classes,) trained with cross-entropy; targets int64 (rows,)."""

    def outputs(self, hidden: Tensor, lengths: Tensor) -> list[Tensor]:
        """As in `Head`."""
        return list(self.linear(last_states(hidden, lengths)))

    def loss(self, hidden: Tensor, lengths: Tensor, targets: Tensor) -> Tensor:
        """As in `Head`."""
        return F.cross_entropy(self.linear(last_states(hidden, lengths)).float(), targets)


class ScaleHead(Head):
    """Regression: a value (1,) trained with the mean squared error; targets float (rows,), best standardized."""

    def outputs(self, hidden: Tensor, lengths: Tensor) -> list[Tensor]:
        """As in `Head`."""
        return list(self.linear(last_states(hidden, lengths)))

    def loss(self, hidden: Tensor, lengths: Tensor, targets: Tensor) -> Tensor:
        """As in `Head`."""
        return F.mse_loss(self.linear(last_states(hidden, lengths)).float()[:, 0], targets)


class SpanHead(Head):
    """Start and end logits (tokens, 2) of each token of a row; targets int64 (rows, 3).

    A target is (first token that may be in a span, start, end). The last token of a row means no answer: it attends to
    the whole row, as BERT's [CLS] does. Tokens before the first one that may be in a span are masked.
    """

    def outputs(self, hidden: Tensor, lengths: Tensor) -> list[Tensor]:
        """As in `Head`."""
        logits = self.linear(hidden)
        return [row[:length] for row, length in zip(logits, lengths.tolist(), strict=True)]

    def loss(self, hidden: Tensor, lengths: Tensor, targets: Tensor) -> Tensor:
        """As in `Head`: the mean of the cross-entropies of start and end."""
        positions = torch.arange(hidden.shape[1], device=hidden.device)
        outside = (positions < targets[:, :1]) | (positions >= lengths[:, None])
        logits = self.linear(hidden).float().masked_fill(outside[..., None], -torch.inf)
        # (rows, tokens, 2) -> (2 * rows, tokens) for one cross_entropy over starts and ends.
        return F.cross_entropy(logits.transpose(1, 2).flatten(0, 1), targets[:, 1:].flatten())


def last_states(hidden: Tensor, lengths: Tensor) -> Tensor:
    """Hidden states of each row's last token before padding: (rows, tokens, width) -> (rows, width)."""
    return hidden[torch.arange(len(lengths), device=hidden.device), lengths - 1]
