"""Compression of the text by a general compressor: ratio, and bits per byte and word."""

from collections.abc import Sequence

import pyarrow as pa

from stages.profile.analysis import Analysis, Measure, State
from stages.profile.words.document_words import document_words

LEVEL = 3
NAME = f"zstd{LEVEL}"


class Compression(Analysis):
    """Ratio of the bytes of documents to those after Zstandard, each document by itself.

    Documents are compressed one by one, so that the figure does not depend on their order or on partitions; what
    documents repeat of each other is in the figures of duplicates.
    """

    name = "compression"

    def empty(self) -> State:
        """Totals of zero."""
        return {"bytes": 0, "compressed": 0, "words": 0}

    def add(self, state: State, documents: pa.RecordBatch) -> State:
        """Compress more documents."""
        import zstandard

        found = document_words(documents)
        compressor = zstandard.ZstdCompressor(level=LEVEL, write_content_size=False)
        data = found.data.data
        spans = zip(found.texts[:-1].tolist(), found.texts[1:].tolist(), strict=True)
        compressed = sum(len(compressor.compress(data[begin:end])) for begin, end in spans if end > begin)
        more = {"bytes": int(found.texts[-1] - found.texts[0]), "compressed": compressed, "words": len(found.hashes)}
        return self.merge(state, more)

    def merge(self, first: State, second: State) -> State:
        """Add the totals."""
        return {name: first[name] + second[name] for name in first}

    def measures(self, state: State) -> Sequence[Measure]:
        """`compression.zstd3.{ratio,bits_per_byte,bits_per_word}`."""
        if not state["compressed"]:
            return []
        bits = 8 * state["compressed"]
        rows = [
            Measure(f"compression.{NAME}.ratio", state["bytes"] / state["compressed"], ""),
            Measure(f"compression.{NAME}.bits_per_byte", bits / state["bytes"], "bits/byte"),
        ]
        if state["words"]:
            rows.append(Measure(f"compression.{NAME}.bits_per_word", bits / state["words"], "bits/word"))
        return rows
