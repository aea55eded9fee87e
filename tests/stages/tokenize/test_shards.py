"""The documents that the merges are learned from, and the memory that learning them takes."""

import collections
import uuid

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_schemas.artifact_kinds import CORPUS
from data_schemas.manifest import Volume
from data_schemas.tables import FUNNEL
from infra.store.artifacts import ArtifactStore
from infra.workers.capacity import Capacity
from stages.common.scripts import unspaced_bytes
from stages.tokenize.config import TokenizeConfig
from stages.tokenize.shards import training_texts
from stages.tokenize.stage import TokenizeStage
from tests.stores import commit, documents_table, no_rejects


def corpus(partitions):
    """Corpus with a file per partition, each a list of (source, text)."""
    store = ArtifactStore(f"memory://{uuid.uuid4().hex}")
    out = store.writer("dedup", "a" * 64, "run", CORPUS)
    for number, documents in enumerate(partitions):
        tables = [
            documents_table({f"{number}-{row}": text}, source=source) for row, (source, text) in enumerate(documents)
        ]
        out.write_table(f"train/{number:05d}.parquet", pa.concat_tables(tables))
    for folder, table in (
        ("held_out", documents_table({})),
        ("rejects", no_rejects()),
        ("funnel", FUNNEL.empty_table()),
    ):
        out.write_table(f"{folder}/00000.parquet", table)
    return commit(store, out, "dedup", "a" * 64, CORPUS)


DOCUMENT = st.tuples(st.sampled_from("abc"), st.integers(50, 150))


@settings(max_examples=40, deadline=None)
@given(
    partitions=st.lists(st.lists(DOCUMENT, min_size=20, max_size=60), min_size=1, max_size=4),
    share=st.floats(0.05, 0.9), seed=st.integers(0, 3),
)  # fmt: skip
def test_every_source_gives_its_share(partitions, share, seed):
    artifact = corpus([[(source, source * size) for source, size in documents] for documents in partitions])
    sizes = collections.Counter()
    for documents in partitions:
        for source, size in documents:
            sizes[source] += size
    texts = list(training_texts(artifact, int(share * sizes.total()), seed))
    drawn = collections.Counter()
    for text in texts:
        drawn[text[0]] += len(text)
    for source, size in sizes.items():
        assert drawn[source] > 0
        assert abs(drawn[source] - share * size) <= 150 + 1
    assert texts == list(training_texts(artifact, int(share * sizes.total()), seed))


def test_all_text_comes_in_corpus_order_and_seeds_differ():
    documents = [[("a", f"text {number}-{row}") for row in range(50)] for number in range(3)]
    artifact = corpus(documents)
    everything = [text for part in documents for _, text in part]
    assert list(training_texts(artifact, None, 0)) == list(training_texts(artifact, 10**9, 0)) == everything
    draws = [list(training_texts(artifact, 300, seed)) for seed in range(3)]
    assert len({tuple(draw) for draw in draws}) == 3
    for draw in draws:
        assert draw == sorted(draw, key=everything.index)
        assert {text.split()[1][0] for text in draw} == {"0", "1", "2"}, "every partition"


def test_the_plan_foresees_the_memory_of_scripts_without_spaces():
    config = TokenizeConfig(training_bytes=16_000_000)
    chinese = Volume(text_bytes=32_000_000, unspaced_bytes=31_000_000)
    memory = [
        TokenizeStage().estimate(config, volume, Capacity()).peak_memory_bytes
        for volume in (chinese, Volume(text_bytes=32_000_000))
    ]
    assert memory[0] - memory[1] == pytest.approx(90 * 15_500_000, rel=1e-6)
    assert chinese.scaled(3, 8_000_000) == Volume(documents=3, text_bytes=8_000_000, unspaced_bytes=7_750_000)


@pytest.mark.parametrize(
    ("text", "share"),
    [("words of English", 0), ("Größe", 0), ("汉字，汉字", 4 / 5), ("ภาษาไทย", 1), ("ひらがな", 1), ("한국어", 0)],
)
def test_bytes_without_spaces(text, share):
    size = len(text.encode())
    assert unspaced_bytes(text, size) == pytest.approx(share * size)
