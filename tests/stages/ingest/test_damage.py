"""Real files, cut, flipped and stuffed at random: no crash, no text that is not Unicode, nothing lost before."""

import datetime
import io
import struct
import tracemalloc

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.ingest.records import Failure, Record
from tests.stages.ingest.sample_files import TEXTS, arrow, read_bytes, reasons, samples, texts

SAMPLES = samples()
BY_LINE = ("lines.jsonl", "rows.tsv")


@st.composite
def damaged(draw, data):
    """(content, where the first damage is)."""
    first = len(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        first = min(first, at)
        kind = draw(st.sampled_from(["cut", "flip", "insert", "drop"]))
        if kind == "cut":
            data = data[:at]
        elif kind == "flip" and at < len(data):
            data = data[:at] + bytes([data[at] ^ (1 << draw(st.integers(0, 7)))]) + data[at + 1 :]
        elif kind == "insert":
            data = (
                data[:at]
                + draw(st.sampled_from([b"\x00", b"\n", b'"', b"\xff\xfe", b"[", b"\xed\xa0\x80"]))
                + data[at:]
            )
        else:
            data = data[:at] + data[at + draw(st.integers(1, 50)) :]
    return data, first


@pytest.mark.parametrize("name", SAMPLES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60)
@given(choice=st.data())
def test_damaged_files(tmp_path, name, choice):
    data, first = choice.draw(damaged(SAMPLES[name]))
    records = read_bytes(tmp_path, name, data)
    assert all(isinstance(record, Record | Failure) for record in records)
    for text in texts(records):
        text.encode()
    positions = [record.position for record in records]
    assert positions == sorted(set(positions))
    if name in BY_LINE:
        whole = read_bytes(tmp_path, name, SAMPLES[name])
        intact = max(0, SAMPLES[name][:first].count(b"\n") - (name != "lines.jsonl"))
        assert records[:intact] == whole[:intact]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=100)
@given(data=st.binary(max_size=400), name=st.sampled_from(sorted(SAMPLES)))
def test_no_bytes_crash_a_reader(tmp_path, data, name):
    for record in read_bytes(tmp_path, name, data):
        assert isinstance(record, Record | Failure)


def second_body_length(stream: bytes) -> bytes:
    """Length of the body of the second record batch, as it is stored in the message's metadata."""
    reader = pa.ipc.MessageReader.open_stream(stream)
    schema, first, second = (reader.read_next_message() for _ in range(3))
    assert (schema.type, first.type, second.type) == ("schema", "record batch", "record batch")
    return struct.pack("<q", second.body.size)


@pytest.mark.parametrize("bit", [30, 40, 62])
@pytest.mark.parametrize("name", ["stream.arrow", "file.arrow"])
def test_a_damaged_length_allocates_no_memory(tmp_path, name, bit):
    length = second_body_length(SAMPLES["stream.arrow"])
    at = SAMPLES[name].rindex(length)  # in the batch's metadata, or in the file's footer
    data = SAMPLES[name][:at] + struct.pack("<q", struct.unpack("<q", length)[0] | 1 << bit) + SAMPLES[name][at + 8 :]
    tracemalloc.start()
    *records, last = read_bytes(tmp_path, name, data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert texts(records) == TEXTS[:15]
    assert (last.position, last.reason) == (15, "unreadable")
    assert peak < 100e6


def test_a_batch_of_rows_without_columns_is_a_failure(tmp_path):
    """Nothing in the file bounds such a number of rows."""
    batch = pa.record_batch({"text": TEXTS}).select([])
    buffer = io.BytesIO()
    with pa.ipc.new_stream(buffer, batch.schema) as writer:
        writer.write_batch(batch)
    data = buffer.getvalue().replace(struct.pack("<q", len(TEXTS)), struct.pack("<q", 1 << 60))
    assert reasons(read_bytes(tmp_path, "a.arrow", data)) == ["unreadable"]


def test_a_damaged_time_zone_is_a_failure_of_each_row(tmp_path):
    dates = pa.array([datetime.datetime(2020, 1, 1)] * 2, pa.timestamp("us", "Europe/Paris"))
    data = arrow(pa.ipc.new_stream, pa.table({"text": ["a", "b"], "date": dates}))
    fields = {"date": "date"}
    assert read_bytes(tmp_path, "a.arrow", data, fields=fields)[0].date == "2020-01-01T01:00:00+01:00"
    data = data.replace(b"Europe/Paris", b"Europe/Parms")
    assert reasons(read_bytes(tmp_path, "a.arrow", data, fields=fields)) == ["damaged_row", "damaged_row"]


@pytest.mark.parametrize("name", ["table.parquet", "stream.arrow", "file.arrow"])
def test_a_table_without_any_configured_column_has_a_failure_per_row(tmp_path, name):
    fields = {"text": "body", "id": None}
    failures = read_bytes(tmp_path, name, SAMPLES[name], fields=fields)
    assert reasons(failures) == ["no_text"] * len(TEXTS)
