"""Token shards with a row per document, so that every training window can be traced to its documents."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from data_schemas.tables import token_shard_schema
from infra.store.artifacts import Artifact
from infra.workers.partitions import PartitionWriter
from stages.common.token_stream import END_OF_TEXT_ID
from stages.tokenize.byte_level_bpe import encode_documents, from_json


def training_texts(corpus: Artifact, training_bytes: int | None) -> Iterator[str]:
    """Training documents in corpus order, until `training_bytes` of UTF-8 are reached."""
    size = 0
    for path in corpus.paths("train/*.parquet"):
        for text in corpus.read_table(path).column("text").to_pylist():
            if training_bytes is not None and size >= training_bytes:
                return
            size += len(text.encode())
            yield text


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
