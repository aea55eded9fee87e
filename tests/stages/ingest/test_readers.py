import csv
import datetime
import io
import json
import tracemalloc

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_schemas.errors import InputDataError
from stages.ingest.config import SourceConfig
from stages.ingest.formats import delimited
from stages.ingest.records import Failure, Record
from stages.ingest.streams.byte_streams import ReadInterruptedError
from stages.ingest.streams.text_encodings import recoded_lines
from tests.stages.ingest.sample_files import COMPRESS, TEXTS, json_lines, read, read_bytes, reasons, samples, texts


@pytest.mark.parametrize("name", samples())
def test_every_format_gives_the_texts_in_order(tmp_path, name):
    records = read_bytes(tmp_path, name, samples()[name])
    if name.endswith(".txt"):
        assert texts(records) == ["\n".join(TEXTS)]
    else:
        expected = [text.replace("\n", " ") for text in TEXTS] if name.endswith(".tsv") else TEXTS
        assert records == [Record(number, text, id=str(number)) for number, text in enumerate(expected)]


def test_fields_are_mapped_by_name_and_by_dotted_name(tmp_path):
    row = {
        "body": "text", "meta": {"link": "u", "when": "2020-05-06", "tags": ["a", 1]}, "who": 7, "kind": "news",
        "a.b": "dot", "from": "x", "empty": "", "null": None,
    }  # fmt: skip
    names = {"text": "body", "url": "meta.link", "date": "meta.when", "id": "who", "genre": "kind", "source": "from"}
    expected = Record(
        0, "text", id="7", source="x", genre="news", url="u", date="2020-05-06",
        metadata={"a.b": "dot", "meta.tags": '["a", 1]'},
    )  # fmt: skip
    kept = ("a.b", "meta.tags", "empty", "null", "missing")
    assert read_bytes(tmp_path, "a.jsonl", json_lines(row), fields=names, keep=kept) == [expected]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([row | {"meta": row["meta"] | {"tags": ["a", "1"]}}]), buffer)
    [record] = read_bytes(tmp_path, "a.parquet", buffer.getvalue(), fields=names, keep=kept)
    assert record.metadata == {"a.b": "dot", "meta.tags": '["a", "1"]'}
    assert (record.url, record.date, record.genre) == ("u", "2020-05-06", "news")


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_where_reads_some_records_and_positions_stay(tmp_path, name):
    rows = [{"text": f"t{n}", "kind": kind, "year": str(n % 2)} for n, kind in enumerate(("a", "b", "c", "a"))]
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
    elif name.endswith(".csv"):
        (tmp_path / name).write_text("text,kind,year\n" + "".join(",".join(row.values()) + "\n" for row in rows))
    else:
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    records = read(tmp_path / name, where={"kind": "a"})
    assert [(record.position, record.text) for record in records] == [(0, "t0"), (3, "t3")]
    assert texts(read(tmp_path / name, where={"kind": ["b", "a"], "year": ["1"]})) == ["t1", "t3"]
    assert read(tmp_path / name, where={"nothing": "a"}) == []


def test_dates_that_are_not_iso_go_to_the_metadata(tmp_path):
    records = read_bytes(tmp_path, "a.jsonl", json_lines(
        {"text": "a", "d": "2020"}, {"text": "b", "d": "5 May"}, {"text": "c", "d": "2020-01-02T03:04:05Z"},
    ), fields={"date": "d"})  # fmt: skip
    assert [record.date for record in records] == ["2020", None, "2020-01-02T03:04:05Z"]
    assert records[1].metadata == {"date": "5 May"}
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": ["x"], "d": [datetime.datetime(2020, 1, 2)]}), buffer)
    [record] = read_bytes(tmp_path, "a.parquet", buffer.getvalue(), fields={"date": "d"})
    assert record.date == "2020-01-02T00:00:00"


