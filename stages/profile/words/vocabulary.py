"""Words and n-grams: entropy, vocabulary, Zipf's and Heaps' laws, the most frequent ones."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from stages.common.compiled import compiled
from stages.common.word_hashes import Bytes, Hashes, Positions, hash_ngrams, word_texts
from stages.profile.analysis import Analysis, Measure, State
from stages.profile.rows import estimate_measure, top_measures
from stages.profile.sketches import distribution, type_counts
from stages.profile.sketches.type_counts import Estimate
from stages.profile.words import entropy
from stages.profile.words.document_words import DocumentWords, document_words
from stages.profile.words.laws import heaps, zipf

NAMES = {1: "unigram", 2: "bigram", 3: "trigram"}
TOP = 50
"""Types that are listed."""
NAMED = 40 * TOP
"""Types whose text a state keeps. One of the most frequent types of all parts that is below this rank in each of them
has no text and is not listed: with `4 * TOP`, 8 of 2,089 trigrams of a small corpus in five files."""
SCALE = 1_000
"""Entropies of documents are counted in thousandths of a bit, so that sums are whole numbers."""


class Vocabulary(Analysis):
    """Entropy of words given 0, 1 and 2 preceding words, and what the counts of words say besides."""

    name = "vocabulary"

    def __init__(self, word_types: int = type_counts.CAPACITY, ngram_types: int = type_counts.CAPACITY // 4) -> None:
        self._capacity = {n: word_types if n == 1 else ngram_types for n in NAMES}

    def empty(self) -> State:
        """Counts and texts by n, bytes, and the distribution of the documents' own entropies."""
        return {
            "counts": {NAMES[n]: type_counts.of(np.empty(0, np.uint64)) for n in NAMES},
            "texts": {NAMES[n]: {} for n in NAMES},
            "bytes": np.zeros(256, np.int64),
            "documents": distribution.empty(),
        }

    def add(self, state: State, documents: pa.RecordBatch) -> State:
        """Add the words of more documents; no n-gram crosses the border between two."""
        found = document_words(documents)
        more = self.empty()
        for n, name in NAMES.items():
            hashes, firsts = (found.hashes, np.arange(len(found.hashes))) if n == 1 else _ngrams(found, n)
            more["counts"][name] = type_counts.of(hashes, self._capacity[n])
            more["texts"][name] = _texts(found, hashes, firsts, n, more["counts"][name])
        more["bytes"] = _byte_counts(found.data, found.texts[0], found.texts[-1])
        more["documents"] = distribution.add(more["documents"], _document_entropies(found))
        return self.merge(state, more)

    def merge(self, first: State, second: State) -> State:
        """Merge part by part."""
        counts = {
            name: type_counts.merge(first["counts"][name], second["counts"][name], self._capacity[n])
            for n, name in NAMES.items()
        }
        texts = {
            name: type_counts.still_frequent(counts[name], {**first["texts"][name], **second["texts"][name]}, NAMED)
            for name in NAMES.values()
        }
        return {
            "counts": counts,
            "texts": texts,
            "bytes": first["bytes"] + second["bytes"],
            "documents": distribution.merge(first["documents"], second["documents"]),
        }

    def measures(self, state: State) -> Sequence[Measure]:
        """`entropy.*`, `vocabulary.*`, `zipf.*`, `heaps.*` and `ngrams.*`."""
        words = state["counts"]["unigram"]
        if not words["tokens"]:
            return []
        rows = [*_entropies(state), *_laws(words)]
        for name, counts in state["counts"].items():
            ones = type_counts.type_sum(counts, lambda count: (count == 1).astype(np.float64))
            distinct = type_counts.type_sum(counts, lambda count: np.ones(len(count)))
            rows += [
                Measure(f"vocabulary.{name}.tokens", counts["tokens"], "tokens"),
                estimate_measure(f"vocabulary.{name}.types", distinct, "types"),
                estimate_measure(f"vocabulary.{name}.once", ones, "types"),
            ]
            rows += top_measures(f"ngrams.{name}.top", "tokens", counts, state["texts"][name], TOP)
        return rows

    def compare(self, training: State, held_out: State) -> Sequence[Measure]:
        """Divergence between the words of the two splits."""
        from stages.profile.words.divergence import divergence

        return divergence(training["counts"]["unigram"], held_out["counts"]["unigram"])


