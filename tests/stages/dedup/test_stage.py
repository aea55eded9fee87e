"""The whole stage: the same bytes however the work is divided, and after a kill; and where documents are accounted."""

import random
from pathlib import Path
from unittest.mock import patch

import pytest

from data_schemas.errors import InputDataError
from infra.workers.partitions import PartitionWriter
from stages.dedup.config import DedupConfig
from stages.dedup.stage import DedupStage
from tests.stages.dedup.run_stage import memory, rows, run_stage, texts
from tests.stores import documents_artifact

pytest.importorskip("pydivsufsort")
ITEM = "the quick onyx goblin jumps over the lazy dwarf while five boxing wizards watch quietly"


def sentence(generator: random.Random) -> str:
    return " ".join(f"w{generator.randrange(3000)}" for _ in range(30)) + "."


def corpus() -> dict[str, str]:
    """60 documents of which some share paragraphs, stretches inside paragraphs, and a benchmark's item."""
    generator = random.Random(5)
    paragraphs, stretches = ([sentence(generator) for _ in range(3)] for _ in range(2))
    result = {}
    for number in range(60):
        body = [sentence(generator) for _ in range(8)]
        if number % 4 == 0:
            body.insert(number % 7, paragraphs[number % 3].upper())
        if number % 5 == 0:
            body[2] = f"{body[2]} {stretches[number % 3]} {sentence(generator)}"
        if number in (7, 31):
            body[4] = f"{body[4]} “{ITEM.title()}” {sentence(generator)}"
        result[f"d{number:02d}"] = "\n\n".join(body)
    result["d60"] = result["d01"].replace(" ", "  ")
    result["d61"] = paragraphs[0]
    return result


@pytest.fixture
def settings(tmp_path: Path) -> dict:
    (tmp_path / "bench.tsv").write_text(f"id\tsentence\nx\t{ITEM}\n")
    return {
        "held_out_share": 0.2,
        "paragraphs": {"min_characters": 50},
        "exact_substring": {"min_bytes": 60},
        "decontaminate": {"benchmarks": [f"{tmp_path}/bench.tsv"], "action": "cut", "window_characters": 20},
    }


def divided(documents: dict[str, str], files: int) -> list[dict[str, str]]:
    shuffled = random.Random(files).sample(sorted(documents), len(documents))
    return [{name: documents[name] for name in shuffled[number::files]} for number in range(files)]


def test_cuts_duplicates_and_leaks_are_accounted(settings):
    documents = corpus()
    artifact = run_stage(url := memory(), documents_artifact(url, divided(documents, 3)), settings)
    kept, rejects = rows(artifact), rows(artifact, "rejects")
    assert {name: (row["reason"], row["detail"]) for name, row in rejects.items()} == {
        "d01": ("exact_duplicate", "d60"), "d61": ("too_little_left", None)
    }  # fmt: skip
    edits = {name: dict(row["edits"] or []) for name, row in kept.items()}
    assert {name for name in edits if "duplicate_paragraph" in edits[name]} == {
        f"d{number:02d}" for number in range(12, 60, 4)
    }
    assert {name for name in edits if "contaminated" in edits[name]} == {"d07", "d31"}
    assert {name for name in edits if "repeated_text" in edits[name]} == {f"d{n:02d}" for n in range(15, 60, 5)}
    assert not any(ITEM.split()[4] in row["text"].lower() for row in kept.values())
    assert all("  " not in row["text"] and "\n\n\n" not in row["text"] for name, row in kept.items() if name != "d60")
    funnel = [row for path in artifact.paths("funnel/*") for row in artifact.read_table(path).to_pylist()]
    assert sum(row["documents"] for row in funnel) == len(documents)
    assert sum(row["bytes_in"] for row in funnel) == sum(len(text.encode()) for text in documents.values())
    size = sum(len(row["text"].encode()) for row in kept.values())
    assert sum(row["bytes_out"] for row in funnel) == size == artifact.manifest.counts["bytes_out"]
    train = [row for path in artifact.paths("train/*") for row in artifact.read_table(path).to_pylist()]
    assert artifact.manifest.volume.documents == len(train)
    assert artifact.manifest.volume.text_bytes == sum(len(row["text"].encode()) for row in train)
    [metrics] = artifact.manifest.metrics["contamination"].values()
    assert (metrics["contaminated"], metrics["documents"]) == (1, 2)
    [item, _] = artifact.read_table("contamination/items.parquet").to_pylist()
    assert (item["item"], item["found"], item["example"]) == ("x", 3, "d07")


