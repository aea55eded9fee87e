"""Last step of dedup: the documents of each file are written to `train/`, `held_out/` or `rejects/` by their fates.

- `FATES`: schema of the fates of a file's documents; `FileFates` reads the table
- `FilterRules`: settings common to all files
- `filter_partition`: writes one file
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from data_schemas.tables import DOCUMENTS, REJECTS, reject_row
from infra.store.artifacts import Artifact
from infra.workers.partitions import PartitionWriter
from stages.common.funnel import Funnel
from stages.dedup.cuts import CutSource, all_cuts, apply_cuts
from stages.dedup.part_files import PartFile, open_table

TRAIN, HELD_OUT = "train", "held_out"
FATES = pa.schema([("fate", pa.string()), ("detail", pa.string()), ("score", pa.float64()), ("tagged", pa.bool_())])
"""A row per document of a file: survivor or reject reason, detail and score of the rejects table, whether to tag it."""
SURVIVOR, CONTAMINATED, TOO_LITTLE_LEFT = "survivor", "contaminated", "too_little_left"


@dataclass(frozen=True)
class FilterRules:
    """Settings of the split and the cuts."""

    held_out_share: float
    seed: int
    min_characters_left: int
    cuts: Sequence[CutSource]

    def split(self, document: str) -> str:
        """Split of a document, by a hash of its id alone: independent of the partitioning and of other documents."""
        share = xxhash.xxh64_intdigest(document.encode(), seed=self.seed) / 2**64
        return HELD_OUT if share < self.held_out_share else TRAIN


@dataclass(frozen=True)
class FileFates:
    """Fates of a file's documents; picklable, read where they are needed."""

    part: PartFile
    """Result of near-duplicate detection: fate, survivor, similarity."""
    changes: tuple[Callable[[pa.Table], pa.Table], ...] = ()
    """Later decisions, from `FATES` to `FATES`."""

    def read(self) -> pa.Table:
        """`FATES` after all decisions."""
        near = open_table(self.part)
        columns = [near.column(name) for name in ("fate", "survivor", "similarity")]
        fates = pa.table([*columns, pa.repeat(pa.scalar(False), len(near))], schema=FATES)
        for change in self.changes:
            fates = change(fates)
        return fates

    def changed(self, change: Callable[[pa.Table], pa.Table]) -> "FileFates":
        """Fates after one more decision; `change` must be picklable."""
        return replace(self, changes=(*self.changes, change))


def survives(fates: pa.Table) -> npt.NDArray[np.bool_]:
    """Mask (documents,) of the documents of a file that no step has dropped so far."""
    mask: npt.NDArray[np.bool_] = pc.equal(fates.column("fate"), SURVIVOR).combine_chunks().to_numpy(False)
    return mask


def filter_partition(
    documents: Artifact, rules: FilterRules, payload: tuple[int, str, FileFates], out: PartitionWriter
) -> None:
    """Write one file's documents by their fates, with the cuts applied.

    Args:
        documents: artifact with the documents.
        rules: split and cuts.
        payload: index and name of the file, and its fates.
        out: receives `NAME.parquet` under `train/`, `held_out/`, `rejects/` and `funnel/`.
    """
    number, name, file_fates = payload
    fates = file_fates.read()
    table = documents.read_table(f"documents/{name}")
    sizes = pc.binary_length(table.column("text")).to_pylist()
    fate_of = fates.column("fate").to_pylist()
    table, too_short = _cut(table, all_cuts(rules.cuts, number), survives(fates), rules.min_characters_left)
    for row in too_short:
        fate_of[row] = TOO_LITTLE_LEFT
    table = _tagged(table, fates.column("tagged").to_pylist())
    sizes_left = pc.binary_length(table.column("text")).to_pylist()
    details, scores = fates.column("detail").to_pylist(), fates.column("score").to_pylist()
    funnel, rejects, splits = Funnel(), [], []
    for row, document in enumerate(table.select(["id", "source", "path", "genre"]).to_pylist()):
        fate, size = fate_of[row], sizes[row]
        splits.append(rules.split(document["id"]) if fate == SURVIVOR else "")
        if fate == SURVIVOR:
            funnel.kept(document, size, sizes_left[row])
            out.count(f"{splits[row]}_documents", 1)
            out.count(f"{splits[row]}_bytes", sizes_left[row])
        else:
            funnel.dropped(document, fate, size)
            rejects.append(reject_row(document, fate, size=size, score=scores[row], detail=details[row]))
    funnel.write(out, f"funnel/{name}")
    for split in (TRAIN, HELD_OUT):
        chosen = pa.array([document_split == split for document_split in splits], pa.bool_())
        out.write_table(f"{split}/{name}", table.filter(chosen).cast(DOCUMENTS))
    out.write_table(f"rejects/{name}", pa.Table.from_pylist(rejects, REJECTS))


def _cut(
    table: pa.Table, cuts: pa.Table, survivors: npt.NDArray[np.bool_], min_characters: int
) -> tuple[pa.Table, list[int]]:
    """Table with the texts cut and the cuts counted in `edits`, and the rows of which too little is left."""
    if not len(cuts):
        return table, []
    texts, edits = table.column("text").to_pylist(), table.column("edits").to_pylist()
    too_short = []
    for row, spans in groupby(cuts.to_pylist(), key=itemgetter("row")):
        if survivors[row]:
            row_spans = list(spans)
            texts[row] = apply_cuts(texts[row], [(span["start"], span["end"]) for span in row_spans])
            edits[row] = _added(edits[row], Counter(span["reason"] for span in row_spans))
            if len(texts[row]) < min_characters:
                too_short.append(row)
    return _with(_with(table, "text", texts), "edits", edits), too_short


def _added(edits: Sequence[tuple[str, int]] | None, more: Counter[str]) -> list[tuple[str, int]]:
    return sorted((Counter(dict(edits or [])) + more).items())


def _tagged(table: pa.Table, tagged: Sequence[bool]) -> pa.Table:
    if not any(tagged):
        return table
    tags = table.column("tags").to_pylist()
    updated = [[*(old or []), CONTAMINATED] if is_tagged else old for old, is_tagged in zip(tags, tagged, strict=True)]
    return _with(table, "tags", updated)


def _with(table: pa.Table, name: str, values: Sequence[Any]) -> pa.Table:
    field = DOCUMENTS.field(name)
    return table.set_column(table.column_names.index(name), field, pa.array(values, field.type))
