"""Members, padding and damage of compressed files, and the bytes that count as lost."""

import bz2
import gzip
import io
import lzma
import random

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from data_schemas.errors import InputDataError
from stages.ingest.config import IngestConfig
from stages.ingest.records import Failure
from stages.ingest.streams.decompression import OUTPUT_BYTES, DamagedFileError, expanded
from tests.stages.ingest.sample_files import json_lines, read_bytes, texts
from tests.stages.ingest.test_stage import ingest, rows

COMPRESS = {
    "gzip": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zstd": zstandard.ZstdCompressor().compress,
}  # fmt: skip
ENDINGS = {"gzip": ".gz", "bz2": ".bz2", "xz": ".xz", "zstd": ".zst"}
SKIPPABLE_FRAME = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"
RANDOM = random.Random(7)
LINES = [
    json_lines({"text": " ".join(RANDOM.choices(["mill", "wheel", "river", "stone"], k=60))}) for _ in range(2_000)
]


def expand(data: bytes, kind: str) -> bytes:
    return b"".join(expanded(io.BytesIO(data), kind))


@pytest.mark.parametrize("kind", COMPRESS)
@given(parts=st.lists(st.binary(max_size=200), min_size=1, max_size=4), padding=st.integers(0, 40))
def test_all_members_are_read_whatever_their_number_and_padding(kind, parts, padding):
    data = b"".join(map(COMPRESS[kind], parts)) + b"\0" * padding
    assert expand(data, kind) == b"".join(parts)


@pytest.mark.parametrize("kind", COMPRESS)
def test_long_runs_are_expanded_in_bounded_chunks(kind):
    sizes = [len(chunk) for chunk in expanded(io.BytesIO(COMPRESS[kind](bytes(50_000_000))), kind)]
    assert sum(sizes) == 50_000_000
    assert max(sizes) <= 20 * OUTPUT_BYTES


def test_skippable_frames_of_zstandard_are_skipped():
    data = SKIPPABLE_FRAME + COMPRESS["zstd"](b"one") + SKIPPABLE_FRAME + COMPRESS["zstd"](b"two")
    assert expand(data, "zstd") == b"onetwo"


DICTIONARY = zstandard.train_dictionary(2_000, LINES)
WITH_DICTIONARY = [zstandard.ZstdCompressor(dict_data=DICTIONARY).compress(line) for line in LINES[:20]]


def dictionary_frame(content):
    return b"\x5d\x2a\x4d\x18" + len(content).to_bytes(4, "little") + content


@pytest.mark.parametrize("content", [DICTIONARY.as_bytes(), COMPRESS["zstd"](DICTIONARY.as_bytes())])
def test_a_dictionary_at_the_beginning_of_a_zstandard_file(tmp_path, content):
    frames = [dictionary_frame(content), *WITH_DICTIONARY, SKIPPABLE_FRAME, COMPRESS["zstd"](LINES[20])]
    assert expand(b"".join(frames), "zstd") == b"".join(LINES[:21])
    assert len(texts(read_bytes(tmp_path, "a.jsonl.zst", b"".join(frames)))) == 21
    cut = b"".join(frames[:4])[:-5]
    *records, last = read_bytes(tmp_path, "a.jsonl.zst", cut)
    assert (len(records), last.reason) == (2, "unreadable")


def test_a_dictionary_that_is_elsewhere_or_damaged_is_named(tmp_path):
    for head in (b"", dictionary_frame(b"another content"), COMPRESS["zstd"](b"{}\n") + dictionary_frame(b"x")):
        last = read_bytes(tmp_path, "a.jsonl.zst", head + b"".join(WITH_DICTIONARY))[-1]
        assert "a file compressed with a dictionary must begin with it" in last.detail
    content = DICTIONARY.as_bytes()
    for damaged in (
        dictionary_frame(content)[:900],
        b"\x5d\x2a\x4d\x18\xff\xff\xff\xff" + content,
        b"\x5d\x2a\x4d\x18",
    ):
        [failure] = read_bytes(tmp_path, "a.jsonl.zst", damaged)
        assert failure.reason == "unreadable"


@pytest.mark.parametrize("kind", COMPRESS)
def test_bytes_after_the_last_member_are_damage_at_their_offset(kind):
    member = COMPRESS[kind](b"text")
    with pytest.raises(DamagedFileError) as raised:
        expand(member + b"\0\0garbage", kind)
    assert (raised.value.offset, raised.value.ends_early) == (len(member), False)


@pytest.mark.parametrize("kind", COMPRESS)
def test_a_file_cut_to_a_tenth_stops_the_run_and_among_many_is_named(tmp_path, kind):
    data = COMPRESS[kind](b"".join(LINES[:1_000])) + COMPRESS[kind](b"".join(LINES[1_000:]))
    name = f"a.jsonl{ENDINGS[kind]}"
    (tmp_path / name).write_bytes(data[: len(data) * 3 // 5])
    with pytest.raises(InputDataError, match=rf"bytes of files were lost.*{name}.*the file ends inside a {kind} str"):
        ingest(IngestConfig(path=f"{tmp_path}/*"))
    for number in range(12):
        (tmp_path / f"b{number:02d}.jsonl").write_bytes(b"".join(LINES[:200]))
    writer = ingest(IngestConfig(path=f"{tmp_path}/*"))
    assert [row["path"] for row in writer.metrics["damaged_files"]] == [name]
    assert writer.counts["lost_bytes"] == len(data) * 3 // 5
    reject = rows(writer, "rejects")[-1]
    assert (reject["reason"], reject["bytes"]) == ("unreadable", writer.counts["lost_bytes"])


def test_bytes_behind_damage_count_and_those_before_it_do_not(tmp_path):
    members = [gzip.compress(b"".join(LINES[start : start + 100])) for start in range(0, 2_000, 100)]
    broken = bytearray(b"".join(members))
    at = sum(map(len, members[:15])) + 100
    broken[at : at + 40] = bytes(40)
    records = read_bytes(tmp_path, "a.jsonl.gz", bytes(broken))
    assert len(texts(records)) >= 1_500
    assert isinstance(records[-1], Failure)
    assert len(broken) - at <= records[-1].lost_bytes <= len(broken) - at + 100 + (1 << 14)
