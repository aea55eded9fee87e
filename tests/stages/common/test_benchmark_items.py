"""Each layout of a benchmark file gives its items, ids and texts."""

import gzip
import json
import os

import pytest

from data_schemas.errors import InputDataError
from stages.common.benchmark_ngrams.items import list_benchmarks, read_items

SQUAD = {
    "version": "v2.0",
    "data": [
        {
            "title": "Normans",
            "paragraphs": [
                {
                    "context": "The Normans settled.",
                    "qas": [
                        {"id": "q1", "question": "Who?", "answers": [{"text": "Normans", "answer_start": 4}]},
                        {"id": "q2", "question": "When?", "answers": [], "plausible_answers": [{"text": "then"}]},
                    ],
                }
            ],
        }
    ],
}
ADVERSARIAL = {"sst2": [{"idx": 0, "sentence": "good", "label": 1}], "rte": [{"idx": 0, "sentence1": "a", "label": 0}]}
XML = """<?xml version="1.0" encoding="ISO-8859-1"?><collection><schema>
<text><txt1>The café refused because</txt1><pron>they</pron><txt2>feared it.</txt2></text>
<answers><answer>one</answer></answers></schema></collection>"""
LAYOUTS = {
    "glue.tsv": ("index\tsentence\tlabel\n7\tsay \"so\tno\n8\tlet's\tyes\n", {"7": ['say "so'], "8": ["let's"]}),
    "bom.tsv": ("\ufeff#1 ID\t#1 String\n5\tsome text\n5\tother\n", {"0": ["some text"], "1": ["other"]}),
    "cola.tsv": (
        "gj04\t1\t\tThe sailors rode.\ngj04\t0\t*\tSailors the.", {"0": ["The sailors rode."], "1": ["Sailors the."]}
    ),
    "separators.csv": (
        'id,text\r\nx,"one\u2028two\u0085"\r\ny,"a\nb"\r\n', {"x": ["one\u2028two\u0085"], "y": ["a\nb"]},
    ),
    "stray.csv": ('id,text\nx,"He said "no" to\ny,b\n', {"x": ['He said no" to'], "y": ["b"]}),
    "carriage.csv": ("id,text\rx,one\ry,two\r", {"x": ["one"], "y": ["two"]}),
    "carriage.tsv": ("id\ttext\rx\tone\ry\ttwo\r", {"x": ["one"], "y": ["two"]}),
    "carriage.jsonl": ('{"id": "x", "t": "a"}\r{"id": "y", "t": "b"}\r', {"x": ["a"], "y": ["b"]}),
    "long.csv": (f'id,text\nx,"{"w " * 100_000}"\n', {"x": ["w " * 100_000]}),
    "decomposed.jsonl": ('{"id": "x", "t": "cafe\u0301"}', {"x": ["caf\u00e9"]}),
    "surrogate.jsonl": ('{"id": "x", "t": "one \\ud800 two"}', {"x": ["one ? two"]}),
    "quoted.csv": ('id,text\nx,"one, two"\n', {"x": ["one, two"]}),
    "lines.jsonl": (
        '{"qID": "p-1", "s": "a b"}\n\n{"qID": "p-2", "s": "c", "o": ["d", "e"]}\n',
        {"p-1": ["a b"], "p-2": ["c", "d", "e"]},
    ),
    "aqua.json": ('{"question": "how"}\n{"question": "why"}\n', {"0": ["how"], "1": ["why"]}),
    "svamp.json": (json.dumps([{"ID": "chal-1", "Body": "b", "Answer": 5.0}]), {"chal-1": ["b"]}),
    "plain.json": (json.dumps([{"q": "x", "choices": [{"text": "y"}]}, "z"]), {"0": ["x", "y"], "1": ["z"]}),
    "wrapped.json": (json.dumps({"examples": [{"input": "i"}]}), {"examples/0": ["i"]}),
    "squad.json": (json.dumps(SQUAD), {
        "q1": ["Who?", "Normans", "The Normans settled."], "q2": ["When?", "then", "The Normans settled."],
    }),
    "adversarial.json": (json.dumps(ADVERSARIAL), {"sst2/0": ["good"], "rte/0": ["a"]}),
}  # fmt: skip


def write(folder, name, content):
    data = content.encode("latin-1" if name.endswith(".xml") else "utf-8")
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)


