from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from data_schemas.artifact_kinds import RAW_DOCUMENTS
from data_schemas.errors import ConfigError, InputDataError
from infra.store.artifacts import ArtifactStore
from infra.workers.partitions import Partition, PartitionMap, PartitionWriter
from tests.stores import documents_table, no_rejects


def square(diary: str, payload: int, out: PartitionWriter) -> None:
    with Path(diary).open("a") as file:
        file.write(f"{payload}\n")
    if payload < 0:
        raise InputDataError("negative")
    out.count("squares", payload**2)
    out.write_table("squares.arrow", pa.table({"square": [payload**2]}))
    out.write_table(f"documents/{payload}.parquet", documents_table({str(payload): str(payload**2)}))


def partitions(*numbers: int) -> list[Partition]:
    return [Partition(f"{number:02d}", number) for number in numbers]


def mapper(url: str, engine: str = "inline", attempt: str = "run", fresh: bool = False) -> PartitionMap:
    folder = ArtifactStore(url).key_folder("ingest", "k")
    return PartitionMap(folder, "ingest", RAW_DOCUMENTS, attempt, engine, 2, fresh)  # type: ignore[arg-type]


@pytest.mark.parametrize("engine", ["inline", "processes", pytest.param("ray", marks=pytest.mark.slow)])
def test_every_engine_gives_the_same_results_in_the_same_order(tmp_path, engine):
    diary = tmp_path / "diary"
    results = mapper(str(tmp_path / "s"), engine).map("square", partial(square, str(diary)), partitions(5, 3, 4, 1))
    assert [result.read_table("squares.arrow").column("square")[0].as_py() for result in results] == [25, 9, 16, 1]
    out = ArtifactStore(str(tmp_path / "s")).writer("ingest", "k", "run", RAW_DOCUMENTS)
    for result in results:
        result.adopt_into(out)
    assert out.counts == {"squares": 51}
    digests = {path: entry.sha256 for path, entry in out.files.items() if path.startswith("documents/")}
    inline = mapper(f"{tmp_path}/inline").map("square", partial(square, str(diary)), partitions(1, 3, 4, 5))
    assert {e.path: e.sha256 for r in inline for e in r.marker.files if e.path in digests} == digests


def test_finished_partitions_are_not_done_again_and_are_shared_between_attempts(any_store, tmp_path):
    diary = tmp_path / "diary"
    with pytest.raises(InputDataError):
        mapper(any_store).map("square", partial(square, str(diary)), partitions(1, 2, -1, 3))
    mapper(any_store, attempt="other").map("square", partial(square, str(diary)), partitions(1, 2, 3))
    assert diary.read_text().split() == ["1", "2", "-1", "3"]


def test_a_forced_attempt_does_everything_itself_but_resumes_its_own(tmp_path):
    diary = tmp_path / "diary"
    for attempt, fresh in (("first", False), ("forced", True), ("forced", True)):
        mapper(str(tmp_path / "s"), attempt=attempt, fresh=fresh).map(
            "square", partial(square, str(diary)), partitions(1, 2)
        )
    assert diary.read_text().split() == ["1", "2", "1", "2"]


def test_a_damaged_partition_is_done_again(any_store, tmp_path):
    diary = tmp_path / "diary"
    [result] = mapper(any_store).map("square", partial(square, str(diary)), partitions(7))
    result.folder.write(result.marker.files[0].part, b"short")
    [again] = mapper(any_store).map("square", partial(square, str(diary)), partitions(7))
    assert again.read_table("squares.arrow").to_pylist() == [{"square": 49}]
    assert diary.read_text().split() == ["7", "7"]


def test_workers_cannot_reach_a_store_in_this_process(tmp_path):
    with pytest.raises(ConfigError, match=r"execution\.engine=inline"):
        mapper("memory://unreachable", "processes").map("square", partial(square, str(tmp_path / "d")), partitions(1))


def test_rejects_schema_is_held_against_the_kind(any_store):
    writer = PartitionWriter(ArtifactStore(any_store).key_folder("ingest", "k"), "ingest", RAW_DOCUMENTS)
    writer.write_table("rejects/0.parquet", no_rejects())
    assert [entry.path for entry in writer.files] == ["rejects/0.parquet"]
