"""JSON in the layouts that people write: several lines, wrapped lists, no line ends, marks, repeated names."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.ingest.records import Record, unix_line_ends
from tests.stages.ingest.sample_files import read, read_bytes, reasons, texts

A, B = '{"text": "a"}', '{"text": "b"}'
DETAILS = {
    '{"text": NaN}': "field 'text' is missing; the record has: text",
    '{"text": ["a", 1]}': "field 'text' is a list of 2 elements, not a string; the record has: "
    "text (a list of 2 elements)",
    '{"v": 1, "data": [{"body": "x"}]}': "field 'text' is missing; the record has: v, data (a list of 1 object)",
    '"text"': "a string, not an object",
    "[[1]]": "a list of 1 list, not an object",
    '{"text": "a", "text": "b"}': "field 'text' occurs twice, with different values",
}


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize(
    "data",
    [
        A + B, f"{A}\n\n \n{B}\n", f"[{A},{B}]", f"[\n{A},\n{B}\n]\n", f"{A},\n{B},\n", f"\x1e{A}\n\x1e{B}\n",
        f"\ufeff{A}\n\ufeff{B}", f"[{A}]\n[{B}]", f'{{"data": [{A}, {B}]}}', f'{{"n": 2, "data": [\n{A},\n{B}\n]}}',
        f'{{"train": [{A}], "n": {{"test": [{B}]}}, "tags": ["x"]}}', '{\n "text": "a"\n}\n{\n "text": "b"\n}\n',
        json.dumps([json.loads(A), json.loads(B)], indent=2), '{"text": "a", "text": "a"}' + B,
    ],
)  # fmt: skip
def test_two_documents_in_every_layout(tmp_path, name, data):
    for encoding in ("utf-8", "utf-16", "utf-16-le", "utf-16-be"):
        if encoding != "utf-16-be" or data.isascii():
            records = read_bytes(tmp_path, name, data.encode(encoding))
            assert texts(records) == ["a", "b"], encoding
            assert not reasons(records)
    positions = [record.position for record in records]
    assert positions == sorted(set(positions))


@pytest.mark.parametrize("value", DETAILS)
def test_what_was_found_is_told_precisely(tmp_path, value):
    first, second = read_bytes(tmp_path, "a.jsonl", f"{value}\n{A}\n".encode())
    assert first.detail == DETAILS[value]
    assert second.text == "a"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=100)
@given(
    documents=st.lists(st.fixed_dictionaries({"text": st.text(min_size=1)}, optional={"n": st.floats()}), min_size=1),
    indent=st.sampled_from([None, 0, 2]),
    wrapper=st.sampled_from(["none", "list", "object"]),
)
def test_every_layout_of_the_json_module_comes_back(tmp_path, documents, indent, wrapper):
    values = documents if wrapper == "none" else [documents if wrapper == "list" else {"v": {}, "rows": documents}]
    data = "\n".join(json.dumps(value, indent=indent) for value in values)
    assert texts(read_bytes(tmp_path, "a.json", data.encode())) == [
        unix_line_ends(document["text"]) for document in documents
    ]


def test_a_damaged_object_over_several_lines_does_not_affect_the_others(tmp_path):
    records = read_bytes(tmp_path, "a.json", b'{\n "text": "a"\n}\n{\n "text": \n}\n{\n "text": "c"\n}\n')
    assert texts(records) == ["a", "c"]
    assert (records[1].position, records[1].reason) == (1, "not_json")
    records = read_bytes(tmp_path, "a.jsonl", f'{{"text": "a\n{A}\n{B}\n'.encode())
    assert (reasons(records), texts(records)) == (["not_json"], ["a", "b"])


def test_a_list_in_an_object_larger_than_a_document_is_read_in_bounded_memory(tmp_path):
    data = '{"meta": {"n": 1},\n "data": [\n' + ",\n".join([A] * 50_000) + '\n], "version": "2"}'
    records = read_bytes(tmp_path, "a.json", data.encode(), most=10_000)
    assert (len(texts(records)), reasons(records)) == (50_000, [])


def test_the_files_of_the_report(shared_data):
    odd = shared_data / "odd_inputs"
    for folder in ("pretty_json", "nested_json"):
        records = read(odd / folder)
        assert len(records) == 30
        assert all(isinstance(record, Record) for record in records)


def test_an_array_is_read_on_behind_a_damaged_element(tmp_path):
    bad = '{"text": "b" "x", "list": [\n    {"text": "inside"}\n]}'
    for indent, data in (("  ", "[\n  %s\n]"), ("", "[\n%s\n]\n"), ("\t", '{"data": [\n\t%s\n]}')):
        text = data % f",\n{indent}".join(['{"text": "a"}', bad, '{"text": "c\td"}', '{"text": "e"}'])
        records = read_bytes(tmp_path, "a.json", text.encode())
        if indent != "\t":
            assert [getattr(record, "text", None) or record.reason for record in records] == [
                "a", "not_json", "not_json", "e",
            ]  # fmt: skip
            assert [record.position for record in records] == [0, 1, 2, 3]
        else:
            assert not texts(records)  # the object as a whole is damaged


def test_numbers_of_any_length(tmp_path):
    records = read_bytes(tmp_path, "a.jsonl", b'{"text": "a", "id": ' + b"9" * 5_000 + b"}\n")
    assert records[0].id == "9" * 5_000
