"""A teacher's predictions for a batch.

- `Predictions`: interface: log-probabilities of a tile of tokens
- `TeacherHead`: full distributions, from hidden states; `TopPredictions`: the top k and the total of the others
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from modeling.loss.logit_tiles import softmax_ready


class Predictions(Protocol):
    """A teacher's predictions for the tokens of a batch."""

    def log_probabilities(self, rows: slice, student: Tensor) -> Tensor:
        """Log-probabilities of a tile.

        Args:
            rows: rows of the flattened tokens.
            student: (rows, vocabulary), log-probabilities of the student at the same temperature, by which incomplete
                predictions distribute their remaining probability.

        Returns:
            (rows, vocabulary), of the dtype of `student`; may be overwritten.
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
    """Predictions of the k most likely tokens, and the total probability of all others, the tail.

    The tail is distributed in proportion to the student's probabilities: the divergences are then exactly those between
    distributions over k + 1 outcomes. Omitting the tail, as is usual, makes a student overconfident in the most likely
    tokens (Anshumann et al. 2025, 2503.16870, section 3).
    """

    tokens: Tensor
    """(tokens, k) int64, distinct in each row."""
    log_probabilities_of: Tensor
    """(tokens, k), at the temperature of the comparison."""
    tail: Tensor
    """(tokens,) log-probability of all other tokens together; -inf if k is the vocabulary size."""

    def log_probabilities(self, rows: slice, student: Tensor) -> Tensor:
        """As in `Predictions`."""
        top, tail = self.tokens[rows], self.tail[rows, None].to(student.dtype)
        others = student.scatter(1, top, -torch.inf)
        student_tail = others.logsumexp(1, keepdim=True)
        # There is no tail if k is the vocabulary size; -inf minus -inf would be NaN.
        shift = torch.where(torch.isfinite(student_tail), tail - student_tail, 0.0)
        return others.add_(shift).scatter_(1, top, self.log_probabilities_of[rows].to(student.dtype))
