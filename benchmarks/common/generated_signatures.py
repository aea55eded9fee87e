"""Signatures of any number of documents, generated without text.

Every value is a hash of the document's number, so that a near-duplicate of any document is generated without reading
it. Of 512 documents:

- 16 are near-duplicates of another, anywhere in the corpus: 82 % to 100 % of the values are equal
- 8 are copies of another
- 8 are in chains of `CHAIN` documents of which neighbors agree in 90 % of the values, spread over the corpus
- 1 is a page of a template with `TEMPLATE` pages that agree in 97 % of the values
- 479 are unlike any other, except that they may be the ones that were duplicated
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from infra.workers.partitions import PartitionWriter
from stages.common.compiled import compiled
from stages.common.minhash_config import MinHashConfig
from stages.common.word_hashes import Hashes, mix
from stages.dedup.near_duplicates.signature_index import signed_schema

KINDS, PAGES = 64, 512
NEAR, COPY, CHAINED, PAGE = 0, 2, 3, 4
"""Kinds by the number of the document modulo `KINDS`: near-duplicate from 0, copy from 2; a page if modulo `PAGES`."""
CHAIN, TEMPLATE = 1000, 1000
FILE_DOCUMENTS = 1 << 17
SIGNED = "signed.arrow"


class Planted(NamedTuple):
    """Documents of each kind among the first N."""

    alone: int
    duplicates: int
    """Near-duplicates and copies."""
    chains: int
    templates: int

    @property
    def clusters(self) -> int:
        """Survivors, if every duplicate is found and nothing else."""
        return self.alone + self.chains + self.templates


def planted(documents: int) -> Planted:
    """Kinds of the first `documents` documents."""
    numbers = np.arange(documents)
    duplicates, chained = int((numbers % KINDS < CHAINED).sum()), int((numbers % KINDS == CHAINED).sum())
    pages = int((numbers % PAGES == PAGE).sum())
    alone = documents - chained - pages - duplicates
    return Planted(alone, duplicates, groups(documents // KINDS, CHAIN), groups(documents // PAGES, TEMPLATE))


def groups(members: int, size: int) -> int:
    """Number of chains or templates."""
    return max(1, members // size)


def sign_generated(near: MinHashConfig, documents: int, number: int, out: PartitionWriter) -> None:
    """Write the signatures of one file of a corpus of `documents` documents."""
    first, end = number * FILE_DOCUMENTS, min((number + 1) * FILE_DOCUMENTS, documents)
    count = end - first
    signatures = np.empty((count, near.permutations), dtype=np.uint32)
    exact = np.empty((count, 2), dtype=np.uint64)
    chains, templates = groups(documents // KINDS, CHAIN), groups(documents // PAGES, TEMPLATE)
    _generate(first, documents, chains, templates, signatures, exact)
    columns = [
        pa.array([str(document) for document in range(first, end)]),
        pa.array(["s"]).take(pa.array(np.zeros(count, dtype=np.int64))),
        pa.nulls(count, pa.float64()),
        pa.array(np.full(count, 3000)),
        pa.array(np.full(count, 600)),
        pa.FixedSizeListArray.from_arrays(pa.array(exact.ravel()), 2),
        pa.FixedSizeListArray.from_arrays(pa.array(signatures.ravel()), near.permutations),
    ]
    out.count("documents", count)
    out.write_table(SIGNED, pa.table(columns, schema=signed_schema(near)))


@compiled
def _value(owner: int, column: int, version: int) -> np.uint64:
    return mix(np.uint64(owner) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(column * 65536 + version))


@compiled
def _generate(
    first: int,
    documents: int,
    chains: int,
    templates: int,
    signatures: npt.NDArray[np.uint32],
    exact: Hashes,
) -> None:
    width = signatures.shape[1]
    for row in range(len(signatures)):
        document = first + row
        kind, group = document % KINDS, document // KINDS
        owner, changed_share = document, 0.0
        if kind < CHAINED:  # the base is a document that is like no other
            drawn = mix(np.uint64(document) + np.uint64(1 << 50)) % np.uint64(max(1, documents // KINDS))
            owner = int(drawn) * KINDS + 5 + int(mix(np.uint64(document)) % np.uint64(59))
            owner = owner if owner < documents else 5
            if kind < COPY:
                changed_share = 0.18 * (mix(np.uint64(document) + np.uint64(1 << 51)) % np.uint64(1000)) / 1000
        elif document % PAGES == PAGE:
            owner, changed_share = (1 << 40) + document // PAGES % templates, 0.015
        same_text = owner if kind == COPY else document
        exact[row, 0] = mix(np.uint64(same_text) + np.uint64(1 << 52))
        exact[row, 1] = mix(np.uint64(same_text) + np.uint64(1 << 53))
        for column in range(width):
            value = _value(owner, column, 0)
            if kind == CHAINED:
                step = (group // chains + int(_value(column, 1, 1) % np.uint64(10))) // 10
                value = _value((1 << 41) + group % chains, column, step)
            elif changed_share and _value(document, column, 2) % np.uint64(1000) < changed_share * 1000:
                value = _value(document, column, 3)
            signatures[row, column] = np.uint32(value >> np.uint64(32))
