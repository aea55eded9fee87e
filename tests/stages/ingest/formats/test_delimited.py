"""Quotes that do not close: the row where one opens is rejected, all others are kept."""

import csv
import io

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.ingest.records import Failure, Record
from tests.stages.ingest.sample_files import delimited, read, read_bytes, reasons, texts


def rows_of(folder, text, **source):
    """(position, text or reason) of each row."""
    records = read_bytes(folder, "a.csv", text.encode(), **source)
    return [(row.position, row.text if isinstance(row, Record) else row.reason) for row in records]


@pytest.mark.parametrize("later", ["plain", '"quoted, text"', '"quoted text"', 'an inch, 5"', 'five inches, 5""'])
def test_a_quote_that_never_closes_costs_its_own_row(tmp_path, later):
    later = later if later.startswith('"') else later.replace(",", "")
    rows = rows_of(tmp_path, f'id,text\n0,a\n1,"open\n2,b\n3,{later}\n4,"c\nd"\n')
    assert rows == [(0, "a"), (1, "unclosed_quote"), (2, "b"), (3, later.strip('"') if later[0] == '"' else later),
                    (4, "c\nd")]  # fmt: skip


def test_it_is_named_with_its_line(tmp_path):
    [_, failure, _] = read_bytes(tmp_path, "a.csv", b'id,text\n0,"two\nlines"\n1,"open\n2,b\n')
    assert failure == Failure(
        1, "unclosed_quote",
        "the quote that opens in line 4 does not close before line 5, the last one that was searched",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('id,text\n1,"He said "hi" there"\n2,b\n', [(0, 'He said "hi" there'), (1, "b")]),
        ('id,text\n1,"a poem, x\nof, lines\nand, more"\n2,b\n', [(0, "a poem, x\nof, lines\nand, more"), (1, "b")]),
        ('text\n"a\nb\nc\n', [(0, "unclosed_quote"), (1, "b"), (2, "c")]),
        ('id,"text\n1,a\n2,b\n', [(0, "a"), (1, "b")]),
        ('id,text\n1,"a\n\n2,b\n\n', [(0, "unclosed_quote"), (1, "b")]),
    ],
)
def test_quotes_inside_fields_headers_and_empty_lines(tmp_path, text, expected):
    assert rows_of(tmp_path, text) == expected


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=150)
@given(
    rows=st.lists(st.text('ab ",.', min_size=1, max_size=8).filter(str.strip), min_size=6, max_size=12), data=st.data()
)
def test_all_other_rows_of_a_numbered_table_are_kept(tmp_path, rows, data):
    broken = data.draw(st.integers(0, len(rows) - 1))
    lines = delimited([[str(number), text] for number, text in enumerate(rows)]).decode().split("\r\n")[:-1]
    lines[broken] = f'{broken},"open'
    records = read_bytes(tmp_path, "a.csv", "\n".join(["id,text", *lines, ""]).encode())
    kept = {record.position: record.text for record in records if isinstance(record, Record)}
    assert kept == {number: text for number, text in enumerate(rows) if number != broken}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=100)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=8))
def test_whatever_the_csv_module_writes_comes_back(tmp_path, cells):
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([["n", "text"], *(["n", "x" + cell] for cell in cells)])
    expected = [row[1] for row in csv.reader(io.StringIO(buffer.getvalue().replace("\r", ""), newline=""))][1:]
    assert texts(read_bytes(tmp_path, "a.csv", buffer.getvalue().replace("\r", "").encode())) == expected


@pytest.mark.parametrize("line", ['ab","x\n', '1,"x\n', '1,"x ""\n', '1,"""y\n'])
def test_the_work_is_linear_in_the_file(tmp_path, line, monkeypatch):
    """Each of these lines opens a quote that reaches far; lines read, not seconds, are counted."""
    from stages.ingest.formats import delimited as reader

    read_lines = 0
    original = reader._Lines.__next__

    def counted(lines):
        nonlocal read_lines
        read_lines += 1
        return original(lines)

    monkeypatch.setattr(reader._Lines, "__next__", counted)
    counts = []
    for number in (2_000, 4_000):
        read_lines = 0
        records = read_bytes(tmp_path, "a.csv", ("id,text\n" + line * number).encode(), most=1_000)
        assert len(records) == number
        counts.append(read_lines)
    assert counts[1] < 2.2 * counts[0]
    assert counts[1] < 20 * 4_000


def test_the_reviews_of_the_report(shared_data):
    records = read(shared_data / "odd_inputs" / "csv_quote" / "reviews.csv")
    assert (len(records), reasons(records), records[20].position) == (200, ["unclosed_quote"], 20)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\xef\xbb\xbfsep=;\r\nid;text\r\n1;a, b\r\n2;c\r\n", ["a, b", "c"]),
        (b'"sep=,"\nid,text\n1,"a, b"\n2,c\n', ["a, b", "c"]),
        (b'id;text\n1;a, b\n2;"c; d"\n', ["a, b", "c; d"]), (b'"id"|"text"\n1|a, b\n2|c\n', ["a, b", "c"]),
        ("id\ttext\r\n1\ta, b\r\n2\tc\r\n".encode("utf-16"), ["a, b", "c"]),
        (b"text\nA title; with more\nb|c\n", ["A title; with more", "b|c"]),
        (b'id, text\n1, "a, b"\n2, c\n', ["a, b", "c"]), (b"id , text \n1,a\n2, c\n", ["a", "c"]),
        (b'id,text\r1,a\r\n2,"b\r\nc"\n3,d\r4,e', ["a", "b\nc", "d", "e"]),
        (b'id,text\n1,"a ""no"" and "yes" twice"\n2,"5" disk"\n', ['a "no" and "yes" twice', '5" disk']),
        (b"text,id,text\na,1,b\nc,2,c\n", ["repeated_field", "c"]),
    ],
)  # fmt: skip
def test_tables_as_spreadsheets_and_people_write_them(tmp_path, data, expected):
    records = read_bytes(tmp_path, "a.csv", data)
    assert [getattr(record, "text", None) or record.reason for record in records] == expected


def test_a_field_that_is_too_long_is_one_reject_with_all_its_lines(tmp_path):
    long = "".join(f"{number} words, of a line\n" for number in range(400))
    text = f'id,text,more\n1,"{long}",x\n2,b,y\n3,"{long}and the ""rest""",z\n4,d,w\n'
    records = read_bytes(tmp_path, "a.csv", text.encode(), most=2_000)
    assert [getattr(record, "text", None) or record.reason for record in records] == ["too_long", "b", "too_long", "d"]
