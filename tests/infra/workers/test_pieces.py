from data_schemas.artifact_kinds import RAW_DOCUMENTS
from infra.store.artifacts import ArtifactStore
from infra.workers.partitions import PartitionWriter
from infra.workers.pieces import CommittedPieces


def writer(url: str, attempt: str = "run", fresh: bool = False) -> PartitionWriter:
    folder = ArtifactStore(url).key_folder("ingest", "k")
    return PartitionWriter(folder, "ingest", RAW_DOCUMENTS, CommittedPieces(folder, "read", "00000", attempt, fresh))


def add(out: PartitionWriter, number: int) -> None:
    out.write(f"x/{number}.bin", b"%d" % number)
    out.count("pieces", 1)
    out.commit_piece({"next": number + 1})


def test_files_counts_and_the_last_state_are_taken_over(any_store):
    first = writer(any_store)
    assert first.resume("a") is None
    for number in range(3):
        add(first, number)
    first.write("x/lost.bin", b"not committed")
    again = writer(any_store, "other")
    assert again.resume("a") == {"next": 3}
    assert ([entry.path for entry in again.files], again.counts) == ([f"x/{n}.bin" for n in range(3)], {"pieces": 3})
    add(again, 3)
    last = writer(any_store)
    assert last.resume("a") == {"next": 4}
    assert last.files == again.files
    assert writer(any_store).resume("b") is None
    assert writer(any_store, "third", fresh=True).resume("a") is None


def test_a_function_that_commits_pieces_needs_no_store_of_them(any_store):
    out = PartitionWriter(ArtifactStore(any_store).key_folder("ingest", "k"), "ingest", RAW_DOCUMENTS)
    assert out.resume("a") is None
    add(out, 0)
    assert len(out.files) == 1