def test_broken_records_are_failures_one_by_one(tmp_path):
    data = (
        '{"text": "göod"}\n'.encode() + b"[" * 100_000 + b"\n" + json_lines([1], {"other": 1}, {"text": 3})
        + b'\n{"text": "caf\xe9"}\n{"text": "\x00"}\n' + json_lines({"text": "good too"})
    )  # fmt: skip
    records = read_bytes(tmp_path, "a.jsonl", data)
    assert [record.position for record in records if isinstance(record, Record)] == [0, 8]
    # The only line beyond ASCII that is not UTF-8 is damaged, as the file has others.
    assert reasons(records) == ["not_json", "not_an_object", "no_text", "no_text", "not_utf8", "not_json"]
    assert records[3].detail == "field 'text' is missing; the record has: other"


def test_json_arrays_are_read_element_by_element(tmp_path):
    assert read_bytes(tmp_path, "a.json", b" [ ] ") == []
    assert texts(read_bytes(tmp_path, "a.json", json_lines({"text": "a line"}))) == ["a line"]
    large = b'[{"text": "' + b"x" * 700_000 + b'"}, {"text": "\xc3\xa9"}, 3]'
    records = read_bytes(tmp_path, "a.json", large)
    assert [len(text) for text in texts(records)] == [700_000, 1]
    assert reasons(records) == ["not_an_object"]
    for cut in (
        b'[{"text": "a"}, {"te',
        b'[{"text": "a"},',
        b'[{"text": "a"}',
        b'[{"text": "a"}] x',
        b'[{"text": "a"} 3]',
    ):
        records = read_bytes(tmp_path, "a.json", cut)
        assert reasons(records)[-1:] == ["unreadable"]
    assert reasons(read_bytes(tmp_path, "a.json", large, most=100_000)) == ["unreadable"]


@pytest.mark.parametrize(
    ("data", "source", "expected"),
    [
        (b'a,b\n1,"x, ""y""\nz"\n\n2\n3,w\n', {"fields": {"text": "b"}}, ['x, "y"\nz', "w"]),
        (b"1;x\n2;y\n", {"fields": {"text": 1}, "header": False, "delimiter": ";"}, ["x", "y"]),
        (b"\xef\xbb\xbftext,b\nx,1\ny\xff,2\n", {}, ["x"]),
        (b'a,"b\nc,d\n', {"fields": {"text": 1}, "header": False, "quoting": False}, ['"b', "d"]),
    ],
)
def test_csv(tmp_path, data, source, expected):
    assert texts(read_bytes(tmp_path, "a.csv", data, **source)) == expected


def test_quotes_are_text_in_tsv_by_default(tmp_path):
    data = b'label\ttext\n1\t"He said\n0\tso."\n1\n'
    records = read_bytes(tmp_path, "a.tsv", data)
    assert texts(records) == ['"He said', 'so."']
    assert records[-1] == Failure(2, "wrong_field_count", "1 fields, 2 in the first row")
    assert texts(read_bytes(tmp_path, "a.tsv", b'text\tb\n"a\tb"\tc\n', quoting=True)) == ["a\tb"]


def test_the_cap_on_csv_fields_is_of_this_file_alone(tmp_path):
    before = csv.field_size_limit()
    rows = delimited.read_csv(io.BufferedReader(io.BytesIO(b"text\nabc\nd\n")), SourceConfig(path="x.csv"), 50)  # type: ignore[arg-type]
    next(rows)
    assert csv.field_size_limit() == before, "half-way through a file"


def test_one_bad_row_of_a_table_leaves_its_neighbors(tmp_path):
    values = pa.array([b"one", b"\xff\xfe", b"three"]).view(pa.string())
    for name, write in (("a.parquet", pq.write_table), ("a.arrow", _write_stream)):
        buffer = io.BytesIO()
        write(pa.table({"text": values}), buffer)
        records = read_bytes(tmp_path, name, buffer.getvalue())
        assert texts(records) == ["one", "three"]
        assert (records[1].position, records[1].reason) == (1, "damaged_row")


