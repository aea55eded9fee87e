"""Sizes and names of partitions, and large files that are several units."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.hardware import DATA_PROCESS_BYTES, data_process_bytes, partition_bytes
from stages.ingest.config import IngestConfig
from stages.ingest.partitioning import partition_name, partitions, piece_name
from stages.ingest.units import list_sources
from tests.stages.ingest.test_stage import ids, ingest, rows


@pytest.mark.parametrize(
    ("corpus", "size"),
    [(0, 8e6), (10**9, 8e6), (16 * 10**9, 8e6), (10**11, 5e7), (10**12, 5e8), (570 * 10**12, 512e6)],
)
def test_large_corpora_have_about_2000_partitions(corpus, size):
    assert partition_bytes(corpus) == size
    assert data_process_bytes(corpus) == DATA_PROCESS_BYTES + 4 * (size - 8e6)


@given(count=st.integers(1, 10**7), data=st.data())
def test_names_sort_as_numbers(count, data):
    first, second = sorted(data.draw(st.integers(0, count - 1)) for _ in range(2))
    assert partition_name(first, count) <= partition_name(second, count)
    assert len(partition_name(first, count)) == len(partition_name(count - 1, count)) >= 5


@given(numbers=st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)), count=st.integers(1, 10**6), data=st.data())
def test_names_of_pieces_sort_as_their_numbers_and_their_partitions(numbers, count, data):
    partition = data.draw(st.integers(0, count - 1))
    first, second = (f"documents/{piece_name(partition_name(partition, count), number)}.parquet" for number in numbers)
    assert (first < second) == (numbers[0] < numbers[1])
    if partition < count - 1:
        assert first < f"documents/{piece_name(partition_name(partition + 1, count), 0)}.parquet"


@pytest.mark.parametrize("damage", [False, True])
def test_row_groups_of_a_large_parquet_file_are_read_in_parallel(tmp_path, damage):
    texts = [f"text {number} " * 20 for number in range(1_000)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", row_group_size=64, compression="none")
    if damage:  # in one row group
        data = bytearray((tmp_path / "a.parquet").read_bytes())
        at = data.index(b"text 500 ")
        data[at : at + 4] = b"\xff\xff\xff\xff"
        (tmp_path / "a.parquet").write_bytes(data)
    config = IngestConfig(path=f"{tmp_path}/*.parquet", partition_bytes=40_000)
    listing = list_sources(config)
    groups = partitions(listing.units, config.all_sources(), 40_000)
    assert len(groups) >= 5
    assert [group[0].file.rows.position for group in groups] == sorted(
        {group[0].file.rows.position for group in groups}
    )
    assert abs(sum(unit.bytes for group in groups for unit in group) - listing.units[0].bytes) < 64
    whole = ingest(IngestConfig(path=f"{tmp_path}/*.parquet"))
    parts = ingest(config)
    for folder in ("documents", "rejects"):
        assert rows(parts, folder) == rows(whole, folder)
    assert len(ids(parts)) == 1_000 - damage


def test_a_damaged_footer_is_reported_once_by_reading(tmp_path):
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": ["x" * 100] * 100}), buffer, row_group_size=10)
    (tmp_path / "a.parquet").write_bytes(buffer.getvalue()[:-20])
    config = IngestConfig(path=f"{tmp_path}/*.parquet", partition_bytes=100)
    [[unit]] = partitions(list_sources(config).units, config.all_sources(), 100)
    assert unit.file.rows is None
