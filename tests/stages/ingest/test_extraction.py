"""Limits of time and memory for each document, and inputs that once exceeded them."""

import os
import signal

import pytest

from stages.ingest import extraction
from stages.ingest.extraction import close_worker, extracted
from stages.ingest.formats import markup
from stages.ingest.records import Failure, Markup, Record

SLOW_RST = "\n.. x::\n" * 4_000
"""The library needs ten seconds."""
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join(f'*{before}' for _ in range(9))}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def document(position, data, kind="markdown", **fields):
    return Markup(Record(position, "", **fields), data, kind)


def outcomes(items, seconds=5.0):
    return [
        (result.position, result.text if isinstance(result, Record) else result.reason)
        for result in extracted(items, seconds)
    ]


@pytest.fixture
def own_worker():
    close_worker()
    yield
    close_worker()


def test_a_document_that_takes_too_long_leaves_the_others_as_they_are(own_worker):
    items = [
        document(0, "*one*"),
        Record(1, "plain"),
        document(2, SLOW_RST, "rst"),
        document(3, "*two*"),
        Failure(4, "x"),
    ]
    assert outcomes(items, 0.5) == [(0, "one"), (1, "plain"), (2, "too_slow"), (3, "two"), (4, "x")]


def test_a_document_that_needs_too_much_memory_leaves_the_others_as_they_are(own_worker, monkeypatch):
    monkeypatch.setattr(extraction, "MEMORY_BYTES", 30_000_000)
    items = [document(0, "*one*"), document(1, "[a](b) " * 300_000), document(2, "*two*")]
    assert outcomes(items, 20.0) == [(0, "one"), (1, "too_large"), (2, "two")]


def test_a_killed_process_is_started_again(own_worker):
    assert outcomes([document(0, "*one*")]) == [(0, "one")]
    process = extraction._worker(5.0).process
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert outcomes([document(0, "*one*"), document(1, "*two*")]) == [(0, "one"), (1, "two")]


def test_a_package_of_the_current_folder_does_not_take_the_place_of_ours(own_worker, tmp_path, monkeypatch):
    for name in ("stages/__init__.py", "queue.py", "random.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise RuntimeError('another one')")
    monkeypatch.chdir(tmp_path)
    assert outcomes([document(0, "*one*")]) == [(0, "one")]


def test_documents_without_markup_start_no_process(own_worker):
    assert outcomes([Record(0, "a"), Failure(1, "x")]) == [(0, "a"), (1, "x")]
    assert not extraction._workers


def test_results_before_an_error_of_the_reader_are_kept():
    def items():
        yield document(0, "*one*")
        yield Record(1, "two")
        raise ValueError("damaged")

    results = extracted(items(), 5.0)
    assert [next(results).text, next(results).text] == ["one", "two"]
    with pytest.raises(ValueError, match="damaged"):
        next(results)


def test_batches_keep_the_order():
    items = [document(n, f"*{n}*") if n % 3 else Record(n, str(n)) for n in range(300)]
    assert outcomes(items) == [(n, str(n)) for n in range(300)]


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("markdown", "{% " * 40_000), ("markdown", "{{< " * 40_000), ("markdown", "\n{:" * 40_000),
        ("markdown", "<div><!-- " * 20_000), ("markdown", "<div>\n<script " * 20_000),
        ("markdown", "---\n" + "a: b\n" * 5_000), ("wikitext", "<ref " * 4_000), ("wikitext", "<ref>" * 20_000),
        ("wikitext", "a\n" + "\n" * 100_000 + "b"), ("wikitext", "a (" + " " * 100_000 + "b"),
        ("gutenberg", "*** START OF THE PROJECT GUTENBERG EBOOK " * 5_000),
    ],
)  # fmt: skip
def test_patterns_are_linear(kind, data):
    [result] = extracted([document(0, data, kind)], 5.0)
    assert isinstance(result, Record) or result.reason not in ("too_slow", "too_large", "unreadable_markup")


@pytest.mark.parametrize(
    "matter", [BOMB + "tags: *i", "tags: &a [*a]", "title: &a x\ntags: *a", "title: [" * 3_000, "title: 2020-99-99",
               "? [a]\n: b", "title: !!python/object:os.system x", "title: " + "9" * 5_000]
)  # fmt: skip
def test_front_matter_that_cannot_be_read_leaves_the_text(matter):
    result = markup.read_markdown(f"---\n{matter}\n---\n# Text\n")
    assert isinstance(result, Record)
    assert (result.text, set(result.metadata)) == ("Text", set())
