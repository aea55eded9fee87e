"""Episodes of few-shot classification (Vinyals et al. 2016, 1606.04080): a few classes, examples of each, and queries.

- `Episode`: classes, examples and queries
- `draw_episodes`: episodes sampled by a seed
- `mean_over_episodes`: the mean accuracy with its interval
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from data_schemas.errors import InputDataError
from stages.benchmark.tasks.few_shot_images.image_sets import ImageSet
from stages.common.statistics import Interval, student_interval

MAX_WAYS = 10
OVER_EPISODES = "95 % t-interval over episodes"
"""End of the protocol of scores whose items are `<episode>/<image>`."""


@dataclass(frozen=True)
class Episode:
    """An episode. Images are ids of the set; a class is its index in `classes`."""

    number: int
    classes: tuple[str, ...]
    examples: tuple[str, ...]
    """Grouped by class, `shots` of each."""
    queries: tuple[str, ...]
    """Grouped by class, equal numbers of each."""

    def subset(self, ways: int, shots: int) -> "Episode":
        """The episode reduced to its first classes and the first examples of each."""
        per_class, queries = len(self.examples) // len(self.classes), ways * len(self.queries) // len(self.classes)
        examples = [self.examples[index * per_class :][:shots] for index in range(ways)]
        return Episode(self.number, self.classes[:ways], tuple(chain(*examples)), self.queries[:queries])

    @property
    def example_classes(self) -> list[int]:
        """Class index of each example."""
        return _class_indices(len(self.classes), len(self.examples))

    @property
    def query_classes(self) -> list[int]:
        """Class index of each query."""
        return _class_indices(len(self.classes), len(self.queries))


def draw_episodes(
    images: ImageSet, episodes: int, ways: int | None, shots: int, queries: int, seed: int
) -> list[Episode]:
    """Episodes that depend only on the set, the numbers and the seed.

    The classes of an episode are sampled without replacement, as are the examples and the queries of each class. An
    image may occur in several episodes, but is never both an example and a query.

    Args:
        images: the set.
        episodes: number of episodes.
        ways: classes per episode; None for all, up to ten.
        shots: examples per class.
        queries: queries per class.
        seed: seed of the samples; every episode has its own random stream.

    Raises:
        InputDataError: if too few classes have enough images.
    """
    classes = [
        name for name in images.support if len(images.support[name]) >= shots and len(images.queries[name]) >= queries
    ]
    ways = ways or max(2, min(len(classes), MAX_WAYS))
    if len(classes) < ways:
        raise InputDataError(
            f"{len(classes)} of {len(images.support)} classes have at least {shots} images for examples and {queries} "
            f"for queries ({images.split}), and {ways} are needed; add images, or lower ways, shots or queries"
        )
    sampled = []
    for number in range(episodes):
        generator = np.random.default_rng((seed, number))
        names = [classes[index] for index in generator.choice(len(classes), ways, replace=False)]
        example_ids, query_ids = (
            tuple(image for name in names for image in _sample(generator, part[name], count))
            for part, count in ((images.support, shots), (images.queries, queries))
        )
        sampled.append(Episode(number, tuple(names), example_ids, query_ids))
    return sampled


def mean_over_episodes(accuracies: Sequence[float]) -> Interval:
    """The mean with Student's interval, clipped to 0 and 1; no interval for a single episode.

    All queries of an episode depend on the same few examples, so an interval over queries would be too narrow.
    """
    mean, low, high = student_interval(accuracies)
    return Interval(mean, low if math.isnan(low) else max(0.0, low), high if math.isnan(high) else min(1.0, high))


def _sample(generator: np.random.Generator, images: Sequence[str], count: int) -> list[str]:
    return [images[index] for index in generator.choice(len(images), count, replace=False)]


def _class_indices(classes: int, images: int) -> list[int]:
    return [index for index in range(classes) for _ in range(images // classes)]
