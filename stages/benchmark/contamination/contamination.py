"""Contamination: benchmark items that occur in the training text, and scores without them.

- `find_overlaps`: the longest run of words of each item in the training text, partition by partition
- `with_overlap`: a result with that column, and with the score without overlapping items

An item overlaps if 13 consecutive words of it occur in a training document (Brown et al. 2020, 2005.14165, appendix C);
an item whose longest field is shorter, if that field occurs, from 8 words on. Decontamination uses the same rule.
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
"""Task -> item -> its texts."""


@dataclass(frozen=True)
class Overlap:
    """Words of an item that occur consecutively in the training text."""

    words: int
    """Length of the longest run."""
    longest_field: int
    """Words of the item's longest field."""

    @property
    def is_contaminated(self) -> bool:
        """Whether the item is left out of the score `without_overlap`."""
        return self.words >= max(MIN_WORDS, min(NGRAM, self.longest_field))


Overlaps = Mapping[tuple[str, str], Overlap]
"""(task, item) -> overlap."""


def find_overlaps(texts: Texts, corpus: Artifact, partitions: PartitionMap) -> dict[tuple[str, str], Overlap]:
    """Search for every item in the whole training text.

    Args:
        texts: texts of the items.
        corpus: artifact of kind CORPUS, of which the training split is searched.
        partitions: runs the search with a partition per file of the corpus.
    """
    names = [(task, item) for task, items in texts.items() for item in items]
    items = item_words([texts[task][item] for task, item in names])
    if not len(items.seeds):
        return {name: Overlap(0, int(words)) for name, words in zip(names, items.longest_fields, strict=True)}
    files = [
        Partition(path.removesuffix(".parquet").replace("/", "-"), path) for path in corpus.paths("train/*.parquet")
    ]
    search = partial(_search_file, corpus, items)
    longest = np.zeros(len(names), dtype=np.int64)
    for result in partitions.map("overlap", search, files):
        longest = np.maximum(longest, result.read_table("longest.parquet").column("words").to_numpy())
    pairs = zip(longest, items.longest_fields, strict=True)
    return {name: Overlap(int(words), int(field)) for name, (words, field) in zip(names, pairs, strict=True)}


def _search_file(corpus: Artifact, items: ItemWords, path: str, out: PartitionWriter) -> None:
    data, offsets = text_columns(corpus.read_table(path).column("text"))
    out.write_table("longest.parquet", pa.table({"words": longest_runs(data, offsets, items)}))


def with_overlap(result: TaskResult, overlaps: Overlaps) -> TaskResult:
    """The result of a network trained on the text, with `overlap` in its items, and `overlapping` and `without_overlap`
    in its score. A result whose items were not searched for is returned unchanged."""
    matches = [overlaps.get((item["task"], item["item"])) for item in result.items]
    if not any(matches):
        return result
    items = [
        item | {"overlap": overlap.words if overlap else None}
        for item, overlap in zip(result.items, matches, strict=True)
    ]
    clean = [item for item, overlap in zip(items, matches, strict=True) if not (overlap and overlap.is_contaminated)]
    score = result.score | {
        "overlapping": len(items) - len(clean),
        "without_overlap": score_from_items(result.score["metric"], clean) if clean else None,
    }
    return TaskResult(score, items)


def score_from_items(metric: str, items: Sequence[Mapping[str, Any]]) -> float:
    """A score from its items: a GLUE metric of labels and predictions, else the ratio of the sums."""
    if metric in METRICS and metric != "accuracy":
        outputs = [json.loads(item["output"]) for item in items]
        labels, predicted = (np.array([output[name] for output in outputs]) for name in ("label", "predicted"))
        return METRICS[metric](labels, predicted)
    return float(sum(item["numerator"] for item in items) / sum(item["denominator"] for item in items))