def _write_stream(table, buffer):
    with pa.ipc.new_stream(buffer, table.schema) as writer:
        writer.write_table(table)


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz", ".zst"])
def test_a_truncated_file_gives_what_it_holds_and_one_failure(tmp_path, ending):
    data = COMPRESS[ending](json_lines(*({"text": f"{number} " * 200} for number in range(3000))))
    *records, last = read_bytes(tmp_path, f"a.jsonl{ending}", data[: len(data) // 2])
    assert isinstance(last, Failure)
    assert last.reason in ("unreadable", "not_json")
    assert all(isinstance(record, Record) for record in records)


def test_a_zstandard_file_of_several_frames_is_read_whole_and_one_cut_between_lines_is_noticed(tmp_path):
    compressor = zstandard.ZstdCompressor()
    halves = [json_lines(*({"text": f"{number} " * 200} for number in part)) for part in (range(500), range(500, 900))]
    whole = read_bytes(tmp_path, "whole.jsonl.zst", b"".join(map(compressor.compress, halves)))
    assert [record.position for record in whole] == list(range(900))
    open_frame = compressor.compressobj()
    cut = open_frame.compress(halves[0]) + open_frame.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    *records, last = read_bytes(tmp_path, "cut.jsonl.zst", cut)
    assert len(records) == 500
    assert last.detail == "from here on: the file ends inside a zstd stream"


@pytest.mark.parametrize("ending", COMPRESS)
@pytest.mark.parametrize("truth", COMPRESS)
def test_the_content_decides_the_compression(tmp_path, ending, truth):
    data = COMPRESS[truth](json_lines(*({"text": f"{number} " * 50} for number in range(100))))
    records = read_bytes(tmp_path, f"a.jsonl{ending}", data)
    assert len(texts(records)) == 100


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le"])
def test_encodings_are_known_by_their_marks_or_their_zeros(tmp_path, encoding):
    text = "Naïve café.\n" * 20
    assert texts(read_bytes(tmp_path, "a.txt", text.encode(encoding))) == [text]
    assert texts(read_bytes(tmp_path, "a.jsonl", '{"text": "é"}\n{"text": "漢"}'.encode(encoding))) == ["é", "漢"]
    assert texts(read_bytes(tmp_path, "a.csv", "text,n\né,1".encode(encoding))) == ["é"]


OLD_ENCODINGS = pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Le garçon a mangé une pêche près de la forêt, où l’été s’achève déjà. ", "cp1252"),
        ("Die Prüfung über größere Flüsse wäre schön für Mädchen und Jungen. ", "cp1252"),
        ("It’s a “quoted” word — and a café in the naïve town of plain English text. ", "cp1252"),
        ("Zażółć gęślą jaźń, wszystkie źródła są święte i mądre. Książka leży na stole. ", "cp1250"),
        ("Все счастливые семьи похожи друг на друга, каждая несчастливая семья по-своему. ", "cp1251"),
        ("吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。", "shift_jis"),
    ],
)


@OLD_ENCODINGS
def test_plain_text_in_old_encodings(tmp_path, text, encoding):
    assert texts(read_bytes(tmp_path, "a.txt", text.encode(encoding) * 10)) == [text * 10]


