"""A teacher's predictions of a batch, as far as they are known.

- `Predictions`: log-probabilities of a tile of tokens
- `TeacherHead`: all of them, from hidden states; `TopPredictions`: the likeliest, and what the others have together
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from modeling.loss.logit_tiles import softmax_ready


class Predictions(Protocol):
    """A teacher's predictions for the tokens of a batch, one after the other."""

    def log_probabilities(self, rows: slice, student: Tensor) -> Tensor:
        """Of a tile.

        Args:
            rows: of the flat tokens.
            student: (rows, vocabulary), log-probabilities of the student at the same temperature, from which a teacher
                that knows only some of its own takes how the others share what is left.

        Returns:
            (rows, vocabulary), like `student`; may be overwritten.
        """


class TeacherHead(NamedTuple):
    """Predictions from a teacher's hidden states."""

    head: nn.Module
    hidden: Tensor
    """(tokens, teacher's width), after the final norm."""
    temperature: float

    def log_probabilities(self, rows: slice, student: Tensor) -> Tensor:
        """As in `Predictions`."""
        with torch.no_grad():
            return softmax_ready(self.head(self.hidden[rows])).to(student.dtype).div_(self.temperature).log_softmax(-1)


class TopPredictions(NamedTuple):
    """Predictions of which the k likeliest are known, and what all others have together.

    The others share it as the student has it: the divergences are then exactly those between the distributions over
    k + 1 outcomes, the tail one of them. Leaving the tail out, as is usual, teaches a student to be too sure of the
    likeliest (Anshumann et al. 2025, 2503.16870, section 3).
    """

    tokens: Tensor
    """(tokens, k) int64, different ones in each row."""
    log_probabilities_of: Tensor
    """(tokens, k), at the temperature of the comparison."""
    tail: Tensor
    """(tokens,) log-probability of all others; -inf where k is the vocabulary."""

    def log_probabilities(self, rows: slice, student: Tensor) -> Tensor:
        """As in `Predictions`."""
        own, tail = self.tokens[rows], self.tail[rows, None].to(student.dtype)
        rest = student.scatter(1, own, -torch.inf)
        share = rest.logsumexp(1, keepdim=True)
        # Nothing is left where the k are the vocabulary; -inf less -inf would be no number.
        shift = torch.where(torch.isfinite(share), tail - share, 0.0)
        return rest.add_(shift).scatter_(1, own, self.log_probabilities_of[rows].to(student.dtype))
