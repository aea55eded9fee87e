import uuid

import numpy as np
import pyarrow as pa
import pytest

from data_schemas.artifact_kinds import TOKENS
from data_schemas.errors import ConfigError, DamagedArtifactError
from data_schemas.tables import token_shard_schema
from infra.store.artifacts import Artifact, ArtifactStore
from stages.common.token_stream import TokenStream, WindowSampler
from tests.counted_reads import counted
from tests.stores import commit


def tokens_artifact(url: str, *shards: list[list[int]]) -> Artifact:
    store = ArtifactStore(url)
    out = store.writer("tokenize", "k", "run", TOKENS)
    schema = token_shard_schema(pa.uint16())
    for split in ("train", "held_out"):
        for number, documents in enumerate(shards):
            rows = [{"document_id": str(i), "tokens": tokens, "bytes": 1} for i, tokens in enumerate(documents)]
            out.write_table(f"{split}/{number}.arrow", pa.Table.from_pylist(rows, schema))
    out.write("tokenizer.json", b"{}")
    return commit(store, out, "tokenize", "k", TOKENS)


def test_the_stream_is_the_shards_one_after_the_other(any_store):
    stream = TokenStream(tokens_artifact(any_store, [[1, 2, 3], [4]], [], [[5, 6], [7, 8, 9]]), "train")
    assert len(stream) == 9
    for start in range(9):
        for stop in range(start + 1, 10):
            assert stream.slice(start, stop).tolist() == list(range(start + 1, stop + 1))


def test_a_shard_that_is_missing_is_named_with_what_rebuilds_it():
    artifact = tokens_artifact(f"memory://{uuid.uuid4().hex}", [[1, 2, 3]], [[4, 5]])
    artifact.folder.remove("run/train/1.arrow")
    with pytest.raises(
        DamagedArtifactError, match=r"is missing \(run/train/1.arrow\); rebuild it with: headrace rerun"
    ):
        TokenStream(artifact, "train")


def test_an_epoch_shows_every_window_once_and_the_next_one_in_another_order(any_store):
    stream = TokenStream(tokens_artifact(any_store, [list(range(1000))]), "train")
    sampler = WindowSampler(stream, context_length=16, seed=3)
    count = sampler.windows_per_epoch
    epochs = [sampler.rows(epoch * count, count) for epoch in range(2)]
    for rows in epochs:
        assert rows.shape == (count, 17)
        assert (np.diff(rows, axis=1) == 1).all()
        starts = np.sort(rows[:, 0])
        assert (np.diff(starts) == 16).all(), "windows neither overlap nor leave gaps"
    assert (epochs[0] != epochs[1]).any()
    assert count * 16 > 1000 - 3 * 16


def test_rows_are_a_function_of_the_position_alone(any_store):
    stream = TokenStream(tokens_artifact(any_store, [list(range(500))]), "train")
    whole = WindowSampler(stream, 8, seed=1).rows(0, 150)
    pieces = [WindowSampler(stream, 8, seed=1).rows(first, 10) for first in range(0, 150, 10)]
    assert (whole == np.concatenate(pieces)).all()
    assert (whole != WindowSampler(stream, 8, seed=2).rows(0, 150)).any()


@pytest.mark.parametrize(("tokens", "windows"), [(9, 1), (16, 1), (17, 1), (25, 2)])
def test_the_smallest_corpora(any_store, tokens, windows):
    stream = TokenStream(tokens_artifact(any_store, [list(range(tokens))]), "train")
    sampler = WindowSampler(stream, 8, seed=0)
    assert sampler.windows_per_epoch == windows
    assert sampler.rows(0, 5).shape == (5, 9)


def test_a_corpus_shorter_than_one_window_is_refused(any_store):
    stream = TokenStream(tokens_artifact(any_store, [[1, 2, 3]]), "train")
    with pytest.raises(ConfigError, match="3 training tokens"):
        WindowSampler(stream, 8, seed=0)


def test_a_window_on_an_object_store_costs_its_own_bytes():
    url = f"memory://{uuid.uuid4().hex}"
    shards = [[list(range(start, start + 30_000))] for start in range(0, 60_000, 30_000)]
    artifact = tokens_artifact(url, *shards)
    with counted() as counts:
        stream = TokenStream(artifact, "train")
        assert counts.reads == 2, "the beginning of each shard"
        opened = counts.bytes_read
        sampler = WindowSampler(stream, 64, seed=0)
        assert len(stream) == 60_000 and sampler.rows(0, 8).shape == (8, 65)
        assert counts.bytes_read - opened <= 8 * 65 * 2
    assert stream.slice(29_998, 30_002).tolist() == [29_998, 29_999, 30_000, 30_001]


@pytest.mark.parametrize("damage", [b"", b"ARROW1", b"ARROW1\0\0" + b"\xff" * 40, b"no shard at all, but long enough"])
def test_a_file_that_is_no_shard_is_named(damage):
    artifact = tokens_artifact(f"memory://{uuid.uuid4().hex}", [[1, 2, 3]])
    path = artifact.paths("train/*")[0]
    artifact.folder.write(artifact.location(path), damage)
    entries = [entry.model_copy(update={"bytes": len(damage)}) for entry in artifact.manifest.files]
    damaged = Artifact(artifact.folder, artifact.manifest.model_copy(update={"files": entries}))
    with pytest.raises(DamagedArtifactError, match=r"train/0\.arrow is no shard of tokens"):
        TokenStream(damaged, "train")
