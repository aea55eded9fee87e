"""Perplexity under a word-trigram model of reference text, with interpolated Kneser-Ney smoothing (Kneser & Ney 1995;
Chen & Goodman 1999, section 4.1.6), by which CCNet (Wenzek et al. 2020, 1911.00359) ranks pages.

- `fit`: the model's three tables from texts
- `TrigramModel`: the perplexity of a text; `NgramTable` is a table of the model

KenLM's Python package cannot train models, hence this implementation. N-grams are 64-bit hashes: in a table of n
entries the probability of a false match is n / 2^64 per lookup.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from infra.workers.partitions import PartitionResult
from stages.common.compiled import compiled
from stages.common.word_hashes import Hashes, ngram_hashes, words

Counts = npt.NDArray[np.int64]

DISCOUNT = 0.75
"""Near the optimum for every order and size of text (Chen & Goodman, figure 3)."""
ORDERS = (1, 2, 3)


def path(order: int) -> str:
    """Path of the table of one order."""
    return f"models/perplexity_{order}.arrow"


def fit(texts: Sequence[str]) -> dict[int, pa.Table]:
    """Order -> table with the columns ngram (uint64, sorted) and count; orders 1 and 2 also have followers and types.

    `count` is the number of occurrences for trigrams, and the number of distinct preceding words for shorter n-grams
    (the continuation count of Kneser and Ney); `followers` and `types` are the sum and the number of nonzero counts of
    the n-grams that begin with it.
    """
    hashes = [words(np.frombuffer(text.encode(), dtype=np.uint8)).hashes for text in texts]
    hashes = [text_hashes for text_hashes in hashes if len(text_hashes) >= 3]
    runs = {1: hashes, **{n: [ngram_hashes(text_hashes, n) for text_hashes in hashes] for n in (2, 3)}}
    trigrams, first, counts = np.unique(_joined(runs[3]), return_index=True, return_counts=True)
    begins = _joined([bigrams[:-1] for bigrams in runs[2]])[first]
    ends = _joined([bigrams[1:] for bigrams in runs[2]])[first]
    pairs, first_pair = np.unique(_joined(runs[2]), return_index=True)
    before = _joined([unigrams[:-1] for unigrams in runs[1]])[first_pair]
    after = _joined([unigrams[1:] for unigrams in runs[1]])[first_pair]
    singles = np.unique(_joined(runs[1]))
    pair_count = _summed(ends, np.ones_like(counts), pairs)
    single_count = _summed(after, np.ones(len(pairs), dtype=np.int64), singles)
    seen = pair_count > 0
    return {
        1: _table(singles, single_count, followers=_summed(before, pair_count, singles),
                  types=_summed(before, seen, singles)),
        2: _table(pairs, pair_count, followers=_summed(begins, counts, pairs),
                  types=_summed(begins, np.ones_like(counts), pairs)),
        3: _table(trigrams, counts),
    }  # fmt: skip


def _joined(runs: Sequence[Hashes]) -> Hashes:
    return np.concatenate([np.empty(0, dtype=np.uint64), *runs])


def _summed(ngrams: Hashes, amounts: npt.NDArray[Any], table: Hashes) -> Counts:
    """Amounts summed by n-gram, in the table's order."""
    return np.bincount(np.searchsorted(table, ngrams), weights=amounts, minlength=len(table)).astype(np.int64)


def _table(ngrams: Hashes, counts: Counts, **context_counts: Counts) -> pa.Table:
    columns = {name: values.astype(np.int32) for name, values in {"count": counts, **context_counts}.items()}
    return pa.table({"ngram": ngrams, **columns})


class NgramTable:
    """Table of one order, indexed by the leading bits of the hashes, which are uniform: about one row per slot."""

    def __init__(self, table: pa.Table) -> None:
        self.columns = {name: table[name].to_numpy() for name in table.column_names if name != "ngram"}
        self._ngrams = table["ngram"].to_numpy()
        bits = max(1, len(self._ngrams).bit_length())
        self._shift = np.uint64(64 - bits)
        slots = np.arange(1 << bits, dtype=np.uint64) << self._shift
        self._starts = np.append(np.searchsorted(self._ngrams, slots), len(self._ngrams))

    def __len__(self) -> int:
        return len(self._ngrams)

    def rows(self, ngrams: Hashes) -> Counts:
        """Row of each n-gram, -1 if it is not in the table: (n-grams,) int64."""
        return _rows(self._ngrams, self._starts, self._shift, ngrams)

    def column(self, name: str, rows: Counts) -> Counts:
        """A column's entries in these rows, 0 for row -1."""
        if not len(self):
            return np.zeros(len(rows), dtype=np.int64)
        return np.where(rows >= 0, self.columns[name][rows], 0).astype(np.int64)


@compiled
def _rows(table: Hashes, starts: Counts, shift: np.uint64, ngrams: Hashes) -> Counts:
    rows = np.full(len(ngrams), -1, dtype=np.int64)
    for index in range(len(ngrams)):
        slot = np.int64(ngrams[index] >> shift)
        for row in range(starts[slot], starts[slot + 1]):
            if table[row] == ngrams[index]:
                rows[index] = row
                break
    return rows


Tables = Mapping[int, NgramTable]
"""Tables by order."""


@dataclass(frozen=True)
class TrigramModel:
    """A fitted model; picklable, its tables are loaded on first use."""

    fitted: PartitionResult

    def perplexity(self, text: str) -> float:
        """Perplexity per word from the third on; infinite for shorter texts."""
        return perplexity(self._tables, text)

    @cached_property
    def _tables(self) -> Tables:
        return {order: NgramTable(self.fitted.read_table(path(order))) for order in ORDERS}


def perplexity(tables: Tables, text: str) -> float:
    """Perplexity under these tables, as `TrigramModel.perplexity`."""
    hashes = words(np.frombuffer(text.encode(), dtype=np.uint8)).hashes
    if len(hashes) < 3:
        return float("inf")
    return float(np.exp(-np.log(probabilities(tables, hashes)).mean()))


def probabilities(tables: Tables, hashes: Hashes) -> npt.NDArray[np.float64]:
    """Probability of each word given the two preceding words: (words - 2,) float64.

    Args:
        tables: the model's tables.
        hashes: (words,) uint64, hashes of the words.
    """
    singles, pairs = tables[1].rows(hashes), tables[2].rows(ngram_hashes(hashes, 2))
    triples = tables[3].rows(ngram_hashes(hashes, 3))
    unigram = _unigram(tables[1], singles[2:])
    bigram = _interpolated(tables[2].column("count", pairs[1:]), tables[1], singles[1:-1], unigram)
    return _interpolated(tables[3].column("count", triples), tables[2], pairs[:-1], bigram)


def _unigram(table: NgramTable, rows: Counts) -> npt.NDArray[np.float64]:
    """The discounted mass is distributed uniformly over all words, the unknown word included."""
    counts = table.columns["count"]
    left = DISCOUNT * np.count_nonzero(counts) / (len(counts) + 1)
    return np.asarray((np.maximum(table.column("count", rows) - DISCOUNT, 0) + left) / max(1, counts.sum()))


def _interpolated(counts: Counts, table: NgramTable, contexts: Counts, lower: npt.NDArray[Any]) -> npt.NDArray[Any]:
    followers, types = table.column("followers", contexts), table.column("types", contexts)
    total = np.maximum(followers, 1)
    return np.where(followers > 0, np.maximum(counts - DISCOUNT, 0) / total + DISCOUNT * types / total * lower, lower)
