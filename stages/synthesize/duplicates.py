"""Near duplicates of synthetic texts: documents of the corpus, held-out ones too, and other synthetic texts.

- `sign_file`: signatures of a file of the corpus
- `gather`: those of a round's texts, in one file
- `match_file`: texts of the round that are near duplicates of documents of a file
- `Others`: the synthetic texts accepted so far

Signatures and bands are dedup's (`stages/common/minhash.py`). A pair that shares a band is a near duplicate if its
signatures agree in at least the share `similarity`: the standard error is 0.035 at 128 permutations and 0.8. A text is
no duplicate of its own parent, whose nearness has a gate of its own.
"""

import functools
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infra.store.artifacts import Artifact
from infra.store.filesystem import Folder
from infra.workers.partitions import PartitionResult, PartitionWriter
from stages.common.minhash import Signatures, band_entries, sign
from stages.common.minhash_config import MinHashConfig
from stages.common.word_hashes import Hashes, Positions
from stages.synthesize.generation import drafts_of

SIGNED = "signed.arrow"
MATCHES = pa.schema([("number", pa.int64()), ("id", pa.string()), ("similarity", pa.float64())])
MAX_PER_BAND = 64
"""Documents of a file with the same band as a text that it is compared with."""
_COLUMNS = ("id", "shingles", "exact", "signature")


class Signed(NamedTuple):
    """Signed texts."""

    ids: list[str]
    """Ids of the documents; of synthetic texts those of their parents."""
    shingles: Positions
    exact: Hashes
    """(texts, 2) uint64."""
    signatures: Signatures
    """(texts, permutations) uint32."""

    def similarity(self, row: int, other: "Signed", rows: Positions) -> np.ndarray:
        """Estimated Jaccard similarity of a text with some of `other`: (rows,) float64; 1 for equal texts."""
        agreement = np.asarray((self.signatures[row] == other.signatures[rows]).mean(axis=1), dtype=np.float64)
        agreement[(self.shingles[row] == 0) | (other.shingles[rows] == 0)] = 0.0
        agreement[(self.exact[row] == other.exact[rows]).all(axis=1)] = 1.0
        return agreement


def sign_file(corpus: Artifact, near: MinHashConfig, path: str, out: PartitionWriter) -> None:
    """Write `signed.arrow` with the signatures of one file of documents."""
    table = corpus.read_table(path)
    signed = sign(table.column("text"), near.permutations, near.shingle_words)
    columns = [
        table.column("id").combine_chunks(),
        pa.array(signed.shingles),
        pa.FixedSizeListArray.from_arrays(pa.array(signed.exact.ravel()), 2),
        pa.FixedSizeListArray.from_arrays(pa.array(signed.signatures.ravel()), near.permutations),
    ]
    out.write_table(SIGNED, pa.table(columns, names=_COLUMNS))


def gather(results: Sequence[PartitionResult], out: PartitionWriter) -> None:
    """Write `signed.arrow` with the texts of a round that no gate refused, in the order of the partitions."""
    tables = []
    for result in results:
        drafts = drafts_of(result)
        passed = drafts.filter(pc.is_null(drafts.column("reason")))
        tables.append(passed.select(["parent", "shingles", "exact", "signature"]).rename_columns(list(_COLUMNS)))
    out.write_table(SIGNED, pa.concat_tables(tables))


def match_file(texts: PartitionResult, near: MinHashConfig, documents: PartitionResult, out: PartitionWriter) -> None:
    """Write `matches.arrow`: the nearest document of a file for each text that has near duplicates in it.

    Args:
        texts: result of `gather`.
        near: settings of the signatures.
        documents: result of `sign_file`.
        out: receives the table.
    """
    signed, keys, numbers = _banded(texts.folder, texts.location(SIGNED), near)
    corpus = signed_of(documents)
    entries = band_entries(corpus.signatures, corpus.exact, corpus.shingles, np.arange(len(corpus.ids)), near.banding)
    order = np.argsort(entries.keys, kind="stable")
    corpus_keys, rows = entries.keys[order], entries.documents[order]
    left, right = (np.searchsorted(corpus_keys, keys, side=side) for side in ("left", "right"))
    candidates: dict[int, set[int]] = defaultdict(set)
    for entry in np.flatnonzero(right > left).tolist():
        candidates[int(numbers[entry])].update(
            rows[left[entry] : min(right[entry], left[entry] + MAX_PER_BAND)].tolist()
        )
    found = []
    for number in sorted(candidates):
        others = np.array(sorted(row for row in candidates[number] if corpus.ids[row] != signed.ids[number]), np.int64)
        if len(others):
            similarity = signed.similarity(number, corpus, others)
            best = int(np.argmax(similarity))
            if similarity[best] >= near.similarity:
                found.append({"number": number, "id": corpus.ids[others[best]], "similarity": float(similarity[best])})
    out.write_table("matches.arrow", pa.Table.from_pylist(found, MATCHES))


