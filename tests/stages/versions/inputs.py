"""Fixed artifacts, made of fixed text and not by the preceding stages, so that each stage is held by itself.

- `source_files`: files of most formats, for ingest
- `documents`, `corpus`, `tokens`: artifacts of text
- `model`: a network whose weights are a function of their names
"""

import gzip
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from data_schemas.artifact_kinds import COMPRESSED_MODEL, CORPUS, MODEL, RAW_DOCUMENTS, TOKENS, ArtifactKind
from data_schemas.manifest import Volume
from data_schemas.tables import DOCUMENTS, FUNNEL, REJECTS, token_shard_schema
from infra.store.artifact_writer import ArtifactWriter
from infra.store.artifacts import Artifact, ArtifactStore
from modeling.export.model_files import model_to_files
from modeling.transformer import Transformer
from modeling.transformer_config import TransformerConfig
from tests.stages.versions import text
from tests.stores import commit

END_OF_TEXT = "<|endoftext|>"
VOCABULARY_SIZE = 257
Rows = Sequence[Mapping[str, Any]]


def key(name: str) -> str:
    """Key of the artifact of this name."""
    return hashlib.sha256(name.encode()).hexdigest()


def json_lines(rows: Rows) -> bytes:
    """Rows as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _writer(store: str, name: str, kind: ArtifactKind) -> ArtifactWriter:
    return ArtifactStore(store).writer("fixed", key(name), "fixed", kind)


def _committed(store: str, name: str, out: ArtifactWriter) -> Artifact:
    return commit(ArtifactStore(store), out, "fixed", key(name), out.kind)


def documents(store: str, rows: Rows, files: int = 2, name: str = "documents") -> Artifact:
    """A documents artifact."""
    out = _writer(store, name, RAW_DOCUMENTS)
    for index in range(files):
        _write_rows(out, f"documents/{index:05d}.parquet", rows[index::files])
        out.write_table(f"rejects/{index:05d}.parquet", REJECTS.empty_table())
        out.write_table(f"funnel/{index:05d}.parquet", FUNNEL.empty_table())
    return _committed(store, name, out)


def corpus(store: str, train: Rows, held_out: Rows) -> Artifact:
    """A corpus of two files."""
    out = _writer(store, "corpus", CORPUS)
    for index in range(2):
        for split, rows in (("train", train), ("held_out", held_out)):
            _write_rows(out, f"{split}/{index:05d}.parquet", rows[index::2])
        out.write_table(f"rejects/{index:05d}.parquet", REJECTS.empty_table())
        out.write_table(f"funnel/{index:05d}.parquet", FUNNEL.empty_table())
    size = sum(len(row["text"].encode()) for row in train)
    out.volume = Volume(documents=len(train), text_bytes=size)
    return _committed(store, "corpus", out)


def _write_rows(out: ArtifactWriter, path: str, rows: Rows) -> None:
    out.write_table(path, pa.Table.from_pylist([dict(row) for row in rows], DOCUMENTS))


def _byte_characters() -> list[str]:
    """GPT-2's printable character of each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) if byte in printable else chr(256 + others.index(byte)) for byte in range(256)]


def tokenizer_json() -> bytes:
    """A tokenizer without merges: token 0 ends a text, token 1 + n is byte n."""
    added = {"id": 0, "content": END_OF_TEXT, "special": True}
    added |= dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    bytes_of_text = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    model: dict[str, Any] = dict.fromkeys(
        ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"), None
    )
    model |= {"type": "BPE", "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "merges": []}
    model["vocab"] = {END_OF_TEXT: 0} | {character: 1 + byte for byte, character in enumerate(_byte_characters())}
    whole: dict[str, Any] = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [added]}
    whole |= {"normalizer": None, "pre_tokenizer": bytes_of_text, "post_processor": None, "decoder": bytes_of_text}
    return json.dumps(whole | {"model": model}).encode()


def tokens(store: str, corpus: Artifact) -> Artifact:
    """The corpus, a token per byte."""
    out = _writer(store, "tokens", TOKENS)
    out.write("tokenizer.json", tokenizer_json())
    for path in [*corpus.paths("train/*"), *corpus.paths("held_out/*")]:
        rows = corpus.read_table(path).select(["id", "text"]).to_pylist()
        shard = [
            {"document_id": row["id"], "tokens": [*(1 + byte for byte in row["text"].encode()), 0],
             "bytes": len(row["text"].encode())}
            for row in rows
        ]  # fmt: skip
        out.write_table(
            path.replace(".parquet", ".arrow"), pa.Table.from_pylist(shard, token_shard_schema(pa.uint16()))
        )
        split = path.split("/")[0]
        out.count(f"{split}_tokens", sum(len(row["tokens"]) for row in shard))
        out.count(f"{split}_documents", len(shard))
        out.count(f"{split}_bytes", sum(row["bytes"] for row in shard))
    out.metrics["vocabulary_size"] = VOCABULARY_SIZE
    out.volume = corpus.manifest.volume.model_copy(
        update={"tokens": out.counts["train_tokens"], "vocabulary_size": VOCABULARY_SIZE}
    )
    return _committed(store, "tokens", out)


def network(**shape: Any) -> Transformer:
    """A network whose weights are a function of their names and shapes; norms are near one, no two weights equal."""
    model = Transformer(TransformerConfig(vocabulary_size=VOCABULARY_SIZE, **shape))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            bits = np.random.Philox(key=text.number(name)).random_raw(parameter.numel())
            values = torch.from_numpy((bits >> np.uint64(40)).astype(np.float64) / 2**24 - 0.5)
            center = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_((center + 0.4 * values).reshape(parameter.shape))
    return model.eval()


