"""From signatures to candidate pairs: bands, buckets, and the check of a pair by its signatures.

- `NearDuplicates`: inputs and settings common to all phases
- `write_bands`, `sort_buckets`, `check_candidates`: the phases' partition functions
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from infra.store.artifacts import Artifact
from infra.workers.partitions import Partition, PartitionResult, PartitionWriter
from stages.common.word_hashes import Hashes
from stages.dedup.near_duplicates.lsh_buckets import BAND_ENTRIES, BandLayout, band_batches, bucket_pairs, hash_rows
from stages.dedup.near_duplicates.minhash_config import MinHashConfig
from stages.dedup.near_duplicates.signature_index import SignatureFile, SignatureReader, fixed_lists
from stages.dedup.near_duplicates.verification import EDGES, OPEN_PAIRS, check_signatures, distinct_pairs
from stages.dedup.part_files import Numbers, column_of, file_bytes, open_table, part_of, ranges

BAND_DOCUMENTS = 1 << 18
"""Documents whose band keys one partition writes: 90 MB at 21 bands."""
RANGE_DOCUMENTS = 1 << 17
"""Documents whose candidates one partition checks."""
MAX_RANGES = 1024
"""The phase of buckets writes a record batch per range and bucket partition."""
EDGE_FILE, OPEN_FILE = "edges.arrow", "open.arrow"
_BANDS, _PAIRS = "bands.arrow", "pairs.arrow"


@dataclass(frozen=True)
class NearDuplicates:
    """Inputs and settings common to all phases; picklable."""

    documents: Artifact
    near: MinHashConfig
    files: tuple[SignatureFile, ...]
    names: tuple[str, ...]

    @property
    def new_documents(self) -> int:
        """Number of documents whose fate is to be determined."""
        return sum(file.documents for file in self.files if not file.is_earlier)

    @property
    def total(self) -> int:
        """Number of documents, survivors of earlier artifacts included."""
        return sum(file.documents for file in self.files)

    @property
    def layout(self) -> BandLayout:
        """Layout of the bands."""
        return BandLayout.of(self.near.banding, self.total)

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """Number ranges of the new documents."""
        return list(ranges(self.new_documents, max(RANGE_DOCUMENTS, -(-self.new_documents // MAX_RANGES))))

    @property
    def reader(self) -> SignatureReader:
        """Reader of all signatures."""
        return SignatureReader(self.files)


def band_groups(files: Sequence[SignatureFile]) -> list[Partition]:
    """Groups of consecutive files with up to `BAND_DOCUMENTS` documents together."""
    groups: list[list[SignatureFile]] = []
    for file in files:
        if groups and sum(member.documents for member in groups[-1]) + file.documents <= BAND_DOCUMENTS:
            groups[-1].append(file)
        else:
            groups.append([file])
    return [Partition(f"{number:05d}", group) for number, group in enumerate(groups)]


def write_bands(work: NearDuplicates, group: Sequence[SignatureFile], out: PartitionWriter) -> None:
    """Write the band keys of a group of files."""
    tables = [open_table(file.part) for file in group]
    batches = band_batches(
        np.concatenate([fixed_lists(table, "signature") for table in tables]),
        np.concatenate([fixed_lists(table, "exact") for table in tables]),
        np.concatenate([column_of(table, "shingles") for table in tables]),
        np.arange(group[0].first, group[-1].end),
        work.layout,
    )
    out.write(_BANDS, file_bytes(BAND_ENTRIES, batches))


def sort_buckets(
    work: NearDuplicates, bands: Sequence[PartitionResult], batches: Sequence[int], out: PartitionWriter
) -> None:
    """Write the candidates of some slices: ascending pairs, a record batch per range of the smaller document number."""
    readers = [part_of(result, _BANDS).reader() for result in bands]
    candidates = [np.empty(0, dtype=np.int64)]
    for number in batches:
        entries = [reader.get_batch(number) for reader in readers]
        keys = np.concatenate([column_of(batch, "key") for batch in entries])
        numbers = np.concatenate([column_of(batch, "document") for batch in entries])
        candidates.append(bucket_pairs(keys, numbers, work.total, partial(_content_hashes, work.reader)))
    pairs = np.unique(np.concatenate(candidates))
    bounds = np.searchsorted(
        pairs, [first * work.total for first, _ in work.ranges] + [work.new_documents * work.total]
    )
    pieces = [pairs[begin:end] for begin, end in itertools.pairwise(bounds)]
    out.write(_PAIRS, file_bytes(OPEN_PAIRS, _pair_batches(pieces)))


def _content_hashes(reader: SignatureReader, numbers: Numbers) -> tuple[Hashes, Hashes]:
    signatures, exact = np.empty(len(numbers), dtype=np.uint64), np.empty(len(numbers), dtype=np.uint64)
    for start, end in ranges(len(numbers), RANGE_DOCUMENTS):
        rows = reader.rows(numbers[start:end])
        hash_rows(rows.signatures, signatures[start:end])
        exact[start:end] = rows.exact[:, 0]
    return signatures, exact


def _pair_batches(pieces: Sequence[Numbers]) -> list[pa.RecordBatch]:
    return [pa.record_batch([pa.array(piece)], schema=OPEN_PAIRS) for piece in pieces]


def check_candidates(work: NearDuplicates, pairs: Sequence[PartitionResult], number: int, out: PartitionWriter) -> None:
    """Merge a range's candidates over all bands and decide them by signature where possible."""
    sources = [column_of(part_of(result, _PAIRS).reader().get_batch(number), "pair") for result in pairs]
    first, end = work.ranges[number]
    edges, open_pairs = [], []
    for candidates in distinct_pairs(sources, first, end, work.total):
        out.count("candidates", len(candidates))
        decided = check_signatures(candidates, work.total, work.new_documents, work.reader, work.near)
        edges.append(decided.edges)
        open_pairs.append(decided.open_pairs)
    out.write(EDGE_FILE, file_bytes(EDGES, edges))
    out.write(OPEN_FILE, file_bytes(OPEN_PAIRS, _pair_batches(open_pairs)))
