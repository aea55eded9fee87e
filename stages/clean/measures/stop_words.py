"""Stop words of a hundred languages: how many distinct ones a text has, and their share of its words.

- `count`: both for a text in a language
- `STOP_WORDS`: Gopher's eight for English

The words of the other languages (`stop_words.json`) are frequent ones, as those of FineWeb2 (Penedo et al. 2025,
2506.20920), which takes the words that make up 0.8 % of a Wikipedia each. A text that has a few of them has running
sentences; which ones matters little. In scripts without spaces they are runs of units, as `word_classes.py` says.
"""

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stages.common.word_hashes import Bytes, Hashes, ngram_hashes, words

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
"""Gopher's eight (Rae et al. 2021, 2112.11446, A.1.1)."""


class StopWords(NamedTuple):
    """Occurrences of a language's stop words in a text."""

    distinct: int
    share: float
    """Occurrences relative to the words of the text."""


def count(data: Bytes, language: str) -> StopWords | None:
    """Stop words of a text; None for a language without a list.

    Args:
        data: (bytes,) uint8, the text in UTF-8.
        language: ISO 639 code.
    """
    if language not in _lists():
        return None
    hashes, distinct, occurrences = words(data).hashes, 0, 0
    for length, listed in _ngrams(language).items():
        ngrams = ngram_hashes(hashes, length)
        found = listed[np.minimum(np.searchsorted(listed, ngrams), len(listed) - 1)] == ngrams
        distinct += len(np.unique(ngrams[found]))
        occurrences += int(found.sum())
    return StopWords(distinct, occurrences / max(len(hashes), 1))


@cache
def _lists() -> dict[str, list[str]]:
    """Language -> stop words."""
    lists = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
    return {language: listed.split() for language, listed in lists.items()}


@cache
def _ngrams(language: str) -> dict[int, Hashes]:
    """Number of words or units -> sorted hashes of the stop words of that length."""
    hashes = [words(np.frombuffer(word.encode(), dtype=np.uint8)).hashes for word in _lists()[language]]
    lengths = {len(units) for units in hashes}
    return {
        length: np.unique(np.concatenate([ngram_hashes(units, length) for units in hashes if len(units) == length]))
        for length in sorted(lengths)
    }
