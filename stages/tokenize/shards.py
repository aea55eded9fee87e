"""Token shards with a row per document, so that every training window can be traced to its documents."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_schemas.tables import token_shard_schema
from infra.store.artifacts import Artifact
from infra.workers.partitions import PartitionWriter
from stages.common.token_stream import END_OF_TEXT_ID
from stages.tokenize.byte_level_bpe import encode_documents, from_json


def training_texts(corpus: Artifact, training_bytes: int | None, seed: int) -> Iterator[str]:
    """Training documents, in corpus order.

    If `training_bytes` of UTF-8 are less than there are, each source of each partition gives its share of them, in the
    order of its documents' hashes. What a source gave too little or too much, as documents are whole, counts in the
    next partition, and the first document of a source is always drawn: no source is too small to be seen.
    """
    paths = corpus.paths("train/*.parquet")
    share = 1.0
    if training_bytes is not None:
        total = corpus.manifest.volume.text_bytes or sum(_text_bytes(corpus.read_table(path)) for path in paths)
        share = training_bytes / max(total, 1)
    owed: dict[str, float] = defaultdict(float)
    for path in paths:
        table = corpus.read_table(path)
        texts = table.column("text")
        if share < 1.0:
            texts = texts.take(pa.array(_drawn(table, share, seed, owed), pa.int64()))
        for text in texts:
            yield text.as_py()


def _drawn(table: pa.Table, share: float, seed: int, owed: dict[str, float]) -> list[int]:
    """Rows to train on, ascending; `owed` has the bytes that each source still has to give."""
    ids, sources = table.column("id").to_pylist(), table.column("source").to_pylist()
    sizes = pc.binary_length(table.column("text")).to_pylist()
    hashes = [hashlib.sha256(f"{seed} {id}".encode()).digest() for id in ids]
    is_new = {source: source not in owed for source in set(sources)}
    for source, size in zip(sources, sizes, strict=True):
        owed[source] += share * size
    drawn = []
    for row in sorted(range(len(ids)), key=hashes.__getitem__):
        source = sources[row]
        if owed[source] >= sizes[row] / 2 or is_new[source]:
            owed[source] -= sizes[row]
            is_new[source] = False
            drawn.append(row)
    return sorted(drawn)


def _text_bytes(table: pa.Table) -> int:
    return int(pc.sum(pc.binary_length(table.column("text"))).as_py() or 0)


def encode_partition(corpus: Artifact, tokenizer_json: bytes, path: str, out: PartitionWriter) -> None:
    """Encode `train/NAME.parquet` or `held_out/NAME.parquet` into an Arrow shard of the same name.

    Ids are uint16 if the vocabulary allows, else uint32; each document ends with the end-of-text token.
    """
    tokenizer = from_json(tokenizer_json)
    dtype = pa.uint16() if tokenizer.get_vocab_size() <= 2**16 else pa.uint32()
    table = corpus.read_table(path)
    texts = table.column("text").to_pylist()
    encoded = [np.append(ids, END_OF_TEXT_ID) for ids in encode_documents(tokenizer, texts)]
    lengths = [len(ids) for ids in encoded]
    flat = np.concatenate(encoded).astype(dtype.to_pandas_dtype()) if encoded else np.empty(0, dtype.to_pandas_dtype())
    tokens = pa.ListArray.from_arrays(pa.array(np.cumsum([0, *lengths]), pa.int32()), pa.array(flat))
    sizes = [len(text.encode()) for text in texts]
    columns = [table.column("id").combine_chunks(), tokens, pa.array(sizes, pa.int64())]
    shard = pa.Table.from_arrays(columns, schema=token_shard_schema(dtype))
    split = path.split("/")[0]
    out.count(f"{split}_tokens", sum(lengths))
    out.count(f"{split}_documents", len(texts))
    out.count(f"{split}_bytes", sum(sizes))
    out.write_table(path.removesuffix(".parquet") + ".arrow", shard)
