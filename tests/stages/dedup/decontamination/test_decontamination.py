"""Benchmark items in the text: both sides of every threshold, every action, and the real hits."""

import gzip
import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stages.common.benchmark_ngrams.index import BitFilter, NgramIndex, find_ngrams
from stages.common.benchmark_ngrams.items import list_benchmarks
from stages.common.word_hashes import ngram_hashes, text_columns, words
from stages.dedup.config import DecontaminationConfig
from stages.dedup.decontamination.decontamination import REPORT, find_contamination
from tests.stages.dedup.run_stage import step_arguments

COUNTED = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
ITEM = COUNTED.split()
OTHER = " ".join(f"other{number}" for number in range(20))


def contamination_of(tmp_path, items, texts, **config):
    """(rows of the report by item and length, ids of the contaminated documents, the contamination)."""
    (tmp_path / "bench.jsonl").write_text("\n".join(json.dumps(item) for item in items))
    documents, names, fates, maps = step_arguments(texts)
    settings = DecontaminationConfig(benchmarks=(f"{tmp_path}/bench.jsonl",), **config)
    contamination = find_contamination(
        documents, names, fates, settings, list_benchmarks(settings.benchmarks).files, maps
    )
    report = contamination.result.read_table(REPORT).to_pylist()
    marked = [
        contamination.marked(number, table.read()).column("fate").to_pylist() for number, table in enumerate(fates)
    ]
    ids = {
        name for entry, fates in zip(texts, marked, strict=True)
        for name, fate in zip(entry, fates, strict=True) if fate == "contaminated"
    }  # fmt: skip
    return {(row["item"], row["ngram"]): row for row in report}, ids, contamination


@pytest.mark.parametrize(("length", "is_hit"), [(12, False), (13, True)])
def test_a_run_of_thirteen_words_is_a_leak_whatever_its_case_and_punctuation(tmp_path, length, is_hit):
    text = OTHER + " “" + " — ".join(ITEM[:length]).upper() + "”, " + OTHER
    report, ids, _ = contamination_of(tmp_path, [{"id": "x", "q": " ".join(ITEM)}], [{"a": text, "b": OTHER}])
    assert ids == ({"a"} if is_hit else set())
    assert report["x", 13] == {
        "benchmark": f"{tmp_path}/bench.jsonl", "item": "x", "ngram": 13, "ngrams": 3,
        "found": int(is_hit), "documents": int(is_hit), "example": "a" if is_hit else None,
    }  # fmt: skip
    assert (report["x", 8]["ngrams"], report["x", 8]["found"]) == (8, length - 7)


def test_an_ngram_never_spans_two_fields(tmp_path):
    item = {"id": "x", "q": " ".join(ITEM[:7]), "a": " ".join(ITEM[7:])}
    report, ids, contamination = contamination_of(tmp_path, [item], [{"a": " ".join(ITEM), "b": OTHER}])
    assert ids == {"a"}, "the second field, of 8 words, is matched as a whole"
    assert report["x", 13]["ngrams"] == 1
    [metrics] = contamination.metrics().values()
    assert metrics == {"items": 1, "testable": 1, "contaminated": 1, "share": 1.0, "documents": 1}


def test_short_items_are_sought_whole_or_not_at_all(tmp_path):
    items = [
        {"id": "seven", "q": " ".join(ITEM[:7])},
        {"id": "eight", "q": " ".join(ITEM[:8])},
        {"id": "long", "q": " ".join(ITEM[:8]), "context": OTHER + " the end"},
    ]
    report, ids, contamination = contamination_of(tmp_path, items, [{"a": " ".join(ITEM[:8]), "b": " ".join(ITEM[:7])}])
    assert ids == {"a"}
    assert [report[name, 13]["found"] for name in ("seven", "eight", "long")] == [0, 1, 0]
    [metrics] = contamination.metrics().values()
    assert (metrics["items"], metrics["testable"], metrics["contaminated"]) == (3, 2, 1)


@pytest.mark.parametrize(("copies", "is_hit"), [(10, True), (11, False)])
def test_what_many_documents_hold_is_common_property(tmp_path, copies, is_hit):
    text = " ".join(ITEM[:13])
    _, ids, _ = contamination_of(
        tmp_path, [{"q": text}], [{f"d{n}": f"{text} {n}" for n in range(f, copies, 2)} for f in (0, 1)]
    )
    assert len(ids) == (copies if is_hit else 0)


def test_windows_are_cut_and_too_many_drop_the_document(tmp_path):
    item = " ".join(ITEM[:13])
    text = f"Before it stands this. {item} And after it that."
    many = ("x " * 30 + item + " y" * 30 + " ") * 3
    settings = {"action": "cut", "window_characters": 12, "max_windows": 2}
    _, ids, contamination = contamination_of(tmp_path, [{"q": item}], [{"a": text}, {"b": many}], **settings)
    assert ids == {"b"}
    [span] = contamination.cuts[0].read(0).to_pylist()
    assert text[: span["start"]] + "|" + text[span["end"] :] == "Before it stands|it that."
    assert span["reason"] == "contaminated"


