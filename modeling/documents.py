"""Where documents begin and end in rows of packed tokens.

A document begins with the end-of-text token, as a prediction of its first token needs something to stand on. Of several
end-of-text tokens in a row (empty documents, padding) the last begins one, if text follows.
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
    """(batch, tokens), for each token the place of its document's first one in the row."""

    def spans(self) -> Iterator[tuple[int, int, int]]:
        """(row, start, stop) of each document."""
        for row, starts in enumerate(self.starts):
            borders = [*np.unique(starts).tolist(), len(starts)]
            for start, stop in pairwise(borders):
                yield row, start, stop


def find_documents(tokens: Tensor, end_of_text: int) -> Documents | None:
    """The documents of (batch, tokens) int64 on any device; None where every row is one."""
    ids = tokens.cpu().numpy()
    begins = np.zeros(ids.shape, dtype=bool)
    begins[:, 1:-1] = (ids[:, 1:-1] == end_of_text) & (ids[:, 2:] != end_of_text)
    if not begins.any():
        return None
    return Documents(np.maximum.accumulate(np.where(begins, np.arange(ids.shape[1]), 0), axis=1))
