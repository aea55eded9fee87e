"""Nearness of texts to their parents, by the words and word n-grams that they share.

- `jaccard`: Jaccard similarity of the distinct word n-grams of pairs of texts

Words are those of `stages/common/word_classes.py`, in every script and without case; a text of fewer than n words has
one n-gram of all its words.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from stages.common.minhash import shingle_sets


def jaccard(texts: Sequence[str], parents: Sequence[str], words: int) -> list[float]:
    """Jaccard similarity of each text and its parent; 1 if neither has a word.

    Args:
        texts: synthetic texts.
        parents: their parents.
        words: words per n-gram.
    """
    sets = [_sets(column, words) for column in (texts, parents)]
    return [_similarity(a, b) for a, b in zip(*sets, strict=True)]


def _sets(texts: Sequence[str], words: int) -> list[np.ndarray]:
    lists = shingle_sets(pa.array(texts, pa.large_string()), words)
    return [np.asarray(row.values) for row in lists]


def _similarity(a: np.ndarray, b: np.ndarray) -> float:
    common = len(np.intersect1d(a, b, assume_unique=True))
    every = len(a) + len(b) - common
    return common / every if every else 1.0
