"""Shares of the methods: documents that each makes of each genre, and their parents.

- `targets`: documents per method, by largest remainder
- `Quota`: one method in one genre: its target, its parents in order, and how far it has come
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import numpy.typing as npt

LOWEST_ACCEPTANCE = 0.05
"""Share of accepted texts below which no more parents are taken in a round to make up for the refused ones."""

Positions = npt.NDArray[np.int64]


def targets(documents: int, shares: Sequence[Fraction]) -> list[int]:
    """Whole numbers of documents whose sum is the rounded sum of `documents` x share, by largest remainder.

    No number is one or more away from its own product; ties go to the method that is listed first.
    """
    exact = [documents * share for share in shares]
    whole = [math.floor(number) for number in exact]
    left = math.floor(sum(exact, Fraction(0)) + Fraction(1, 2)) - sum(whole)
    by_remainder = sorted(range(len(exact)), key=lambda index: (whole[index] - exact[index], index))
    for index in by_remainder[: max(0, left)]:
        whole[index] += 1
    return whole


@dataclass
class Quota:
    """One method in one genre."""

    genre: str
    method: int
    documents: int
    """Real documents of the genre."""
    target: int
    parents: Positions
    """Positions of the documents that may have children, in the order in which they are taken."""
    taken: int = 0
    made: int = 0
    """Texts of the parents taken that are decided, the failures among them."""
    accepted: int = 0
    again: list[int] = field(default_factory=list)
    """Positions of parents whose text an engine may make later."""

    def next_parents(self) -> Positions:
        """Parents of the next round: those to try again, and as many more as the target probably needs."""
        missing = self.target - self.accepted
        if missing <= 0:
            return np.empty(0, dtype=np.int64)
        again, self.again = np.array(self.again, dtype=np.int64), []
        rate = max(self.accepted / self.made if self.made else 1.0, LOWEST_ACCEPTANCE)
        more = max(0, math.ceil(missing / rate) - len(again))
        chosen = self.parents[self.taken : self.taken + more]
        self.taken += len(chosen)
        return np.concatenate([again, chosen])
