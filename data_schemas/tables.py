"""Arrow schemas of all tables that stages write for one another, with documentation in each field's metadata.

- `DOCUMENTS`: text, one row per document
- `REJECTS`: documents that a stage rejected, with the reason; `reject_row` makes a row
- `FUNNEL`: documents and bytes per source, genre and outcome
- `CONTAMINATION`: benchmark items found in the text
- `SYNTHETIC`: what was made of which document, how, and the verdict of every gate
- `token_shard_schema`: token ids, one row per document, in uint16 or uint32 by vocabulary size
- `MEASURES`, `EXAMPLES`: a corpus profile, one row per figure and one row per example document
- `SCORES`, `ITEMS`: benchmark results, one row per score and one row per test item

A column's documentation is part of the bytes of every file: reword it only together with a stage's `version`.
"""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

NAME_KEY = b"headrace.schema"
VERSION_KEY = b"headrace.version"
DOC_KEY = b"doc"


def column(name: str, kind: pa.DataType, doc: str, *, nullable: bool = False) -> pa.Field:
    """Arrow field with its documentation in the metadata."""
    return pa.field(name, kind, nullable=nullable, metadata={DOC_KEY: doc.encode()})


def table_schema(name: str, version: int, *columns: pa.Field) -> pa.Schema:
    """Arrow schema with its name and version in the metadata."""
    return pa.schema(columns, metadata={NAME_KEY: name.encode(), VERSION_KEY: str(version).encode()})


def schema_label(schema: pa.Schema) -> str:
    """Name and version from the schema's metadata, such as `documents v1`; `unnamed` without."""
    metadata = schema.metadata or {}
    if NAME_KEY not in metadata:
        return "unnamed"
    return f"{metadata[NAME_KEY].decode()} v{metadata.get(VERSION_KEY, b'?').decode()}"


DOCUMENTS = table_schema(
    "documents",
    2,
    column("id", pa.string(), "stable over reruns: made of source, path and position"),
    column("text", pa.string(), "the document's text, UTF-8"),
    column("source", pa.string(), "the collection it came from, such as a package or a dump"),
    column("path", pa.string(), "file inside the source"),
    column("genre", pa.string(), "books, wiki, news, web, technical documentation ..."),
    column("language", pa.string(), "ISO 639 code where known, of two letters if the language has one", nullable=True),
    column("url", pa.string(), "where it can be read on the web, if anywhere", nullable=True),
    column("licence", pa.string(), "as its source states it", nullable=True),
    column("date", pa.string(), "ISO 8601 date of the text where known", nullable=True),
    column("metadata", pa.map_(pa.string(), pa.string()), "whatever else the source said", nullable=True),
    column("quality", pa.float64(), "probability of being reference-like text, by the classifier", nullable=True),
    column("tags", pa.list_(pa.string()), "rules that the document breaks and that only tag", nullable=True),
    column("edits", pa.map_(pa.string(), pa.int64()), "what was changed in the text: rule -> times", nullable=True),
)

REJECTS = table_schema(
    "rejects",
    2,
    column("id", pa.string(), "document id, or source and path where there is no document yet"),
    column("source", pa.string(), "the collection it came from"),
    column("path", pa.string(), "file inside the source"),
    column("genre", pa.string(), "as in documents"),
    column("position", pa.int64(), "record number in the file, from 0; -1 for the whole file or where unknown"),
    column("reason", pa.string(), "name of the rule or the error"),
    column("score", pa.float64(), "what the rule measured, where it has a threshold", nullable=True),
    column("detail", pa.string(), "the error, the surviving duplicate's id, the benchmark item ...", nullable=True),
    column("bytes", pa.int64(), "UTF-8 bytes of the text left out; 0 where unknown"),
)


def reject_row(
    document: Mapping[str, Any],
    reason: str,
    *,
    size: int,
    position: int = -1,
    score: float | None = None,
    detail: str | None = None,
) -> dict[str, Any]:
    """Row of `REJECTS` for a document of `size` bytes, of which at least id, source, path and genre are needed."""
    named = {name: document[name] for name in ("id", "source", "path", "genre")}
    return {**named, "position": position, "reason": reason, "score": score, "detail": detail, "bytes": size}


KEPT = "kept"
FUNNEL = table_schema(
    "funnel",
    1,
    column("source", pa.string(), "as in documents"),
    column("genre", pa.string(), "as in documents"),
    column("fate", pa.string(), "`kept`, or the reason of the reject"),
    column("documents", pa.int64(), "how many"),
    column("bytes_in", pa.int64(), "UTF-8 bytes of their text as it came"),
    column("bytes_out", pa.int64(), "UTF-8 bytes of their text as it went on; 0 for rejects"),
)

CONTAMINATION = table_schema(
    "contamination",
    1,
    column("benchmark", pa.string(), "file of the benchmark, as configured"),
    column("item", pa.string(), "the item's id in its file, or its row from 0"),
    column("ngram", pa.int64(), "words per n-gram: 13 or 8"),
    column("ngrams", pa.int64(), "distinct n-grams of the item"),
    column("found", pa.int64(), "how many of them stand in the corpus"),
    column("documents", pa.int64(), "documents that hold at least one of them"),
    column("example", pa.string(), "id of the first such document", nullable=True),
)

