import json

import pytest

from data_schemas.artifact_kinds import CORPUS, RESULTS
from data_schemas.tables import FUNNEL
from infra.store.artifacts import ArtifactStore
from infra.workers.partitions import PartitionMap
from stages.benchmark.contamination.contamination import Overlap, find_overlaps, with_overlap
from stages.benchmark.results import TaskResult, item_row, point_estimate, score_row
from tests.stores import commit, documents_table, no_rejects

QUESTION = "Who built the mill that stands below the weir at Harrow Ford in the county of Kent?"
SHORT = "The wheel turned all night and nobody slept"


def corpus_of(url: str, *files: dict[str, str]):
    store = ArtifactStore(url)
    out = store.writer("dedup", "a" * 64, "test-run", CORPUS)
    for number, texts in enumerate(files):
        out.write_table(f"train/{number:05d}.parquet", documents_table(texts))
    out.write_table("held_out/00000.parquet", documents_table({"held": f"{QUESTION} {SHORT}"}))
    out.write_table("rejects/00000.parquet", no_rejects())
    out.write_table("funnel/00000.parquet", FUNNEL.empty_table())
    return commit(store, out, "dedup", "a" * 64, CORPUS)


@pytest.mark.parametrize("engine", ["inline", "processes"])
def test_items_are_looked_up_in_all_files_of_the_training_split_only(tmp_path, engine):
    url = f"file://{tmp_path}"
    corpus = corpus_of(
        url,
        {"a": f"Asked: who built the mill that stands below the weir, and when? {SHORT[:-6]}"},
        {"b": f"They said that {SHORT.upper()}!"},
    )
    partitions = PartitionMap(
        ArtifactStore(url).writer("benchmark", "b" * 64, "r", RESULTS).folder, "benchmark", RESULTS, "r", engine, 2
    )
    texts = {
        "squad": {"1": [QUESTION, "Yes"], "2": ["Nothing of this stands in any text at all"]},
        "wsc": {"1": [SHORT]},
    }
    results = find_overlaps(texts, corpus, partitions)
    assert results == {("squad", "1"): Overlap(9, 17), ("squad", "2"): Overlap(0, 9), ("wsc", "1"): Overlap(8, 8)}
    # Nine words of seventeen are below 13; eight of eight are the whole item.
    assert [overlap.is_contaminated for overlap in results.values()] == [False, False, True]
    assert not Overlap(7, 7).is_contaminated and Overlap(13, 40).is_contaminated


def test_a_score_is_given_without_the_items_that_overlap():
    overlaps = {("t", "1"): Overlap(13, 20), ("t", "2"): Overlap(12, 20), ("t", "3"): Overlap(0, 20)}
    outputs = {"1": (1, 1, 1.0), "2": (0, 1, 0.0), "3": (1, 1, 0.5)}

    def result(metric: str) -> TaskResult:
        items = [
            item_row("t", name, "pretrained", {"label": label, "predicted": predicted}, value, 1.0)
            for name, (label, predicted, value) in outputs.items()
        ]
        return TaskResult(score_row("t", "pretrained", metric, point_estimate(0.5), 3, True), items)

    accuracy = with_overlap(result("accuracy"), overlaps)
    assert (accuracy.score["overlapping"], accuracy.score["without_overlap"]) == (1, 0.25)
    assert [item["overlap"] for item in accuracy.items] == [13, 12, 0]
    # Of one right and one false positive: precision 1/2, recall 1.
    assert with_overlap(result("F1"), overlaps).score["without_overlap"] == pytest.approx(2 / 3)
    all_of_them = {name: Overlap(15, 15) for name in overlaps}
    assert with_overlap(result("accuracy"), all_of_them).score["without_overlap"] is None
    other = result("accuracy")
    assert with_overlap(other, {("other", "1"): Overlap(15, 15)}) is other
    assert json.loads(accuracy.items[0]["output"])["label"] == 1
