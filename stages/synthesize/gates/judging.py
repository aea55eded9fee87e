"""The gates that judge a synthetic text by itself and its parent; duplicates are found among all texts later.

- `GateResult`: verdict and score of one gate
- `Judge`: all gates of a run, for the texts of one kind of method
- `TextRules`: rules of another stage, which the registry of stages hands in

Every gate gives its verdict and score, also after another one has refused the text.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from infra.workers.partitions import PartitionResult
from stages.common.benchmark_ngrams.index import NgramIndex, deciding_ngrams, find_ngrams, load_index
from stages.common.word_hashes import text_columns
from stages.synthesize.config import GatesConfig
from stages.synthesize.gates.facts import changed_names, changed_numbers
from stages.synthesize.gates.overlap import jaccard

TextRules = Callable[[Mapping[str, Any]], tuple[str, float | None] | None]
"""Document -> the rule that drops it and its score; None if it is kept. It may depend on text, genre and language."""
NGRAM_WORDS = 5


class GateResult(NamedTuple):
    """One gate's judgement of one text."""

    gate: str
    passed: bool
    score: float | None
    detail: str | None


@dataclass(frozen=True)
class Judge:
    """Gates for the texts of one kind of method; built in the process that uses it."""

    gates: GatesConfig
    exempt: frozenset[str]
    rules: TextRules | None
    items: PartitionResult | None
    """Index of the benchmark items."""

    def judge(self, parents: Sequence[Mapping[str, Any]], texts: Sequence[str]) -> list[list[GateResult]]:
        """Results of all gates for each text.

        Args:
            parents: rows of the documents table.
            texts: a text for each.
        """
        columns = [self._near(parents, texts), self._far(parents, texts), self._numbers(parents, texts)]
        columns += [self._names(parents, texts), self._rules(parents, texts), self._benchmarks(texts)]
        asked = [column for column in columns if column and column[0].gate not in self.exempt]
        return [list(results) for results in zip(*asked, strict=True)] if asked else [[] for _ in texts]

    def _near(self, parents: Sequence[Mapping[str, Any]], texts: Sequence[str]) -> list[GateResult]:
        limit = self.gates.max_nearness
        if limit is None:
            return []
        scores = jaccard(texts, [parent["text"] for parent in parents], NGRAM_WORDS)
        return [GateResult("too_near_parent", score < limit, score, None) for score in scores]

    def _far(self, parents: Sequence[Mapping[str, Any]], texts: Sequence[str]) -> list[GateResult]:
        limit = self.gates.min_overlap
        if limit is None:
            return []
        scores = jaccard(texts, [parent["text"] for parent in parents], 1)
        return [GateResult("too_far_from_parent", score >= limit, score, None) for score in scores]

    def _numbers(self, parents: Sequence[Mapping[str, Any]], texts: Sequence[str]) -> list[GateResult]:
        limit = self.gates.max_changed_numbers
        if limit is None:
            return []
        changes = [changed_numbers(parent["text"], text) for parent, text in zip(parents, texts, strict=True)]
        return [GateResult("changed_number", each.amount <= limit, each.amount, each.sentence()) for each in changes]

    def _names(self, parents: Sequence[Mapping[str, Any]], texts: Sequence[str]) -> list[GateResult]:
        limit = self.gates.max_changed_names
        if limit is None:
            return []
        changes = [
            changed_names(parent["text"], text, parent["language"]) for parent, text in zip(parents, texts, strict=True)
        ]
        return [GateResult("changed_name", each.share <= limit, each.share, each.sentence()) for each in changes]

    def _rules(self, parents: Sequence[Mapping[str, Any]], texts: Sequence[str]) -> list[GateResult]:
        if self.rules is None or "clean_rules" in self.exempt:
            return []
        results = []
        for parent, text in zip(parents, texts, strict=True):
            rule, score = self.rules({**parent, "text": text}) or (None, None)
            results.append(GateResult("clean_rules", rule is None, score, rule))
        return results

    def _benchmarks(self, texts: Sequence[str]) -> list[GateResult]:
        if self.items is None or self.gates.benchmarks is None:
            return []
        found = benchmark_items(texts, self.items, self.gates)
        return [GateResult("benchmark_item", name is None, None, name) for name in found]


def benchmark_items(texts: Sequence[str], items: PartitionResult, gates: GatesConfig) -> list[str | None]:
    """The first benchmark item that each text has an n-gram of, as `FILE#ITEM`."""
    assert gates.benchmarks is not None
    index = load_index(items, gates.benchmarks)
    deciding = deciding_ngrams(index)
    data, offsets = text_columns(pa.array(texts, pa.large_string()))
    matches = find_ngrams(data, offsets, index, 0)
    names: list[str | None] = [None] * len(texts)
    acting = deciding[matches.ngrams]
    rows, first = np.unique(matches.texts[acting], return_index=True)
    table = items.read_table("items.arrow") if len(rows) else None
    for row, ngram in zip(rows.tolist(), matches.ngrams[acting][first].tolist(), strict=True):
        assert table is not None
        item = _item(index, ngram)
        names[row] = f"{table.column('benchmark')[item]}#{table.column('item')[item]}"
    return names


def _item(index: NgramIndex, ngram: int) -> int:
    """The first item that an n-gram decides for."""
    entries = index.entries[index.borders[ngram] : index.borders[ngram + 1]]
    return int(entries[entries % 2 == 0][0]) // 2


def refusals(results: Sequence[GateResult]) -> Iterator[GateResult]:
    """The gates that refused a text, in order."""
    return (result for result in results if not result.passed)
