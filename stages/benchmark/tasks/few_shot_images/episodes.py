"""Episodes of few-shot classification (Vinyals et al. 2016, 1606.04080): a few classes, examples of each, and queries.

- `Episode`: one of them
- `draw_episodes`: which classes, examples and queries, by a seed
- `over_episodes`: the mean over episodes with its interval
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from data_schemas.errors import InputDataError
from stages.benchmark.tasks.few_shot_images.image_sets import ImageSet
from stages.common.statistics import Interval, student_interval

MOST_WAYS = 10
OVER_EPISODES = "95 % t-interval over episodes"
"""Ends the protocol of scores whose items are `<episode>/<image>`."""


@dataclass(frozen=True)
class Episode:
    """One draw. Images are ids of the set; a class is its place in `classes`."""

    number: int
    classes: tuple[str, ...]
    examples: tuple[str, ...]
    """Class by class, `shots` of each."""
    queries: tuple[str, ...]
    """Class by class, as many of each."""

    def part(self, ways: int, shots: int) -> "Episode":
        """The same with its first classes, and the first examples of each, alone."""
        per_class, asked = len(self.examples) // len(self.classes), ways * len(self.queries) // len(self.classes)
        examples = [self.examples[place * per_class :][:shots] for place in range(ways)]
        return Episode(self.number, self.classes[:ways], tuple(chain(*examples)), self.queries[:asked])

    @property
    def example_classes(self) -> list[int]:
        """Of each example."""
        return _places(len(self.classes), len(self.examples))

    @property
    def query_classes(self) -> list[int]:
        """Of each query."""
        return _places(len(self.classes), len(self.queries))


def draw_episodes(
    images: ImageSet, episodes: int, ways: int | None, shots: int, queries: int, seed: int
) -> list[Episode]:
    """Episodes that depend on the set, the numbers and the seed alone.

    An episode's classes are drawn without replacement, and of each class the examples and the queries; an image may
    come again in another episode, but none is ever both an example and a query.

    Args:
        images: to draw from.
        episodes: how many.
        ways: classes of an episode; all where None, but at most ten.
        shots: examples of each class.
        queries: queries of each class.
        seed: of the draws; an episode draws from its own stream.

    Raises:
        InputDataError: where too few classes have enough images.
    """
    classes = [
        name for name in images.support if len(images.support[name]) >= shots and len(images.queries[name]) >= queries
    ]
    wanted = ways or max(2, min(len(classes), MOST_WAYS))
    if len(classes) < wanted:
        raise InputDataError(
            f"{len(classes)} of {len(images.support)} classes have {shots} images to learn from and {queries} to ask "
            f"about ({images.split}), and {wanted} are needed; give more images, or lower ways, shots or queries"
        )
    drawn = []
    for number in range(episodes):
        generator = np.random.default_rng((seed, number))
        chosen = [classes[place] for place in generator.choice(len(classes), wanted, replace=False)]
        examples, asked = (
            tuple(image for name in chosen for image in _some(generator, part[name], count))
            for part, count in ((images.support, shots), (images.queries, queries))
        )
        drawn.append(Episode(number, tuple(chosen), examples, asked))
    return drawn


def over_episodes(accuracies: Sequence[float]) -> Interval:
    """The mean with Student's interval, cut to 0 and 1; no interval for a single episode.

    All queries of an episode hang on the same few examples, so that episodes vary more than their queries tell.
    """
    mean, low, high = student_interval(accuracies)
    return Interval(mean, low if math.isnan(low) else max(0.0, low), high if math.isnan(high) else min(1.0, high))


def _some(generator: np.random.Generator, images: Sequence[str], count: int) -> list[str]:
    return [images[place] for place in generator.choice(len(images), count, replace=False)]


def _places(classes: int, images: int) -> list[int]:
    return [place for place in range(classes) for _ in range(images // classes)]