def _entropies(state: State) -> list[Measure]:
    counts = state["counts"]
    estimates = {
        (NAMES[n], name): function(counts[NAMES[n]])
        for n in NAMES
        for name, function in entropy.ESTIMATORS.items()
        if counts[NAMES[n]]["tokens"]
    }
    rows = [
        estimate_measure(f"entropy.unigram.{name}", estimates["unigram", name], "bits/word")
        for name in entropy.ESTIMATORS
    ]
    for shorter, longer in (("unigram", "bigram"), ("bigram", "trigram")):
        for name in entropy.ESTIMATORS:
            if (longer, name) in estimates:
                longer_entropy, shorter_entropy = estimates[longer, name], estimates[shorter, name]
                conditional = Estimate(
                    longer_entropy.value - shorter_entropy.value,
                    longer_entropy.low - shorter_entropy.high,
                    longer_entropy.high - shorter_entropy.low,
                )
                rows.append(estimate_measure(f"entropy.{longer}_conditional.{name}", conditional, "bits/word"))
    own = state["documents"]
    rows.append(Measure("entropy.document.plug_in.mean", distribution.mean(own) / SCALE, "bits/word"))
    rows.append(Measure("entropy.bytes.plug_in", entropy.of_bytes(state["bytes"]), "bits/byte"))
    return rows


def _laws(words: type_counts.State) -> list[Measure]:
    rows = []
    if fit := zipf(words):
        ranks = f"ranks 1-{fit.ranks}"
        rows.append(Measure("zipf.exponent", fit.exponent, "", ranks, fit.low, fit.high, fit.exact))
        rows.append(Measure("zipf.distance", fit.distance, "share", ranks, exact=fit.exact))
        rows += [Measure("zipf.curve", count, "tokens", f"{rank}", exact=fit.exact) for rank, count in fit.curve]
    if growth := heaps(words):
        limits = f"{growth.words[0]}-{growth.words[1]} words"
        rows.append(Measure("heaps.exponent", growth.exponent, "", limits, exact=growth.exact))
        rows.append(Measure("heaps.scale", growth.scale, "types", limits, exact=growth.exact))
        rows += [
            Measure("heaps.curve", types, "types", f"{words}", exact=growth.exact) for words, types in growth.curve
        ]
    return rows


def _texts(
    found: DocumentWords, hashes: Hashes, firsts: Positions, n: int, counts: type_counts.State
) -> dict[str, str]:
    """Texts of the most frequent types: hash in decimal -> words, in lower case."""
    tokens = type_counts.first_tokens(counts, hashes, NAMED)
    first = firsts[np.fromiter(tokens.values(), dtype=np.int64, count=len(tokens))]
    words = (first[:, None] + np.arange(n)).ravel()
    texts = word_texts(found.data, found.starts[words], found.ends[words], group=n)
    return dict(zip(tokens, texts, strict=True))


def _ngrams(found: DocumentWords, n: int) -> tuple[Hashes, Positions]:
    """Hashes of all n-grams within documents, and the index of each one's first word."""
    size = int(np.maximum(0, found.counts - n + 1).sum())
    hashes, firsts = np.empty(size, np.uint64), np.empty(size, np.int64)
    _fill_ngrams(found.hashes, found.borders, n, hashes, firsts)
    return hashes, firsts


@compiled
def _fill_ngrams(words: Hashes, borders: Positions, n: int, hashes: Hashes, firsts: Positions) -> None:
    count = 0
    for number in range(len(borders) - 1):
        begin, size = borders[number], borders[number + 1] - borders[number] - n + 1
        if size > 0:
            hash_ngrams(words[begin : borders[number + 1]], n, hashes[count : count + size])
            for offset in range(size):
                firsts[count + offset] = begin + offset
            count += size


@compiled
def _byte_counts(data: Bytes, begin: int, end: int) -> Positions:
    counts = np.zeros(256, dtype=np.int64)
    for position in range(begin, end):
        counts[data[position]] += 1
    return counts


def _document_entropies(found: DocumentWords) -> Any:
    """Plug-in entropy of each document's own words, in thousandths of a bit; of those with words."""
    if not len(found.hashes):
        return np.empty(0, np.int64)
    numbers = np.repeat(np.arange(len(found.counts)), found.counts)
    order = np.lexsort((found.hashes, numbers))
    hashes, numbers = found.hashes[order], numbers[order]
    starts = np.flatnonzero(np.r_[True, (hashes[1:] != hashes[:-1]) | (numbers[1:] != numbers[:-1])])
    counts = np.diff(np.r_[starts, len(hashes)])
    totals = found.counts[numbers[starts]]
    bits = np.bincount(numbers[starts], weights=counts * np.log2(totals / counts) / totals, minlength=len(found.counts))
    return np.rint(SCALE * bits[found.counts > 0]).astype(np.int64)
