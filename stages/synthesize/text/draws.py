"""Random choices that are the same on every host and in every version of Python.

Only `random.Random.random` is used, as only its sequence is promised to stay the same for a seed.
"""

import math
import random
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


class Draws:
    """A seeded sequence of random choices."""

    def __init__(self, seed: int) -> None:
        """Start the sequence of a seed, 0 or more."""
        self._random = random.Random(seed)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self._random.random() < probability

    def below(self, limit: int) -> int:
        """Integer from 0 to limit - 1, each as likely as the others."""
        return min(int(self._random.random() * limit), limit - 1)

    def choice(self, items: Sequence[Item]) -> Item:
        """An item, each as likely as the others."""
        return items[self.below(len(items))]

    def sample(self, limit: int, count: int) -> list[int]:
        """`count` distinct integers below `limit` in random order; all of them if there are no more."""
        moved: dict[int, int] = {}  # positions of Fisher-Yates that no longer hold their own index
        sampled = []
        for position in range(min(count, limit)):
            other = position + self.below(limit - position)
            sampled.append(moved.get(other, other))
            moved[other] = moved.get(position, position)
        return sampled

    def shuffled(self, items: Sequence[Item]) -> list[Item]:
        """The items in random order."""
        return [items[index] for index in self.sample(len(items), len(items))]

    def poisson(self, mean: float) -> int:
        """Poisson-distributed integer (Knuth, TAOCP 2, 3.4.1); the mean is at most 100."""
        count, product, limit = 0, self._random.random(), math.exp(-mean)
        while product > limit:
            count += 1
            product *= self._random.random()
        return count
