"""Bits per byte of held-out text without a network: byte n-gram models and xz."""

from collections.abc import Sequence

from infra.store.artifacts import Artifact
from stages.benchmark.held_out.byte_ngram import ByteNgram
from stages.benchmark.held_out.compressors import xz_after_training_bits_per_byte, xz_bits_per_byte
from stages.benchmark.held_out.documents import HeldOutDocument, bits_per_byte_result
from stages.benchmark.results import TaskResult, point_estimate, score_row


def score_baselines(
    corpus: Artifact, documents: Sequence[HeldOutDocument], max_training_bytes: int, ngram_order: int, seed: int
) -> list[TaskResult]:
    """Scores of the baselines on the held-out documents.

    The n-gram models and "xz after training text" use up to `max_training_bytes` of the training text.
    """
    held_out = [document.text.encode() for document in documents]
    train = training_bytes(corpus, max_training_bytes)
    results = [
        bits_per_byte_result(name, documents, ByteNgram.fit(train, order).bits(held_out), seed)
        for name, order in (("unigram bytes", 1), (f"{ngram_order}-gram bytes", ngram_order))
    ]
    compressed = {
        "xz": xz_bits_per_byte(held_out),
        "xz after training text": xz_after_training_bits_per_byte(train, held_out),
    }
    for name, value in compressed.items():
        # One value for the whole text: a compressor has no bits per document to resample.
        score = score_row("held-out text", name, "bits per byte", point_estimate(value), len(documents), False)
        results.append(TaskResult(score, []))
    return results


def training_bytes(corpus: Artifact, max_bytes: int) -> list[bytes]:
    """Training documents in corpus order as UTF-8, until `max_bytes` is reached."""
    documents: list[bytes] = []
    size = 0
    for path in corpus.paths("train/*.parquet"):
        for text in corpus.read_table(path).column("text").to_pylist():
            if size >= max_bytes:
                return documents
            documents.append(text.encode())
            size += len(documents[-1])
    return documents
