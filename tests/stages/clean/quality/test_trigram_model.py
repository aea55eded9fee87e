import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.clean.quality.trigram_model import DISCOUNT, NgramTable, Tables, fit, perplexity, probabilities
from stages.common.word_hashes import words

WORDS = st.lists(st.sampled_from(["mill", "river", "wheel", "the", "a"]), min_size=3, max_size=25)


class Reference:
    """Interpolated Kneser-Ney as Chen and Goodman write it down, with dictionaries."""

    def __init__(self, texts: Sequence[Sequence[str]]) -> None:
        self.trigrams = Counter(tuple(text[at : at + 3]) for text in texts for at in range(len(text) - 2))
        before: dict[tuple[str, ...], set[str]] = defaultdict(set)
        for text in texts:
            for n in (2, 3):
                for at in range(len(text) - n + 1):
                    before[tuple(text[at + 1 : at + n])].add(text[at])
        self.counts = {gram: len(preceding) for gram, preceding in before.items()}
        self.vocabulary = {word for text in texts for word in text}

    def unigram(self, word: str) -> float:
        singles = {gram[0]: count for gram, count in self.counts.items() if len(gram) == 1}
        left = DISCOUNT * len(singles) / (len(self.vocabulary) + 1)
        return (max(singles.get(word, 0) - DISCOUNT, 0) + left) / sum(singles.values())

    def bigram(self, before: str, word: str) -> float:
        followers = {gram[1]: count for gram, count in self.counts.items() if len(gram) == 2 and gram[0] == before}
        return self.interpolated(followers, word, self.unigram(word))

    def trigram(self, first: str, second: str, word: str) -> float:
        followers = {gram[2]: count for gram, count in self.trigrams.items() if gram[:2] == (first, second)}
        return self.interpolated(followers, word, self.bigram(second, word))

    @staticmethod
    def interpolated(followers: dict[str, int], word: str, lower: float) -> float:
        if not followers:
            return lower
        total = sum(followers.values())
        return (max(followers.get(word, 0) - DISCOUNT, 0) + DISCOUNT * len(followers) * lower) / total


def fitted(texts: Sequence[str]) -> Tables:
    return {order: NgramTable(table) for order, table in fit(texts).items()}


def hashes(text: Sequence[str]) -> np.ndarray:  # type: ignore[type-arg]
    return words(np.frombuffer(" ".join(text).encode(), dtype=np.uint8)).hashes


@given(st.lists(WORDS, min_size=1, max_size=5), WORDS)
def test_probabilities_are_those_of_the_definition(texts: list[list[str]], words: list[str]) -> None:
    tables, reference = fitted([" ".join(text) for text in texts]), Reference(texts)
    words = [*words, "unseen", "mill", "wheel"]
    wanted = [reference.trigram(*words[start : start + 3]) for start in range(len(words) - 2)]
    assert probabilities(tables, hashes(words)) == pytest.approx(wanted, rel=1e-9)
    assert perplexity(tables, " ".join(words)) == pytest.approx(math.exp(-np.log(wanted).mean()), rel=1e-9)


@given(st.lists(WORDS, min_size=1, max_size=5), st.tuples(*[st.sampled_from(["mill", "river", "the", "unseen"])] * 2))
def test_after_any_two_words_all_words_together_have_probability_1(
    texts: list[list[str]], context: tuple[str, str]
) -> None:
    tables = fitted([" ".join(text) for text in texts])
    vocabulary = [*{word for text in texts for word in text}, "unknown"]
    total = sum(probabilities(tables, hashes([*context, word]))[0] for word in vocabulary)
    assert total == pytest.approx(1)


def test_like_text_has_a_low_perplexity_and_short_text_none() -> None:
    tables = fitted(["the wheel of the mill turns in the cold river " * 5, "the river turns the wheel of the mill"])
    like, unlike = perplexity(tables, "the wheel of the mill turns"), perplexity(tables, "buy cheap deals online now")
    assert like < unlike / 3
    assert perplexity(tables, "two words") == math.inf
