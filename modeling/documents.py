"""Where documents begin and end in rows of packed tokens.

A document begins with the end-of-text token, so that the prediction of its first token has an input. Of several
consecutive end-of-text tokens (empty documents, padding) the last begins a document, if text follows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Documents:
    """Documents of a batch in which at least one row holds several."""

    starts: npt.NDArray[np.int64]
    """(batch, tokens), position in the row of the first token of each token's document."""

    def spans(self) -> Iterator[tuple[int, int, int]]:
        """(row, start, stop) of each document."""
        for row, starts in enumerate(self.starts):
            borders = [*np.unique(starts).tolist(), len(starts)]
            for start, stop in pairwise(borders):
                yield row, start, stop


def find_documents(tokens: Tensor, end_of_text: int) -> Documents | None:
    """Documents of (batch, tokens) int64 on any device; None if every row is one document."""
    ids = tokens.cpu().numpy()
    begins = np.zeros(ids.shape, dtype=bool)
    begins[:, 1:-1] = (ids[:, 1:-1] == end_of_text) & (ids[:, 2:] != end_of_text)
    if not begins.any():
        return None
    return Documents(np.maximum.accumulate(np.where(begins, np.arange(ids.shape[1]), 0), axis=1))
