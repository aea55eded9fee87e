import uuid

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from infra.store.filesystem import Folder
from stages.dedup.near_duplicates import verification
from stages.dedup.near_duplicates.verification import (
    SHINGLE_SETS,
    ShingleFile,
    ShingleReader,
    _compared,
    distinct_pairs,
)
from stages.dedup.part_files import PartFile, file_bytes

SETS = st.lists(st.sets(st.integers(0, 12), min_size=1), min_size=2, max_size=6)


@given(SETS, st.sampled_from([0.2, 0.5, 0.8]), st.integers(1, 5))
def test_similarity_is_jaccards(sets, similarity, cut):
    folder, count = Folder(f"memory://shingles-{uuid.uuid4().hex}"), len(sets)
    files = []
    for first, end in ((0, min(cut, count)), (min(cut, count), count)):
        lists = pa.array([sorted(first) for first in sets[first:end]], pa.large_list(pa.uint32()))
        table = pa.table([pa.array(np.arange(first, end)), lists], schema=SHINGLE_SETS)
        folder.write(f"{first}-{end}", file_bytes(SHINGLE_SETS, table.to_batches()))
        files.append(ShingleFile(PartFile(folder, f"{first}-{end}"), first, end))
    first, second = np.triu_indices(count, 1)
    edges = _compared(first, second, ShingleReader(files), similarity).to_pylist()
    true = {(a, b): len(sets[a] & sets[b]) / len(sets[a] | sets[b]) for a, b in zip(first, second, strict=True)}
    assert {(row["one"], row["other"]): row["similarity"] for row in edges} == {
        pair: value for pair, value in true.items() if value >= similarity
    }


@given(st.lists(st.lists(st.integers(0, 99)), max_size=4), st.integers(1, 30))
def test_pairs_are_merged_in_pieces(lists, at_once):
    before, verification.PAIRS_AT_ONCE = verification.PAIRS_AT_ONCE, at_once
    sources = [np.unique(np.array(first, dtype=np.int64)) for first in lists]
    merged = [pair for piece in distinct_pairs(sources, 2, 9, 10) for pair in piece.tolist()]
    verification.PAIRS_AT_ONCE = before
    assert merged == sorted({pair for first in lists for pair in first if 20 <= pair < 90})
