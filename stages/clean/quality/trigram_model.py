"""Perplexity under a word-trigram model of reference text, with interpolated Kneser-Ney smoothing (Kneser & Ney 1995;
Chen & Goodman 1999, section 4.1.6), which CCNet (Wenzek et al. 2020, 1911.00359) sorts pages by.

- `fit`: the model's three tables from texts
- `TrigramModel`: the perplexity of one text; `NgramTable` is one of its tables

KenLM's Python package reads models but cannot train any, hence the model here. N-grams are 64-bit hashes: a table of
n entries holds a false match with a chance of n / 2^64 for each look-up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from infra.workers.partitions import PartitionResult
from stages.common.word_hashes import Hashes, ngram_hashes, words

Counts = npt.NDArray[np.int64]

DISCOUNT = 0.75
"""Chen & Goodman's figure 3: near the best for every order and size of text."""
ORDERS = (1, 2, 3)


def path(order: int) -> str:
    """Of the table of one order."""
    return f"models/perplexity_{order}.arrow"


def fit(texts: Sequence[str]) -> dict[int, pa.Table]:
    """Order -> table with the columns ngram (uint64, sorted) and count; orders 1 and 2 have followers and types, too.

    `count` is how often a trigram stands in the texts, and for shorter ones how many different words stand before it
    (what Kneser and Ney count); `followers` and `types` are the sum and the number of the counts of the n-grams that it
    begins.
    """
    hashes = [words(np.frombuffer(text.encode(), dtype=np.uint8)).hashes for text in texts]
    hashes = [one for one in hashes if len(one) >= 3]
    runs = {1: hashes, **{n: [ngram_hashes(one, n) for one in hashes] for n in (2, 3)}}
    trigrams, first, counts = np.unique(_joined(runs[3]), return_index=True, return_counts=True)
    begins = _joined([one[:-1] for one in runs[2]])[first]
    ends = _joined([one[1:] for one in runs[2]])[first]
    pairs, first_pair = np.unique(_joined(runs[2]), return_index=True)
    before = _joined([one[:-1] for one in runs[1]])[first_pair]
    after = _joined([one[1:] for one in runs[1]])[first_pair]
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
    """The amounts added up by n-gram, in the table's order."""
    return np.bincount(np.searchsorted(table, ngrams), weights=amounts, minlength=len(table)).astype(np.int64)


def _table(ngrams: Hashes, counts: Counts, **of_contexts: Counts) -> pa.Table:
    columns = {name: values.astype(np.int32) for name, values in {"count": counts, **of_contexts}.items()}
    return pa.table({"ngram": ngrams, **columns})


class NgramTable:
    """One order's table, ready to be asked: hashes are uniform, so that their first bits nearly tell the row."""

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
        """The row of each n-gram, -1 for those that are not there: (n-grams,) int64."""
        return _rows(self._ngrams, self._starts, self._shift, ngrams)

    def column(self, name: str, rows: Counts) -> Counts:
        """A column's entries in these rows, 0 for row -1."""
        if not len(self):
            return np.zeros(len(rows), dtype=np.int64)
        return np.where(rows >= 0, self.columns[name][rows], 0).astype(np.int64)


@numba.njit(cache=True)
def _rows(table: Hashes, starts: Counts, shift: np.uint64, ngrams: Hashes) -> Counts:
    rows = np.full(len(ngrams), -1, dtype=np.int64)
    for at in range(len(ngrams)):
        slot = np.int64(ngrams[at] >> shift)
        for row in range(starts[slot], starts[slot + 1]):
            if table[row] == ngrams[at]:
                rows[at] = row
                break
    return rows


Tables = Mapping[int, NgramTable]
"""By order."""


@dataclass(frozen=True)
class TrigramModel:
    """A fitted model; picklable, its tables are read where it is used."""

    fitted: PartitionResult

    def perplexity(self, text: str) -> float:
        """Per word from the third on; infinite for texts of fewer words."""
        return perplexity(self._tables, text)

    @cached_property
    def _tables(self) -> Tables:
        return {order: NgramTable(self.fitted.read_table(path(order))) for order in ORDERS}


def perplexity(tables: Tables, text: str) -> float:
    """As `TrigramModel.perplexity`."""
    found = words(np.frombuffer(text.encode(), dtype=np.uint8)).hashes
    if len(found) < 3:
        return float("inf")
    return float(np.exp(-np.log(probabilities(tables, found)).mean()))


def probabilities(tables: Tables, found: Hashes) -> npt.NDArray[np.float64]:
    """Of each word after the two before it: (words - 2,) float64.

    Args:
        tables: the model's.
        found: (words,) uint64, hashes of the words.
    """
    singles, pairs = tables[1].rows(found), tables[2].rows(ngram_hashes(found, 2))
    triples = tables[3].rows(ngram_hashes(found, 3))
    unigram = _unigram(tables[1], singles[2:])
    bigram = _interpolated(tables[2].column("count", pairs[1:]), tables[1], singles[1:-1], unigram)
    return _interpolated(tables[3].column("count", triples), tables[2], pairs[:-1], bigram)


def _unigram(table: NgramTable, rows: Counts) -> npt.NDArray[np.float64]:
    """What the discount leaves is shared evenly by all words, the unknown one included."""
    counts = table.columns["count"]
    left = DISCOUNT * np.count_nonzero(counts) / (len(counts) + 1)
    return np.asarray((np.maximum(table.column("count", rows) - DISCOUNT, 0) + left) / max(1, counts.sum()))


def _interpolated(counts: Counts, table: NgramTable, contexts: Counts, lower: npt.NDArray[Any]) -> npt.NDArray[Any]:
    followers, types = table.column("followers", contexts), table.column("types", contexts)
    total = np.maximum(followers, 1)
    return np.where(followers > 0, np.maximum(counts - DISCOUNT, 0) / total + DISCOUNT * types / total * lower, lower)