@OLD_ENCODINGS
def test_records_in_old_encodings(tmp_path, text, encoding):
    plain = [f"line {number}" for number in range(20_000)]
    rows = [*plain, *[text, text + text] * 5]
    lines = "".join(json.dumps({"text": row}, ensure_ascii=False) + "\n" for row in rows)
    files = {
        "a.jsonl": lines, "a.json": json.dumps([{"text": row} for row in rows], ensure_ascii=False, indent=1),
        "a.csv": "id,text\r\n" + "".join(f'{n},"{row}"\r\n' for n, row in enumerate(rows)),
        "a.tsv": "text\n" + "\n".join(rows),
    }  # fmt: skip
    for name, data in files.items():
        assert texts(read_bytes(tmp_path, name, data.encode(encoding))) == rows, name


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-16"])
@pytest.mark.parametrize("text", ["Все счастливые семьи похожи друг на друга", "春眠不覚暁 処処聞啼鳥 夜来風雨声"])
def test_utf_16_without_ascii_letters(tmp_path, text, encoding):
    rows = [f"{text} {number}" for number in range(50)]
    table = "\n".join(["текст,имя", *(f"{row},a" for row in rows)])
    assert texts(read_bytes(tmp_path, "a.csv", table.encode(encoding), fields={"text": "текст"})) == rows
    assert texts(read_bytes(tmp_path, "a.txt", "\n".join(rows).encode(encoding))) == ["\n".join(rows)]
    lines = "\n".join(json.dumps({"text": row}, ensure_ascii=False) for row in rows)
    assert texts(read_bytes(tmp_path, "a.jsonl", lines.encode(encoding))) == rows


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        ("Ж".encode()[:1], "not_utf8"),  # cut off in a character
        (b'caf\xe9"}\n', "not_utf8"),
        (b'\0"}\n', "not_json"),
    ],
)
def test_damage_is_no_other_encoding(tmp_path, last, reason):
    data = '{"text": "naïve"}\n'.encode() * 3 + b'{"text": "' + last
    assert reasons(read_bytes(tmp_path, "a.jsonl", data)) == [reason]
    data = b'{"text": "naive"}\n' * 3 + b'{"text": "' + "Ж".encode()[:1]
    assert reasons(read_bytes(tmp_path, "a.jsonl", data)) == ["not_utf8"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60)
@given(rows=st.lists(st.text(max_size=40), min_size=1, max_size=6), size=st.integers(1, 50))
def test_utf_8_is_left_as_it_is(rows, size):
    data = "\n".join(rows).encode()
    assert b"".join(recoded_lines(io.BytesIO(data), size)) == data


def test_lines_of_latin_1_among_utf_8(tmp_path):
    mixed = "Né à Paris\n".encode() * 5 + "café “noir”\n".encode("cp1252") + b"plain\n"
    assert texts(read_bytes(tmp_path, "a.txt", mixed)) == ["Né à Paris\n" * 5 + "café “noir”\nplain\n"]


@pytest.mark.parametrize("ending", COMPRESS)
def test_a_200_megabyte_line_is_a_failure_and_never_in_memory(tmp_path, ending):
    path = tmp_path / f"a.jsonl{ending}"
    with fsspec.open(str(path), "wb", compression={"": None, ".bz2": "bz2"}.get(ending, "infer")) as file:
        file.write(b'{"text": "first"}\n{"text": "')
        for _ in range(200):
            file.write(b"x" * 1_000_000)
        file.write(b'"}\n{"text": "last"}\n')
    tracemalloc.start()
    records = read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert texts(records) == ["first", "last"]
    assert (records[1].position, records[1].reason) == (1, "too_long")
    assert peak < 100e6


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl"])
def test_the_longest_that_is_read_is_the_cap(tmp_path, name):
    data = {"a.txt": b"x" * 50, "a.csv": b"text\n" + b"x" * 50, "a.jsonl": b'{"text": "' + b"x" * 38 + b'"}'}[name]
    assert reasons(read_bytes(tmp_path, name, data, most=50)) == []
    assert reasons(read_bytes(tmp_path, name, data, most=49)) == ["too_long"]


def test_a_failing_disk_is_not_taken_for_a_damaged_file(tmp_path, monkeypatch):
    from fsspec.implementations.local import LocalFileOpener

    def fail(*_):
        raise OSError(5, "Input/output error")

    for name, data in samples().items():
        with monkeypatch.context() as patched, pytest.raises(ReadInterruptedError, match="Input/output error"):
            patched.setattr(LocalFileOpener, "read", fail, raising=False)
            read_bytes(tmp_path, name, data)
    with pytest.raises(InputDataError, match="it existed when it was listed"):
        list(_read_missing(tmp_path))


def _read_missing(folder):
    from stages.ingest.config import SourceConfig
    from stages.ingest.file_listing import SourceFile
    from stages.ingest.readers import read_file
    from stages.ingest.streams.byte_streams import ByteCounter

    file = SourceFile(f"file://{folder}/none.jsonl", "none.jsonl", 1, "")
    yield from read_file(file, SourceConfig(path="x"), 100, ByteCounter())