MEASURES = table_schema(
    "measures",
    1,
    column("slice", pa.string(), "documents measured: `all`, or `genre=news`, `language=de`, `split=held_out` ..."),
    column("measure", pa.string(), "dotted name of the figure, such as entropy.unigram.miller_madow"),
    column("item", pa.string(), "bucket, entity, topic or other item of the measure", nullable=True),
    column("value", pa.float64(), "the figure"),
    column("low", pa.float64(), "lower end of the stated error; null without", nullable=True),
    column("high", pa.float64(), "upper end of the stated error; null without", nullable=True),
    column("unit", pa.string(), "bits/word, documents, share, bytes ..."),
    column("exact", pa.bool_(), "false if estimated from a sketch or a sample"),
)

EXAMPLES = table_schema(
    "examples",
    1,
    column("slice", pa.string(), "as in measures"),
    column("measure", pa.string(), "as in measures"),
    column("item", pa.string(), "as in measures", nullable=True),
    column("document_id", pa.string(), "id of the document in the corpus"),
    column("excerpt", pa.string(), "part of its text, up to 400 characters"),
)

GATES = pa.list_(
    pa.struct([("gate", pa.string()), ("passed", pa.bool_()), ("score", pa.float64()), ("detail", pa.string())])
)
"""Verdicts of the gates that judged a synthetic text, in order; the score is in the gate's unit."""
SYNTHETIC = table_schema(
    "synthetic",
    1,
    column("id", pa.string(), "id of the synthetic document: PARENT~METHOD"),
    column("parent", pa.string(), "id of the document it was made of"),
    column("genre", pa.string(), "as in documents, of the parent"),
    column("method", pa.string(), "kind of the method, numbered if the config has several of the kind"),
    column("parameters", pa.string(), "JSON: settings of the method"),
    column("engine", pa.string(), "the program, model or code that made it"),
    column("engine_version", pa.string(), "version of what decides its bytes"),
    column("seed", pa.int64(), "seed of the method for this parent, and the parent's rank"),
    column("verdict", pa.string(), "`kept`, or why it is a reject"),
    column("detail", pa.string(), "what the gate found, or why there is no text", nullable=True),
    column("gates", GATES, "every gate's verdict and score; none if there is no text"),
    column("text", pa.string(), "the text, if it was made and not kept", nullable=True),
    column("bytes", pa.int64(), "UTF-8 bytes of the text"),
)


def token_shard_schema(token_type: pa.DataType) -> pa.Schema:
    """One row per document in corpus order; the flat values of `tokens` are the packed training stream."""
    return table_schema(
        "tokens",
        1,
        column("document_id", pa.string(), "id of the document in the corpus"),
        column("tokens", pa.list_(token_type), "token ids, each document ended by the end-of-text token"),
        column("bytes", pa.int64(), "UTF-8 bytes of the document's text"),
    )


TOKEN_SHARDS = (token_shard_schema(pa.uint16()), token_shard_schema(pa.uint32()))

SCORES = table_schema(
    "scores",
    2,
    column("task", pa.string(), "what was measured, such as held-out text or GLUE CoLA"),
    column("model", pa.string(), "pretrained, compressed, or the name of a baseline"),
    column("metric", pa.string(), "bits per byte, accuracy ..."),
    column("value", pa.float64(), "the score; null if it was not measured, and `note` says why", nullable=True),
    column("low", pa.float64(), "lower end of the 95 % bootstrap interval", nullable=True),
    column("high", pa.float64(), "upper end of the 95 % bootstrap interval", nullable=True),
    column("items", pa.int64(), "documents or test items that the score is computed from"),
    column("higher_is_better", pa.bool_(), "direction of the metric"),
    column("protocol", pa.string(), "how the model was prompted, such as likelihood, 0 examples", nullable=True),
    column("note", pa.string(), "why there is no value, or a remark on it", nullable=True),
    column("overlapping", pa.int64(), "items that are also in the training text", nullable=True),
    column("without_overlap", pa.float64(), "the score without those; null if none is left", nullable=True),
)

ITEMS = table_schema(
    "items",
    3,
    column("task", pa.string(), "task the item belongs to"),
    column("metric", pa.string(), "metric that the item counts in"),
    column("item", pa.string(), "the item's id in its own data set, or the document id"),
    column("model", pa.string(), "as in scores"),
    column("output", pa.string(), "JSON: the model's output for the item, enough to recompute the score"),
    column("numerator", pa.float64(), "bits, or 1 for a right answer"),
    column("denominator", pa.float64(), "bytes, or 1; scores are sums of numerators over sums of denominators"),
    column("prompt", pa.string(), "prompt of the model; null without one", nullable=True),
    column("overlap", pa.int64(), "words of its longest run in the training text too, 0 below 5", nullable=True),
)