@pytest.mark.parametrize(("action", "tagged"), [("tag", [True, False]), ("report", [False, False])])
def test_tagging_and_reporting_leave_the_documents(tmp_path, action, tagged):
    texts = [{"a": " ".join(ITEM), "b": OTHER}]
    report, ids, contamination = contamination_of(tmp_path, [{"q": " ".join(ITEM)}], texts, action=action)
    assert ids == set()
    assert contamination.cuts == []
    fates = step_arguments(texts)[2][0].read()
    assert contamination.marked(0, fates).column("tagged").to_pylist() == tagged
    assert report["0", 13]["documents"] == 1


def test_one_length_alone(tmp_path):
    (tmp_path / "bench.tsv").write_text("id\tsentence\nx\t" + " ".join(ITEM) + "\n")
    documents, names, fates, maps = step_arguments([{"a": " ".join(ITEM)}, {}, {"b": OTHER}])
    config = DecontaminationConfig(benchmarks=(f"{tmp_path}/bench.tsv",), also_report=None)
    contamination = find_contamination(documents, names, fates, config, list_benchmarks(config.benchmarks).files, maps)
    report = contamination.result.read_table(REPORT).to_pylist()
    assert [row["found"] for row in report] == [3]
    assert contamination.marked(1, fates[1].read()).column("fate").to_pylist() == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"benchmarks": []}, "at least 1 item"),
        ({"benchmarks": ["a"], "min_words": 14}, "min_words is 14, more than ngram, 13; accepted are 2 to 13"),
        ({"benchmarks": ["a"], "also_report": 13}, "also_report is 13, the same as ngram"),
        ({"benchmarks": ["a"], "action": "burn"}, "'drop', 'cut', 'tag' or 'report'"),
    ],
)
def test_settings_that_cannot_be_right(values, message):
    with pytest.raises(ValidationError, match=message):
        DecontaminationConfig.model_validate(values)


def bit_filter(hashes):
    bits = np.zeros(1024, dtype=np.uint64)
    for value in hashes.tolist():
        bits[value >> 48 >> 6] |= np.uint64(1 << (value >> 48 & 63))
    return BitFilter(bits, np.uint64(48))


WORDS = st.lists(st.sampled_from("abc"), max_size=25).map(" ".join)


@given(WORDS, st.lists(WORDS, max_size=4))
def test_all_occurrences_are_found_and_no_others(item_text, texts):
    lengths = [2, 4]
    hashes = words(np.frombuffer(item_text.encode(), dtype=np.uint8)).hashes
    hashes = np.unique(np.concatenate([ngram_hashes(hashes, length) for length in lengths]))
    borders = np.arange(len(hashes) + 1)
    index = NgramIndex(hashes, np.array(lengths), borders, borders[:-1], bit_filter(hashes), 2, bit_filter(hashes))
    places = find_ngrams(*text_columns(pa.array(texts, pa.string())), index, 0)
    pieces = [tuple(item_text.split()[start : start + length]) for length in lengths for start in range(len(item_text))]
    expected = [
        (number, start * 2, start * 2 + length * 2 - 1)
        for number, text in enumerate(texts) for start in range(len(text.split())) for length in lengths
        if len(gram := tuple(text.split()[start : start + length])) == length and gram in pieces
    ]  # fmt: skip
    assert list(zip(places.texts.tolist(), places.starts.tolist(), places.ends.tolist(), strict=True)) == expected


def test_the_real_hits_are_found_and_no_others(shared_data):
    """By shared runs of 13 words with the dev sets; the figures are those that stand beside the data."""
    partitions = []
    for path in sorted((shared_data / "corpus").glob("*.jsonl.gz")):
        if path.name not in ("mojibake_cases.jsonl.gz", "web_html.jsonl.gz"):
            with gzip.open(path, "rt", encoding="utf-8") as file:
                partitions.append({row["id"]: row["text"] for row in map(json.loads, file)})
    glue = "glue/*/dev.tsv glue/QNLI/dev.tsv.gz glue/MNLI/dev_matched.jsonl.gz"
    benchmarks = ["squad2/*.json.gz", "math/gsm8k/test*.jsonl", "math/aqua/dev.json", *glue.split()]
    documents, names, fates, maps = step_arguments(partitions)
    config = DecontaminationConfig(benchmarks=[f"{shared_data}/benchmarks/{entry}" for entry in benchmarks])
    contamination = find_contamination(documents, names, fates, config, list_benchmarks(config.benchmarks).files, maps)
    folder = f"{shared_data}/benchmarks/glue/"
    hit = {
        name.removeprefix(folder): entry["documents"]
        for name, entry in contamination.metrics().items()
        if entry["documents"]
    }
    assert hit == {"QNLI/dev.tsv.gz": 4, "RTE/dev.tsv": 3, "SST-2/dev.tsv": 1}
    dropped = {
        name: detail.removeprefix(folder)
        for number, entry in enumerate(partitions)
        for name, detail in zip(
            entry, contamination.marked(number, fates[number].read()).column("detail").to_pylist(), strict=True
        )
        if detail
    }
    assert dropped == {
        "news/bbc/business/007": "RTE/dev.tsv#86",
        "news/bbc/business/253": "RTE/dev.tsv#86",
        "speech/state_union/1961-Kennedy": "QNLI/dev.tsv.gz#2978",
        "wiki/wikitext2-valid/004": "QNLI/dev.tsv.gz#38",
        "wiki/wikitext2-valid/058": "SST-2/dev.tsv#79",
        "wiki/enwiki/662": "QNLI/dev.tsv.gz#2978",
        "wiki/enwiki/705": "QNLI/dev.tsv.gz#3170",
    }