def test_real_corpora(shared_data):
    records = read(shared_data / "corpus" / "technical.jsonl.gz")
    assert len(records) == 3040
    assert not reasons(records)
    rows = read(shared_data / "benchmarks" / "glue" / "QQP" / "dev.tsv", fields={"text": "question1", "id": "id"})
    assert not reasons(rows)


LINE_ENDS = st.lists(st.sampled_from(["\r\n", "\n", "\r", "\u2028", "\x0b"]), min_size=1, max_size=8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=30)
@given(ends=LINE_ENDS)
def test_line_ends_are_translated_in_every_format(tmp_path, ends):
    text = "".join(f"Line {number}.{end}" for number, end in enumerate(ends)) + "Last."
    expected = text.replace("\r\n", "\n").replace("\r", "\n")
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": [text]}), buffer)
    files = {
        "a.txt": text.encode(), "b.txt": text.encode("utf-16"), "a.jsonl": json_lines({"text": text}),
        "a.parquet": buffer.getvalue(),
    }  # fmt: skip
    assert {name: texts(read_bytes(tmp_path, name, data)) for name, data in files.items()} == {
        name: [expected] for name in files
    }


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_files_of_lines_end_their_lines_in_any_way(tmp_path, end):
    assert texts(read_bytes(tmp_path, "a.jsonl", end.join(['{"text": "a"}', '{"text": "b"}']).encode())) == ["a", "b"]
    assert texts(read_bytes(tmp_path, "a.csv", end.join(["id,text", "1,a", "2,b", ""]).encode())) == ["a", "b"]
    assert texts(read_bytes(tmp_path, "a.tsv", end.join(["id\ttext", "1\ta", "2\tb"]).encode())) == ["a", "b"]
    book = end.join(["Title: X", "", "***START OF THE PROJECT GUTENBERG EBOOK X***", "Produced by A", "", "Text."])
    assert texts(read_bytes(tmp_path, "a.txt", book.encode(), text_format="gutenberg")) == ["Text."]


def test_odd_line_ends_of_markup(shared_data):
    folder = shared_data / "odd_inputs" / "crlf_markup"
    for name, kind in (("page", "md"), ("pep", "rst")):
        [with_cr], [without] = (read(folder / f"{name}_{ends}.{kind}") for ends in ("crlf", "lf"))
        assert with_cr == without
        assert with_cr.metadata["title"]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary(5), pa.string(), pa.large_string()])
def test_binary_columns_with_utf_8_are_text(tmp_path, kind):
    values = pa.array(["café".encode(), b"\xff\xfe\xfd\xfc\xfb", None], pa.binary(5) if kind == pa.binary(5) else None)
    values = values if kind == pa.binary(5) else values.view(kind) if kind in (pa.binary(), pa.string()) else (
        values.cast(pa.large_binary()).view(kind)
    )  # fmt: skip
    table = pa.table({"text": values, "id": pa.array([b"x", b"\xff", None])})
    for name, write in (("a.parquet", pq.write_table), ("a.arrow", _write_stream)):
        buffer = io.BytesIO()
        write(table, buffer)
        first, second, third = read_bytes(tmp_path, name, buffer.getvalue())
        assert (first.text, first.id) == ("café", "x")
        assert second.reason in ("not_utf8", "damaged_row")
        assert third.detail == f"field 'text' is missing; the columns are: text ({kind}), id (binary)"


def test_columns_without_text_are_told_precisely(tmp_path):
    for values, problem in (
        (pa.array([["a", "b"]]), "is a list of 2 strings, not a string"),
        (pa.array([{"en": "a"}]), "is an object with the fields en, not a string"),
        (pa.array([3]), "is a number, not a string"),
    ):
        buffer = io.BytesIO()
        pq.write_table(pa.table({"text": values, "content": ["x"]}), buffer)
        [failure] = read_bytes(tmp_path, "a.parquet", buffer.getvalue())
        assert failure.detail.startswith(f"field 'text' {problem}; the columns are: text ({str(values.type)[:5]}")
        assert failure.detail.endswith("), content (string)")