@pytest.mark.parametrize("zipped", ["", ".gz"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(tmp_path, name, zipped):
    content, expected = LAYOUTS[name]
    write(tmp_path, name + zipped, content)
    [file] = list_benchmarks([f"{tmp_path}/*"]).files
    fields = {item.id: item.fields for item in read_items(file)}
    assert set(fields) == set(expected)
    for item, texts in expected.items():
        assert set(texts) <= set(fields[item])


def test_markup_inside_a_sentence_does_not_divide_it(tmp_path):
    write(tmp_path, "ws.xml", XML)
    [item] = read_items(*list_benchmarks([f"{tmp_path}/ws.xml"]).files)
    assert item.fields[0].split() == ["The", "café", "refused", "because", "they", "feared", "it."]
    assert len(item.fields) == 2


def test_the_name_is_the_configured_one(tmp_path, monkeypatch):
    (tmp_path / "glue" / "RTE").mkdir(parents=True)
    write(tmp_path, "glue/RTE/dev.tsv", "a\tb\n")
    monkeypatch.chdir(tmp_path)
    for pattern in ("glue/*/dev.tsv", "./glue/RTE/dev.tsv", "glue/**/dev.tsv"):
        [file] = list_benchmarks([pattern, pattern]).files
        assert file.name == pattern.replace("**", "RTE").replace("*", "RTE")


def test_changes_show_in_the_fingerprint(tmp_path):
    write(tmp_path, "a.tsv", "one\n")
    pattern = f"{tmp_path}/*"
    before = list_benchmarks([pattern]).fingerprints
    os.utime(tmp_path / "a.tsv", (1, 1))
    after_touch = list_benchmarks([pattern]).fingerprints
    write(tmp_path, "b.tsv", "two\n")
    after_more = list_benchmarks([pattern]).fingerprints
    assert len({before[pattern], after_touch[pattern], after_more[pattern]}) == 3


def test_what_cannot_be_a_benchmark_is_named(tmp_path):
    with pytest.raises(InputDataError, match=r"'.*none\*' matches no file"):
        list_benchmarks([f"{tmp_path}/none*"])
    write(tmp_path, "LICENSE", "MIT")
    with pytest.raises(InputDataError, match=r"LICENSE, which is not a benchmark file; accepted are \.tsv"):
        list_benchmarks([f"{tmp_path}/*"])
    for name, content, message in [
        ("x.jsonl", '{"a": 1}\n{broken\n', "x.jsonl cannot be read: line 2"),
        ("x.json", "{broken", "x.json cannot be read"),
        ("deep.json", "[" * 100_000, "deep.json cannot be read"),
        ("x.xml", "<a>", "x.xml cannot be read"),
        ("x.csv", 'id,text\n1,"open\n2,b\n', "x.csv cannot be read: a quote opens"),
        ("x.tsv", "\udcff", "x.tsv cannot be read.*UTF-8"),
    ]:
        (tmp_path / name).write_bytes(content.encode(errors="surrogateescape"))
        with pytest.raises(InputDataError, match=message):
            read_items(*list_benchmarks([f"{tmp_path}/{name}"]).files)


@pytest.mark.parametrize("content", ["", "\n \n", "[]", "<a/>"])
def test_benchmarks_without_an_item_are_refused(tmp_path, content):
    name = {"[]": "x.json", "<a/>": "x.xml"}.get(content, "x.jsonl")
    (tmp_path / name).write_text(content)
    with pytest.raises(InputDataError, match="which is empty; remove the file" if not content else "has no item"):
        read_items(*list_benchmarks([f"{tmp_path}/*"]).files)


def test_globs_read_no_hidden_files_and_no_store(tmp_path, monkeypatch):
    for name in ("a.jsonl", ".cache/b.jsonl", "store/dedup/x.json", f"old/clean/{'0' * 64}/run/manifest.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('{"q": "a question"}')
    monkeypatch.chdir(tmp_path)
    listing = list_benchmarks(["**/*.json*", "*"], f"{tmp_path}/store")
    assert [file.name for file in listing.files] == ["a.jsonl"]
    assert set(listing.fingerprints) == {"**/*.json*", "*"}
    assert list_benchmarks(["store/dedup/*.json"]).files[0].name == "store/dedup/x.json", "another store's"
