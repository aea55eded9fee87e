"""The funnel's table and the counts tell the same story."""

from data_schemas.artifact_kinds import RAW_DOCUMENTS
from infra.store.artifacts import ArtifactStore
from infra.workers.partitions import Partition, PartitionMap
from stages.common.funnel import Funnel


def partition(payload, out):
    funnel = Funnel()
    funnel.kept({"source": "a", "genre": "wiki"}, 100, 90)
    funnel.kept({"source": "a", "genre": "wiki"}, 50, 50)
    funnel.dropped({"source": "a", "genre": "wiki"}, "too_short", 5)
    funnel.dropped({"source": "b", "genre": "news"}, "too_short", 7)
    funnel.write(out, "funnel/0.parquet")


def test_documents_and_bytes_by_source_genre_and_fate(any_store):
    folder = ArtifactStore(any_store).key_folder("clean", "k")
    [result] = PartitionMap(folder, "clean", RAW_DOCUMENTS, "run").map("p", partition, [Partition("0", None)])
    assert result.marker.counts == {
        "documents_in": 4, "bytes_in": 162, "documents_out": 2, "bytes_out": 140, "dropped.too_short": 2,
    }  # fmt: skip
    rows = [tuple(row.values()) for row in result.read_table("funnel/0.parquet").to_pylist()]
    assert rows == [
        ("a", "wiki", "kept", 2, 150, 140), ("a", "wiki", "too_short", 1, 5, 0), ("b", "news", "too_short", 1, 7, 0),
    ]  # fmt: skip