def model(store: str, model: Transformer, kind: ArtifactKind = MODEL) -> Artifact:
    """A network in an artifact."""
    out = _writer(store, kind.name, kind)
    for path, data in model_to_files(model).items():
        out.write(path, data)
    out.write("tokenizer.json", tokenizer_json())
    if kind is not COMPRESSED_MODEL:
        out.write("training_log.jsonl", b"")
    out.volume = Volume(vocabulary_size=VOCABULARY_SIZE, context_length=model.config.context_length)
    return _committed(store, kind.name, out)


PAGE = """<html><head><title>The mill</title></head><body><nav><a href="/">Home</a></nav><article><h1>The mill</h1>
<p>{}</p><ul><li>One point.</li><li>Another.</li></ul><table><tr><th>Year</th><th>Flour</th></tr><tr><td>1801</td>
<td>12</td></tr></table><pre>turn(wheel)</pre></article><footer>Cookies</footer></body></html>"""
MARKDOWN = """---
title: The mill
license: CC0-1.0
date: 2024-02-29
---

# The mill

{} A [link](https://example.org) and *stress*.

- one
- two

```
turn(wheel)
```
"""
RST = """The mill
========

{} See `the page <https://example.org>`_ and ``code``.

.. note:: A note.

.. unknown:: argument

* one
* two::

    turn(wheel)
"""
WIKITEXT = (
    "'''The mill''' is {{convert|3|km}} from [[Town (county)|the town]].<ref>A source.</ref> {}\n\n== History ==\n"
    "* 1801: built\n\n{{| class=table\n! Year\n|-\n| 1801\n|}}\n\n== External links ==\n* [https://example.org Page]"
)
DUMP = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" xml:lang="en"><siteinfo><sitename>Wikipedia
</sitename><base>https://en.wikipedia.org/wiki/Main_Page</base></siteinfo>
<page><title>The mill</title><ns>0</ns><id>7</id><revision><id>8</id><timestamp>2024-02-29T12:00:00Z</timestamp>
<model>wikitext</model><format>text/x-wiki</format><text>{}</text></revision></page>
<page><title>Mill, the</title><ns>0</ns><id>9</id><redirect title="The mill"/><revision><id>10</id>
<text>#REDIRECT [[The mill]]</text></revision></page></mediawiki>"""
GUTENBERG = """The Project Gutenberg eBook of The Mill

Title: The Mill
Language: English

*** START OF THE PROJECT GUTENBERG EBOOK THE MILL ***

Produced by Nobody

CHAPTER I

{}

*** END OF THE PROJECT GUTENBERG EBOOK THE MILL ***

End matter."""


def _warc(*pages: str) -> bytes:
    records = []
    for position, page in enumerate(pages):
        http = f"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n{page}".encode()
        head = (
            f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: https://example.org/{position}\r\n"
            "WARC-Date: 2024-02-29T12:00:00Z\r\n"
            f"WARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-{position:012d}>\r\n"
            f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(http)}\r\n\r\n"
        )
        records.append(gzip.compress(head.encode() + http + b"\r\n\r\n", mtime=0))
    return b"".join(records)


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def source_files() -> dict[str, bytes]:
    """Path -> content: files of every format, with records that are no documents among them."""
    rows = [
        {"text": text.prose(("lines", n), 4), "id": f"n{n}", "url": f"https://example.org/{n}", "license": "CC0-1.0",
         "kind": ("news", "forum")[n % 2], "year": 2000 + n, "lang": ("en", None)[n % 2]}
        for n in range(9)
    ]  # fmt: skip
    broken = '{"text": "cut\n\n{"id": "no text"}\n[1]\n{"text": "  "}\n{"text": "\\ud800"}\n{"text": 5}\n'
    paragraphs = {name: text.prose(name, 6) for name in ("html", "markdown", "rst", "wikitext", "gutenberg", "plain")}
    wikitext = WIKITEXT.replace("{}", paragraphs["wikitext"]).replace("<", "&lt;")
    cells = [f'{row["id"]},"{row["text"][:90]} ""quoted"", {index}"' for index, row in enumerate(rows[:3])]
    return {
        "lines/a.jsonl.gz": gzip.compress(json_lines(rows) + broken.encode(), mtime=0),
        "table/b.parquet": _parquet(rows[:4]),
        "table/c.csv": "\r\n".join(["id,text", *cells, '9,"never closed']).encode(),
        "table/d.tsv": b'id\ttext\n1\tA text with "one quote.\n2\tAnother text\textra\n',
        "text/plain.txt": f"Naïve café — “{paragraphs['plain']}”".encode("utf-16"),
        "text/old.txt": "Es wäre schön, für immer über die Brücke zu gehen. Der Müller grüßt.".encode("cp1252"),
        "text/book.txt": GUTENBERG.format(paragraphs["gutenberg"]).encode(),
        "text/page.html": PAGE.format(paragraphs["html"]).encode(),
        "text/page.md": MARKDOWN.format(paragraphs["markdown"]).encode(),
        "text/page.rst": RST.format(paragraphs["rst"]).encode(),
        "wiki/dump.xml": DUMP.format(wikitext).encode(),
        "web/crawl.warc.gz": _warc(PAGE.format(text.prose("crawl", 8)), "<html></html>"),
    }
