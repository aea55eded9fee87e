"""What is put on a network's hidden states for a task: what it predicts, and the loss that trains it.

- `ClassHead`, `ScaleHead`: of a whole row, read at its last token, which alone has seen all of it
- `SpanHead`: the first and the last token of an answer (Devlin et al. 2019, 1810.04805, sections 4.2 and 4.3)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD_STD = 0.02


class Head(nn.Module):
    """A linear layer from a hidden state to a few outputs."""

    def __init__(self, width: int, outputs: int, seed: int) -> None:
        """Draw first values N(0, 0.02) from the seed, biases 0, as BERT's (1810.04805, appendix A.2)."""
        super().__init__()
        self.linear = nn.Linear(width, outputs)
        drawn = torch.empty(outputs, width)
        nn.init.normal_(drawn, std=HEAD_STD, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            self.linear.weight.copy_(drawn)
            self.linear.bias.zero_()

    def outputs(self, hidden: Tensor, lengths: Tensor) -> list[Tensor]:
        """(rows, tokens, width) and int64 (rows,), tokens of each row that count -> what is predicted of each row."""
        raise NotImplementedError

    def loss(self, hidden: Tensor, lengths: Tensor, targets: Tensor) -> Tensor:
        """Mean over the rows, each row weighing the same; `targets` (rows, ...)."""
        raise NotImplementedError


class ClassHead(Head):
    """One of several classes: logits (classes,), trained by cross-entropy; targets int64 (rows,)."""

    def outputs(self, hidden: Tensor, lengths: Tensor) -> list[Tensor]:
        """As in `Head`."""
        return list(self.linear(last_states(hidden, lengths)))

    def loss(self, hidden: Tensor, lengths: Tensor, targets: Tensor) -> Tensor:
        """As in `Head`."""
        return F.cross_entropy(self.linear(last_states(hidden, lengths)).float(), targets)


class ScaleHead(Head):
    """A number: (1,), trained by the mean square error; targets float (rows,), best of mean 0 and variance 1."""

    def outputs(self, hidden: Tensor, lengths: Tensor) -> list[Tensor]:
        """As in `Head`."""
        return list(self.linear(last_states(hidden, lengths)))

    def loss(self, hidden: Tensor, lengths: Tensor, targets: Tensor) -> Tensor:
        """As in `Head`."""
        return F.mse_loss(self.linear(last_states(hidden, lengths)).float()[:, 0], targets)


class SpanHead(Head):
    """Start and end logits (tokens, 2) of each token of a row; targets int64 (rows, 3).

    A target is (first token that may be in a span, start, end). The last token of a row stands for no answer: it has
    seen everything, as BERT's [CLS] has. Tokens before the first are never chosen.
    """

    def outputs(self, hidden: Tensor, lengths: Tensor) -> list[Tensor]:
        """As in `Head`."""
        logits = self.linear(hidden)
        return [one[:length] for one, length in zip(logits, lengths.tolist(), strict=True)]

    def loss(self, hidden: Tensor, lengths: Tensor, targets: Tensor) -> Tensor:
        """As in `Head`: the mean of both ends' cross-entropies."""
        places = torch.arange(hidden.shape[1], device=hidden.device)
        outside = (places < targets[:, :1]) | (places >= lengths[:, None])
        logits = self.linear(hidden).float().masked_fill(outside[..., None], -torch.inf)
        # (rows, 2 ends, tokens) as cross_entropy of 2 x rows.
        return F.cross_entropy(logits.transpose(1, 2).flatten(0, 1), targets[:, 1:].flatten())


def last_states(hidden: Tensor, lengths: Tensor) -> Tensor:
    """(rows, tokens, width) -> (rows, width), of each row's last token that counts."""
    return hidden[torch.arange(len(lengths), device=hidden.device), lengths - 1]
