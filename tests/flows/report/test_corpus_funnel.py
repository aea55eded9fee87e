"""The funnel table by hand: two stages, two sources, and a crowd of small ones."""

from types import SimpleNamespace
from typing import Any

import pyarrow as pa

from data_schemas.artifact_kinds import RAW_DOCUMENTS
from data_schemas.tables import FUNNEL
from flows.report.corpus import corpus, split_counts
from flows.report.corpus_funnel import SHOWN_ROWS, corpus_funnel
from infra.store.artifacts import ArtifactStore
from tests.stores import commit, documents_table, no_rejects


def artifact(url: str, stage: str, *rows: tuple):
    store = ArtifactStore(url)
    out = store.writer(stage, "a" * 64, "run", RAW_DOCUMENTS)
    out.write_table("documents/0.parquet", documents_table({}))
    out.write_table("rejects/0.parquet", no_rejects())
    for number in range(2):  # over two partitions
        some = [dict(zip(FUNNEL.names, row, strict=True)) for row in rows[number::2]]
        out.write_table(f"funnel/{number}.parquet", pa.Table.from_pylist(some, FUNNEL))
    return commit(store, out, stage, "a" * 64, RAW_DOCUMENTS)


def test_each_source_with_what_took_the_most(tmp_path):
    ingest = artifact(
        str(tmp_path), "ingest", ("a", "wiki", "kept", 10, 1000, 1000), ("b", "web", "kept", 5, 9000, 9000)
    )
    clean = artifact(
        str(tmp_path), "clean",
        ("a", "wiki", "kept", 8, 900, 700), ("a", "wiki", "too_short", 2, 100, 0),
        ("b", "web", "kept", 1, 3000, 3000), ("b", "web", "bullets", 3, 5000, 0), ("b", "web", "hashes", 1, 1000, 0),
    )  # fmt: skip
    funnel = corpus_funnel({"ingest": ingest, "clean": clean})
    assert funnel is not None
    assert funnel.stages == ["ingest", "clean"] and funnel.has_genres
    web, wiki = funnel.rows
    assert (web.source, web.documents, web.text, web.percent) == ("b", ["5", "1"], "3 kB", 33.3)
    assert web.main_reason == "bullets (56 %)"
    assert (wiki.documents, wiki.percent, wiki.main_reason) == (["10", "8"], 70.0, "edits in the text (20 %)")


def test_small_sources_share_a_row(tmp_path):
    rows = [(f"source {number:03d}", "web", "kept", 1, 100, 100) for number in range(SHOWN_ROWS + 5)]
    funnel = corpus_funnel({"ingest": artifact(str(tmp_path), "ingest", *rows)})
    assert funnel is not None
    assert len(funnel.rows) == SHOWN_ROWS + 1
    assert (funnel.rows[-1].source, funnel.rows[-1].documents) == ("5 other sources", ["5"])


def test_records_that_are_passed_over_are_named(tmp_path):
    store = ArtifactStore(str(tmp_path))
    out = store.writer("ingest", "a" * 64, "run", RAW_DOCUMENTS)
    for folder, table in (
        ("documents", documents_table({})),
        ("rejects", no_rejects()),
        ("funnel", FUNNEL.empty_table()),
    ):
        out.write_table(f"{folder}/0.parquet", table)
    for name, amount in {"documents_in": 5, "documents_out": 5, "bytes_in": 9, "bytes_out": 9}.items():
        out.count(name, amount)
    out.count("passed_over.request_records", 1234)
    section = corpus({"ingest": commit(store, out, "ingest", "a" * 64, RAW_DOCUMENTS).manifest})
    assert section is not None
    assert "1,234 request records passed over" in section.summary


def test_without_funnels_there_is_no_table():
    assert corpus_funnel({}) is None


def test_counts_of_the_split_are_those_of_a_stage_that_splits_text():
    """A profile counts the documents of each split too, but has no text."""
    split = {"train_documents": 9, "train_bytes": 90, "held_out_documents": 1, "held_out_bytes": 10}
    counts = {"dedup": split, "profile": {"train_documents": 9, "held_out_documents": 1}}
    manifests: Any = {stage: SimpleNamespace(counts=numbers) for stage, numbers in counts.items()}
    assert split_counts(manifests) == split