def test_the_same_bytes_however_the_documents_are_divided(settings):
    documents = corpus()
    result = [
        texts(run_stage(url := memory(), documents_artifact(url, divided(documents, files)), settings))
        for files in (1, 2, 7)
    ]
    assert result[0] == result[1] == result[2]
    assert len(result[0]) == 60


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_the_same_artifact_from_every_engine(settings, tmp_path, engine):
    parts = divided(corpus(), 4)
    artifacts = []
    for name, workers in (("inline", 1), (engine, 2)):
        url = f"file://{tmp_path}/{name}"
        artifacts.append(run_stage(url, documents_artifact(url, parts), settings, name, workers))
    assert artifacts[0].manifest.digest == artifacts[1].manifest.digest


@pytest.mark.parametrize("write", [1, 6, 11, 14, 18, 22, 23, 31])
def test_an_attempt_killed_at_any_write_is_continued_to_the_same_artifact(settings, write):
    parts = divided(corpus(), 4)
    undisturbed = run_stage(url := memory(), documents_artifact(url, parts), settings)
    documents = documents_artifact(url := memory(), parts)
    original, countdown = PartitionWriter.write, iter(range(write, 0, -1))

    def killed(*arguments):
        if next(countdown) == 1:
            raise KeyboardInterrupt
        original(*arguments)

    with patch.object(PartitionWriter, "write", killed), pytest.raises(KeyboardInterrupt):
        run_stage(url, documents, settings)
    assert run_stage(url, documents, settings).manifest.digest == undisturbed.manifest.digest


def test_a_contaminated_document_is_not_the_one_that_keeps_a_paragraph(settings):
    """Whole documents are judged first, so that a paragraph stays where its document does."""
    shared = sentence(random.Random(1))
    documents = corpus() | {"a": f"{shared}\n\n{ITEM}", "b": f"{shared}\n\n{sentence(random.Random(2))}"}
    settings["decontaminate"]["action"] = "drop"
    artifact = run_stage(url := memory(), documents_artifact(url, [documents]), settings)
    assert rows(artifact, "rejects")["a"]["reason"] == "contaminated"
    assert rows(artifact, "rejects")["a"]["detail"].endswith("bench.tsv#x")
    assert texts(artifact)["b"] == documents["b"]


def test_a_tag_is_added_to_those_that_are_there(settings):
    settings["decontaminate"]["action"] = "tag"
    kept = rows(run_stage(url := memory(), documents_artifact(url, [corpus()]), settings))
    assert {name for name, row in kept.items() if row["tags"]} == {"d07", "d31"}
    assert kept["d07"]["tags"] == ["contaminated"]


@pytest.mark.parametrize(("more", "is_kept"), [(0, True), (1, False)])
def test_what_is_cut_to_too_little_is_dropped(settings, more, is_kept):
    shared, own = sentence(random.Random(1)), sentence(random.Random(2))
    documents = corpus() | {"a": shared, "b": f"{shared}\n\n{own}"}
    artifact = run_stage(
        url := memory(), documents_artifact(url, [documents]), settings | {"min_characters_left": len(own) + more}
    )
    assert ("b" in rows(artifact)) == is_kept
    assert ("b" in rows(artifact, "rejects")) != is_kept


def test_an_earlier_corpus_is_deduplicated_against_by_its_index(tmp_path):
    documents = corpus()
    url = f"file://{tmp_path}/old"
    old = run_stage(url, documents_artifact(url, [documents]), {"held_out_share": 0.2})
    settings = {"held_out_share": 0.2, "against": [old.folder.child(old.manifest.attempt).url]}
    new = {f"new{number}": sentence(random.Random(number)) for number in range(100, 120)}
    mixed = {**new, "again": documents["d02"] + " ."}
    artifact = run_stage(other := memory(), documents_artifact(other, [mixed]), settings)
    assert sorted(texts(artifact)) == sorted(new)
    assert {name: row["detail"] for name, row in rows(artifact, "rejects").items()} == {"again": "d02"}
    listed = DedupStage().list_sources(DedupConfig.model_validate(settings), "")
    assert listed.fingerprints == {settings["against"][0]: old.manifest.digest}


def test_without_the_optional_steps_no_text_is_changed():
    documents = corpus()
    artifact = run_stage(url := memory(), documents_artifact(url, [documents]), {"held_out_share": 0.2})
    assert texts(artifact) == {name: documents[name] for name in sorted(documents) if name != "d01"}
    assert artifact.paths("contamination/*") == []


def test_edited_benchmarks_change_the_key_and_missing_ones_are_named(settings, tmp_path):
    config = DedupConfig.model_validate(settings)
    before = DedupStage().list_sources(config, "").fingerprints
    (tmp_path / "bench.tsv").write_text("id\tsentence\ny\tother words\n")
    assert DedupStage().list_sources(config, "").fingerprints != before
    (tmp_path / "bench.tsv").unlink()
    with pytest.raises(InputDataError, match=r"bench\.tsv' matches no file"):
        DedupStage().list_sources(config, "")


def test_an_error_if_nothing_is_left():
    with pytest.raises(InputDataError, match="held out, and both are needed"):
        run_stage(url := memory(), documents_artifact(url, [{"a": "only one"}]), {})
