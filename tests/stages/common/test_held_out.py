import uuid

import numpy as np
import pyarrow as pa
import pytest

from data_schemas.artifact_kinds import TOKENS
from data_schemas.tables import token_shard_schema
from infra.store.artifacts import ArtifactStore
from stages.common.held_out import selection_mask, selection_masks
from stages.compress.measurement import HeldOutText
from stages.pretrain.ensemble import heldout_batches
from tests.counted_reads import counted
from tests.stores import commit


def artifact(*shards, url=None, length=20):
    """Held-out documents by id, each of `length` tokens that are its index plus 1, and an end-of-text token."""
    store = ArtifactStore(url or f"memory://held-out-{uuid.uuid4().hex}")
    out = store.writer("tokenize", "k", "run", TOKENS)
    schema = token_shard_schema(pa.uint16())
    numbers = iter(range(1, 10_000))
    for number, documents in enumerate(shards):
        rows = [{"document_id": one, "tokens": [next(numbers)] * length + [0], "bytes": 20} for one in documents]
        out.write_table(f"held_out/{number}.arrow", pa.Table.from_pylist(rows, schema))
    out.write_table("train/0.arrow", pa.Table.from_pylist([], schema))
    out.write("tokenizer.json", b"{}")
    return commit(store, out, "tokenize", "k", TOKENS)


def test_a_documents_half_does_not_depend_on_the_others():
    documents = [f"file-{number}.txt#{number}" for number in range(2_000)]
    mask = selection_mask(documents)
    assert 0.45 < mask.mean() < 0.55
    assert np.array_equal(selection_mask(documents[500:]), mask[500:])


@pytest.mark.parametrize(("documents", "mask"), [
    ([], []), (["a"], [False]), (["a", "a"], [False, True]), (["a"] * 5, [False, True, False, True, False]),
])  # fmt: skip
def test_neither_half_is_empty_unless_there_is_one_document(documents, mask):
    assert selection_mask(documents).tolist() == mask


@pytest.mark.parametrize("shards", [
    [["a", "b", "c"], [], ["d", "e", "f", "g"]], [["a", "b"]], [["a"], ["a"]],
], ids=["several shards", "two", "one half by hash"])  # fmt: skip
def test_what_selects_is_never_scored(shards):
    tokens = artifact(*shards)
    masks = selection_masks(tokens)
    assert [len(mask) for mask in masks.values()] == [len(shard) for shard in shards]
    flat = np.concatenate(list(masks.values()))
    selecting = set((np.flatnonzero(flat) + 1).tolist())
    measured = {int(token) for document in HeldOutText.read(tokens, 10**6).tokens for token in document}
    windows = {int(token) for batch in heldout_batches(tokens, 5, 100, 8) for token in batch.flatten()}
    assert selecting and len(selecting) < len(flat)
    assert measured == selecting == windows - {0}


def test_a_single_document_is_scored_and_selects_no_weights():
    tokens = artifact(["only"])
    assert heldout_batches(tokens, 5, 100, 8) == []
    assert len(HeldOutText.read(tokens, 1).tokens) == 1, "passes are measured on it nevertheless"


def test_only_the_needed_held_out_tokens_are_read_from_an_object_store(tmp_path):
    shards = [f"document {number}" for number in range(2_000)], [], ["second", "third", "fourth"]
    tokens, local = artifact(*shards, length=500), artifact(*shards, length=500, url=str(tmp_path))
    with counted() as counts:
        batches = heldout_batches(tokens, 5, 8, 4)
        text = HeldOutText.read(tokens, 60)
    assert counts.bytes_read < 0.1 * sum(tokens.sizes(tokens.paths("held_out/*.arrow")).values())
    assert [batch.tolist() for batch in batches] == [batch.tolist() for batch in heldout_batches(local, 5, 8, 4)]
    assert [ids.tolist() for ids in text.tokens] == [ids.tolist() for ids in HeldOutText.read(local, 60).tokens]
    assert len(text.tokens) == 3 and text.bytes == 60
