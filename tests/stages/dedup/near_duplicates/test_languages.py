"""Near duplicates are found in scripts with and without spaces alike."""

import itertools

import pytest

from benchmarks.common.languages import CODES, document, joined, near_copy
from tests.stages.dedup.near_duplicates.test_pipeline import fates, memory

PAIRS = 12


@pytest.fixture(scope="module")
def fate() -> dict[str, tuple]:
    """Fates of documents of every language and a copy of each, at a Jaccard similarity of 0.8 by true words."""
    texts = {}
    for code, number in itertools.product(CODES, range(PAIRS)):
        words = document(code, number, sentences=25)
        texts[f"{code}{number}"] = joined(code, words)
        texts[f"{code}{number}copy"] = joined(code, near_copy(code, words, number, similarity=0.8))
    return fates(memory(), [texts])


@pytest.mark.parametrize("code", CODES)
def test_planted_pairs_are_found_and_others_not(fate: dict[str, tuple], code: str) -> None:
    for number in range(PAIRS):
        cluster = [fate[name][1] or name for name in (f"{code}{number}", f"{code}{number}copy")]
        assert cluster[0] == cluster[1], number
        assert cluster[0].removesuffix("copy") == f"{code}{number}"  # no document of another draw


def test_words_that_differ_only_in_invisible_characters_make_equal_documents() -> None:
    words = document("km", 1, sentences=25)
    fate = fates(memory(), [{"plain": joined("km", words), "spaced": "\u200b".join(words)}])
    assert sorted(row[0] for row in fate.values()) == ["exact_duplicate", "survivor"]
