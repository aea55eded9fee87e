import errno
import os
import signal
import time
from functools import partial
from pathlib import Path

import psutil
import pyarrow as pa
import pytest

from data_schemas.artifact_kinds import RAW_DOCUMENTS
from data_schemas.errors import ConfigError, EnvironmentProblem, InputDataError
from infra.store.artifacts import ArtifactStore
from infra.workers.partitions import Partition, PartitionMap, PartitionWriter
from tests.processes import living
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


class Panic(BaseException):
    """As a library in Rust raises it; cannot be unpickled."""

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(f"row {row}: {reason}")


def fault(diary: str, payload: int, out: PartitionWriter) -> None:
    """Sleep for long, or fail."""
    if payload > 0:
        Path(diary).with_suffix(f".{os.getpid()}").touch()
        time.sleep(300)
    while not list(Path(diary).parent.glob("diary.*")):
        time.sleep(0.01)
    if payload == 0:
        raise OSError(errno.ENOSPC, "No space left on device")
    raise Panic(7, "out of bounds")


@pytest.mark.parametrize(("payload", "error"), [(0, "no space left on the filesystem"), (-1, "Panic: row 7: out of")])
@pytest.mark.parametrize("engine", ["processes", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_partition_that_fails_ends_the_others_at_once_with_a_named_error(tmp_path, engine, payload, error):
    with pytest.raises((EnvironmentProblem, RuntimeError), match=error):
        mapper(str(tmp_path / "s"), engine).map("x", partial(fault, f"{tmp_path}/diary"), partitions(300, payload))
    assert_ended(tmp_path)


@pytest.mark.parametrize("engine", ["processes", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_timeout_ends_partitions_at_once(tmp_path, engine):
    def interrupt(*_: object) -> None:
        if list(tmp_path.glob("diary.*")):
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise TimeoutError("of the stage")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
    try:
        with pytest.raises(TimeoutError, match="of the stage"):
            mapper(str(tmp_path / "s"), engine).map("x", partial(fault, f"{tmp_path}/diary"), partitions(300, 301))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert_ended(tmp_path)


def assert_ended(folder: Path) -> None:
    """The processes that sleep in a partition are gone, or go without finishing their sleep."""
    pids = [int(path.suffix[1:]) for path in folder.glob("diary.*")]
    assert pids and not psutil.wait_procs(living(pids), timeout=60)[1]
