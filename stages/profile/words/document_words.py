"""Words of a batch of documents, found once for all analyses that need them.

- `DocumentWords`, `document_words`: hashes, bounds and documents of the words of a batch
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.common.compiled import compiled
from stages.common.word_classes import LETTERS_AND_DIGITS, WordTable
from stages.common.word_hashes import Bytes, Hashes, Positions, find_words, text_columns


class DocumentWords(NamedTuple):
    """Words of a batch, document after document."""

    data: Bytes
    """(bytes,) uint8, the texts in UTF-8."""
    texts: Positions
    """(documents + 1,) int64, offset of each text in `data`."""
    hashes: Hashes
    """(words,) uint64, equal for words that differ only in case."""
    starts: Positions
    """(words,) int64, offset of the first byte in `data`."""
    ends: Positions
    """(words,) int64, offset after the last byte."""
    borders: Positions
    """(documents + 1,) int64, index of each document's first word."""

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """(documents,) int64, words of each document."""
        return np.diff(self.borders)


_latest: list[tuple[pa.RecordBatch, DocumentWords]] = []


def document_words(documents: pa.RecordBatch) -> DocumentWords:
    """Words of the documents; those of the latest batch are kept for the next analysis."""
    if not _latest or _latest[0][0] is not documents:
        _latest[:] = [(documents, _find(documents))]
    return _latest[0][1]


def _find(documents: pa.RecordBatch) -> DocumentWords:
    data, texts = text_columns(documents.column("text"))
    size = int(texts[-1] - texts[0]) // 2 + len(texts)
    hashes, starts, ends = np.empty(size, np.uint64), np.empty(size, np.int64), np.empty(size, np.int64)
    borders = np.zeros(len(texts), dtype=np.int64)
    count = _find_all(data, texts, LETTERS_AND_DIGITS, hashes, starts, ends, borders)
    return DocumentWords(data, texts, hashes[:count].copy(), starts[:count].copy(), ends[:count].copy(), borders)


@compiled
def _find_all(
    data: Bytes,
    texts: Positions,
    table: WordTable,
    hashes: Hashes,
    starts: Positions,
    ends: Positions,
    borders: Positions,
) -> int:
    count = 0
    for number in range(len(texts) - 1):
        begin, end = texts[number], texts[number + 1]
        count += find_words(data, begin, end, table, hashes[count:], starts[count:], ends[count:])
        borders[number + 1] = count
    return count
