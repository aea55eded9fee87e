"""The two halves of the held-out documents: one is chosen on, the other is scored by the benchmark.

A choice that was made on some text, such as an average of checkpoints or a compression recipe, looks better on that
text than on any other. `pretrain` selects weights and `compress` measures its passes on selection documents;
`benchmark` scores the others. A document's half follows from a hash of its id, so that it is the same in every run and
for every stage. If the hash puts all documents into one half, every other document selects, the second first; a single
document is scored and selects nothing.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xxhash

from infra.store.artifacts import Artifact
from stages.common.token_shards import open_shards

Mask = npt.NDArray[np.bool_]


def selection_masks(tokens: Artifact) -> dict[str, Mask]:
    """Held-out shard -> mask (documents,): True for selection documents, False for those that the benchmark scores."""
    paths = list(tokens.paths("held_out/*.arrow"))
    ids = open_shards(tokens, "held_out").document_ids()
    selects = selection_mask([document for shard in ids for document in shard])
    borders = np.cumsum([len(shard) for shard in ids])[:-1]
    return dict(zip(paths, np.split(selects, borders), strict=True))


def selection_mask(documents: Sequence[str]) -> Mask:
    """Mask (documents,) of selection documents, from the ids of all held-out documents in corpus order."""
    selects = np.array([_selects(document) for document in documents], dtype=np.bool_)
    if selects.all() or not selects.any():
        selects = np.array([index % 2 == 1 for index in range(len(documents))], dtype=np.bool_)
    return selects


def _selects(document: str) -> bool:
    # Another hash than dedup's, by which documents were held out: that one is below the held-out share for all of them.
    return bool(xxhash.xxh64_intdigest(f"selection {document}".encode()) & 1)
