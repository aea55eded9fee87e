"""The last step of dedup: each file's documents go to `train/`, `held_out/` or `rejects/` by their fates.

- `FATES`: the table of what becomes of each document; `as_fates` begins it
- `FilterRules`: what holds for all files
- `filter_partition`: one file
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
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
from stages.dedup.cuts import CutFile, all_cuts, apply_cuts

TRAIN, HELD_OUT = "train", "held_out"
FATES = pa.schema([("fate", pa.string()), ("detail", pa.string()), ("score", pa.float64()), ("tagged", pa.bool_())])
"""A row per document of a file: survivor or why not, the rejects table's detail and score, and whether to tag it."""
SURVIVOR, CONTAMINATED, TOO_LITTLE_LEFT = "survivor", "contaminated", "too_little_left"


@dataclass(frozen=True)
class FilterRules:
    """What holds for all files."""

    held_out_share: float
    seed: int
    min_characters_left: int
    cuts: Sequence[CutFile]

    def split(self, document: str) -> str:
        """Held out or not, by a hash of the id alone: the same under any partitioning and any other documents."""
        share = xxhash.xxh64_intdigest(document.encode(), seed=self.seed) / 2**64
        return HELD_OUT if share < self.held_out_share else TRAIN


def as_fates(near_duplicates: pa.Table) -> pa.Table:
    """`FATES` from what near-duplicate detection says: fate, survivor, similarity."""
    columns = [near_duplicates.column(name) for name in ("fate", "survivor", "similarity")]
    return pa.table([*columns, pa.repeat(pa.scalar(False), len(near_duplicates))], schema=FATES)


def survives(fates: pa.Table) -> npt.NDArray[np.bool_]:
    """(documents,) which documents of a file no step has left out so far."""
    mask: npt.NDArray[np.bool_] = pc.equal(fates.column("fate"), SURVIVOR).combine_chunks().to_numpy(False)
    return mask


def filter_partition(
    documents: Artifact, rules: FilterRules, payload: tuple[int, str, pa.Table], out: PartitionWriter
) -> None:
    """Write one file's documents by their fates, and those that are cut without what is cut.

    Args:
        documents: the artifact they are in.
        rules: of the split and the cuts.
        payload: number and name of the file, and its `FATES`.
        out: gets `NAME.parquet` under `train/`, `held_out/`, `rejects/` and `funnel/`.
    """
    number, name, fates = payload
    table = documents.read_table(f"documents/{name}")
    sizes = pc.binary_length(table.column("text")).to_pylist()
    fates_of = fates.column("fate").to_pylist()
    table, too_short = _cut(table, all_cuts(rules.cuts, number), survives(fates), rules.min_characters_left)
    for row in too_short:
        fates_of[row] = TOO_LITTLE_LEFT
    table = _tagged(table, fates.column("tagged").to_pylist())
    sizes_left = pc.binary_length(table.column("text")).to_pylist()
    details, scores = fates.column("detail").to_pylist(), fates.column("score").to_pylist()
    funnel, rejects, splits = Funnel(), [], []
    for row, document in enumerate(table.select(["id", "source", "path", "genre"]).to_pylist()):
        fate, size = fates_of[row], sizes[row]
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
        chosen = pa.array([one == split for one in splits], pa.bool_())
        out.write_table(f"{split}/{name}", table.filter(chosen).cast(DOCUMENTS))
    out.write_table(f"rejects/{name}", pa.Table.from_pylist(rejects, REJECTS))


def _cut(
    table: pa.Table, cuts: pa.Table, survivors: npt.NDArray[np.bool_], min_characters: int
) -> tuple[pa.Table, list[int]]:
    """The table with texts cut and the cuts counted in `edits`, and the rows of which too little is left."""
    if not len(cuts):
        return table, []
    texts, edits = table.column("text").to_pylist(), table.column("edits").to_pylist()
    too_short = []
    for row, spans in groupby(cuts.to_pylist(), key=itemgetter("row")):
        if survivors[row]:
            found = list(spans)
            texts[row] = apply_cuts(texts[row], [(span["start"], span["end"]) for span in found])
            edits[row] = _added(edits[row], Counter(span["reason"] for span in found))
            if len(texts[row]) < min_characters:
                too_short.append(row)
    return _with(_with(table, "text", texts), "edits", edits), too_short


def _added(edits: Sequence[tuple[str, int]] | None, more: Counter[str]) -> list[tuple[str, int]]:
    return sorted((Counter(dict(edits or [])) + more).items())


def _tagged(table: pa.Table, tagged: Sequence[bool]) -> pa.Table:
    if not any(tagged):
        return table
    tags = table.column("tags").to_pylist()
    return _with(
        table, "tags", [[*(old or []), CONTAMINATED] if new else old for old, new in zip(tags, tagged, strict=True)]
    )


def _with(table: pa.Table, name: str, values: Sequence[Any]) -> pa.Table:
    field = DOCUMENTS.field(name)
    return table.set_column(table.column_names.index(name), field, pa.array(values, field.type))