def signed_of(result: PartitionResult) -> Signed:
    """Signed texts that a partition wrote as `signed.arrow`."""
    return _signed(result.read_table(SIGNED))


def _signed(table: pa.Table) -> Signed:
    table = table.combine_chunks()
    lists = [
        np.asarray(table.column(name).combine_chunks().flatten().to_numpy()).reshape(
            len(table), table.schema.field(name).type.list_size
        )
        for name in ("exact", "signature")
    ]
    return Signed(table.column("id").to_pylist(), table.column("shingles").to_numpy(), *lists)


@functools.lru_cache(maxsize=1)
def _banded(folder: Folder, path: str, near: MinHashConfig) -> tuple[Signed, Hashes, Positions]:
    """The texts of a round with their band keys, loaded once per process."""
    with folder.open(path) as file:
        signed = _signed(pa.ipc.open_file(file).read_all())
    entries = band_entries(signed.signatures, signed.exact, signed.shingles, np.arange(len(signed.ids)), near.banding)
    return signed, entries.keys, entries.documents


class Others:
    """Synthetic texts that are no duplicates of one another, so that buckets stay small."""

    def __init__(self, near: MinHashConfig) -> None:
        self._near, self._rounds = near, list[_Round]()

    def twin(self, texts: Signed, number: int, name: str) -> tuple[str, float] | None:
        """The nearest near duplicate and its similarity; a text without one is added.

        Args:
            texts: texts of a round.
            number: the text.
            name: its id.
        """
        if not self._rounds or self._rounds[-1].texts is not texts:
            for previous in self._rounds[-1:]:
                previous.close()
            self._rounds.append(_Round(texts, self._near))
        keys = self._rounds[-1].keys_of(number)
        best: tuple[float, str] | None = None
        for each in self._rounds:
            rows = each.rows_with(keys)
            for row, similarity in zip(
                rows, texts.similarity(number, each.texts, np.array(rows, np.int64)), strict=True
            ):
                if similarity >= self._near.similarity:
                    candidate = (-float(similarity), each.names[row])
                    best = min(best or candidate, candidate)
        if best is not None:
            return best[1], -best[0]
        self._rounds[-1].add(number, name)
        return None


class _Round:
    """Accepted texts of a round by their bands; of bands that no two texts of the round share, only arrays."""

    def __init__(self, texts: Signed, near: MinHashConfig) -> None:
        self.texts = texts
        self.names: dict[int, str] = {}
        """Ids of the accepted texts."""
        entries = band_entries(texts.signatures, texts.exact, texts.shingles, np.arange(len(texts.ids)), near.banding)
        order = np.argsort(entries.documents, kind="stable")
        self._keys, self._rows = entries.keys[order], entries.documents[order]
        self._first = np.searchsorted(self._rows, np.arange(len(texts.ids) + 1))
        ordered = np.sort(self._keys)
        self._shared = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        self._buckets: dict[int, list[int]] | None = defaultdict(list)
        """Key that two texts or more share -> accepted ones; None after the round."""

    def keys_of(self, number: int) -> Hashes:
        """Keys of the bands of a text, while the round lasts."""
        return self._keys[self._first[number] : self._first[number + 1]]

    def rows_with(self, keys: Hashes) -> list[int]:
        """Accepted texts with one of the keys, in order."""
        if self._buckets is not None:
            return sorted({row for key in keys.tolist() for row in self._buckets.get(key, ())})
        left, right = (np.searchsorted(self._keys, keys, side=side) for side in ("left", "right"))
        return sorted({int(row) for a, b in zip(left, right, strict=True) for row in self._rows[a:b]})

    def add(self, number: int, name: str) -> None:
        """Accept a text."""
        assert self._buckets is not None
        self.names[number] = name
        keys = self.keys_of(number)
        at = np.minimum(np.searchsorted(self._shared, keys), len(self._shared) - 1)
        for key in keys[self._shared[at] == keys].tolist() if len(self._shared) else ():
            self._buckets[key].append(number)

    def close(self) -> None:
        """Keep the accepted texts alone, sorted by key."""
        accepted = np.isin(self._rows, np.fromiter(self.names, np.int64, len(self.names)))
        keys, rows = self._keys[accepted], self._rows[accepted]
        order = np.argsort(keys, kind="stable")
        self._keys, self._rows, self._buckets = keys[order], rows[order], None
        self._shared = self._first = np.empty(0, np.int64)
