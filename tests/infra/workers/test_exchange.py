import uuid
from functools import partial
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_schemas.artifact_kinds import RAW_DOCUMENTS
from infra.store.filesystem import Folder
from infra.workers import exchange
from infra.workers.exchange import Exchange
from infra.workers.partitions import Partition, PartitionMap
from tests.counted_reads import counted

SCHEMA = pa.schema([("value", pa.int64()), ("name", pa.string())])


def maps(url: str | None = None) -> PartitionMap:
    return PartitionMap(Folder(url or f"memory://store-{uuid.uuid4().hex}"), "clean", RAW_DOCUMENTS, "test-run")


def write(sent: Exchange, payload, out) -> None:
    values = [value for value, _ in payload]
    table = pa.table([values, [f"n{value}" for value in values]], schema=SCHEMA)
    sent.write(out, "rows", table, np.array([to for _, to in payload], dtype=np.int64))


def exchanged(partition_map, writers, destinations):
    sent = Exchange(SCHEMA, destinations)
    parts = [Partition(f"{number:03d}", rows) for number, rows in enumerate(writers)]
    return sent.collect(partition_map, "sent", partition_map.map("write", partial(write, sent), parts), "rows")


ROWS = st.lists(st.tuples(st.integers(0, 99), st.integers(0, 10**6)), max_size=12)


@given(st.lists(ROWS, max_size=9), st.integers(1, 70), st.sampled_from([2, 3, 8, 256]))
@settings(max_examples=60)
def test_every_row_arrives_where_it_was_sent_in_the_order_of_writers(drawn, destinations, fan_out):
    writers = [[(value, to % destinations) for value, to in rows] for rows in drawn]
    with patch.object(exchange, "FAN_OUT", fan_out):
        incoming = exchanged(maps(), writers, destinations)
    for number in range(destinations):
        expected = [value for rows in writers for value, to in rows if to == number]
        assert incoming.read(number).to_pylist() == [{"value": value, "name": f"n{value}"} for value in expected]
    assert sum(map(len, incoming.all())) == sum(map(len, writers))


def test_files_reads_and_bytes_grow_as_the_number_of_partitions():
    """Four times the writers and destinations: with a file or a read for each pair, it would be 16 times."""
    figures = []
    for count in (64, 256):
        generator = np.random.default_rng(count)
        writers = [[(value, to) for value, to in enumerate(generator.integers(0, count, 50))] for _ in range(count)]
        with patch.object(exchange, "FAN_OUT", 4), counted() as reads:
            partition_map = maps()
            incoming = exchanged(partition_map, writers, count)
            assert sum(len(incoming.read(number)) for number in range(count)) == 50 * count
        figures.append((reads.files_written, reads.reads))
        assert reads.bytes_read <= 2.5 * reads.bytes_written
    (files, reads_before), (more_files, more_reads) = figures
    assert more_files <= 5.5 * files
    assert more_reads <= 5.5 * reads_before


@pytest.mark.parametrize(("fan_out", "destinations"), [(2, 1), (2, 7), (3, 81), (256, 256), (256, 257), (256, 10**6)])
def test_pieces_cover_all_destinations(fan_out, destinations):
    pieces = Exchange(SCHEMA, destinations, fan_out=fan_out).pieces
    assert max(pieces) <= fan_out
    assert np.prod(pieces) >= destinations
