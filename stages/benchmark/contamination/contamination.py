"""Contamination: benchmark items that stand in the training text, and scores without them.

- `find_overlaps`: the longest run of each item's words in the training text, partition by partition
- `with_overlap`: a result with that column, and beside its score the one without the items that overlap

An item overlaps where 13 of its words in a row stand in a training document (Brown et al. 2020, 2005.14165, appendix
C); one without so long a field where its longest field does, from 8 words on: what decontamination seeks, too.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from infra.store.artifacts import Artifact
from infra.workers.partitions import Partition, PartitionMap, PartitionWriter
from stages.benchmark.contamination.verbatim_overlap import ItemWords, item_words, longest_runs
from stages.benchmark.metrics import METRICS
from stages.benchmark.results import TaskResult
from stages.common.word_hashes import text_columns

NGRAM, MIN_WORDS = 13, 8

Texts = Mapping[str, Mapping[str, Sequence[str]]]
"""Task -> item -> the item's own texts."""


@dataclass(frozen=True)
class Overlap:
    """What of an item stands in the training text."""

    words: int
    """Its longest run of words that does."""
    longest_field: int
    """Words of the item's longest text."""

    @property
    def counts(self) -> bool:
        """Whether scores are also given without the item."""
        return self.words >= max(MIN_WORDS, min(NGRAM, self.longest_field))


Overlaps = Mapping[tuple[str, str], Overlap]
"""(task, item) -> overlap."""


def find_overlaps(texts: Texts, corpus: Artifact, partitions: PartitionMap) -> dict[tuple[str, str], Overlap]:
    """Look every item up in all of the training text.

    Args:
        texts: what is looked for.
        corpus: of kind CORPUS; its training split.
        partitions: where a file of the corpus is a partition.
    """
    names = [(task, item) for task, items in texts.items() for item in items]
    items = item_words([texts[task][item] for task, item in names])
    if not len(items.seeds):
        return {name: Overlap(0, int(words)) for name, words in zip(names, items.longest_fields, strict=True)}
    files = [
        Partition(path.removesuffix(".parquet").replace("/", "-"), path) for path in corpus.paths("train/*.parquet")
    ]
    function = partial(_look_up, corpus, items)
    longest = np.zeros(len(names), dtype=np.int64)
    for result in partitions.map("overlap", function, files):
        longest = np.maximum(longest, result.read_table("longest.parquet").column("words").to_numpy())
    pairs = zip(longest, items.longest_fields, strict=True)
    return {name: Overlap(int(words), int(field)) for name, (words, field) in zip(names, pairs, strict=True)}


def _look_up(corpus: Artifact, items: ItemWords, path: str, out: PartitionWriter) -> None:
    data, offsets = text_columns(corpus.read_table(path).column("text"))
    out.write_table("longest.parquet", pa.table({"words": longest_runs(data, offsets, items)}))


def with_overlap(result: TaskResult, overlaps: Overlaps) -> TaskResult:
    """The result of a network that was trained on the text: `overlap` in its items, and in its score `overlapping` and
    `without_overlap`. A task whose items were not looked up is given back as it is."""
    found = [overlaps.get((item["task"], item["item"])) for item in result.items]
    if not any(found):
        return result
    items = [
        item | {"overlap": overlap.words if overlap else None}
        for item, overlap in zip(result.items, found, strict=True)
    ]
    kept = [item for item, overlap in zip(items, found, strict=True) if not (overlap and overlap.counts)]
    score = result.score | {
        "overlapping": len(items) - len(kept),
        "without_overlap": score_of(result.score["metric"], kept) if kept else None,
    }
    return TaskResult(score, items)


def score_of(metric: str, items: Sequence[Mapping[str, Any]]) -> float:
    """A score from its items: one of GLUE's metrics of labels and predictions, else the ratio of their sums."""
    if metric in METRICS and metric != "accuracy":
        outputs = [json.loads(item["output"]) for item in items]
        labels, predicted = (np.array([output[name] for output in outputs]) for name in ("label", "predicted"))
        return METRICS[metric](labels, predicted)
    return float(sum(item["numerator"] for item in items) / sum(item["denominator"] for item in items))
