import uuid

import pytest

from data_schemas.artifact_kinds import RAW_DOCUMENTS
from infra.store.artifacts import ArtifactStore
from infra.workers.partitions import Partition, PartitionMap
from stages.clean.config import BoilerplateConfig
from stages.clean.measures.text_measures import TextMeasures
from stages.clean.rules.boilerplate_lines import (
    RepeatedLines,
    find_repeated_lines,
    group_of,
)
from tests.counted_reads import counted
from tests.stages.clean.test_stage import documents, row


@pytest.mark.parametrize(
    ("columns", "group"),
    [
        ({"url": "https://www.example.org:8080/a/b?c"}, "www.example.org"),
        ({"url": "https://WWW.example.org/d"}, "www.example.org"),
        ({"url": None, "path": "Alice/11-0/chapter-1.txt"}, "tests/Alice"),
        ({"url": "http://[spam", "path": "a.warc"}, "tests/a.warc"),
        ({"url": "no address", "path": "whole-book.txt"}, "tests/whole-book.txt"),
    ],
)
def test_what_makes_a_site_or_book(columns, group):
    assert group_of({**row("x", ""), **columns}) == group


def as_it_is(document) -> tuple[str, int]:
    return document["text"], 0


def repeated(tmp_path, files, **config) -> RepeatedLines:
    artifact = documents(f"file://{tmp_path}", files)
    partitions = PartitionMap(ArtifactStore(f"file://{tmp_path}").key_folder("clean", "b"), "clean", RAW_DOCUMENTS, "a")
    paths = artifact.paths("documents/*.parquet")
    parts = [Partition(path[-13:-8], path) for path in paths]
    found = find_repeated_lines(artifact, parts, as_it_is, BoilerplateConfig.model_validate(config), partitions)
    return found.of(paths[0])


ROWS = [
    row(f"{number}", "\n".join(["menu"] * 2 * (number < 4) + ["rare"] * (number < 3) + [f"text {number}"]), url="http://a/")
    for number in range(8)
] + [row(f"other {number}", "menu\nrare", url=f"http://b{number}/") for number in range(8)]  # fmt: skip


@pytest.mark.parametrize(
    ("config", "left"),
    [
        ({"min_documents": 4, "min_share": 0.5}, "rare\ntext 0"),
        ({"min_documents": 5, "min_share": 0.5}, "menu\nmenu\nrare\ntext 0"),
        ({"min_documents": 4, "min_share": 0.51}, "menu\nmenu\nrare\ntext 0"),
        ({"min_documents": 3, "min_share": 0.3}, "text 0"),
    ],
)
@pytest.mark.parametrize("files", [1, 3])
def test_a_line_goes_where_enough_documents_of_its_group_hold_it(tmp_path, config, left, files):
    lines = repeated(tmp_path, [ROWS[start::files] for start in range(files)], **config)
    measures, removed = lines.remove(ROWS[0], TextMeasures.of(ROWS[0]["text"]))
    assert measures.text == left
    assert removed == 3 - left.count("menu") - left.count("rare")
    elsewhere = TextMeasures.of(ROWS[-1]["text"])
    assert lines.remove(ROWS[-1], elsewhere) == (elsewhere, 0)


def test_no_repeated_lines_at_all(tmp_path):
    lines = repeated(tmp_path, [[row("a", "x\ny"), row("b", "")]])
    measures = TextMeasures.of("x\ny")
    assert lines.remove(row("a", ""), measures) == (measures, 0)


def test_files_reads_and_bytes_grow_as_the_number_of_files():
    """The counts of each file in a file per bucket were 16 times as many files for four times the files."""
    figures = []
    for files in (16, 64):
        url = f"memory://store-{uuid.uuid4().hex}"
        artifact = documents(url, [ROWS for _ in range(files)])
        maps = PartitionMap(ArtifactStore(url).key_folder("clean", "b"), "clean", RAW_DOCUMENTS, "a")
        parts = [Partition(path[-13:-8], path) for path in artifact.paths("documents/*.parquet")]
        size = sum(entry.bytes for entry in artifact.manifest.files)
        with counted() as counts:
            found = find_repeated_lines(artifact, parts, as_it_is, BoilerplateConfig(min_documents=3), maps)
            assert all(len(found.of(part.payload).keys) for part in parts)
        figures.append(counts)
        assert counts.bytes_read <= 2.5 * (size + counts.bytes_written)
    assert figures[1].files_written <= 4 * figures[0].files_written
    assert figures[1].reads <= 4 * figures[0].reads
