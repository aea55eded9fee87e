"""Stop words of a hundred languages: how many distinct ones a text has, and their share of its words.

- `count`: both for a text in a language
- `most_likely`: the language whose words a text has, where the detector knows none
- `is_unlisted_script`: whether no list has words in the script of a text
- `STOP_WORDS`: Gopher's eight for English

The words of the other languages (`stop_words.json`) are frequent ones, as those of FineWeb2 (Penedo et al. 2025,
2506.20920), which takes the words that make up 0.8 % of a Wikipedia each. A text that has a few of them has running
sentences; which ones matters little. In scripts without spaces they are runs of units, as `word_classes.py` says. A
language that is written in two scripts or spellings has words of both.
"""

import json
import unicodedata
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stages.common.word_hashes import Bytes, Hashes, ngram_hashes, words

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
"""Gopher's eight (Rae et al. 2021, 2112.11446, A.1.1)."""


MIN_DISTINCT, MIN_SHARE = 4, 0.1
"""Distinct words and share of the words from which a text is in a language that the detector did not find: running text
has three times as many."""
_SAMPLE = 1_000
"""Characters from which the script of a text is known."""


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


def most_likely(data: Bytes) -> str | None:
    """Language of which a text has most stop words; None if it has too few of any.

    Args:
        data: (bytes,) uint8, the text in UTF-8.
    """
    hashes, listed, languages = ngram_hashes(words(data).hashes, 1), *_all_words()
    position = np.minimum(np.searchsorted(listed, hashes), len(listed) - 1)
    occurrences = np.bincount(position[listed[position] == hashes], minlength=len(listed))
    share = occurrences @ languages / max(len(hashes), 1)
    share[((occurrences > 0) @ languages < MIN_DISTINCT) | (share < MIN_SHARE)] = 0
    return sorted(_lists())[int(share.argmax())] if share.any() else None


def is_unlisted_script(text: str) -> bool:
    """True if most letters at the beginning are of a script that no list has, such as Javanese or Tifinagh."""
    letters = [_script(character) for character in text[:_SAMPLE] if character.isalpha()]
    return sum(script not in _scripts() for script in letters) > len(letters) / 2


@cache
def _scripts() -> frozenset[str]:
    return frozenset(_script(character) for listed in _lists().values() for word in listed for character in word)


@cache
def _script(character: str) -> str:
    """First word of the character's name, which identifies its script."""
    return unicodedata.name(character, "").split(" ")[0]


@cache
def _all_words() -> tuple[Hashes, npt.NDArray[np.int64]]:
    """Sorted hashes of the single words of all lists, and (words, languages) of ones and zeros."""
    single = [_ngrams(language).get(1, np.empty(0, dtype=np.uint64)) for language in sorted(_lists())]
    listed = np.unique(np.concatenate(single))
    return listed, np.column_stack([np.isin(listed, hashes) for hashes in single]).astype(np.int64)


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
