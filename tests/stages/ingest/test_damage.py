"""Real files, cut, flipped and stuffed at random: no crash, no text that is not Unicode, nothing lost before."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.ingest.records import Failure, Record
from tests.stages.ingest.sample_files import read_bytes, samples, texts

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
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(choice=st.data())
def test_damaged_files(tmp_path, name, choice):
    data, first = choice.draw(damaged(SAMPLES[name]))
    found = read_bytes(tmp_path, name, data)
    assert all(isinstance(one, Record | Failure) for one in found)
    for text in texts(found):
        text.encode()
    positions = [one.position for one in found]
    assert positions == sorted(set(positions))
    if name in BY_LINE:
        whole = read_bytes(tmp_path, name, SAMPLES[name])
        sure = max(0, SAMPLES[name][:first].count(b"\n") - (name != "lines.jsonl"))
        assert found[:sure] == whole[:sure]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@given(data=st.binary(max_size=400), name=st.sampled_from(sorted(SAMPLES)))
def test_no_bytes_crash_a_reader(tmp_path, data, name):
    for one in read_bytes(tmp_path, name, data):
        assert isinstance(one, Record | Failure)
